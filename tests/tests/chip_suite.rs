//! The driver's suite over a vfio-user socket. Over the kernel's VFIO the same program runs in `vm_vfio`.

use std::process::{Command, Stdio};
use tests::chip_suite::CASES;
use tests::innerkeep::run_to_end;
use tests::payload::Payload;
use tests::scene::{Scene, SealSpec};

#[test]
fn driver_suite_over_a_vfio_user_socket() {
    let scene = Scene::start();
    let payload = Payload::random(410, 3_000_000);
    let artifact = scene.sealed("store", &payload, &SealSpec::default());
    let mut command = Command::new(scene.programs.path("chip-suite"));
    command.arg("--chip").arg(&scene.chip.socket).arg("--chip-root").arg(&scene.root);
    command.arg("--store").arg(&artifact.reference);
    command.arg("--plaintext").arg(scene.work.join("input/store.bin")).stdin(Stdio::null());
    let said = run_to_end(&mut command);
    assert_eq!(said.status, Some(0), "{said:#?}\nchip: {}", scene.chip.log());
    let over_a_socket = CASES.iter().filter(|case| !case.kernel_only).count();
    assert_eq!(
        said.stdout.lines().filter(|line| line.contains("\"ok\":true")).count(),
        over_a_socket,
        "{said:#?}"
    );
    scene.assert_no_plaintext(&artifact);
}
