use proptest::prelude::*;

use super::*;
use crate::spec::Access;
use crate::spec::devices::allows;

/// What the kernel would do with a program: the instructions that [`assemble`] uses, and no others.
fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
    let question = [(access << 16) | kind, major, minor];
    let mut registers = [0_u32; 8];
    let mut at = 0;
    loop {
        let Instruction { code, registers: both, offset, immediate } = program[at];
        let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
        let constant = immediate.cast_unsigned();
        at += 1;
        let jumps = match code {
            LOAD_WORD => {
                assert_eq!(from, usize::from(QUESTION));
                registers[to] = question[usize::try_from(offset).unwrap() / 4];
                false
            }
            MOVE => {
                registers[to] = registers[from];
                false
            }
            MOVE_CONSTANT => {
                registers[to] = constant;
                false
            }
            AND_CONSTANT => {
                registers[to] &= constant;
                false
            }
            OR => {
                registers[to] |= registers[from];
                false
            }
            XOR_CONSTANT => {
                registers[to] ^= constant;
                false
            }
            SHIFT_RIGHT_CONSTANT => {
                registers[to] >>= constant;
                false
            }
            JUMP_IF_CONSTANT => registers[to] == constant,
            JUMP_UNLESS_CONSTANT => registers[to] != constant,
            EXIT => return registers[0],
            other => panic!("no instruction: {other:#x}"),
        };
        if jumps {
            at += usize::try_from(offset).unwrap();
        }
    }
}

fn ask(rules: &[DeviceRule], kind: DeviceKind, major: u32, minor: u32, access: Access) -> bool {
    let kind = if kind == DeviceKind::Block { 1 } else { 2 };
    run(&assemble(rules).unwrap(), kind, access.bits(), major, minor) == 1
}

const READ: Access = Access { read: true, write: false, mknod: false };
const WRITE: Access = Access { read: false, write: true, mknod: false };

fn rule(allow: bool, kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, access }
}

#[test]
fn what_no_rule_allows_is_refused() {
    let both = Access { read: true, write: true, mknod: false };
    for rules in [vec![], vec![rule(false, DeviceKind::All, None, None, Access::ALL)]] {
        assert!(!ask(&rules, DeviceKind::Character, 1, 3, READ));
    }
    let null = [
        rule(false, DeviceKind::All, None, None, Access::ALL),
        rule(true, DeviceKind::Character, Some(1), Some(3), READ),
    ];
    assert!(ask(&null, DeviceKind::Character, 1, 3, READ));
    for (kind, major, minor, access) in [
        (DeviceKind::Block, 1, 3, READ),
        (DeviceKind::Character, 1, 4, READ),
        (DeviceKind::Character, 2, 3, READ),
        (DeviceKind::Character, 1, 3, WRITE),
        (DeviceKind::Character, 1, 3, both),
        (DeviceKind::Character, 1, 3, Access::MKNOD),
    ] {
        assert!(!ask(&null, kind, major, minor, access), "{kind:?} {major}:{minor} {access:?}");
    }
    // Two rules, each a part.
    let parts = [null[0], null[1], rule(true, DeviceKind::All, Some(1), None, WRITE)];
    assert!(ask(&parts, DeviceKind::Character, 1, 3, both));
    // The last one counts.
    let revoked = [null[0], null[1], rule(false, DeviceKind::Character, Some(1), Some(3), READ)];
    assert!(!ask(&revoked, DeviceKind::Character, 1, 3, READ));
}

fn rules() -> impl Strategy<Value = Vec<DeviceRule>> {
    let number = || prop_oneof![Just(None), (0_u32..4).prop_map(Some), Just(Some(u32::MAX))];
    let kind = prop_oneof![Just(DeviceKind::All), Just(DeviceKind::Block), Just(DeviceKind::Character)];
    let access = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(read, write, mknod)| Access {
        read,
        write,
        mknod,
    });
    let rule = (any::<bool>(), kind, number(), number(), access)
        .prop_map(|(allow, kind, major, minor, access)| DeviceRule { allow, kind, major, minor, access });
    proptest::collection::vec(rule, 0..24)
}

proptest! {
    #[test]
    fn the_program_says_what_the_rules_say(rules in rules()) {
        for kind in [DeviceKind::Block, DeviceKind::Character] {
            for major in [0, 1, 3, 9, u32::MAX] {
                for minor in [0, 2, 3, 9, u32::MAX] {
                    for asked in 1..8 {
                        let access = Access { mknod: asked & 1 != 0, read: asked & 2 != 0, write: asked & 4 != 0 };
                        prop_assert_eq!(
                            ask(&rules, kind, major, minor, access),
                            allows(&rules, kind, major, minor, access)
                        );
                    }
                }
            }
        }
    }
}
