//! What a profile says, by ABI and number.

use std::collections::BTreeMap;

use protocol::oci;

use super::abi::{Abi, Machine};
use crate::spec::{Limits, SpecError, within};

/// `EPERM`: what is answered where the profile does not say.
const EPERM: u32 = 1;
/// Highest error that the kernel gives back.
const MAXIMUM_ERRNO: u32 = 4095;
/// Arguments of a call.
const ARGUMENTS: u64 = 6;
/// ABIs that a profile may list and that this machine does not have. x32 is refused by the kernel's own answer.
const FOREIGN: [&str; 19] = [
    "SCMP_ARCH_X32",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// What happens to a call, from the laxest to the strictest; the kernel orders them so, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Log,
    Trace(u16),
    Errno(u16),
    Trap,
    KillThread,
    KillProcess,
}

impl Action {
    fn parse(name: &str, errno: Option<u32>, at: &str) -> Result<Self, SpecError> {
        let wrong = |expected| SpecError::Seccomp { at: at.to_owned(), expected };
        let errno = errno.unwrap_or(EPERM);
        let number = || {
            u16::try_from(errno)
                .ok()
                .filter(|_| errno <= MAXIMUM_ERRNO)
                .ok_or_else(|| wrong("an errno of at most 4095"))
        };
        match name {
            "SCMP_ACT_ALLOW" => Ok(Self::Allow),
            "SCMP_ACT_LOG" => Ok(Self::Log),
            "SCMP_ACT_TRACE" => Ok(Self::Trace(number()?)),
            "SCMP_ACT_ERRNO" => Ok(Self::Errno(number()?)),
            "SCMP_ACT_TRAP" => Ok(Self::Trap),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Self::KillThread),
            "SCMP_ACT_KILL_PROCESS" => Ok(Self::KillProcess),
            "SCMP_ACT_NOTIFY" => Err(SpecError::NotEnforced {
                at: at.to_owned(),
                what: "a listener that answers system calls",
            }),
            _ => Err(wrong("an action of seccomp")),
        }
    }

    /// Larger is stricter.
    pub(super) const fn strictness(self) -> u8 {
        match self {
            Self::Allow => 0,
            Self::Log => 1,
            Self::Trace(_) => 2,
            Self::Errno(_) => 3,
            Self::Trap => 4,
            Self::KillThread => 5,
            Self::KillProcess => 6,
        }
    }

    /// What a program returns.
    pub(super) fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trap => 0x0003_0000,
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
        }
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// Equal under this mask.
    Masked(u64),
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) operator: Operator,
    pub(super) value: u64,
}

/// Rules of one number: all conditions of one have to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// Rules of one ABI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) abi: Abi,
    pub(super) rules: BTreeMap<u32, Vec<Rule>>,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) default: Action,
    pub(super) tables: Vec<Table>,
    pub(super) flags: u32,
    /// Entries of the profile: names, each with its alternatives.
    size: usize,
}

/// Reads a profile for a machine.
pub(super) fn parse(asked: &oci::LinuxSeccomp, machine: Machine) -> Result<Profile, SpecError> {
    within("linux.seccomp.syscalls", asked.Syscalls.len(), Limits::SECCOMP_RULES)?;
    within("linux.seccomp.architectures", asked.Architectures.len(), Limits::SECCOMP_CONDITIONS * 4)?;
    let default = Action::parse(&asked.DefaultAction, None, "linux.seccomp.defaultAction")?;
    let mut profile = Profile {
        default,
        tables: tables(&asked.Architectures, machine)?,
        flags: flags(&asked.Flags)?,
        size: 0,
    };
    for (index, call) in asked.Syscalls.iter().enumerate() {
        add(&mut profile, call, &format!("linux.seccomp.syscalls[{index}]"))?;
    }
    Ok(profile)
}

/// The machine's own ABI, always; the other one where it is listed.
fn tables(asked: &[String], machine: Machine) -> Result<Vec<Table>, SpecError> {
    let every = [Machine::X86_64, Machine::Aarch64].into_iter().flat_map(Machine::abis);
    let known: Vec<&str> = every.map(Abi::name).chain(FOREIGN).chain(["SCMP_ARCH_NATIVE"]).collect();
    // GUARD: seccomp-architecture -> evil_host_profile_of_another_form
    if !asked.iter().all(|name| known.contains(&name.as_str())) {
        return Err(SpecError::Seccomp {
            at: "linux.seccomp.architectures".to_owned(),
            expected: "architectures that seccomp has",
        });
    }
    let [own, other] = machine.abis();
    let listed = asked.iter().any(|name| name == other.name());
    let abis = [Some(own), listed.then_some(other)];
    Ok(abis.into_iter().flatten().map(|abi| Table { abi, rules: BTreeMap::new() }).collect())
}

fn flags(asked: &[String]) -> Result<u32, SpecError> {
    let mut flags = 0;
    for name in asked {
        flags |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => 1,
            "SECCOMP_FILTER_FLAG_LOG" => 2,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
            _ => {
                return Err(SpecError::Seccomp {
                    at: "linux.seccomp.flags".to_owned(),
                    expected: "TSYNC, LOG or SPEC_ALLOW",
                });
            }
        };
    }
    Ok(flags)
}

fn add(profile: &mut Profile, call: &oci::LinuxSyscall, at: &str) -> Result<(), SpecError> {
    within(at, call.Names.len(), Limits::SECCOMP_NAMES)?;
    within(at, call.Args.len(), Limits::SECCOMP_CONDITIONS)?;
    let errno = call.has_errnoret().then(|| call.errnoret());
    let action = Action::parse(&call.Action, errno, at)?;
    let stricter = action.strictness() > profile.default.strictness();
    let conditions =
        call.Args.iter().map(|argument| condition(argument, at)).collect::<Result<Vec<_>, _>>()?;
    let alternatives = alternatives(conditions);
    profile.size += call.Names.len().saturating_mul(alternatives.len());
    // GUARD: seccomp-size -> evil_host_profile_larger_than_the_kernel_takes
    within(at, profile.size, Limits::SECCOMP_ENTRIES)?;
    for name in &call.Names {
        // GUARD: seccomp-unknown-call -> evil_host_denies_a_call_of_no_table
        if stricter && !Abi::is_known(name) {
            return Err(SpecError::Seccomp {
                at: at.to_owned(),
                expected: "calls that this agent knows, where they are denied",
            });
        }
        for table in &mut profile.tables {
            if let Some(number) = table.abi.number(name) {
                let rules = table.rules.entry(number).or_default();
                rules.extend(
                    alternatives.iter().map(|conditions| Rule { conditions: conditions.clone(), action }),
                );
            }
            let Some(other) = table.abi.multiplexed(name) else { continue };
            // Arguments of such a call are in memory, which a filter does not see: deny it whatever they are, allow it never.
            if call.Args.is_empty() || stricter {
                let which =
                    Condition { argument: 0, operator: Operator::Masked(other.mask), value: other.value };
                table.rules.entry(other.number).or_default().push(Rule { conditions: vec![which], action });
            }
        }
    }
    Ok(())
}

fn condition(asked: &oci::LinuxSeccompArg, at: &str) -> Result<Condition, SpecError> {
    let wrong = |expected| SpecError::Seccomp { at: at.to_owned(), expected };
    let argument = u8::try_from(asked.Index).ok().filter(|_| asked.Index < ARGUMENTS);
    let argument = argument.ok_or_else(|| wrong("an argument from 0 to 5"))?;
    let (operator, value) = match asked.Op.as_str() {
        "SCMP_CMP_NE" => (Operator::NotEqual, asked.Value),
        "SCMP_CMP_LT" => (Operator::Less, asked.Value),
        "SCMP_CMP_LE" => (Operator::LessOrEqual, asked.Value),
        "SCMP_CMP_EQ" => (Operator::Equal, asked.Value),
        "SCMP_CMP_GE" => (Operator::GreaterOrEqual, asked.Value),
        "SCMP_CMP_GT" => (Operator::Greater, asked.Value),
        "SCMP_CMP_MASKED_EQ" => (Operator::Masked(asked.Value), asked.ValueTwo),
        _ => return Err(wrong("an operator of seccomp")),
    };
    // GUARD: seccomp-mask -> evil_host_profile_of_another_form
    if matches!(operator, Operator::Masked(mask) if value & !mask != 0) {
        return Err(wrong("a value within its mask"));
    }
    Ok(Condition { argument, operator, value })
}

/// Conditions on different arguments hold together. Where two are on the same one, each stands for itself, as runtimes do it.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let twice = |condition: &Condition| {
        conditions.iter().filter(|other| other.argument == condition.argument).count() > 1
    };
    if conditions.iter().any(twice) {
        return conditions.into_iter().map(|condition| vec![condition]).collect();
    }
    vec![conditions]
}
