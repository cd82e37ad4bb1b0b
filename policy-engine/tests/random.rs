//! Policies that nobody would write, held against the reference: what the engine says about them by bytecode or
//! otherwise is what the reference says, and no `print` makes a difference.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, dead_code, reason = "tests, and what they share")]

#[path = "support/random_policy.rs"]
mod random_policy;
#[path = "support/reference.rs"]
mod reference;
mod support;

use policy_engine::{Denial, FailingRequests, Input, Limits, Path, Policy, PolicyEngine, RequestName};
use reference::{Outcome, Reference};
use std::panic::{AssertUnwindSafe, catch_unwind};
use support::Random;

impl random_policy::Choices for Random {
    fn below(&mut self, end: usize) -> usize {
        Self::below(self, end)
    }
}

/// How the requests of a run were evaluated.
#[derive(Debug, Default)]
struct Tally {
    compiled: usize,
    interpreted: usize,
    allowed: usize,
    refused: usize,
    limited: usize,
}

/// What is accepted beside equality. The reference goes through all bodies of a rule, and an error in one (another kind
/// of value than an operator takes) undoes what another has allowed; bytecode stops at the first that allows. After such
/// an error the reference may also say "undefined" where the policy has a default, which is no value of any rule.
fn reference_tripped(text: &str, name: &str, theirs: &Outcome) -> bool {
    match theirs {
        Outcome::Error(_) => true,
        Outcome::Undefined => text.contains(&format!("default {name} ")),
        Outcome::Allowed | Outcome::Denied => false,
    }
}

fn compare(text: &str, tally: &mut Tally) {
    let limits = Limits { instructions: 200_000, ..Limits::default() };
    let Ok(policy) = Policy::load(text, &limits) else {
        tally.refused += 1;
        return;
    };
    let compiled = |name: &str| policy.path(&RequestName::new(name).unwrap()) == Path::Compiled;
    let names: Vec<&str> = random_policy::NAMES.iter().copied().filter(|name| compiled(name)).collect();
    tally.compiled += names.len();
    tally.interpreted += random_policy::NAMES.len() - names.len();
    let engine = PolicyEngine::new(limits, FailingRequests::Denied);
    engine.install(policy);
    let mut reference = Reference::new(text);
    for name in names {
        for input in random_policy::INPUTS {
            let request = RequestName::new(name).unwrap();
            let asked = Input::from_json(input, engine.limits()).unwrap();
            let Ok(decision) = catch_unwind(AssertUnwindSafe(|| engine.decide(&request, &asked))) else {
                tally.limited += 1;
                continue;
            };
            // Assertions of the reference end it in a build that has them; they are errors in one that has not.
            let asked = AssertUnwindSafe(|| reference.decide(name, input));
            let theirs = catch_unwind(asked).unwrap_or_else(|_| {
                reference = Reference::new(text);
                Outcome::Error("an assertion".to_owned())
            });
            let same = match decision.denial() {
                None => theirs == Outcome::Allowed || reference_tripped(text, name, &theirs),
                Some(_) if matches!(theirs, Outcome::Error(_)) => true,
                Some(Denial::Rule) => theirs == Outcome::Denied,
                Some(Denial::Undefined) => theirs == Outcome::Undefined,
                Some(Denial::Limit(_)) => {
                    tally.limited += 1;
                    true
                }
                Some(_) => false,
            };
            assert!(same, "{name}: ours {:?}, theirs {theirs:?}\n{input}\n{text}", decision.verdict());
            tally.allowed += usize::from(decision.is_allowed());
        }
    }
}

fn run(seed: u64, number: u64) {
    let number = if std::env::var_os("INNERKEEP_TEST_LONG").is_some() { number * 20 } else { number };
    let mut tally = Tally::default();
    for case in 0..number {
        let mut random = Random::new(seed + case);
        compare(&random_policy::policy(&mut random), &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.compiled > tally.interpreted / 5 && tally.allowed > 0, "{tally:?}");
    assert!(tally.limited * 100 < tally.compiled, "{tally:?}");
}

#[test]
fn random_policies_decide_as_the_reference_does() {
    run(0x10_0000, 3_000);
}
