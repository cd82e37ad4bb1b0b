//! Builtins that are called through here, by bytecode and by the interpreter: what they make of a request is bounded.
//!
//! The evaluator bounds time and instructions, not memory, and `replace` makes gigabytes of two strings that a host may
//! send. Each builtin whose value can be larger than what it is given is charged, before it runs, against one budget of
//! the evaluation; a budget that is used up is a denial. Inside one evaluation `replace` remembers what it said about
//! the same three strings (a policy fills the same placeholders for each variable of a request), and a pattern is
//! compiled once for a policy: a copy of it would begin without the working memory of the last match.

use regex::{Regex, RegexBuilder};
use regorus::unstable::{BUILTINS, BuiltinFcn, Expr, Ref, Span};
use regorus::{Engine, LimitError, Rc, Source, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

mod cost;

/// Builtins that are charged.
const CHARGED: &[&str] = &[
    "array.concat",
    "bits.lsh",
    "concat",
    "numbers.range",
    "numbers.range_step",
    "regex.find_all_string_submatch_n",
    "regex.find_n",
    "regex.replace",
    "regex.split",
    "replace",
    "split",
    "sprintf",
    "strings.replace_n",
];
/// What the evaluator grants a pattern, in bytes of its automaton; beyond it is the evaluator's own error.
const PATTERN_BYTES: usize = 100 * 1024;
/// Working memory of a pattern that is kept between matches.
const PATTERN_CACHE_BYTES: usize = 256 * 1024;
/// Patterns that are kept for a policy; requests can be part of a pattern.
const MAX_PATTERNS: usize = 256;
/// Replacements that are remembered, a power of two.
const REMEMBERED: usize = 512;
/// Longer values are not remembered.
const MAX_REMEMBERED_BYTES: usize = 4096;

thread_local! {
    /// What the evaluation on this thread has lent to the builtins, which are functions without an environment.
    static LENT: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Compiled patterns of one policy.
#[derive(Debug, Default)]
pub(crate) struct Patterns(Mutex<HashMap<Box<str>, Arc<Regex>>>);

/// What one evaluation uses.
#[derive(Debug)]
struct Scratch {
    left: usize,
    limit: usize,
    exhausted: bool,
    patterns: Arc<Patterns>,
    replaced: Vec<Option<Replaced>>,
}

/// A remembered replacement: the strings themselves, which are shared and never change.
#[derive(Debug)]
struct Replaced {
    subject: Rc<str>,
    old: Rc<str>,
    new: Rc<str>,
    value: Rc<str>,
}

/// Puts back what was lent before.
struct Restore(Option<Scratch>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        LENT.with_borrow_mut(|lent| *lent = before);
    }
}

/// Evaluates with a budget of `bytes`; says whether it was used up, and then the value means nothing.
pub(crate) fn within<T>(patterns: &Arc<Patterns>, bytes: usize, evaluate: impl FnOnce() -> T) -> (T, bool) {
    let scratch = Scratch {
        left: bytes,
        limit: bytes,
        exhausted: false,
        patterns: Arc::clone(patterns),
        replaced: Vec::new(),
    };
    let restore = Restore(LENT.with_borrow_mut(|lent| lent.replace(scratch)));
    let value = evaluate();
    let exhausted = LENT.with_borrow(|lent| lent.as_ref().is_some_and(|scratch| scratch.exhausted));
    drop(restore);
    (value, exhausted)
}

/// Looks at what is lent; outside of an evaluation there is nothing.
fn lent<T>(look: impl FnOnce(&mut Scratch) -> Option<T>) -> Option<T> {
    LENT.with(|lent| lent.try_borrow_mut().ok()?.as_mut().and_then(look))
}

/// Takes `bytes` from the budget.
fn charge(bytes: usize) -> Result<(), LimitError> {
    let over = lent(|scratch| match scratch.left.checked_sub(bytes) {
        Some(left) => {
            scratch.left = left;
            None
        }
        None => {
            scratch.exhausted = true;
            Some(scratch.limit)
        }
    });
    // GUARD: policy-builtin-budget -> evil_host_bytes_that_policy_multiplies
    if let Some(limit) = over {
        let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        return Err(LimitError::MemoryLimitExceeded { usage: size(bytes), limit: size(limit) });
    }
    Ok(())
}

/// The evaluator's own.
fn original(name: &str) -> Option<BuiltinFcn> {
    BUILTINS.get(name).copied()
}

/// What bytecode calls in place of the evaluator's own.
pub(crate) fn replacement(name: &str, own: BuiltinFcn) -> BuiltinFcn {
    macro_rules! charged {
        ($($name:literal),+) => {
            match name {
                $($name => (
                    |span, parameters, arguments, strict| {
                        charge(cost::of($name, arguments))?;
                        match original($name) {
                            Some((call, _)) => call(span, parameters, arguments, strict),
                            None => Ok(Value::Undefined),
                        }
                    },
                    own.1,
                ),)+
                _ => own,
            }
        };
    }
    match name {
        "replace" => (
            |span, parameters, arguments, strict| match (arguments, original("replace")) {
                ([Value::String(subject), Value::String(old), Value::String(new)], _) => {
                    Ok(Value::String(replaced(subject, old, new)?))
                }
                (_, Some((call, _))) => call(span, parameters, arguments, strict),
                (_, None) => Ok(Value::Undefined),
            },
            own.1,
        ),
        "regex.match" => (
            |span, parameters, arguments, strict| {
                if let [Value::String(pattern), Value::String(text)] = arguments
                    && let Some(compiled) = pattern_of(pattern)
                {
                    return Ok(Value::Bool(compiled.is_match(text)));
                }
                // What cannot be compiled is the evaluator's to say.
                match original("regex.match") {
                    Some((call, _)) => call(span, parameters, arguments, strict),
                    None => Ok(Value::Undefined),
                }
            },
            own.1,
        ),
        _ => charged!(
            "array.concat",
            "bits.lsh",
            "concat",
            "numbers.range",
            "numbers.range_step",
            "regex.find_all_string_submatch_n",
            "regex.find_n",
            "regex.replace",
            "regex.split",
            "split",
            "sprintf",
            "strings.replace_n"
        ),
    }
}

/// Has the interpreter call the same: a name that is given to it precedes its own.
pub(crate) fn bound(engine: &mut Engine) {
    let Ok(source) = Source::from_contents("builtin".to_owned(), String::new()) else { return };
    let span = Span { source, line: 1, col: 1, start: 0, end: 0 };
    let nowhere = || Ref::new(Expr::Null { span: span.clone(), value: Value::Null, eidx: 0 });
    let places = Arc::new([nowhere(), nowhere(), nowhere()]);
    for name in CHARGED.iter().copied() {
        let Some((call, count)) = original(name) else { continue };
        let (span, places) = (span.clone(), Arc::clone(&places));
        let extension = Box::new(move |arguments: Vec<Value>| {
            let parameters = places.get(..arguments.len()).unwrap_or(&[]);
            let answer = match charge(cost::of(name, &arguments)) {
                Ok(()) => call(&span, parameters, &arguments, false),
                Err(limit) => Err(limit.into()),
            };
            match answer {
                // As the evaluator does with its own: an error is no value, but for a limit.
                Err(error) if error.downcast_ref::<LimitError>().is_none() => Ok(Value::Undefined),
                other => other,
            }
        });
        // It fails only where the name was given before.
        let _ = engine.add_extension(name.to_owned(), count, extension);
    }
}

/// `replace` of three strings.
fn replaced(subject: &Rc<str>, old: &Rc<str>, new: &Rc<str>) -> Result<Rc<str>, LimitError> {
    let slot = slot(subject, old, new);
    let known = lent(|scratch| {
        let entry = scratch.replaced.get(slot)?.as_ref()?;
        let same =
            Rc::ptr_eq(&entry.subject, subject) && Rc::ptr_eq(&entry.old, old) && Rc::ptr_eq(&entry.new, new);
        same.then(|| entry.value.clone())
    });
    if let Some(value) = known {
        return Ok(value);
    }
    charge(cost::of_replace(subject, old, new))?;
    let value: Rc<str> = if subject.contains(old.as_ref()) {
        subject.replace(old.as_ref(), new).into()
    } else {
        subject.clone()
    };
    if value.len() <= MAX_REMEMBERED_BYTES {
        let entry =
            Replaced { subject: subject.clone(), old: old.clone(), new: new.clone(), value: value.clone() };
        lent(|scratch| {
            if scratch.replaced.is_empty() {
                scratch.replaced.resize_with(REMEMBERED, || None);
            }
            *scratch.replaced.get_mut(slot)? = Some(entry);
            Some(())
        });
    }
    Ok(value)
}

/// Where a replacement is remembered, by the places of its strings in memory.
fn slot(subject: &Rc<str>, old: &Rc<str>, new: &Rc<str>) -> usize {
    let place = |text: &Rc<str>| text.as_ptr().addr() >> 4;
    let mixed = place(subject) ^ place(old).rotate_left(21) ^ place(new).rotate_left(42);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % REMEMBERED
}

/// A compiled pattern; `None` if it cannot be compiled, or nothing is lent.
fn pattern_of(pattern: &str) -> Option<Arc<Regex>> {
    let patterns = lent(|scratch| Some(Arc::clone(&scratch.patterns)))?;
    let mut known = patterns.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = known.get(pattern) {
        return Some(Arc::clone(compiled));
    }
    let compiled = RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_CACHE_BYTES)
        .build()
        .map(Arc::new)
        .ok()?;
    if known.len() >= MAX_PATTERNS {
        known.clear();
    }
    known.insert(pattern.into(), Arc::clone(&compiled));
    Some(compiled)
}
