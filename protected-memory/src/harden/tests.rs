use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use super::{CorePattern, InitOnFree, KernelState, ProcessState, forbid_new_privileges, harden_process};
use crate::testing::isolated;

#[test]
fn hardened_process_cannot_dump_core() {
    isolated(|| {
        let maximum = getrlimit(Resource::Core).maximum;
        setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
        harden_process().unwrap();
        assert_eq!(ProcessState::read().unwrap().core_limit_bytes, Some(0));
    });
}

#[test]
fn hardened_process_is_not_dumpable() {
    isolated(|| {
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        assert!(ProcessState::read().unwrap().dumpable);
        harden_process().unwrap();
        assert!(!ProcessState::read().unwrap().dumpable);
    });
}

#[test]
fn new_privileges_are_forbidden_for_good() {
    isolated(|| {
        assert!(!ProcessState::read().unwrap().no_new_privileges);
        forbid_new_privileges().unwrap();
        assert!(ProcessState::read().unwrap().no_new_privileges);
    });
}

#[test]
fn core_pattern_is_understood() {
    assert_eq!(CorePattern::parse("core\n"), CorePattern::File("core".into()));
    assert_eq!(CorePattern::parse("\n"), CorePattern::None);
    assert_eq!(CorePattern::parse("|/bin/x %p\n"), CorePattern::Program("/bin/x %p".into()));
}

#[test]
fn init_on_free_is_understood() {
    assert_eq!(InitOnFree::parse("quiet init_on_free=1\n"), InitOnFree::On);
    assert_eq!(InitOnFree::parse("init_on_free=1 init_on_free=0"), InitOnFree::Off);
    assert_eq!(InitOnFree::parse("xinit_on_free=1"), InitOnFree::Unstated);
}

#[test]
fn kernel_state_is_read() {
    KernelState::read().unwrap();
}
