//! The help texts are part of the interface: what changes in them changes here. Written anew by `TRYCMD=overwrite`.

use tests::programs::Programs;

#[test]
fn help_texts_are_as_recorded() {
    let programs = Programs::built();
    trycmd::TestCases::new()
        .register_bin("innerkeep", programs.path("innerkeep"))
        .register_bin("innerkeep-chip-emulator", programs.path("innerkeep-chip-emulator"))
        .register_bin("innerkeep-key-broker", programs.path("innerkeep-key-broker"))
        .register_bin("innerkeep-tee-emulator", programs.path("innerkeep-tee-emulator"))
        .env("COLUMNS", "110")
        .case("help/*.trycmd");
}
