use std::collections::BTreeMap;

use proptest::prelude::*;

use super::abi::Abi;
use super::*;

/// A call, as the kernel shows it to a program.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    architecture: u32,
    arguments: [u64; 6],
}

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

fn errno(errno: u32) -> u32 {
    0x0005_0000 | errno
}

/// What the kernel does with a program, and nothing that it would not take.
fn run(program: &[SockFilter], call: &Call) -> u32 {
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&call.number.to_le_bytes());
    data[4..8].copy_from_slice(&call.architecture.to_le_bytes());
    for (index, argument) in call.arguments.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let SockFilter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                let place = usize::try_from(k).unwrap();
                assert_eq!(place % 4, 0);
                accumulator = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
            }
            0x54 => accumulator &= k,
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn call(abi: Abi, name: &str, arguments: [u64; 6]) -> Call {
    Call { number: abi.number(name).unwrap(), architecture: abi.audit(), arguments }
}

fn rule(names: &[&str], action: &str, args: &[(u64, &str, u64, u64)]) -> oci::LinuxSyscall {
    let argument = |(index, op, value, two): &(u64, &str, u64, u64)| oci::LinuxSeccompArg {
        Index: *index,
        Op: format!("SCMP_CMP_{op}"),
        Value: *value,
        ValueTwo: *two,
        ..Default::default()
    };
    oci::LinuxSyscall {
        Names: names.iter().map(|name| (*name).to_owned()).collect(),
        Action: format!("SCMP_ACT_{action}"),
        Args: args.iter().map(argument).collect(),
        ..Default::default()
    }
}

fn profile(default: &str, architectures: &[&str], rules: Vec<oci::LinuxSyscall>) -> oci::LinuxSeccomp {
    oci::LinuxSeccomp {
        DefaultAction: format!("SCMP_ACT_{default}"),
        Architectures: architectures.iter().map(|name| format!("SCMP_ARCH_{name}")).collect(),
        Syscalls: rules,
        ..Default::default()
    }
}

fn program(profile: &oci::LinuxSeccomp, machine: Machine) -> Vec<SockFilter> {
    compile(profile, machine).unwrap().instructions
}

#[test]
fn a_profile_of_the_usual_kind() {
    let mut enosys = rule(&["clone3"], "ERRNO", &[]);
    enosys.set_errnoret(38);
    let profile = profile(
        "ERRNO",
        &["X86_64", "X86", "X32"],
        vec![
            rule(&["read", "write", "openat", "exit_group", "futex_waitv"], "ALLOW", &[]),
            rule(&["personality"], "ALLOW", &[(0, "EQ", 0, 0)]),
            rule(&["personality"], "ALLOW", &[(0, "EQ", 0xffff_ffff, 0)]),
            rule(&["clone"], "ALLOW", &[(0, "MASKED_EQ", 0x7e02_0000, 0)]),
            rule(&["socket"], "ALLOW", &[(0, "NE", 40, 0)]),
            rule(&["reboot"], "KILL_PROCESS", &[]),
            rule(&["not_a_call_at_all"], "ALLOW", &[]),
            enosys,
        ],
    );
    let program = program(&profile, Machine::X86_64);
    let says = |abi, name, first| run(&program, &call(abi, name, [first, 0, 0, 0, 0, 0]));
    for abi in [Abi::X86_64, Abi::X86] {
        assert_eq!(says(abi, "read", 0), ALLOW);
        assert_eq!(says(abi, "ptrace", 0), errno(1));
        assert_eq!(says(abi, "personality", 0), ALLOW);
        assert_eq!(says(abi, "personality", 0xffff_ffff), ALLOW);
        assert_eq!(says(abi, "personality", 8), errno(1));
        assert_eq!(says(abi, "clone", 0x11), ALLOW);
        assert_eq!(says(abi, "clone", 0x1000_0011), errno(1));
        assert_eq!(says(abi, "clone3", 0), errno(38));
        assert_eq!(says(abi, "reboot", 0), KILL_PROCESS);
        assert_eq!(says(abi, "socket", 1), ALLOW);
        assert_eq!(says(abi, "socket", 40), errno(1));
    }
    assert_eq!(says(Abi::X86_64, "personality", 1 << 32), errno(1), "all 64 bits count");
    // Its arguments cannot be seen there: it is not allowed.
    assert_eq!(says(Abi::X86, "socketcall", 1), errno(1));
    assert!(program.len() < 200);
}

#[test]
fn evil_container_calls_by_another_abi() {
    let lax = profile("ALLOW", &["X86_64"], vec![]);
    let program_lax = program(&lax, Machine::X86_64);
    let read = call(Abi::X86_64, "read", [0; 6]);
    assert_eq!(run(&program_lax, &read), ALLOW);
    assert_eq!(run(&program_lax, &call(Abi::X86, "read", [0; 6])), KILL_PROCESS);
    assert_eq!(run(&program_lax, &Call { architecture: 0xc000_00b7, ..read }), KILL_PROCESS);
    let x32 = Call { number: read.number | 0x4000_0000, ..read };
    assert_eq!(run(&program_lax, &x32), errno(38));
    assert_eq!(run(&program_lax, &Call { number: u32::MAX, ..read }), errno(38));
    let arm = program(&profile("ALLOW", &[], vec![]), Machine::Aarch64);
    assert_eq!(run(&arm, &call(Abi::Aarch64, "read", [0; 6])), ALLOW);
    assert_eq!(run(&arm, &call(Abi::Arm, "read", [0; 6])), KILL_PROCESS);
    let both = program(&profile("ALLOW", &["ARM"], vec![rule(&["open"], "ERRNO", &[])]), Machine::Aarch64);
    assert_eq!(run(&both, &call(Abi::Arm, "open", [0; 6])), errno(1));
    assert_eq!(run(&both, &call(Abi::Arm, "read", [0; 6])), ALLOW);
}

#[test]
fn evil_container_calls_behind_one_number() {
    let denies = profile(
        "ALLOW",
        &["X86"],
        vec![rule(&["socket"], "ERRNO", &[(0, "EQ", 40, 0)]), rule(&["shmat", "accept4"], "TRAP", &[])],
    );
    let program = program(&denies, Machine::X86_64);
    let says = |name, first| run(&program, &call(Abi::X86, name, [first, 0, 0, 0, 0, 0]));
    assert_eq!(says("socketcall", 1), errno(1), "whatever its arguments are");
    assert_eq!(says("socketcall", 2), ALLOW);
    assert_eq!(says("socketcall", 18), 0x0003_0000);
    assert_eq!(says("ipc", 21), 0x0003_0000);
    assert_eq!(says("ipc", 0x1_0015), 0x0003_0000, "another version of it");
    assert_eq!(says("ipc", 22), ALLOW);
}

#[test]
fn the_strictest_rule_that_matches_answers() {
    let rules = vec![
        rule(&["kill"], "ALLOW", &[]),
        rule(&["kill"], "ERRNO", &[(1, "EQ", 9, 0)]),
        rule(&["kill"], "TRAP", &[(1, "GE", 32, 0), (0, "LT", 5, 0)]),
        rule(&["kill"], "LOG", &[(1, "LE", 1, 0)]),
        // Two conditions on one argument: each for itself.
        rule(&["kill"], "KILL_THREAD", &[(1, "EQ", 11, 0), (1, "EQ", 12, 0)]),
    ];
    for rules in [rules.clone(), rules.into_iter().rev().collect()] {
        let program = program(&profile("KILL_PROCESS", &[], rules), Machine::X86_64);
        let says = |pid, signal| run(&program, &call(Abi::X86_64, "kill", [pid, signal, 0, 0, 0, 0]));
        assert_eq!(says(1, 15), ALLOW);
        assert_eq!(says(1, 9), errno(1));
        assert_eq!(says(1, 40), 0x0003_0000);
        assert_eq!(says(7, 40), ALLOW);
        assert_eq!(says(1, 0), 0x7ffc_0000);
        assert_eq!((says(1, 11), says(1, 12)), (0, 0));
        assert_eq!(run(&program, &call(Abi::X86_64, "read", [0; 6])), KILL_PROCESS);
    }
}

fn refused(profile: &oci::LinuxSeccomp) -> &'static str {
    compile(profile, Machine::X86_64).unwrap_err().code()
}

#[test]
fn evil_host_profile_of_another_form() {
    assert_eq!(refused(&profile("", &[], vec![])), "SPEC_SECCOMP");
    assert_eq!(refused(&profile("PERMIT", &[], vec![])), "SPEC_SECCOMP");
    assert_eq!(refused(&profile("ALLOW", &["Z80"], vec![])), "SPEC_SECCOMP");
    assert_eq!(refused(&profile("ALLOW", &[], vec![rule(&["read"], "DENY", &[])])), "SPEC_SECCOMP");
    for argument in [(6, "EQ", 0, 0), (u64::MAX, "EQ", 0, 0), (0, "IS", 0, 0), (0, "MASKED_EQ", 0xf0, 0x1f)] {
        assert_eq!(
            refused(&profile("ALLOW", &[], vec![rule(&["read"], "ERRNO", &[argument])])),
            "SPEC_SECCOMP"
        );
    }
    let mut large = rule(&["read"], "ERRNO", &[]);
    large.set_errnoret(4096);
    assert_eq!(refused(&profile("ALLOW", &[], vec![large])), "SPEC_SECCOMP");
    let mut flags = profile("ALLOW", &[], vec![]);
    flags.Flags = vec!["SECCOMP_FILTER_FLAG_NEW_LISTENER".to_owned()];
    assert_eq!(refused(&flags), "SPEC_SECCOMP");
    flags.Flags = vec!["SECCOMP_FILTER_FLAG_LOG".to_owned(), "SECCOMP_FILTER_FLAG_SPEC_ALLOW".to_owned()];
    assert_eq!(compile(&flags, Machine::X86_64).unwrap().flags, 6);
}

#[test]
fn evil_host_profile_that_somebody_else_answers() {
    assert_eq!(refused(&profile("NOTIFY", &[], vec![])), "SPEC_NOT_ENFORCED");
    assert_eq!(refused(&profile("ALLOW", &[], vec![rule(&["mount"], "NOTIFY", &[])])), "SPEC_NOT_ENFORCED");
}

#[test]
fn evil_host_denies_a_call_of_no_table() {
    let deny = profile("ALLOW", &[], vec![rule(&["a_call_of_tomorrow"], "ERRNO", &[])]);
    assert_eq!(refused(&deny), "SPEC_SECCOMP");
    let stricter = profile("LOG", &[], vec![rule(&["a_call_of_tomorrow"], "KILL", &[])]);
    assert_eq!(refused(&stricter), "SPEC_SECCOMP");
    // Of another processor: nothing to deny here.
    compile(&profile("ALLOW", &[], vec![rule(&["arm_fadvise64_64"], "ERRNO", &[])]), Machine::X86_64)
        .unwrap();
    compile(&profile("ERRNO", &[], vec![rule(&["a_call_of_tomorrow"], "ALLOW", &[])]), Machine::X86_64)
        .unwrap();
}

#[test]
fn evil_host_profile_larger_than_the_kernel_takes() {
    let rules = vec![rule(&["read"; 1000], "ALLOW", &[]); 5];
    assert_eq!(refused(&profile("ERRNO", &[], rules)), "SPEC_TOO_MANY");
    let rules = vec![rule(&["read"], "ALLOW", &[]); 2049];
    assert_eq!(refused(&profile("ERRNO", &[], rules)), "SPEC_TOO_MANY");
    let conditions = [
        (0, "GE", 1, 0),
        (1, "GE", 1, 0),
        (2, "GE", 1, 0),
        (3, "GE", 1, 0),
        (4, "LT", 1, 0),
        (5, "LT", 1, 0),
    ];
    let rules = vec![rule(&["read"], "ALLOW", &conditions); 200];
    assert_eq!(refused(&profile("ERRNO", &[], rules)), "SPEC_TOO_MANY");
}

/// All calls of two ABIs with an answer each: long jumps are taken.
#[test]
fn a_profile_about_every_call() {
    let actions = ["ALLOW", "LOG", "TRAP", "ERRNO"];
    let values = [ALLOW, 0x7ffc_0000, 0x0003_0000, errno(1)];
    let names: Vec<String> = syscalls::x86_64::Sysno::iter().map(|call| call.name().to_owned()).collect();
    let rules =
        names.iter().enumerate().map(|(index, name)| rule(&[name], actions[index % 4], &[])).collect();
    let program = program(&profile("KILL", &["X86"], rules), Machine::X86_64);
    for (index, name) in names.iter().enumerate() {
        for abi in [Abi::X86_64, Abi::X86] {
            // What is behind `socketcall` and `ipc` has a number of its own as well.
            if abi.number(name).is_some() {
                assert_eq!(run(&program, &call(abi, name, [0; 6])), values[index % 4], "{name}");
            }
        }
    }
    for number in 470..2000 {
        assert_eq!(run(&program, &Call { number, architecture: Abi::X86_64.audit(), arguments: [0; 6] }), 0);
    }
    assert!(program.len() <= MAXIMUM_INSTRUCTIONS);
}

/// A direct reading of rules: conditions, and the value of the answer.
type Reading = BTreeMap<u32, Vec<(Vec<(u64, &'static str, u64, u64)>, u32)>>;

fn read(rules: &Reading, default: u32, call: &Call) -> u32 {
    let holds = |(index, op, value, two): &(u64, &str, u64, u64)| {
        let argument = call.arguments[usize::try_from(*index).unwrap()];
        match *op {
            "EQ" => argument == *value,
            "NE" => argument != *value,
            "LT" => argument < *value,
            "LE" => argument <= *value,
            "GT" => argument > *value,
            "GE" => argument >= *value,
            _ => argument & value == *two,
        }
    };
    // As the kernel compares answers: as signed numbers without their data, the lowest first.
    let order = |value: &u32| (value & 0xffff_0000).cast_signed();
    let matching = rules.get(&call.number).into_iter().flatten();
    matching
        .filter(|(conditions, _)| conditions.iter().all(holds))
        .map(|(_, value)| *value)
        .min_by_key(order)
        .unwrap_or(default)
}

fn value() -> impl Strategy<Value = u64> {
    let near = prop_oneof![
        Just(0_u64),
        Just(1),
        Just(40),
        Just(1 << 32),
        Just(u64::from(u32::MAX)),
        Just(u64::MAX),
        Just(7 << 31)
    ];
    prop_oneof![
        near.clone(),
        (near, 0..3_u64).prop_map(|(value, more)| value.wrapping_add(more)),
        any::<u64>()
    ]
}

fn conditions() -> impl Strategy<Value = Vec<(u64, &'static str, u64, u64)>> {
    let operator = prop::sample::select(vec!["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"]);
    let condition = (operator, value(), value()).prop_map(|(op, value, two)| (op, value, two & value));
    prop::collection::btree_map(0..6_u64, condition, 0..4)
        .prop_map(|map| map.into_iter().map(|(index, (op, value, two))| (index, op, value, two)).collect())
}

proptest! {
    #[test]
    fn programs_say_what_profiles_say(
        default in 0..4_usize,
        rules in prop::collection::vec((prop::collection::vec(0..470_usize, 1..5), 0..5_usize, conditions()), 0..24),
        calls in prop::collection::vec((0..480_u32, prop::array::uniform6(value())), 1..40),
    ) {
        let actions = ["ALLOW", "LOG", "ERRNO", "KILL_PROCESS", "TRAP"];
        let values = [ALLOW, 0x7ffc_0000, errno(1), KILL_PROCESS, 0x0003_0000];
        let name = |number: usize| syscalls::x86_64::Sysno::new(number).map(|call| call.name());
        let mut reading = Reading::new();
        let mut profile = profile(actions[default], &[], vec![]);
        for (numbers, action, conditions) in &rules {
            let known: Vec<usize> = numbers.iter().copied().filter(|number| name(*number).is_some()).collect();
            for number in &known {
                reading.entry(u32::try_from(*number).unwrap()).or_default().push((conditions.clone(), values[*action]));
            }
            let names: Vec<&str> = known.iter().filter_map(|number| name(*number)).collect();
            profile.Syscalls.push(rule(&names, actions[*action], conditions));
        }
        let program = program(&profile, Machine::X86_64);
        let asked = rules.iter().flat_map(|(numbers, ..)| numbers).filter_map(|number| u32::try_from(*number).ok());
        let numbers: Vec<u32> = asked.chain(calls.iter().map(|(number, _)| *number)).collect();
        for (index, number) in numbers.iter().enumerate() {
            let call = Call { number: *number, architecture: Abi::X86_64.audit(), arguments: calls[index % calls.len()].1 };
            prop_assert_eq!(run(&program, &call), read(&reading, values[default], &call), "{:?}", call);
        }
    }
}
