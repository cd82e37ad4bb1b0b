//! Removal of `print` and everything else that stands between a policy text and its bytecode. The bytes choose a small
//! policy out of every construct; what its bytecode says about a request is what the tree interpreter says about
//! the text as it is, or the interpreter was in error. The number of bytes says which of three requests it is, and about which of five inputs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy_engine::{Input, Limits, Path, Policy, RequestName};

#[path = "../../policy-engine/tests/support/random_policy.rs"]
mod random_policy;
/// Choices out of bytes; the first again and again when they are used up.
struct Bytes<'a>(&'a [u8]);

impl random_policy::Choices for Bytes<'_> {
    fn below(&mut self, end: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % end.max(1)
    }
}

fuzz_target!(|data: &[u8]| {
    let text = random_policy::policy(&mut Bytes(data));
    let limits = Limits { instructions: 100_000, ..Limits::default() };
    let Ok(policy) = Policy::load(&text, &limits) else { return };
    let name = random_policy::NAMES[data.len() % random_policy::NAMES.len()];
    let request = RequestName::new(name).expect("a name");
    if policy.path(&request) != Path::Compiled {
        return;
    }
    let input = random_policy::INPUTS[data.len() / 3 % random_policy::INPUTS.len()];
    let input = Input::from_json(input, &limits).expect("a request");
    policy.compare(&request, &input).unwrap_or_else(|found| panic!("{name}: {found}\n{text}"));
});
