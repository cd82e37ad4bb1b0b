//! Words of a line, where every reader of it finds the same ones.

#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) is_quoted: bool,
}

impl<'a> Word<'a> {
    /// The word, if the programs could take it for an option.
    pub(super) fn option(&self) -> Option<&'a str> {
        Some(self.text).filter(|text| text.starts_with('-'))
    }
}

/// Words between blanks; one in quotes may hold some. `None` where a quote begins or ends inside of a word, or holds nothing.
pub(super) fn words(line: &str) -> Option<Vec<Word<'_>>> {
    let is_blank = |letter: char| matches!(letter, ' ' | '\t');
    let (mut words, mut rest) = (Vec::new(), line.trim_start_matches(is_blank));
    while !rest.is_empty() {
        let (text, more, is_quoted) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (text, more) = quoted.split_once('"')?;
                (text, more, true)
            }
            None => {
                let end = rest.find(is_blank).unwrap_or(rest.len());
                let (text, more) = rest.split_at_checked(end)?;
                (text, more, false)
            }
        };
        let is_whole = more.is_empty() || more.starts_with(is_blank);
        // GUARD: filter-words -> evil_host_filter_text_that_two_read_differently
        if !is_whole || text.is_empty() || !is_quoted && text.contains('"') {
            return None;
        }
        words.push(Word { text, is_quoted });
        rest = more.trim_start_matches(is_blank);
    }
    Some(words)
}
