//! Removal of `print` and everything else that stands between a policy text and its bytecode. The bytes choose a small
//! policy out of every construct; what its bytecode says about five requests is what the tree interpreter says about
//! the text as it is, or the interpreter was in error.

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
    for name in random_policy::NAMES {
        let request = RequestName::new(name).expect("a name");
        if policy.path(&request) != Path::Compiled {
            continue;
        }
        for input in random_policy::INPUTS {
            let input = Input::from_json(input, &limits).expect("a request");
            policy.compare(&request, &input).unwrap_or_else(|found| panic!("{name}: {found}\n{text}"));
        }
    }
});
