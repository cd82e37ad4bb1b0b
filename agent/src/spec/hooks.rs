//! Programs that the engine runs beside a container.

use std::path::PathBuf;

use oci_spec::runtime as run;
use protocol::oci;

use super::{Facts, Limits, SpecError, floor, plain, within};

/// Converts hooks, those of the specification and then those of the sandbox. In a confidential guest a hook of the specification has to be one
/// that the measured image lists: it would run beside the agent, and the host could choose it.
pub(super) fn convert(asked: Option<&oci::Hooks>, facts: &Facts) -> Result<Option<run::Hooks>, SpecError> {
    let empty = oci::Hooks::new();
    let asked = asked.unwrap_or(&empty);
    let sandbox = facts.hooks.clone().unwrap_or_default();
    let merge = |name: &str, hooks: &[oci::Hook], more: &Option<Vec<run::Hook>>| {
        let mut merged = list(name, hooks, facts)?;
        merged.extend(more.iter().flatten().cloned());
        Ok::<_, SpecError>(Some(merged).filter(|merged| !merged.is_empty()))
    };
    let prestart = merge("prestart", &asked.Prestart, sandbox.prestart())?;
    let mut hooks = run::Hooks::default();
    hooks.set_prestart(prestart);
    hooks
        .set_create_runtime(merge("createRuntime", &asked.CreateRuntime, sandbox.create_runtime())?)
        .set_create_container(merge("createContainer", &asked.CreateContainer, sandbox.create_container())?)
        .set_start_container(merge("startContainer", &asked.StartContainer, sandbox.start_container())?)
        .set_poststart(merge("poststart", &asked.Poststart, sandbox.poststart())?)
        .set_poststop(merge("poststop", &asked.Poststop, sandbox.poststop())?);
    Ok((hooks != run::Hooks::default()).then_some(hooks))
}

fn list(name: &str, asked: &[oci::Hook], facts: &Facts) -> Result<Vec<run::Hook>, SpecError> {
    within(&format!("hooks.{name}"), asked.len(), Limits::HOOKS)?;
    asked
        .iter()
        .enumerate()
        .map(|(index, hook)| one(&format!("hooks.{name}[{index}]"), hook, facts))
        .collect()
}

fn one(at: &str, asked: &oci::Hook, facts: &Facts) -> Result<run::Hook, SpecError> {
    within(at, asked.Args.len() + asked.Env.len(), Limits::ARGUMENTS)?;
    let path = floor::lexical(&asked.Path);
    let texts = asked.Args.iter().chain(&asked.Env).all(|text| plain(text));
    // GUARD: hook-form -> evil_host_hook_of_another_form
    if path.is_none() || !texts || asked.Timeout < 0 {
        return Err(SpecError::Value {
            at: at.to_owned(),
            expected: "an absolute path without '..', texts without NUL, a time limit from 0 on",
        });
    }
    // GUARD: tee-hooks -> evil_host_hook_in_a_tee
    if facts.tee_active && !path.as_ref().is_some_and(|path| facts.allowed_hooks.contains(path)) {
        return Err(SpecError::Tee {
            at: at.to_owned(),
            what: "run a program of the host's choice beside the agent",
        });
    }
    let mut hook = run::Hook::default();
    hook.set_path(PathBuf::from(&asked.Path))
        .set_args(Some(asked.Args.clone()).filter(|args| !args.is_empty()))
        .set_env(Some(asked.Env.clone()).filter(|env| !env.is_empty()))
        .set_timeout((asked.Timeout > 0).then_some(asked.Timeout));
    Ok(hook)
}
