//! Finds where one Rust statement ends: enough of a lexer for that, no more.

use anyhow::bail;

/// The byte range of the first statement in `text`, comments and blank space before it left out.
///
/// Refused, because they cannot be taken out: a `let` (what follows needs its name; but `let _ = …` and a name bound
/// anew from itself, `let x = x.filter(…);`, can go), an item, and an expression
/// without `;` at the end of a block (it is the block's value).
pub fn first(text: &str) -> anyhow::Result<std::ops::Range<usize>> {
    let mut lexer = Lexer { text, at: 0 };
    lexer.skip_blank();
    let start = lexer.at;
    let rest = text.get(start..).unwrap_or_default();
    let head = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    if (head == "let" && !binds_nothing_new(rest))
        || matches!(head, "fn" | "pub" | "impl" | "struct" | "enum" | "use" | "const" | "static" | "mod")
    {
        bail!("a `{head}` cannot be taken out; write the guard as a statement of its own");
    }
    let block_like =
        matches!(head, "if" | "match" | "for" | "while" | "loop" | "unsafe") || rest.starts_with('{');
    let mut depth = 0_usize;
    while let Some(token) = lexer.next() {
        match token {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 0 => break,
            b')' | b']' => depth -= 1,
            b'}' => {
                depth -= 1;
                if depth == 0 && block_like && lexer.ends_a_block() {
                    return Ok(start..lexer.at);
                }
            }
            b';' if depth == 0 => return Ok(start..lexer.at),
            _ => {}
        }
    }
    bail!("the guard is a block's value, not a statement: end it with `?;` or `return Err(…)` inside an `if`")
}

/// Whether a `let` can be left out: it binds nothing, or a name that the initialiser itself uses.
fn binds_nothing_new(text: &str) -> bool {
    let Some((pattern, rest)) = text.trim_start_matches("let").split_once('=') else { return false };
    let name = pattern.trim().trim_start_matches("mut ").trim();
    let initialiser = rest.split(';').next().unwrap_or_default();
    let mut words = initialiser.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    name == "_" || words.any(|word| word == name && !word.is_empty())
}

/// Walks over code bytes, skipping comments, strings and character literals.
struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn byte(&self, offset: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + offset).copied()
    }

    /// Blank space and comments.
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            if self.rest().starts_with("//") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if self.rest().starts_with("/*") {
                self.skip_block_comment();
            } else if blank == 0 {
                return;
            }
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
            } else if self.byte(0).is_some() {
                self.at += 1;
                while !self.text.is_char_boundary(self.at) {
                    self.at += 1;
                }
            }
            if depth == 0 || self.byte(0).is_none() {
                return;
            }
        }
    }

    /// The next byte of code; a literal counts as one byte.
    fn next(&mut self) -> Option<u8> {
        self.skip_blank();
        let byte = self.byte(0)?;
        match byte {
            b'"' => self.skip_string(),
            b'r' | b'b' | b'c' if self.starts_raw_string() => self.skip_raw_string(),
            b'\'' => self.skip_quote(),
            _ if byte.is_ascii_alphanumeric() || byte == b'_' => {
                while self.byte(0).is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80) {
                    self.at += 1;
                }
                // `b"…"` and `c"…"`: the quote is met next.
            }
            _ => self.at += self.rest().chars().next().map_or(1, char::len_utf8),
        }
        Some(byte)
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.byte(0) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }

    fn starts_raw_string(&self) -> bool {
        let rest = self.rest().trim_start_matches(['b', 'c']);
        let Some(rest) = rest.strip_prefix('r') else { return false };
        rest.trim_start_matches('#').starts_with('"') && self.rest().len() - rest.len() <= 2
    }

    fn skip_raw_string(&mut self) {
        let Some(quote) = self.rest().find('"') else { return };
        let hashes = self.rest().get(..quote).unwrap_or_default().matches('#').count();
        let end = format!("\"{}", "#".repeat(hashes));
        let body = self.rest().get(quote + 1..).unwrap_or_default();
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        self.at += quote + 1 + length;
    }

    /// A character literal, or the tick of a lifetime.
    fn skip_quote(&mut self) {
        self.at += 1;
        let rest = self.rest();
        if rest.starts_with('\\') {
            let escaped = rest.get(2..).and_then(|rest| rest.find('\'')).map_or(rest.len(), |at| at + 3);
            self.at += escaped;
        } else {
            let mut characters = rest.chars();
            let first = characters.next().map_or(0, char::len_utf8);
            if characters.next() == Some('\'') {
                self.at += first + 1;
            }
        }
    }

    /// After a closing brace: whether the statement ends here (no `else`, no method call, no `?` on its value).
    fn ends_a_block(&self) -> bool {
        let mut ahead = Lexer { text: self.text, at: self.at };
        ahead.skip_blank();
        let rest = ahead.rest();
        let continues = rest.starts_with("else") || rest.starts_with(['.', '?', ';', ')', ',']);
        // `if x == (Foo { .. }) {` has its braces in parentheses; a `{` right behind a block starts another statement.
        !continues
    }
}

#[cfg(test)]
mod tests {
    use super::first;

    fn statement(text: &str) -> String {
        match first(text) {
            Ok(range) => text.get(range).unwrap_or_default().to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn an_if_ends_at_its_brace() {
        let guard = "if a != b {\n    return Err(Error::Bad { x: 1 });\n}";
        assert_eq!(statement(&format!("  {guard}\n    next();")), guard);
    }

    #[test]
    fn an_else_belongs_to_its_if() {
        let guard = "if a { x() } else if b { y() } else { z() }";
        assert_eq!(statement(&format!("{guard}\nnext();")), guard);
    }

    #[test]
    fn a_call_ends_at_its_semicolon() {
        let guard = "verify(&key, |c| { c == ';' }, \"}; \\\" {\")\n    .map_err(|_| Error::Forged)?;";
        assert_eq!(statement(&format!("{guard} next();")), guard);
    }

    #[test]
    fn literals_and_comments_hide_their_brackets() {
        for guard in [
            "check('{', '\\'', '\\u{7d}', b'}');",
            "check::<'a>(r#\"}\"; {\"#, br\"{\", b\"{\");",
            "check(/* } /* ; */ } */ x); ",
            "check( // }\n x);",
            "check(\"ä}\", 'ä');",
        ] {
            assert_eq!(statement(&format!("{guard} next();")), guard.trim_end());
        }
    }

    #[test]
    fn comments_before_the_statement_are_skipped() {
        assert_eq!(statement("// why\n/* and */ ensure(x)?;"), "ensure(x)?;");
    }

    #[test]
    fn a_match_whose_value_is_questioned_goes_on() {
        let guard = "match x { A => Ok(()), B => Err(E) }?;";
        assert_eq!(statement(&format!("{guard} next();")), guard);
    }

    #[test]
    fn loops_and_if_let_with_closures_are_whole() {
        for guard in [
            "for s in list { if s.bad() { return Err(E); } }",
            "if let Some(x) = list.iter().find(|s| { s.bad() }) { return Err(E(x)); }",
            "if !matches!(x, Foo { .. }) { return Err(E); }",
        ] {
            assert_eq!(statement(&format!("{guard}\nOk(())")), guard);
        }
    }

    #[test]
    fn what_cannot_be_taken_out_is_refused() {
        assert!(statement("let x = verify()?;").starts_with("error: a `let`"));
        assert_eq!(statement("let _ = self.wipe(); next();"), "let _ = self.wipe();");
        assert_eq!(statement("let x = x.filter(|_| n < 3); next(x);"), "let x = x.filter(|_| n < 3);");
        assert!(statement("let x = xx.filter(); next(x);").starts_with("error: a `let`"));
        assert!(statement("let _x = verify()?;").starts_with("error: a `let`"));
        assert!(statement("let Some(x) = y else { return Err(E) };").starts_with("error: a `let`"));
        assert!(statement("verify(x)\n}").starts_with("error: the guard is a block's value"));
    }
}
