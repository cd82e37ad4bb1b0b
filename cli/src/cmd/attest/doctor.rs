//! `innerkeep attest doctor`: what attestation and protected memory need, each with a code and an advice.

use std::path::Path;

use attestation_agent::{Attester, TeeRoot};
use protected_memory::harden::{CorePattern, InitOnFree, KernelState};
use protected_memory::landing::HostFacts;
use serde_json::json;

use crate::args::attest::PlatformArgs;
use crate::error::Failure;
use crate::files;
use crate::output::{Output, Report};
use crate::platform;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    /// Something is weaker than it could be.
    Warning,
    /// Attestation or landing does not work.
    Wrong,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

struct Finding {
    level: Level,
    code: &'static str,
    found: String,
    advice: &'static str,
}

/// Runs the command: exit status 0 although something is weak, that of the platform's error if there is no TEE.
pub(super) fn run(arguments: &PlatformArgs, output: Output) -> Result<Report, Failure> {
    let root = platform::root(arguments);
    let mut findings: Vec<Finding> = Attester::probe(&root).into_iter().map(place).collect();
    let detected = platform::attester(arguments, false);
    match &detected {
        Ok(attester) => {
            output.insecure(attester.insecure_modes());
            findings.push(Finding {
                level: if root.is_insecure() { Level::Warning } else { Level::Ok },
                code: "TEE",
                found: format!("{} below {}", attester.tee(), root.base().display()),
                advice: if root.is_insecure() { "emulated: it protects nothing" } else { "" },
            });
            findings.push(initdata(attester));
            findings.push(measurement(attester));
        }
        Err(failure) => findings.push(Finding {
            level: Level::Wrong,
            code: failure.code(),
            found: failure.to_string(),
            advice: "start this in a TDX or SEV-SNP guest; on a laptop --insecure-tee-root names an emulated one",
        }),
    }
    findings.push(firmware_log(&root));
    findings.extend(memory()?);
    let report = shown(&findings);
    match detected {
        Ok(_) => Ok(report),
        Err(failure) => {
            output.result(&report).map_err(Failure::file("write to", "standard output"))?;
            Err(failure)
        }
    }
}

fn place(probe: attestation_agent::Probe) -> Finding {
    let path = probe.path.display();
    match probe.outcome {
        Ok(tee) => {
            Finding { level: Level::Ok, code: "TEE_PLACE", found: format!("{path}: {tee}"), advice: "" }
        }
        Err(error) => Finding {
            level: Level::Warning,
            code: error.code(),
            found: format!("{path}: {error}{}", cause(&error)),
            advice: "one place is enough; the first that answers is used",
        },
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(|source| format!(": {source}")).unwrap_or_default()
}

fn initdata(attester: &Attester) -> Finding {
    match attester.initdata_register() {
        Ok(None) => Finding {
            level: Level::Warning,
            code: "INITDATA_NOT_SUPPORTED",
            found: "the platform has no register for initdata".to_owned(),
            advice: "policies that name an initdata digest refuse this guest",
        },
        Ok(Some(register)) if register.is_zero() => Finding {
            level: Level::Warning,
            code: "INITDATA_ZERO",
            found: format!("{} is zero", register.name),
            advice: "launch the guest with the digest of its initdata",
        },
        Ok(Some(register)) => Finding {
            level: Level::Ok,
            code: "INITDATA",
            found: format!("{} {}", register.name, hex::encode(&register.value)),
            advice: "",
        },
        Err(error) => Finding {
            level: Level::Wrong,
            code: error.code(),
            found: error.to_string(),
            advice: "without the register nothing can be bound to this guest",
        },
    }
}

fn measurement(attester: &Attester) -> Finding {
    if attester.can_extend() {
        return Finding {
            level: Level::Ok,
            code: "RUNTIME_MEASUREMENT",
            found: "registers can be extended".to_owned(),
            advice: "",
        };
    }
    Finding {
        level: Level::Warning,
        code: "RUNTIME_MEASUREMENT_NOT_SUPPORTED",
        found: "no register that this guest can extend".to_owned(),
        advice: "TDX: a kernel of 6.16 or later has them in sysfs; SEV-SNP has none",
    }
}

fn firmware_log(root: &TeeRoot) -> Finding {
    let path = root.firmware_log();
    if path.exists() {
        return Finding {
            level: Level::Ok,
            code: "FIRMWARE_LOG",
            found: path.display().to_string(),
            advice: "",
        };
    }
    Finding {
        level: Level::Warning,
        code: "FIRMWARE_LOG_MISSING",
        found: format!("{} does not exist", path.display()),
        advice: "verifiers can compare registers only as a whole",
    }
}

fn memory() -> Result<Vec<Finding>, Failure> {
    let kernel = KernelState::read()?;
    let host = HostFacts::read()?;
    let mut findings = Vec::new();
    let mut say = |level, code, found: String, advice| findings.push(Finding { level, code, found, advice });
    match host.swap().areas() {
        0 => say(Level::Ok, "SWAP", "no swap".to_owned(), ""),
        areas => say(
            Level::Warning,
            "SWAP_ON",
            format!("{areas} swap area(s)"),
            "landing needs a kernel whose tmpfs knows noswap, outside user namespaces, or swapoff",
        ),
    }
    match kernel.init_on_free {
        InitOnFree::On => say(Level::Ok, "INIT_ON_FREE", "on".to_owned(), ""),
        state => say(
            Level::Warning,
            "INIT_ON_FREE",
            format!("{state:?}").to_lowercase(),
            "boot the guest with init_on_free=1: else plaintext of a killed process stays in free memory",
        ),
    }
    match kernel.core_pattern {
        CorePattern::None => say(Level::Ok, "CORE_PATTERN", "nowhere".to_owned(), ""),
        CorePattern::File(pattern) => {
            say(Level::Ok, "CORE_PATTERN", format!("file {pattern}, forbidden by limit"), "")
        }
        CorePattern::Program(program) => say(
            Level::Warning,
            "CORE_PATTERN_PROGRAM",
            format!("program {program}"),
            "set kernel.core_pattern to a file: a program gets dumps whatever the limit says",
        ),
        _ => {}
    }
    say(Level::Ok, "MEMORY", format!("{} MiB available", host.available_bytes() >> 20), "");
    for (path, code, harmless, advice) in SWITCHES {
        let Ok(text) = files::read_text("read", Path::new(path), 4096) else { continue };
        let value = text.trim();
        let level = if *harmless == value { Level::Ok } else { Level::Warning };
        say(level, code, format!("{path} = {value}"), if level == Level::Ok { "" } else { advice });
    }
    Ok(findings)
}

/// Kernel switches that let memory out: path, code, the safe value, what to do.
const SWITCHES: &[(&str, &str, &str, &str)] = &[
    ("/proc/sys/kernel/kexec_load_disabled", "KEXEC", "1", "sysctl kernel.kexec_load_disabled=1"),
    ("/proc/sys/kernel/sysrq", "SYSRQ", "0", "sysctl kernel.sysrq=0"),
    ("/sys/power/disk", "HIBERNATION", "[disabled]", "boot with nohibernate"),
];

fn shown(findings: &[Finding]) -> Report {
    let lines: Vec<String> = findings
        .iter()
        .map(|Finding { level, code, found, advice }| {
            let advice = if advice.is_empty() { String::new() } else { format!("\n         → {advice}") };
            format!("{:<8} {code}: {found}{advice}", level.name())
        })
        .collect();
    let items: Vec<_> = findings
        .iter()
        .map(|Finding { level, code, found, advice }| {
            json!({ "level": level.name(), "code": code, "found": found, "advice": advice })
        })
        .collect();
    Report { json: json!({ "probes": items }), text: lines.join("\n") }
}
