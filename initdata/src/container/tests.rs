use std::cell::RefCell;

use super::*;
use crate::pack::Package;
use crate::register::Algorithm;

/// A device that writes down what was read, and may change or fail between reads.
struct Watched {
    bytes: RefCell<Vec<u8>>,
    reads: RefCell<Vec<(u64, usize)>>,
    /// Most bytes of one read.
    most: usize,
    /// After so many reads the device is another one.
    swap: Option<(usize, Vec<u8>)>,
    /// From this offset on reads fail.
    broken_from: u64,
}

impl Watched {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: RefCell::new(bytes),
            reads: RefCell::default(),
            most: usize::MAX,
            swap: None,
            broken_from: u64::MAX,
        }
    }
}

impl Device for Watched {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some((after, other)) = &self.swap
            && self.reads.borrow().len() == *after
        {
            self.bytes.replace(other.clone());
        }
        if offset >= self.broken_from {
            return Err(io::Error::from_raw_os_error(5));
        }
        let most = buffer.len().min(self.most);
        let count = self.bytes.borrow().as_slice().read_at(offset, &mut buffer[..most])?;
        self.reads.borrow_mut().push((offset, count));
        Ok(count)
    }
}

fn package(policy: &str) -> crate::pack::Packed {
    let mut package = Package::new(Algorithm::Sha256);
    package.insert("policy.rego", policy).unwrap();
    package.pack().unwrap()
}

fn code(device: &impl Device) -> &'static str {
    Unverified::from_device(device).map_or_else(|error| error.code(), |_| "OK")
}

#[test]
fn a_device_is_read_in_pieces_of_any_size() {
    let packed = package("package agent_policy\n");
    for most in [1, 7, 512] {
        let device = Watched { most, ..Watched::new(packed.image()) };
        assert_eq!(Unverified::from_device(&device).unwrap().as_bytes(), packed.text().as_bytes());
    }
}

#[test]
fn evil_host_lying_length() {
    let image = package("p").image();
    for length in [MAXIMUM_GZIP_BYTES as u64 + 1, u64::MAX] {
        let mut lies = image.clone();
        lies[8..16].copy_from_slice(&length.to_le_bytes());
        let device = Watched::new(lies);
        assert_eq!(code(&device), "INITDATA_TOO_LARGE");
        assert_eq!(*device.reads.borrow(), [(0, HEADER_BYTES)], "nothing was read for it");
    }
}

#[test]
fn evil_host_short_device() {
    let image = package("p").image();
    let stream = usize::try_from(u64::from_le_bytes(image[8..16].try_into().unwrap())).unwrap();
    for length in 0..HEADER_BYTES + stream {
        assert_eq!(code(&&image[..length]), "INITDATA_CONTAINER", "{length} bytes");
    }
    // A device that ends right after a whole member which its header says is longer.
    let mut longer = image[..HEADER_BYTES + stream].to_vec();
    longer[8..16].copy_from_slice(&(stream as u64 + 1).to_le_bytes());
    let error = Unverified::from_device(&longer.as_slice()).unwrap_err();
    assert!(error.to_string().contains("as many bytes as the header says"), "{error}");
}

#[test]
fn evil_host_swaps_the_device_between_reads() {
    let (launched, other) = (package("launched"), package("another, and longer"));
    let register = crate::Register::new("HOST_DATA", &launched.digest().fitted(32)).unwrap();
    // Swapped after the header, or after some of the stream.
    for (most, after) in [(usize::MAX, 1), (8, 2), (8, 5)] {
        let swap = Some((after, other.image()));
        let device = Watched { most, swap, ..Watched::new(launched.image()) };
        let result = Unverified::from_device(&device).and_then(|text| text.bind(&register));
        let code = result.map_or_else(|error| error.code(), |_| "OK");
        assert!(["INITDATA_CONTAINER", "INITDATA_MISMATCH"].contains(&code), "{code}");
    }
    // What was read is kept: the same device, swapped after the last byte, still gives what was launched.
    let device = Watched { swap: Some((2, other.image())), ..Watched::new(launched.image()) };
    let text = Unverified::from_device(&device).unwrap();
    let mut next = [0; 1];
    device.read_at(0, &mut next).unwrap();
    assert_eq!(text.bind(&register).unwrap().document().policy(), Some("launched"));
    // No byte was read twice.
    let reads = device.reads.borrow();
    let length = launched.image()[8] as usize;
    assert_eq!(reads[..2], [(0, HEADER_BYTES), (16, length)]);
}

#[test]
fn evil_host_device_that_fails() {
    let image = package("p").image();
    for (broken_from, expected) in [(0, "INITDATA_IO"), (20, "INITDATA_IO"), (8192, "OK")] {
        let device = Watched { broken_from, most: 4, ..Watched::new(image.clone()) };
        assert_eq!(code(&device), expected, "from {broken_from} on");
    }
}

#[test]
fn evil_host_bomb() {
    let bomb = |length: usize| {
        let stream = gzip::deflate(&vec![0; length]).unwrap();
        assert!(stream.len() < length / 500);
        Unverified::from_gzip(&stream).map(|text| text.as_bytes().len())
    };
    assert_eq!(bomb(MAXIMUM_TEXT_BYTES).unwrap(), MAXIMUM_TEXT_BYTES);
    assert_eq!(bomb(MAXIMUM_TEXT_BYTES + 1).unwrap_err().code(), "INITDATA_TOO_LARGE");
    let error = bomb(200 * 1024 * 1024).unwrap_err();
    assert!(error.to_string().contains("after inflating"), "{error}");
}

#[test]
fn evil_host_second_member() {
    let first = gzip::deflate(b"first").unwrap();
    for second in [gzip::deflate(b"second").unwrap(), gzip::deflate(b"").unwrap()] {
        let error = Unverified::from_gzip(&[first.clone(), second].concat()).unwrap_err();
        assert_eq!(error.code(), "INITDATA_CONTAINER");
    }
    assert_eq!(Unverified::from_gzip(&first).unwrap().as_bytes(), b"first");
}

#[test]
fn evil_host_trailing_bytes() {
    let stream = gzip::deflate(b"text").unwrap();
    for trailing in [&b"\0"[..], b"x", &[0; 512]] {
        let error = Unverified::from_gzip(&[stream.as_slice(), trailing].concat()).unwrap_err();
        assert_eq!(error.code(), "INITDATA_CONTAINER");
    }
}

#[test]
fn evil_host_oversize_stream() {
    // A member whose name alone is longer than a stream may be.
    let mut stream = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff".to_vec();
    stream.resize(MAXIMUM_GZIP_BYTES + 1, b'n');
    assert_eq!(Unverified::from_gzip(&stream).unwrap_err().code(), "INITDATA_TOO_LARGE");
}

#[test]
fn evil_host_oversize_annotation() {
    let error = Unverified::from_annotation(&"A".repeat(6 * 1024 * 1024)).unwrap_err();
    assert_eq!(error.code(), "INITDATA_TOO_LARGE");
    assert!(error.to_string().contains("annotation"), "{error}");
}
