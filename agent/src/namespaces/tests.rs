use std::any::type_name;
use std::fs;
use std::process::Command;

use super::*;

const INSIDE: &str = "INNERKEEP_TEST_INSIDE";

/// Runs the calling test again, in a process with new namespaces (words of unshare(1)), and the body there: what it does to mounts, links
/// or names ends with that process.
#[track_caller]
pub(crate) fn in_namespaces<F: FnOnce()>(unshare: &[&str], body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let name = type_name::<F>().split_once("::").unwrap().1.trim_end_matches("::{{closure}}");
    let mut command = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(unshare).arg("--").arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{}", text(&output.stderr));
}

fn namespace_of(path: &Path) -> String {
    let output = Command::new("readlink").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What a process that joins the namespaces sees.
fn joined(namespaces: &SandboxNamespaces, command: &str) -> String {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--ipc={}", namespaces.ipc().display()));
    nsenter.arg(format!("--uts={}", namespaces.uts().display()));
    let output = nsenter.args(["sh", "-c", command]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(" - nsfs ")).map(ToOwned::to_owned).collect()
}

#[test]
fn others_join_the_namespaces_until_they_are_removed() {
    in_namespaces(&["--mount", "--uts", "--ipc"], || {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("sandbox-ns");
        let before = (mounts(), rustix::system::uname().nodename().to_owned());
        let own = ["ipc", "uts"].map(|kind| namespace_of(&Path::new("/proc/self/ns").join(kind)));

        let namespaces = SandboxNamespaces::create(&place, "pod-1.example").unwrap();
        assert_eq!(namespaces.ipc(), place.join("ipc"));
        let seen = joined(
            &namespaces,
            "uname -n; readlink /proc/self/ns/ipc /proc/self/ns/uts; ipcmk -M 64 >/dev/null; ipcs -m | grep -c 0x",
        );
        let seen: Vec<_> = seen.lines().collect();
        assert_eq!(seen[0], "pod-1.example");
        assert_eq!(seen[3], "1");
        assert!(seen[1].starts_with("ipc:[") && seen[1] != own[0].trim());
        assert!(seen[2].starts_with("uts:[") && seen[2] != own[1].trim());
        // The second one that joins finds what the first one left.
        let again = joined(&namespaces, "readlink /proc/self/ns/ipc; ipcs -m | grep -c 0x");
        assert_eq!(again.lines().collect::<Vec<_>>(), [seen[1], "1"]);
        assert_eq!(mounts().len(), before.0.len() + 2);
        // Nobody else's name or namespace changed.
        assert_eq!(rustix::system::uname().nodename(), &*before.1);
        assert_eq!(own, ["ipc", "uts"].map(|kind| namespace_of(&Path::new("/proc/self/ns").join(kind))));

        namespaces.remove().unwrap();
        assert_eq!(mounts(), before.0);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    });
}

#[test]
fn what_an_earlier_agent_left_is_replaced_and_nothing_else() {
    in_namespaces(&["--mount"], || {
        let directory = tempfile::tempdir().unwrap();
        let before = mounts();
        let left = SandboxNamespaces::create(directory.path(), "old").unwrap();
        std::mem::forget(left);
        let namespaces = SandboxNamespaces::create(directory.path(), "").unwrap();
        assert_eq!(
            joined(&namespaces, "uname -n").trim(),
            rustix::system::uname().nodename().to_string_lossy()
        );
        assert_eq!(mounts().len(), before.len() + 2);
        drop(namespaces);
        assert_eq!(mounts(), before);

        // Something else at the place stays, and nothing is left beside it.
        fs::create_dir(directory.path().join("uts")).unwrap();
        fs::write(directory.path().join("uts/file"), b"").unwrap();
        let error = SandboxNamespaces::create(directory.path(), "new").unwrap_err();
        assert_eq!(error.code(), "NAMESPACE_PLACE");
        assert_eq!(mounts(), before);
        assert!(directory.path().join("uts/file").exists() && !directory.path().join("ipc").exists());
    });
}

// COMPAT: CreateSandbox stricter: a host name is letters, digits, `.`, `-`, `_`, at most 64 bytes
#[test]
fn evil_host_name_of_the_sandbox() {
    let directory = tempfile::tempdir().unwrap();
    let long = "a".repeat(MAXIMUM_HOST_NAME_BYTES + 1);
    for name in ["a b", "a\nb", "a/b", "é", "a\0b", long.as_str()] {
        let error = SandboxNamespaces::create(&directory.path().join("ns"), name).unwrap_err();
        assert_eq!(error.code(), "NAMESPACE_HOST_NAME", "{name:?}");
        assert!(!directory.path().join("ns").exists());
    }
}
