//! Devices, gzip streams and annotations with initdata. No byte of a device is read twice, nothing is taken beside one whole
//! member, and what one carrier gives the others give too.

#![no_main]

use std::cell::RefCell;
use std::io;

use fuzz::bounded;
use initdata::{Device, HEADER_BYTES, Header, MAXIMUM_TEXT_BYTES, Packed, Unverified};
use libfuzzer_sys::fuzz_target;

/// A few bytes may become a whole document; its buffer grows by doubling.
const INFLATED: usize = 3 * MAXIMUM_TEXT_BYTES / 256;

struct Watched<'a> {
    bytes: &'a [u8],
    next: RefCell<u64>,
}

impl Device for Watched<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(offset >= *self.next.borrow(), "a byte was read twice");
        // Short reads, as devices may do them.
        let most = buffer.len().min(4_093);
        let count = self.bytes.read_at(offset, &mut buffer[..most])?;
        *self.next.borrow_mut() = offset + count as u64;
        Ok(count)
    }
}

fn device(bytes: &[u8]) -> Option<Unverified> {
    let watched = Watched { bytes, next: RefCell::new(0) };
    bounded(bytes.len() + INFLATED, || Unverified::from_device(&watched)).ok()
}

fn imaged(stream: &[u8]) -> Vec<u8> {
    [b"initdata".as_slice(), &(stream.len() as u64).to_le_bytes(), stream].concat()
}

/// What has to hold for a stream that was taken.
fn taken(stream: &[u8], text: &Unverified) {
    assert!(text.as_bytes().len() <= MAXIMUM_TEXT_BYTES);
    assert_eq!(device(&imaged(stream)).as_ref(), Some(text));
    let middle = stream.len() / 2;
    for shorter in [&stream[..stream.len() - 1], &stream[..middle]] {
        assert!(Unverified::from_gzip(shorter).is_err(), "a prefix was taken");
    }
    for behind in [&b"\0"[..], stream] {
        assert!(Unverified::from_gzip(&[stream, behind].concat()).is_err(), "something behind it was taken");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    match mode % 4 {
        0 => {
            let Some(text) = device(data) else { return };
            let header = data.first_chunk::<HEADER_BYTES>().and_then(Header::parse).expect("a header");
            let end = HEADER_BYTES + usize::try_from(header.length()).expect("below the cap");
            taken(&data[HEADER_BYTES..end], &text);
        }
        1 => {
            let Ok(text) = bounded(data.len() + INFLATED, || Unverified::from_gzip(data)) else { return };
            taken(data, &text);
        }
        2 => {
            let Ok(annotation) = std::str::from_utf8(data) else { return };
            let _ = bounded(data.len() + INFLATED, || Unverified::from_annotation(annotation));
        }
        _ => {
            // A good device, altered: the same text, or none.
            let text = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"policy.rego\" = \"p\"\n";
            let packed = Packed::exact(text.to_owned()).expect("a good document");
            let mut image = packed.image();
            for edit in data.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % image.len();
                image[at] ^= edit[2];
            }
            if let Some(found) = device(&image) {
                assert_eq!(found.as_bytes(), text.as_bytes());
            }
        }
    }
});
