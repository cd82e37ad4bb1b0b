//! A confidential guest with the agent as its process 1: an emulated processor at the real paths, which was launched with the digest of its
//! initdata.

use crate::programs::Programs;
use crate::tee::Kind;
use crate::vm;
use crate::work::Work;
use initdata::{Algorithm, Package};
use xtask::vm::{Init, Spec};

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
    let spec = vm::spec(programs, &["innerkeep-agent", "innerkeep-tee-emulator"]);
    vm::with_tee(spec, programs, work, kind, &digest)
        .init(Init::Agent)
        .vsock()
        .disk(&disk)
        .keep_serial(&work.join("serial.log"))
}
