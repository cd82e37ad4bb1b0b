//! The log: lines on standard error. Callers pass no secrets, tokens, keys or session ids.
#![expect(clippy::print_stderr, reason = "the log of a command-line program")]

/// Longest line.
const MAXIMUM_CHARACTERS: usize = 600;

/// One line; control characters are escaped, what is too long is cut.
pub(crate) fn note(line: &str) {
    eprintln!("innerkeep-key-broker: {}", printable(line, MAXIMUM_CHARACTERS));
}

/// Text from outside, made fit for one line.
pub(crate) fn printable(text: &str, maximum: usize) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] };
    let mut characters = text.chars().flat_map(escape);
    let mut shown: String = characters.by_ref().take(maximum).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(printable("a\nb\u{1b}[2J", 100), "a\\nb\\u{1b}[2J");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
