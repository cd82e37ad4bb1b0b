//! The guest's agent and a client that was written without it: `tests/compat/kata_guest.py`, over vsock.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::agent_client::requests::rootfs;
use tests::agent_client::{ALLOW_ALL, PORT, serving, spec};
use tests::programs::{Programs, User};
use tests::work::Work;
use xtask::vm::End;

/// What it prints, a line each.
const PARTS: [&str; 8] = [
    "a_sandbox_begins",
    "files_are_copied",
    "a_container_runs",
    "processes_are_added",
    "a_container_has_figures_and_limits",
    "a_container_ends",
    "a_generated_policy_decides",
    "the_sandbox_ends",
];

#[test]
fn a_client_of_another_language_drives_a_pod() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let mut guest = serving(spec(&programs, &work, ALLOW_ALL));
    // Containers of its generated policy are called like digests.
    for container in ["py1".to_owned(), format!("{:064x}", 0), format!("{:064x}", 1)] {
        rootfs(&guest, &container);
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat/kata_guest.py");
    let address = format!("vsock-uds://{}:{PORT}", guest.vsock_path().display());
    let output = Command::new("python3").arg("-B").arg(program).arg(&address).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let parts: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    assert!(output.status.success() && parts == PARTS, "{said}{errors}\nconsole:\n{}", guest.serial());
    assert_eq!(guest.wait_end(Duration::from_secs(60)).unwrap(), End::PoweredOff, "{}", guest.serial());
}
