//! What the kernel says of a process, held against what was ordered.

use std::path::Path;

use rustix::process::Pid;

use super::EngineError;
use super::wire::Guise;

/// Holds the process at the latch against the one that was claimed when the container was made.
pub(super) fn first(process: Pid, claimed: Pid) -> Result<(), EngineError> {
    // GUARD: first-process -> evil_helper_other_process_at_the_latch
    if process != claimed {
        return Err(EngineError::Helper { action: "start", what: "made another process" });
    }
    Ok(())
}

/// Holds user, groups, capabilities, filter and `no_new_privs` of a process against an order.
pub(super) fn guise(process: Pid, ordered: &Guise) -> Result<(), EngineError> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(EngineError::system("look at a process"));
    let status = read(&format!("/proc/{process}/status"))?;
    let own = read("/proc/self/status")?;
    let last = read("/proc/sys/kernel/cap_last_cap")?;
    let known =
        last.trim().parse::<u32>().ok().and_then(|last| u64::MAX.checked_shr(63_u32.saturating_sub(last)));
    compare(&status, ordered, known.unwrap_or(u64::MAX), filters(&own))
}

/// Holds the control group of a process against an order: an absolute path below the root of the hierarchy.
pub(super) fn group(process: Pid, ordered: &Path) -> Result<(), EngineError> {
    let path = format!("/proc/{process}/cgroup");
    let text = std::fs::read_to_string(path).map_err(EngineError::system("look at a process"))?;
    in_group(&text, ordered)
}

fn in_group(text: &str, ordered: &Path) -> Result<(), EngineError> {
    let found = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("none");
    // GUARD: in-its-group -> evil_helper_process_in_another_group
    if Path::new(found) != ordered {
        return Err(EngineError::NotEnforced {
            what: "control group",
            expected: ordered.display().to_string(),
            found: found.to_owned(),
        });
    }
    Ok(())
}

fn compare(status: &str, ordered: &Guise, known: u64, own_filters: u64) -> Result<(), EngineError> {
    let number = |name| u64::from_str_radix(field(status, name), 16).ok();
    let capabilities = &ordered.capabilities;
    for (name, wanted) in [
        ("CapInh", capabilities.inheritable),
        ("CapPrm", capabilities.permitted),
        ("CapEff", capabilities.effective),
        ("CapBnd", capabilities.bounding),
        ("CapAmb", capabilities.ambient),
    ] {
        let (wanted, found) = (wanted & known, number(name));
        // GUARD: capabilities-hold -> evil_helper_process_is_not_what_was_ordered
        if found != Some(wanted) {
            return Err(differs(name, &format!("{wanted:016x}"), field(status, name)));
        }
    }
    for (name, wanted) in [("Uid", ordered.uid), ("Gid", ordered.gid)] {
        let wanted = [wanted; 4].map(|id| id.to_string());
        // Real, effective, saved, of the file system.
        // GUARD: user-holds -> evil_helper_process_is_not_what_was_ordered
        if !field(status, name).split_ascii_whitespace().eq(wanted.iter().map(String::as_str)) {
            return Err(differs(name, &wanted.join(" "), field(status, name)));
        }
    }
    let mut groups: Vec<u32> =
        field(status, "Groups").split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
    groups.sort_unstable();
    // GUARD: groups-hold -> evil_helper_process_is_not_what_was_ordered
    if groups != ordered.groups {
        return Err(differs("Groups", &format!("{:?}", ordered.groups), field(status, "Groups")));
    }
    let wanted = if ordered.no_new_privileges { "1" } else { "0" };
    // GUARD: no-new-privileges-holds -> evil_helper_process_is_not_what_was_ordered
    if field(status, "NoNewPrivs") != wanted {
        return Err(differs("NoNewPrivs", wanted, field(status, "NoNewPrivs")));
    }
    // GUARD: filter-holds -> evil_helper_process_is_not_what_was_ordered
    if ordered.seccomp.is_some() && (field(status, "Seccomp") != "2" || filters(status) <= own_filters) {
        return Err(differs("Seccomp", "2", field(status, "Seccomp")));
    }
    Ok(())
}

/// How many filters a process has: what the helper brought along does not count as the one that was ordered.
fn filters(status: &str) -> u64 {
    field(status, "Seccomp_filters").parse().unwrap_or(0)
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map_or("", str::trim)
}

fn differs(what: &'static str, expected: &str, found: &str) -> EngineError {
    EngineError::NotEnforced { what, expected: expected.to_owned(), found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Process;

    use super::*;

    const STATUS: &str = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t3 20 \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000421\nCapEff:\t0000000000000420\nCapBnd:\t0000000000000421\nCapAmb:\t0000000000000000\n\
        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";

    fn ordered() -> Guise {
        let process = serde_json::json!({
            "cwd": "/", "args": ["x"], "user": {"uid": 7, "gid": 8, "additionalGids": [20, 3, 20]}, "noNewPrivileges": true,
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"], "effective": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
                "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"], "inheritable": [], "ambient": [],
            },
        });
        let process: Process = serde_json::from_value(process).unwrap();
        let program = crate::spec::SeccompProgram { instructions: Vec::new(), flags: 0 };
        Guise::of(&process, Some(&program)).unwrap()
    }

    #[test]
    fn a_process_as_ordered_passes() {
        compare(STATUS, &ordered(), u64::MAX, 1).unwrap();
        in_group("0::/a/b\n", Path::new("/a/b")).unwrap();
    }

    #[test]
    fn evil_helper_process_is_not_what_was_ordered() {
        for (line, instead, what) in [
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t0\t7\t7", "Uid"),
            ("Gid:\t8\t8\t8\t8", "Gid:\t8\t8\t8\t0", "Gid"),
            ("Groups:\t3 20 ", "Groups:\t0 3 20 ", "Groups"),
            ("Groups:\t3 20 ", "Groups:\t", "Groups"),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001", "CapInh"),
            ("CapPrm:\t0000000000000421", "CapPrm:\t0000000000200421", "CapPrm"),
            ("CapEff:\t0000000000000420", "CapEff:\t000001ffffffffff", "CapEff"),
            ("CapBnd:\t0000000000000421", "CapBnd:\t", "CapBnd"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000020", "CapAmb"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs"),
            ("Seccomp:\t2", "Seccomp:\t0", "Seccomp"),
            ("Seccomp_filters:\t2", "Seccomp_filters:\t1", "Seccomp"),
        ] {
            let error = compare(&STATUS.replace(line, instead), &ordered(), u64::MAX, 1).unwrap_err();
            assert_eq!(error.code(), "ENGINE_NOT_ENFORCED");
            assert!(
                matches!(error, EngineError::NotEnforced { what: found, .. } if found == what),
                "{instead}"
            );
        }
    }

    #[test]
    fn evil_helper_other_process_at_the_latch() {
        let [first, other] = [7, 8].map(|number| Pid::from_raw(number).unwrap());
        super::first(first, first).unwrap();
        let error = super::first(other, first).unwrap_err();
        assert_eq!(error.code(), "ENGINE_HELPER");
        assert!(error.to_string().contains("made another process"), "{error}");
    }

    #[test]
    fn evil_helper_process_in_another_group() {
        for text in ["0::/a\n", "0::/\n", "1:devices:/a/b\n", "0::/a/b/../c\n", ""] {
            assert_eq!(
                in_group(text, Path::new("/a/b")).unwrap_err().code(),
                "ENGINE_NOT_ENFORCED",
                "{text}"
            );
        }
    }

    #[test]
    fn evil_host_process_without_capability_sets() {
        let process = |capabilities| {
            let text = serde_json::json!({
                "cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}, "capabilities": capabilities,
            });
            serde_json::from_value::<Process>(text).unwrap()
        };
        for missing in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            let mut sets = serde_json::json!({
                "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [],
            });
            assert!(Guise::of(&process(sets.clone()), None).is_ok());
            sets.as_object_mut().unwrap().remove(missing);
            assert_eq!(Guise::of(&process(sets), None).unwrap_err().code(), "ENGINE_ORDER", "{missing}");
        }
        assert_eq!(Guise::of(&process(serde_json::Value::Null), None).unwrap_err().code(), "ENGINE_ORDER");
    }

    #[test]
    fn evil_host_process_without_arguments() {
        for arguments in [serde_json::json!([]), serde_json::Value::Null] {
            let text = serde_json::json!({
                "cwd": "/", "args": arguments, "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []},
            });
            let process = serde_json::from_value::<Process>(text).unwrap();
            assert_eq!(Guise::of(&process, None).unwrap_err().code(), "ENGINE_ORDER");
        }
    }
}
