//! Rules become instructions.

use super::SockFilter;
use super::abi::Abi;
use super::profile::{Action, Condition, Operator, Profile, Rule, Table};

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Places in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
/// Numbers of x32 have this bit.
const X32: u32 = 0x4000_0000;
/// What the kernel answers to a call that it does not have.
const ENOSYS: u16 = 38;

/// The program: the ABI is looked at first, whatever is not in a table is killed.
pub(super) fn program(profile: &Profile) -> Vec<SockFilter> {
    let mut program = vec![statement(LOAD, ARCHITECTURE_AT)];
    for table in &profile.tables {
        let block = block(table, profile.default);
        program.extend(branch(JUMP_EQUAL, table.abi.audit(), vec![], block));
    }
    program.push(answer(Action::KillProcess));
    program
}

const fn statement(code: u16, k: u32) -> SockFilter {
    SockFilter { code, jt: 0, jf: 0, k }
}

fn answer(action: Action) -> SockFilter {
    statement(RETURN, action.value())
}

/// A comparison: `otherwise` is what follows when it does not hold, and stands first; it may be empty, then it goes on behind `then`.
fn branch(code: u16, k: u32, otherwise: Vec<SockFilter>, then: Vec<SockFilter>) -> Vec<SockFilter> {
    let mut result = Vec::with_capacity(otherwise.len() + then.len() + 2);
    if otherwise.is_empty() {
        // Holds: over the jump, into `then`.
        result.push(SockFilter { code, jt: 1, jf: 0, k });
        result.push(statement(JUMP, length(&then)));
    } else if let Ok(jt) = u8::try_from(otherwise.len()) {
        result.push(SockFilter { code, jt, jf: 0, k });
    } else {
        result.push(SockFilter { code, jt: 0, jf: 1, k });
        result.push(statement(JUMP, length(&otherwise)));
    }
    result.extend(otherwise);
    result.extend(then);
    result
}

/// Lengths are limited by the rules of a profile, far below 2^32.
fn length(instructions: &[SockFilter]) -> u32 {
    u32::try_from(instructions.len()).unwrap_or(u32::MAX)
}

/// All of one ABI.
fn block(table: &Table, default: Action) -> Vec<SockFilter> {
    let mut block = vec![statement(LOAD, NUMBER_AT)];
    let search = search(&ranges(table, default));
    if table.abi == Abi::X86_64 {
        block.extend(branch(JUMP_GREATER_OR_EQUAL, X32, search, vec![answer(Action::Errno(ENOSYS))]));
    } else {
        block.extend(search);
    }
    block
}

/// Where numbers begin that have the same answer, in order, from 0 on.
fn ranges(table: &Table, default: Action) -> Vec<(u32, Vec<SockFilter>)> {
    let otherwise = vec![answer(default)];
    let mut ranges: Vec<(u32, Vec<SockFilter>)> = vec![(0, otherwise.clone())];
    let mut put = |start: u32, body: Vec<SockFilter>| match ranges.last_mut() {
        Some((last, old)) if *last == start => *old = body,
        _ => ranges.push((start, body)),
    };
    for (number, rules) in &table.rules {
        put(*number, rule_bodies(rules, default));
        if let Some(next) = number.checked_add(1) {
            put(next, otherwise.clone());
        }
    }
    ranges.dedup_by(|next, previous| next.1 == previous.1);
    ranges
}

/// Finds the range of the number that is loaded.
fn search(ranges: &[(u32, Vec<SockFilter>)]) -> Vec<SockFilter> {
    let (left, right) = ranges.split_at(ranges.len() / 2);
    match right.first() {
        None => Vec::new(),
        Some((_, body)) if left.is_empty() => body.clone(),
        Some((start, _)) => branch(JUMP_GREATER_OR_EQUAL, *start, search(left), search(right)),
    }
}

/// The rules of one number: the strictest that matches answers.
fn rule_bodies(rules: &[Rule], default: Action) -> Vec<SockFilter> {
    let always = rules
        .iter()
        .filter(|rule| rule.conditions.is_empty())
        .map(|rule| rule.action)
        .reduce(|one, other| if other.strictness() > one.strictness() { other } else { one });
    let floor = always.map(Action::strictness);
    let mut conditional: Vec<&Rule> = rules
        .iter()
        .filter(|rule| {
            !rule.conditions.is_empty() && floor.is_none_or(|floor| rule.action.strictness() > floor)
        })
        .collect();
    // Stable: of two that are as strict as each other the first one answers.
    conditional.sort_by_key(|rule| std::cmp::Reverse(rule.action.strictness()));
    let mut body: Vec<SockFilter> = conditional.into_iter().flat_map(rule_body).collect();
    body.push(answer(always.unwrap_or(default)));
    body
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    /// So many instructions further.
    Skip(u8),
    /// Behind the rule.
    Fail,
}

struct Draft {
    code: u16,
    k: u32,
    yes: To,
    no: To,
}

/// One rule with conditions: its answer, or on to what follows.
fn rule_body(rule: &Rule) -> Vec<SockFilter> {
    let drafts: Vec<Draft> = rule.conditions.iter().flat_map(condition).collect();
    let total = drafts.len();
    let mut body: Vec<SockFilter> = Vec::with_capacity(total + 1);
    for (index, draft) in drafts.into_iter().enumerate() {
        // The answer stands behind the conditions, and "behind the rule" behind it. At most 16 conditions of at most 6.
        let fail = u8::try_from(total - index).unwrap_or(u8::MAX);
        let to = |to| match to {
            To::Skip(count) => count,
            To::Fail => fail,
        };
        body.push(SockFilter { code: draft.code, jt: to(draft.yes), jf: to(draft.no), k: draft.k });
    }
    body.push(answer(rule.action));
    body
}

/// One condition: what holds goes on behind it.
fn condition(condition: &Condition) -> Vec<Draft> {
    let at = ARGUMENTS_AT + 8 * u32::from(condition.argument);
    let (value_high, value_low) = halves(condition.value);
    let load = |k| Draft { code: LOAD, k, yes: To::Skip(0), no: To::Skip(0) };
    let and = |k| Draft { code: AND, k, yes: To::Skip(0), no: To::Skip(0) };
    let jump = |code, k, yes, no| Draft { code, k, yes, no };
    let (next, fail) = (To::Skip(0), To::Fail);
    let (high, low) = (load(at + 4), load(at));
    match condition.operator {
        Operator::Equal => {
            vec![high, jump(JUMP_EQUAL, value_high, next, fail), low, jump(JUMP_EQUAL, value_low, next, fail)]
        }
        Operator::NotEqual => {
            vec![
                high,
                jump(JUMP_EQUAL, value_high, next, To::Skip(2)),
                low,
                jump(JUMP_EQUAL, value_low, fail, next),
            ]
        }
        Operator::Greater | Operator::GreaterOrEqual => {
            let last =
                if condition.operator == Operator::Greater { JUMP_GREATER } else { JUMP_GREATER_OR_EQUAL };
            vec![
                high,
                jump(JUMP_GREATER, value_high, To::Skip(3), next),
                jump(JUMP_EQUAL, value_high, next, fail),
                low,
                jump(last, value_low, next, fail),
            ]
        }
        Operator::Less | Operator::LessOrEqual => {
            let last =
                if condition.operator == Operator::Less { JUMP_GREATER_OR_EQUAL } else { JUMP_GREATER };
            vec![
                high,
                jump(JUMP_GREATER, value_high, fail, next),
                jump(JUMP_EQUAL, value_high, next, To::Skip(2)),
                low,
                jump(last, value_low, fail, next),
            ]
        }
        Operator::Masked(mask) => {
            let (mask_high, mask_low) = halves(mask);
            vec![
                high,
                and(mask_high),
                jump(JUMP_EQUAL, value_high, next, fail),
                low,
                and(mask_low),
                jump(JUMP_EQUAL, value_low, next, fail),
            ]
        }
    }
}

/// Upper and lower half.
#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
