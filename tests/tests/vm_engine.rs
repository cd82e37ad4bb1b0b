//! The container engine in a guest: `engine-guest` makes containers with a kernel of its own, and attacks them and it.

use tests::programs::Programs;
use tests::vm::{self, boot, exec, shell};

/// Every check that the program has to report, attacks first.
const CHECKS: [&str; 21] = [
    "evil_image_overwrites_the_agent",
    "evil_image_workdir_is_a_leaked_fd",
    "evil_image_null_is_a_link",
    "evil_image_console_is_a_link",
    "evil_host_takes_the_id_of_a_container",
    "evil_host_takes_the_group_of_others",
    "evil_guest_kills_the_zygote",
    "evil_hook_loads_a_module",
    "a_container_runs_as_ordered",
    "the_first_process_waits_for_start",
    "processes_join_under_the_same_rules",
    "terminals_are_the_containers_own",
    "users_have_their_groups_and_no_others",
    "privileges_without_no_new_privs",
    "devices_are_what_the_rules_say",
    "missing_programs_are_told",
    "a_failed_create_leaves_nothing",
    "a_hook_that_hangs_is_ended",
    "a_helper_that_dies_leaves_nothing",
    "many_processes_leave_nothing",
    "secrets_come_with_the_release_alone",
];

// COMPAT: CreateContainer, ExecProcess stricter: what was ordered is held against what the kernel says of the process, before its program runs
#[test]
fn vm_engine() {
    let programs = Programs::built();
    let guest = boot(vm::spec(&programs, &["engine-guest"]));
    shell(
        &guest,
        "mkdir -p /run /sys/fs/cgroup && mount -t tmpfs tmpfs /run && mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    );
    let said = exec(&guest, &["/bin/engine-guest"]);
    let text = said.stdout.clone();
    for check in CHECKS {
        assert!(
            text.lines().any(|line| line == format!("ok {check}")),
            "{check} in:\n{text}\n{}",
            said.stderr
        );
    }
    assert_eq!(said.status, 0, "{text}");
}
