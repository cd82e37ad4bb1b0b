//! A process: the first one of a container, or a further one.

use std::path::PathBuf;

use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    Process, User,
};
use protocol::oci;

use super::{Limits, SpecError, capabilities, plain, within};

/// Where programs are looked for when the environment does not say.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bounds of `oom_score_adj`.
const OOM_SCORES: std::ops::RangeInclusive<i32> = -1000..=1000;
/// What runtimes name when nobody asked for a profile: profiles of the host's kernel, which stand for the host's protection.
const APPARMOR_DEFAULTS: [&str; 5] =
    ["", "unconfined", "cri-containerd.apparmor.d", "docker-default", "crio-default"];

/// Converts a process. Where it has no capabilities at all, it gets `inherited`.
pub(super) fn convert(
    asked: &oci::Process,
    inherited: LinuxCapabilities,
    tee_active: bool,
) -> Result<Process, SpecError> {
    check_text(asked)?;
    // GUARD: apparmor -> evil_host_profile_that_nobody_enforces
    if !APPARMOR_DEFAULTS.contains(&asked.ApparmorProfile.as_str()) {
        return Err(SpecError::NotEnforced { at: at("apparmorProfile"), what: "an AppArmor profile" });
    }
    // GUARD: selinux -> evil_host_label_that_nobody_enforces
    if !asked.SelinuxLabel.is_empty() {
        return Err(SpecError::NotEnforced { at: at("selinuxLabel"), what: "an SELinux label" });
    }
    let score = i32::try_from(asked.OOMScoreAdj).ok().filter(|score| OOM_SCORES.contains(score));
    let score = score.ok_or_else(|| value("oomScoreAdj", "-1000 to 1000"))?;
    let capabilities = match asked.Capabilities.as_ref() {
        Some(sets) => capabilities::sets(sets, tee_active)?,
        None => inherited,
    };
    let mut process = Process::default();
    process
        .set_terminal(Some(asked.Terminal))
        .set_console_size(asked.ConsoleSize.as_ref().and_then(console_size))
        .set_user(user(asked.User.as_ref()))
        .set_args(Some(asked.Args.clone()))
        .set_command_line(None)
        .set_env(Some(environment(&asked.Env)))
        .set_cwd(PathBuf::from(&asked.Cwd))
        .set_capabilities(Some(capabilities))
        .set_rlimits(Some(rlimits(&asked.Rlimits)?))
        .set_no_new_privileges(asked.NoNewPrivileges.then_some(true))
        .set_apparmor_profile(None)
        .set_oom_score_adj(Some(score))
        .set_selinux_label(None)
        .set_io_priority(None)
        .set_scheduler(None)
        .set_exec_cpu_affinity(None);
    Ok(process)
}

fn at(field: &str) -> String {
    format!("process.{field}")
}

fn value(field: &str, expected: &'static str) -> SpecError {
    SpecError::Value { at: at(field), expected }
}

/// Arguments, environment and directory: what the kernel takes, and no way to a file that the engine has open.
fn check_text(asked: &oci::Process) -> Result<(), SpecError> {
    within("process.args", asked.Args.len(), Limits::ARGUMENTS)?;
    within("process.env", asked.Env.len(), Limits::ENVIRONMENT)?;
    within("process.rlimits", asked.Rlimits.len(), Limits::RLIMITS)?;
    // GUARD: process-args -> evil_host_process_without_a_program
    if asked.Args.first().is_none_or(String::is_empty) {
        return Err(SpecError::Missing { at: at("args"), expected: "a program" });
    }
    // GUARD: process-text -> evil_host_text_with_an_end_inside
    if !asked.Args.iter().chain(&asked.Env).all(|text| plain(text)) {
        return Err(value("args and process.env", "texts without NUL"));
    }
    // GUARD: process-env -> evil_host_environment_without_names
    if !asked.Env.iter().all(|entry| entry.split_once('=').is_some_and(|(name, _)| !name.is_empty())) {
        return Err(value("env", "NAME=VALUE"));
    }
    // GUARD: process-cwd -> evil_host_directory_of_an_open_file
    if !asked.Cwd.starts_with('/') || !plain(&asked.Cwd) || below_proc(&asked.Cwd) {
        return Err(value("cwd", "an absolute path that is not in /proc"));
    }
    Ok(())
}

/// `/proc/self/fd/7` is a directory that the engine has open: CVE-2024-21626.
fn below_proc(path: &str) -> bool {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.first() == Some(&"proc")
}

fn console_size(asked: &oci::Box) -> Option<ConsoleSize> {
    if asked.Height == 0 || asked.Width == 0 {
        return None;
    }
    // It cannot fail: nothing is missing.
    BoxBuilder::default().height(u64::from(asked.Height)).width(u64::from(asked.Width)).build().ok()
}

/// The name of a user says nothing that its number does not.
fn user(asked: Option<&oci::User>) -> User {
    let mut user = User::default();
    let (uid, gid, groups) =
        asked.map_or((0, 0, Vec::new()), |user| (user.UID, user.GID, user.AdditionalGids.clone()));
    user.set_uid(uid).set_gid(gid).set_umask(None).set_additional_gids(Some(groups)).set_username(None);
    user
}

/// Programs are looked for by `PATH`, and the engine's library wants one.
fn environment(asked: &[String]) -> Vec<String> {
    let mut environment = asked.to_vec();
    if !environment.iter().any(|entry| entry.starts_with("PATH=")) {
        environment.push(DEFAULT_PATH.to_owned());
    }
    environment
}

/// Limits, with no core dumps: memory of a container is not written to a file.
fn rlimits(asked: &[oci::POSIXRlimit]) -> Result<Vec<PosixRlimit>, SpecError> {
    let limit = |kind, soft, hard| {
        let limit = PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build();
        limit.map_err(|_| value("rlimits", "limits that Linux has"))
    };
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for (index, asked) in asked.iter().enumerate() {
        let wrong = |expected| SpecError::Value { at: format!("process.rlimits[{index}]"), expected };
        let kind: PosixRlimitType =
            asked.Type.parse().map_err(|_| wrong("a limit that Linux has, RLIMIT_…"))?;
        // GUARD: rlimits -> evil_host_limits_that_do_not_fit
        if asked.Soft > asked.Hard || limits.iter().any(|limit| limit.typ() == kind) {
            return Err(wrong("a limit once, its soft one not above the hard one"));
        }
        if kind != PosixRlimitType::RlimitCore {
            limits.push(limit(kind, asked.Soft, asked.Hard)?);
        }
    }
    limits.push(limit(PosixRlimitType::RlimitCore, 0, 0)?);
    Ok(limits)
}
