//! Zstandard streams (RFC 8878): any number of frames, skippable ones among them, and nothing else behind.
//!
//! Memory: one window, at most as large as the limit, one block of 128 KiB, and the sequences of a block, at most 98,303 of 12 bytes. Checksums of frames are not compared: the digest of all
//! expanded bytes is.

use std::io::{BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::LayerError;
use super::error::Bound;

/// The frames of a stream, decoded.
pub(super) struct Frames<R> {
    input: R,
    decoder: FrameDecoder,
    state: State,
    window: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In front of the first frame: a stream has one at least.
    Start,
    /// In a frame.
    Within,
    /// Behind a frame.
    Between,
}

impl<R: BufRead> Frames<R> {
    /// Windows of frames are at most so large, in bytes.
    pub(super) fn new(input: R, window: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        // GUARD: layer-zstd-window -> evil_zstd_window
        decoder.set_max_window_size(window);
        Self { input, decoder, state: State::Start, window }
    }

    /// Some bytes; none at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.state != State::Within && !self.begin()? {
                return Ok(0);
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer).map_err(|error| damaged(&error));
            }
            if self.decoder.is_finished() {
                self.state = State::Between;
                continue;
            }
            let one = BlockDecodingStrategy::UptoBlocks(1);
            self.decoder.decode_blocks(&mut self.input, one).map_err(|error| damaged(&error))?;
        }
    }

    /// Begins the next frame. Whether there is one.
    fn begin(&mut self) -> Result<bool, LayerError> {
        loop {
            if self.input.fill_buf().map_err(LayerError::Read)?.is_empty() {
                return match self.state {
                    State::Start => Err(damaged(&"an empty stream")),
                    _ => Ok(false),
                };
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => {
                    self.state = State::Within;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped =
                        std::io::copy(&mut (&mut self.input).take(length.into()), &mut std::io::sink())
                            .map_err(LayerError::Read)?;
                    if skipped != u64::from(length) {
                        return Err(damaged(&"a skippable frame that is cut off"));
                    }
                    // What is skipped is no content.
                }
                Err(FrameDecoderError::WindowSizeTooBig { .. }) => {
                    return Err(LayerError::bound(Bound::Window, "bytes in a window of zstd", self.window));
                }
                Err(error) => return Err(damaged(&error)),
            }
        }
    }
}

fn damaged(error: &dyn std::fmt::Display) -> LayerError {
    LayerError::Compressed { format: "zstd", found: error.to_string() }
}
