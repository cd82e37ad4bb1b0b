//! The strict parser: recursive descent over UTF-8 text with a depth cap.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{MAXIMUM_NESTING, MAXIMUM_NUMBER, Name, Value};
use crate::error::{ArtifactError, Found, limit};

/// Parses one value that fills `bytes` but for white space around it.
pub(super) fn strict(what: &'static str, bytes: &[u8]) -> Result<Value, ArtifactError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ArtifactError::Malformed {
        what,
        expected: "UTF-8",
        found: Found::value(format_args!("other bytes at offset {}", error.valid_up_to())),
    })?;
    let mut parser = Parser { what, text, position: 0, depth: 0 };
    parser.skip_white_space();
    let value = parser.value()?;
    parser.skip_white_space();
    // GUARD: trailing-bytes -> evil_trailing_bytes_are_refused
    if parser.position != text.len() {
        return Err(parser.malformed("nothing after the value"));
    }
    Ok(value)
}

struct Parser<'a> {
    what: &'static str,
    text: &'a str,
    position: usize,
    depth: u64,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Value, ArtifactError> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'0'..=b'9') => self.number(),
            _ if self.eat_word("true") => Ok(Value::Bool(true)),
            _ if self.eat_word("false") => Ok(Value::Bool(false)),
            _ => Err(self.malformed("an object, array, string, boolean or non-negative integer")),
        }
    }

    fn nested(
        &mut self,
        parse: fn(&mut Self) -> Result<Value, ArtifactError>,
    ) -> Result<Value, ArtifactError> {
        self.depth += 1;
        limit("nesting", 0, MAXIMUM_NESTING, self.depth)?;
        self.position += 1;
        let value = parse(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, ArtifactError> {
        let mut members = BTreeMap::new();
        self.skip_white_space();
        if self.eat(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_white_space();
            let name = Name(self.string()?);
            self.skip_white_space();
            self.demand(b':', "a colon")?;
            self.skip_white_space();
            let value = self.value()?;
            match members.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    let found = Found::value(format_args!("member \"{}\" twice", entry.key().0));
                    entry.insert(value);
                    let duplicate =
                        ArtifactError::Malformed { what: self.what, expected: "each member once", found };
                    // GUARD: duplicate-member -> evil_duplicate_members_are_refused
                    refuse(duplicate)?;
                }
            }
            self.skip_white_space();
            if self.eat(b'}') {
                return Ok(Value::Object(members));
            }
            self.demand(b',', "a comma or the end of the object")?;
        }
    }

    fn array(&mut self) -> Result<Value, ArtifactError> {
        let mut items = Vec::new();
        self.skip_white_space();
        if self.eat(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_white_space();
            items.push(self.value()?);
            self.skip_white_space();
            if self.eat(b']') {
                return Ok(Value::Array(items));
            }
            self.demand(b',', "a comma or the end of the array")?;
        }
    }

    fn number(&mut self) -> Result<Value, ArtifactError> {
        let expected = "an integer up to 2^53-1 without leading zero, fraction or exponent";
        let start = self.position;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        let digits = self.text.get(start..self.position).unwrap_or_default();
        let malformed = || ArtifactError::Malformed { what: self.what, expected, found: Found::text(digits) };
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        if leading_zero || matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(malformed());
        }
        match digits.parse::<u64>() {
            Ok(number) if number <= MAXIMUM_NUMBER => Ok(Value::Number(number)),
            _ => Err(malformed()),
        }
    }

    fn string(&mut self) -> Result<String, ArtifactError> {
        self.demand(b'"', "a string")?;
        let mut out = String::new();
        loop {
            let Some(character) = self.rest().chars().next() else {
                return Err(self.malformed("the end of the string"));
            };
            match character {
                '"' => {
                    self.position += 1;
                    return Ok(out);
                }
                '\\' => {
                    self.position += 1;
                    out.push(self.escape()?);
                }
                '\0'..='\u{1f}' => return Err(self.malformed("control characters escaped")),
                other => {
                    self.position += other.len_utf8();
                    out.push(other);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, ArtifactError> {
        let Some(kind) = self.peek() else {
            return Err(self.malformed("an escape"));
        };
        self.position += 1;
        let character = match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.malformed("an escape of RFC 8259")),
        };
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, ArtifactError> {
        let first = self.code_unit()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) && self.eat(b'\\') && self.eat(b'u') {
            units.push(self.code_unit()?);
        }
        let mut decoded = char::decode_utf16(units);
        match (decoded.next(), decoded.next()) {
            (Some(Ok(character)), None) => Ok(character),
            _ => Err(self.malformed("paired surrogates")),
        }
    }

    fn code_unit(&mut self) -> Result<u16, ArtifactError> {
        let digits =
            self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.malformed("four hex digits"))?;
        self.position += 4;
        Ok(unit)
    }

    fn rest(&self) -> &str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        self.position += if found { word.len() } else { 0 };
        found
    }

    fn demand(&mut self, byte: u8, expected: &'static str) -> Result<(), ArtifactError> {
        if self.eat(byte) { Ok(()) } else { Err(self.malformed(expected)) }
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
    }

    fn malformed(&self, expected: &'static str) -> ArtifactError {
        let found = match self.rest().chars().next() {
            Some(character) => Found::value(format_args!("'{character}' at byte {}", self.position)),
            None => Found::value(format_args!("the end at byte {}", self.position)),
        };
        ArtifactError::Malformed { what: self.what, expected, found }
    }
}

/// An error as a result, for a check whose condition is the place where it stands.
fn refuse(error: ArtifactError) -> Result<(), ArtifactError> {
    Err(error)
}
