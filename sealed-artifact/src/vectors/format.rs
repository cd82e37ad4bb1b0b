//! The text form of vectors, inclusion and mutation.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

const LISTS: [&str; 5] = ["blob", "floor", "grant", "mutate", "pin"];

/// Members of a vector; lists have several values.
#[derive(Clone, Debug, Default)]
pub(super) struct Vector {
    members: BTreeMap<String, Vec<String>>,
    /// Byte members after mutation.
    bytes: BTreeMap<String, Vec<u8>>,
}

impl Vector {
    pub(super) fn parse(text: &str, files: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut vector = Self::default();
        vector.read(text, files)?;
        vector.decode()?;
        Ok(vector)
    }

    fn read(&mut self, text: &str, files: &BTreeMap<String, String>) -> Result<(), String> {
        let body = text.strip_suffix("\n\n").ok_or("no empty line at the end")?;
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = match line.strip_suffix(':') {
                Some(name) => (name, ""),
                None => line.split_once(": ").ok_or_else(|| format!("no member in {line:.40}"))?,
            };
            if name == "include" {
                let text = files.get(value).ok_or_else(|| format!("no file {value}"))?;
                self.read(text, files)?;
            } else if value.is_empty() {
                self.members.remove(name);
            } else if LISTS.contains(&name) {
                self.members.entry(name.to_owned()).or_default().push(value.to_owned());
            } else {
                self.members.insert(name.to_owned(), vec![value.to_owned()]);
            }
        }
        Ok(())
    }

    fn decode(&mut self) -> Result<(), String> {
        for (name, values) in &self.members {
            for (index, value) in values.iter().enumerate() {
                let key =
                    if LISTS.contains(&name.as_str()) { format!("{name}.{index}") } else { name.clone() };
                if is_bytes(name) {
                    let encoded = if value == "=" { "" } else { value };
                    let decoded = BASE64.decode(encoded).map_err(|_| format!("{name}: no base64"))?;
                    self.bytes.insert(key, decoded);
                }
            }
        }
        Ok(())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.first().map(String::as_str)
    }

    pub(super) fn list(&self, name: &str) -> &[String] {
        self.members.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.bytes.get(name).map(Vec::as_slice)
    }

    /// The byte values of a list member.
    pub(super) fn byte_list(&self, name: &str) -> Vec<&[u8]> {
        (0..).map_while(|index| self.bytes(&format!("{name}.{index}"))).collect()
    }

    /// The vectors that this one stands for, mutated.
    pub(super) fn expand(&self) -> Box<dyn Iterator<Item = Self> + '_> {
        let mut base = self.clone();
        let mut every = None;
        for mutation in self.list("mutate") {
            let words: Vec<&str> = mutation.split(' ').collect();
            match *words.as_slice() {
                [kind @ ("every-bit" | "every-prefix"), member] => every = Some((kind, member)),
                _ => mutate(&mut base.bytes, &words),
            }
        }
        let Some((kind, member)) = every else {
            return Box::new(std::iter::once(base));
        };
        let length = base.bytes[member].len();
        let variants = if kind == "every-bit" { length * 8 } else { length };
        Box::new((0..variants).map(move |variant| {
            let mut vector = base.clone();
            let bytes = vector.bytes.get_mut(member).unwrap();
            match kind {
                "every-bit" => bytes[variant / 8] ^= 1 << (variant % 8),
                _ => bytes.truncate(variant),
            }
            vector
        }))
    }
}

fn is_bytes(name: &str) -> bool {
    let exact = ["blob", "core", "file", "grant", "index", "object", "preimage", "signature"].contains(&name);
    let numbered = ["payload.", "tags."].iter().any(|prefix| name.starts_with(prefix));
    exact || numbered
}

fn mutate(bytes: &mut BTreeMap<String, Vec<u8>>, words: &[&str]) {
    let number = |word: &str| word.parse::<usize>().unwrap();
    match *words {
        ["flip", member, bit] => {
            let bit = number(bit);
            bytes.get_mut(member).unwrap()[bit / 8] ^= 1 << (bit % 8);
        }
        ["truncate", member, length] => bytes.get_mut(member).unwrap().truncate(number(length)),
        ["append", member, hex] => bytes.get_mut(member).unwrap().extend(hex::decode(hex).unwrap()),
        ["fill", member, length] => bytes.get_mut(member).unwrap().resize(number(length), 0),
        ["replace", member, offset, hex] => {
            let (offset, new) = (number(offset), hex::decode(hex).unwrap());
            bytes.get_mut(member).unwrap()[offset..offset + new.len()].copy_from_slice(&new);
        }
        ["swap", member, a, b, length] => {
            let (a, b, length) = (number(a), number(b), number(length));
            let bytes = bytes.get_mut(member).unwrap();
            let first = bytes[a..a + length].to_vec();
            bytes.copy_within(b..b + length, a);
            bytes[b..b + length].copy_from_slice(&first);
        }
        ["copy", member, offset, from, from_offset, length] => {
            let (offset, from_offset, length) = (number(offset), number(from_offset), number(length));
            let new = bytes[from][from_offset..from_offset + length].to_vec();
            bytes.get_mut(member).unwrap()[offset..offset + length].copy_from_slice(&new);
        }
        _ => panic!("unknown mutation {words:?}"),
    }
}

/// Writes a vector line by line.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn new(comment: &str, expect: &str) -> Self {
        Self::default().line("comment", comment).line("expect", expect)
    }

    /// A vector on top of a fixture.
    pub(super) fn on(fixture: &str, comment: &str, expect: &str) -> Self {
        Self::default().line("include", fixture).line("comment", comment).line("expect", expect)
    }

    pub(super) fn line(mut self, name: &str, value: &str) -> Self {
        assert!(!value.is_empty() && !value.contains('\n'), "{name}");
        self.0 += &format!("{name}: {value}\n");
        self
    }

    pub(super) fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() { self.line(name, "=") } else { self.line(name, &BASE64.encode(value)) }
    }

    pub(super) fn remove(mut self, name: &str) -> Self {
        self.0 += &format!("{name}:\n");
        self
    }

    pub(super) fn mutate(self, mutation: &str) -> Self {
        self.line("mutate", mutation)
    }

    pub(super) fn text(self) -> String {
        self.0 + "\n"
    }
}
