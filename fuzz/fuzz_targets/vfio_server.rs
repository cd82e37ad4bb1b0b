//! The emulator's vfio-user server against a hostile client: messages, descriptors, registers, rings, and the workers behind them.
//!
//! Input, per message: kind (1 byte: how much of the header is mended, descriptor, pause), command (1), length (2), body.

#![no_main]
#![allow(dead_code, missing_docs, unfulfilled_lint_expectations, unreachable_pub, unused_imports)]

#[path = "../../emulators/chip/src/appraise/mod.rs"]
mod appraise;
#[path = "../../emulators/chip/src/controller/mod.rs"]
mod controller;
#[path = "../../emulators/chip/src/dma/mod.rs"]
mod dma;
#[path = "../../emulators/chip/src/faults.rs"]
mod faults;
#[path = "../../emulators/chip/src/firmware/mod.rs"]
mod firmware;
#[path = "../../emulators/chip/src/identity/mod.rs"]
mod identity;
#[path = "../../emulators/chip/src/puf/mod.rs"]
mod puf;
#[path = "../../emulators/chip/src/release.rs"]
mod release;
#[path = "../../emulators/chip/src/session/mod.rs"]
mod session;
#[path = "../../emulators/chip/src/sys/mod.rs"]
mod sys;
#[path = "../../emulators/chip/src/unseal/mod.rs"]
mod unseal;
#[path = "../../emulators/chip/src/vfio_user/mod.rs"]
mod vfio_user;

/// The emulator's log, silent here.
mod log {
    pub(crate) fn note(_line: &str) {}
}

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chip_client::vfio_user::wire::{FLAG_COMMAND, HEADER_LEN, Header};
use controller::{Controller, Power};
use evidence::verify::roots::Roots;
use faults::Faults;
use firmware::Modes;
use fuzz::stream::Choices;
use identity::StateDirectory;
use libfuzzer_sys::fuzz_target;
use puf::noise::Probability;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vfio_user::{Connection, Server};

struct Device {
    controller: Arc<Controller>,
    memory: OwnedFd,
    // The chip's own memory is written here when it is provisioned.
    _directory: tempfile::TempDir,
}

const MEMORY: u64 = 1 << 20;

static DEVICE: LazyLock<Device> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let state = StateDirectory::open(directory.path()).expect("a state directory");
    state.manufacture().expect("a chip");
    let noise = Probability::new(0.015).expect("a rate");
    let modes = Modes { no_evidence: true, emulated_dma: true };
    let (silicon, helper) = (state.silicon(noise).expect("silicon"), state.helper().expect("helper data"));
    let roots = Arc::new(Roots::builtin().expect("roots"));
    let power = Power::new(silicon, helper, state.nvm().expect("memory"), modes, roots);
    let (controller, _workers) = Controller::start(power, Arc::new(Faults::default()));
    let memory = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a memory file");
    ftruncate(&memory, MEMORY).expect("its size");
    Device { controller, memory, _directory: directory }
});

fuzz_target!(|data: &[u8]| {
    let device = &*DEVICE;
    let Ok((ours, theirs)) = UnixStream::pair() else { return };
    let Ok(mut drain) = ours.try_clone() else { return };
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            send(&ours, data, &device.memory);
            let _ = ours.shutdown(std::net::Shutdown::Write);
        });
        let reader = scope.spawn(move || {
            let mut sink = [0; 65_536];
            while drain.read(&mut sink).is_ok_and(|n| n > 0) {}
        });
        let connection = Connection::new(OwnedFd::from(theirs), None);
        Server::new(Arc::clone(&device.controller)).serve(&connection);
        drop(connection);
        // The end of a scope does not wait for the end of its threads, and what they still own would count as leaked.
        sender.join().expect("the sender");
        reader.join().expect("the reader");
    });
});

fn send(socket: &UnixStream, data: &[u8], memory: &OwnedFd) {
    let mut choices = Choices::new(data);
    while !choices.is_empty() {
        let kind = choices.u8();
        if kind & 0xC0 == 0xC0 {
            // Time for the workers to look at the rings.
            std::thread::sleep(Duration::from_micros(20 << (kind & 3)));
            continue;
        }
        if kind & 0x80 != 0 {
            // Ring memory and command bytes, as a client changes them under the device.
            let at = u64::from(choices.u16()) * 8;
            let length = usize::from(choices.u8());
            let _ = rustix::io::pwrite(memory, choices.bytes(length), at % MEMORY);
            continue;
        }
        let command = choices.u8();
        let length = usize::from(choices.u16() % 600);
        let body = choices.bytes(length);
        let header = Header {
            message_id: 1,
            command: if kind & 0x20 != 0 { u16::from(command) << 8 } else { u16::from(command % 20) },
            message_size: if kind & 0x1F == 0x1F { choices.u32() } else { (HEADER_LEN + body.len()) as u32 },
            flags: if kind & 0x10 != 0 { choices.u32() } else { FLAG_COMMAND },
            error: 0,
        };
        let message = [header.encode().as_slice(), body].concat();
        let descriptors = vec![memory.as_fd(); usize::from(kind & 7)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(7))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            match sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    rest = rest.get(n..).unwrap_or_default();
                    control.clear();
                }
                Err(_) => return,
            }
        }
    }
}
