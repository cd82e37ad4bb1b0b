//! What the value of a builtin takes at most, in bytes, known before it is made.

use regorus::Value;

/// A value in a list: itself, and the counts in front of shared text.
const ITEM: usize = 64;

/// An upper bound for `name` of these arguments; other kinds of arguments make no value.
pub(super) fn of(name: &str, arguments: &[Value]) -> usize {
    match (name, arguments) {
        ("array.concat", [Value::Array(left), Value::Array(right)]) => {
            left.len().saturating_add(right.len()).saturating_mul(size_of::<Value>())
        }
        ("bits.lsh", [Value::Number(_), Value::Number(by)]) => {
            by.as_u64().map_or(usize::MAX, |by| size(by / 8))
        }
        ("concat", [Value::String(delimiter), Value::Array(parts)]) => {
            joined(delimiter, parts.iter(), parts.len())
        }
        ("concat", [Value::String(delimiter), Value::Set(parts)]) => {
            joined(delimiter, parts.iter(), parts.len())
        }
        ("numbers.range" | "numbers.range_step", [Value::Number(from), Value::Number(to), step @ ..]) => {
            // A step of zero is a division by zero in the evaluator.
            let steps = matches!(step, [] | [Value::Number(_)])
                && step.iter().all(|step| matches!(step, Value::Number(by) if by.as_i64() != Some(0)));
            match (from.as_i64(), to.as_i64()) {
                (Some(from), Some(to)) if steps => {
                    size(from.abs_diff(to)).saturating_add(1).saturating_mul(size_of::<Value>())
                }
                (None, _) | (_, None) if steps && !(from.is_integer() && to.is_integer()) => 0,
                _ => usize::MAX,
            }
        }
        ("regex.replace", [Value::String(text), _, Value::String(with)]) => {
            let each = with.len().saturating_add(with.matches('$').count().saturating_mul(text.len()));
            text.len().saturating_add(1).saturating_mul(each).saturating_add(text.len())
        }
        ("regex.split", [_, Value::String(text)])
        | ("regex.find_n" | "regex.find_all_string_submatch_n", [_, Value::String(text), _]) => {
            text.len().saturating_add(1).saturating_mul(ITEM)
        }
        ("replace", [Value::String(subject), Value::String(old), Value::String(new)]) => {
            of_replace(subject, old, new)
        }
        ("split", [Value::String(text), Value::String(delimiter)]) => text
            .matches(delimiter.as_ref())
            .count()
            .saturating_add(2)
            .saturating_mul(ITEM)
            .saturating_add(text.len()),
        ("sprintf", [Value::String(format), Value::Array(values)]) => {
            let width = format
                .split(|letter: char| !letter.is_numeric())
                .map(|digits| if digits.is_empty() { 0 } else { digits.parse().unwrap_or(usize::MAX) })
                .fold(0_usize, usize::saturating_add);
            let all = values.iter().map(printed).fold(0_usize, usize::saturating_add);
            format.len().saturating_add(width).saturating_add(all)
        }
        ("strings.replace_n", [Value::Object(pairs), Value::String(text)]) => {
            let mut made = text.to_string();
            let mut cost = made.len();
            for (old, new) in pairs.iter_sorted() {
                let (Value::String(old), Value::String(new)) = (old, new) else { return cost };
                cost = cost.saturating_add(of_replace(&made, old, new));
                if cost > LARGE {
                    return cost;
                }
                made = made.replace(old.as_ref(), new);
            }
            cost
        }
        _ => 0,
    }
}

/// More than any budget is not worth being made to be counted.
const LARGE: usize = 16 << 20;

/// What `replace` makes.
pub(super) fn of_replace(subject: &str, old: &str, new: &str) -> usize {
    if new.len() <= old.len() {
        return subject.len();
    }
    let found = subject.matches(old).count();
    subject.len().saturating_add(found.saturating_mul(new.len().saturating_sub(old.len())))
}

fn joined<'a>(delimiter: &str, parts: impl Iterator<Item = &'a Value>, count: usize) -> usize {
    parts.map(printed).fold(delimiter.len().saturating_mul(count), usize::saturating_add)
}

/// The text of a value, roughly and not less.
fn printed(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len().saturating_add(2),
        Value::Array(items) => {
            items.iter().map(printed).fold(2_usize, |sum, item| sum.saturating_add(item).saturating_add(2))
        }
        Value::Set(items) => {
            items.iter().map(printed).fold(2_usize, |sum, item| sum.saturating_add(item).saturating_add(2))
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| printed(key).saturating_add(printed(value)))
            .fold(2_usize, |sum, field| sum.saturating_add(field).saturating_add(4)),
        _ => ITEM,
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
