//! The vfio-user client against a hostile server: every byte that the server sends is the fuzzer's, headers are mended or not.
//!
//! Input: per reply one byte (0: bytes as they are; else header mended), a length, bytes.

#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use chip_client::backing::{DeviceBacking, DmaAccess, Iova};
use chip_client::vfio_user::VfioUserDevice;
use chip_client::vfio_user::VfioUserTimeouts;
use chip_client::vfio_user::wire::{FLAG_ERROR, FLAG_REPLY, HEADER_LEN, Header};
use fuzz::stream::Choices;
use libfuzzer_sys::fuzz_target;
use protected_memory::dma::{DmaBuffer, Shared, SharedMemoryProvider};

fuzz_target!(|data: &[u8]| {
    let Ok((ours, theirs)) = UnixStream::pair() else { return };
    let script = data.to_vec();
    let server = std::thread::spawn(move || serve(theirs, &script));
    drive(ours);
    server.join().expect("the hostile server");
});

fn drive(stream: UnixStream) {
    let timeouts = VfioUserTimeouts { reply: Duration::from_millis(5) };
    let Ok(device) = VfioUserDevice::from_stream(stream, timeouts) else { return };
    let _ = device.presence();
    if let Ok(bar) = device.map_bar(0) {
        let _ = (bar.size(), bar.read32(0), bar.write32(0x10, 1));
    }
    if let Ok(vectors) = device.interrupts(2) {
        assert_eq!(vectors.len(), 2);
        let _ = vectors[0].wait(Duration::ZERO);
    }
    if let Ok(buffer) = DmaBuffer::<Shared>::allocate(SharedMemoryProvider::Emulated, 4_096)
        && device.dma().map(Iova(1 << 21), &buffer.region(), DmaAccess::ReadWrite).is_ok()
    {
        let _ = device.dma().unmap(Iova(1 << 21), 4_096);
    }
    let _ = device.reset();
}

/// Answers each request with the next piece of the script; closes when it runs out.
fn serve(mut stream: UnixStream, script: &[u8]) {
    let mut choices = Choices::new(script);
    let mut head = [0; HEADER_LEN];
    while !choices.is_empty() && stream.read_exact(&mut head).is_ok() {
        let Ok(request) = Header::parse(&head) else { return };
        let mut body = vec![0; request.body_len()];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let kind = choices.u8();
        let length = usize::from(choices.u16() % 4_200);
        let reply = match kind % 8 {
            0 => choices.bytes(length).to_vec(),
            // The request itself as the reply: what a benign server does for most commands, then altered.
            1..=5 => {
                let mut reply = body;
                let changes = choices.bytes(length % 40);
                let at = usize::from(kind >> 3);
                for (byte, change) in reply.iter_mut().skip(at).zip(changes) {
                    *byte ^= change;
                }
                framed(request, 0, &[reply.as_slice(), if kind % 8 == 5 { &[0; 8] } else { &[] }].concat())
            }
            6 => framed(request, FLAG_ERROR, choices.bytes(length)),
            _ => framed(request, 0, choices.bytes(length)),
        };
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

fn framed(request: Header, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = Header {
        message_size: (HEADER_LEN + body.len()) as u32,
        flags: FLAG_REPLY | flags,
        error: 22,
        ..request
    };
    [header.encode().as_slice(), body].concat()
}
