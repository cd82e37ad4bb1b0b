//! Disjoint writable pieces of a landing file.

use std::fmt;
use std::num::NonZeroUsize;

/// A piece of a landing file that one thread fills.
///
/// It has no `Clone` and prints no contents. While one lives, the landing cannot be completed.
pub struct Window<'a> {
    offset: u64,
    bytes: &'a mut [u8],
}

impl<'a> Window<'a> {
    pub(crate) fn new(offset: u64, bytes: &'a mut [u8]) -> Self {
        Self { offset, bytes }
    }

    /// Where the window begins in its file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the window has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes. An AEAD opens straight into them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Splits off the first `len` bytes; `None` if the window is shorter.
    pub fn split_front(&mut self, len: usize) -> Option<Self> {
        if len > self.bytes.len() {
            return None;
        }
        let (front, rest) = std::mem::take(&mut self.bytes).split_at_mut(len);
        let window = Self { offset: self.offset, bytes: front };
        self.offset += len as u64;
        self.bytes = rest;
        Some(window)
    }
}

impl fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("offset", &self.offset)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The windows of one file, in order.
#[derive(Debug)]
pub struct Segments<'a> {
    rest: Window<'a>,
    segment: NonZeroUsize,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(whole: Window<'a>, segment: NonZeroUsize) -> Self {
        Self { rest: whole, segment }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Window<'a>;

    fn next(&mut self) -> Option<Window<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let len = self.segment.get().min(self.rest.len());
        self.rest.split_front(len)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.rest.len().div_ceil(self.segment.get());
        (count, Some(count))
    }
}

impl ExactSizeIterator for Segments<'_> {}

#[cfg(test)]
mod tests;
