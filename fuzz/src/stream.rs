//! Hostile choices drawn from the fuzzer's bytes, one after another; zeros when they run out.

/// A source of choices.
#[derive(Debug)]
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Draws from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// At most `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Alters bytes until no choice is left: position (2 bytes), kind, value.
    pub fn edit(&mut self, bytes: &mut Vec<u8>) {
        while !self.is_empty() {
            let at = usize::from(self.u16()) % bytes.len().max(1);
            match self.u8() % 4 {
                0 => bytes.insert(at, self.u8()),
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => {
                    let byte = self.u8();
                    bytes.iter_mut().skip(at).take(1).for_each(|b| *b = byte);
                }
                _ => {
                    let bit = self.u8() % 8;
                    bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << bit);
                }
            }
        }
    }
}
