//! What a process may do beyond its user: five explicit sets, because the engine's library keeps everything where one is absent.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use protocol::oci;

use super::SpecError;

/// What no container of a confidential guest has. The first five reach the kernel's or our processes' memory; the others
/// observe (`PERFMON`, `SYSLOG`, `CHECKPOINT_RESTORE`), replace the kernel (`SYS_BOOT`), set aside rules between processes (`MAC_…`), open any
/// file of a file system that one file of is visible (`DAC_READ_SEARCH`), or move the clock that certificates are held against (`SYS_TIME`).
const NOT_IN_A_TEE: [Capability; 13] = [
    Capability::SysAdmin,
    Capability::SysPtrace,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::Bpf,
    Capability::Perfmon,
    Capability::Syslog,
    Capability::CheckpointRestore,
    Capability::SysBoot,
    Capability::MacAdmin,
    Capability::MacOverride,
    Capability::DacReadSearch,
    Capability::SysTime,
];

/// Takes five sets. Names have `CAP_` or not.
///
/// # Errors
/// `SPEC_VALUE`: a name that is none, or sets that the kernel does not take together. `SPEC_FLOOR_TEE`.
pub(super) fn sets(asked: &oci::LinuxCapabilities, tee_active: bool) -> Result<LinuxCapabilities, SpecError> {
    let mut sets = LinuxCapabilities::default();
    let effective = set("effective", &asked.Effective)?;
    let permitted = set("permitted", &asked.Permitted)?;
    let inheritable = set("inheritable", &asked.Inheritable)?;
    let ambient = set("ambient", &asked.Ambient)?;
    let bounding = set("bounding", &asked.Bounding)?;
    // GUARD: capability-sets -> evil_host_capability_sets_that_do_not_fit
    if !effective.is_subset(&permitted) || !ambient.is_subset(&permitted) || !ambient.is_subset(&inheritable)
    {
        return Err(SpecError::Value {
            at: AT.to_owned(),
            expected: "effective within permitted, ambient within permitted and inheritable",
        });
    }
    for set in [&effective, &permitted, &inheritable, &ambient, &bounding] {
        // GUARD: tee-capabilities -> evil_host_capabilities_in_a_tee
        if tee_active && NOT_IN_A_TEE.iter().any(|capability| set.contains(capability)) {
            return Err(SpecError::Tee { at: AT.to_owned(), what: "reach beyond itself" });
        }
    }
    sets.set_effective(Some(effective))
        .set_permitted(Some(permitted))
        .set_inheritable(Some(inheritable))
        .set_ambient(Some(ambient))
        .set_bounding(Some(bounding));
    Ok(sets)
}

/// Five sets with nothing in them.
pub(super) fn none() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_effective(Some(HashSet::new()))
        .set_permitted(Some(HashSet::new()))
        .set_inheritable(Some(HashSet::new()))
        .set_ambient(Some(HashSet::new()))
        .set_bounding(Some(HashSet::new()));
    sets
}

const AT: &str = "process.capabilities";

fn set(which: &str, names: &[String]) -> Result<HashSet<Capability>, SpecError> {
    let unknown =
        |_| SpecError::Value { at: format!("{AT}.{which}"), expected: "capabilities that Linux has" };
    names
        .iter()
        .map(|name| {
            let name = name.to_ascii_uppercase();
            name.strip_prefix("CAP_").unwrap_or(&name).parse::<Capability>().map_err(unknown)
        })
        .collect()
}
