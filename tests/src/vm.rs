//! Guests with a kernel of their own: [`xtask::vm`] as tests use it. What is missing is a failure with its reason, never a skip.

use crate::programs::Programs;
use crate::tee::{Kind, Platform};
use crate::work::Work;
use std::path::Path;
use xtask::vm::{Guest, Said, Service, Spec, Tools};

/// A guest that is not running yet, with our programs in it.
#[track_caller]
pub fn spec(programs: &Programs, names: &[&str]) -> Spec {
    let anchor = programs.path("innerkeep");
    let ci = anchor.parent().expect("a program is in a directory");
    let spec = Spec::new(xtask::vm::Programs::beside(ci));
    names.iter().fold(spec, |spec, name| spec.program(name).unwrap_or_else(|error| panic!("{error:#}")))
}

/// Puts an emulated processor of this kind at the real paths of a guest that has `innerkeep-tee-emulator`; it was launched with `digest`, of initdata.
/// The directory `tee` of `work` holds the platform's keys afterwards.
#[track_caller]
pub fn with_tee(spec: Spec, programs: &Programs, work: &Work, kind: Kind, digest: &str) -> Spec {
    // Its keys are all that is needed of it here: it runs in the guest.
    let _keys = Platform::with_keys_of_vectors(programs, work, "tee", kind);
    let argv = [
        "/bin/innerkeep-tee-emulator",
        "guest",
        "--state",
        "/tee",
        "--launch",
        "/launch.toml",
        "--ready-file",
        "/ready",
    ];
    let service = Service { argv: argv.map(str::to_owned).into(), ready: "/ready".to_owned() };
    let launch = format!("tee = \"{}\"\ninitdata_digest = \"{digest}\"\n", kind.name());
    spec.modules(&["configfs", "tsm_report", "cuse"])
        .copy_directory(&work.join("tee"), "/tee")
        .expect("the keys of the platform")
        .file("/launch.toml", 0o644, launch)
        .plan(|plan| plan.services.push(service))
}

/// Boots; the machine's console is in the failure.
#[track_caller]
pub fn boot(spec: Spec) -> Guest {
    let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap_or_else(|error| panic!("{error:#}"));
    let guest = spec.boot(&tools).unwrap_or_else(|error| panic!("{error:#}"));
    eprintln!("guest up after {:.1} s", guest.boot.as_secs_f64());
    guest
}

/// Runs a command in the guest to its end.
#[track_caller]
pub fn exec(guest: &Guest, argv: &[&str]) -> Said {
    guest.exec(argv).unwrap_or_else(|error| panic!("{error:#}\nconsole:\n{}", guest.serial()))
}

/// Runs a line of shell that has to succeed.
#[track_caller]
pub fn shell(guest: &Guest, line: &str) -> String {
    guest.shell(line).unwrap_or_else(|error| panic!("{error:#}\nconsole:\n{}", guest.serial()))
}

/// Binds every chip to vfio-pci and returns their addresses, in order of the bus.
#[track_caller]
pub fn bind_chips(guest: &Guest) -> Vec<String> {
    let chips = shell(
        guest,
        "cd /sys/bus/pci/devices; for d in *; do [ \"$(cat $d/vendor $d/device | tr -d '\\n')\" = VENDORDEVICE ] || continue; \
         echo vfio-pci > $d/driver_override; echo $d > ../drivers_probe; echo $d; done"
            .replace("VENDORDEVICE", &chip_ids())
            .as_str(),
    );
    chips.split_whitespace().map(ToOwned::to_owned).collect()
}

fn chip_ids() -> String {
    use chip_client::abi::{DEVICE_ID, VENDOR_ID};
    format!("0x{VENDOR_ID:04x}0x{DEVICE_ID:04x}")
}

/// Keeps the console beside a test's files, for whoever reads a failure.
pub fn keep_serial(spec: Spec, directory: &Path) -> Spec {
    spec.keep_serial(&directory.join("serial.log"))
}
