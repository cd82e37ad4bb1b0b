//! A confidential guest with the agent as its process 1: an emulated processor at the real paths, which was launched with the digest of its
//! initdata.

use crate::programs::Programs;
use crate::tee::{Kind, Platform};
use crate::vm;
use crate::work::Work;
use initdata::{Algorithm, Package};
use xtask::vm::{Init, Service, Spec};

/// A guest that is not running yet, with these files in its initdata.
#[track_caller]
pub fn spec(programs: &Programs, work: &Work, kind: Kind, files: &[(&str, &str)]) -> Spec {
    let mut package = Package::new(match kind {
        Kind::Tdx => Algorithm::Sha384,
        Kind::Snp => Algorithm::Sha256,
    });
    for (name, text) in files {
        package.insert(name, text).expect("a file of initdata");
    }
    let packed = package.pack().expect("initdata");
    let disk = work.write("initdata.img", packed.image());
    let digest = kind.initdata_digest(packed.text().as_bytes());
    // Its keys are all that is needed of it here: it runs in the guest.
    let _keys = Platform::with_keys_of_vectors(programs, work, "tee", kind);
    let launch = format!("tee = \"{}\"\ninitdata_digest = \"{digest}\"\n", kind.name());
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
    vm::spec(programs, &["innerkeep-agent", "innerkeep-tee-emulator"])
        .init(Init::Agent)
        .vsock()
        .disk(&disk)
        .modules(&["configfs", "tsm_report", "cuse"])
        .copy_directory(&work.join("tee"), "/tee")
        .expect("the keys of the platform")
        .file("/launch.toml", 0o644, launch)
        .plan(|plan| plan.services.push(service))
        .keep_serial(&work.join("serial.log"))
}
