use super::{after_noswap, before_mount, insecure_in_effect};
use crate::landing::{
    HostFacts, InsecureChoice, Landing, LandingError, LandingPolicy, SwapPolicy, TeePolicy, TeeState,
};
use crate::testing::{insecure, plan, plenty, swap};

const GIB: u64 = 1 << 30;

#[test]
fn landing_without_tee_is_refused_without_the_choice() {
    let policy = LandingPolicy { tee: TeePolicy::Require, ..insecure() };
    let error = before_mount(&plan(&[1]), policy, &plenty(), TeeState::None).unwrap_err();
    assert_eq!(error.code(), "MEM-003");
    // The same through the door that callers use, before anything is mounted.
    let error = Landing::create(&plan(&[1]), policy, TeeState::None).unwrap_err();
    assert_eq!(error.code(), "MEM-003");
    before_mount(&plan(&[1]), insecure(), &plenty(), TeeState::None).unwrap();
}

#[test]
fn landing_beside_an_emulated_tee_needs_its_own_choice() {
    let judge = |tee, state| before_mount(&plan(&[1]), LandingPolicy { tee, ..insecure() }, &plenty(), state);
    let emulated = TeeState::Emulated("tdx");
    for tee in [TeePolicy::Require, TeePolicy::InsecureNoTee] {
        let error = judge(tee, emulated).unwrap_err();
        assert_eq!(error.code(), "MEM-003");
        assert!(error.to_string().contains("--insecure-tee-root"), "{error}");
    }
    judge(TeePolicy::InsecureEmulatedTee, emulated).unwrap();
    // Whoever accepts an emulation does not accept nothing.
    let error = judge(TeePolicy::InsecureEmulatedTee, TeeState::None).unwrap_err();
    assert!(error.to_string().contains("--insecure-no-tee"), "{error}");
    for tee in [TeePolicy::Require, TeePolicy::InsecureNoTee, TeePolicy::InsecureEmulatedTee] {
        judge(tee, TeeState::Active("tdx")).unwrap();
    }
}

#[test]
fn too_small_memory_is_refused_with_both_numbers() {
    let facts = HostFacts::new(32 * GIB, swap(0));
    let plan = plan(&[41 * GIB]);
    let error = before_mount(&plan, insecure(), &facts, TeeState::None).unwrap_err();
    assert_eq!(error.code(), "MEM-004");
    assert_eq!(error.to_string(), "not enough memory: needs 41.0 GiB, has 32.0 GiB");
    let LandingError::NotEnoughMemory { needed, available } = error else { panic!("{error}") };
    assert_eq!((needed, available), (plan.needed_bytes(), 32 * GIB));
    let error = Landing::create_with_facts(&plan, insecure(), TeeState::None, &facts).unwrap_err();
    assert_eq!(error.code(), "MEM-004");
}

#[test]
fn swap_is_refused_without_the_choice() {
    let facts = HostFacts::new(GIB, swap(2));
    let strict = LandingPolicy { swap: SwapPolicy::Refuse, ..insecure() };
    let error = after_noswap(false, strict, &facts).unwrap_err();
    assert_eq!(error.code(), "MEM-005");
    assert!(error.to_string().contains("2 areas"), "{error}");
    after_noswap(true, strict, &facts).unwrap();
    after_noswap(false, insecure(), &facts).unwrap();
    after_noswap(false, strict, &plenty()).unwrap();
}

#[test]
fn insecure_choices_are_told() {
    let flags =
        |policy: LandingPolicy| policy.insecure_choices().map(InsecureChoice::flag).collect::<Vec<_>>();
    assert_eq!(flags(insecure()), ["--insecure-no-tee", "--insecure-swap"]);
    assert!(flags(LandingPolicy { tee: TeePolicy::Require, swap: SwapPolicy::Refuse }).is_empty());
    let swapping = HostFacts::new(GIB, swap(1));
    let emulated = LandingPolicy { tee: TeePolicy::InsecureEmulatedTee, swap: SwapPolicy::Refuse };
    assert_eq!(flags(emulated), ["--insecure-tee-root"]);
    let states = [TeeState::Active("snp"), TeeState::Emulated("snp")];
    let told = states.map(|tee| insecure_in_effect(false, &plenty(), tee));
    assert_eq!(told, [vec![], vec![InsecureChoice::EmulatedTee]]);
    let effect = |noswap, facts: &HostFacts| insecure_in_effect(noswap, facts, TeeState::None);
    assert_eq!(effect(false, &swapping), [InsecureChoice::NoTee, InsecureChoice::Swap]);
    assert_eq!(effect(true, &swapping), [InsecureChoice::NoTee]);
    assert_eq!(effect(false, &plenty()), [InsecureChoice::NoTee]);
}
