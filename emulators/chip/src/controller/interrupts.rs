//! MSI-X vectors as eventfds of the client.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chip_client::abi::MSIX_VECTORS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

#[derive(Debug, Default)]
struct Vector {
    event: Option<OwnedFd>,
    masked: bool,
    /// Fired while it could not be delivered; delivered as soon as it can.
    pending: bool,
}

impl Vector {
    fn deliver(&mut self) {
        match &self.event {
            Some(event) if !self.masked => {
                self.pending = false;
                // A full counter means that the client has not looked yet: the interrupt is there. Whatever the client passed as
                // an event, writing to it must not block the device.
                let mut ready = [PollFd::new(event, PollFlags::OUT)];
                if poll(&mut ready, Some(&Timespec::default())) == Ok(1) {
                    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
                }
            }
            _ => self.pending = true,
        }
    }
}

/// The two vectors.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    vectors: Mutex<[Vector; MSIX_VECTORS as usize]>,
}

impl Interrupts {
    fn vectors(&self) -> MutexGuard<'_, [Vector; MSIX_VECTORS as usize]> {
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(&self, start: u32, count: u32, mut act: impl FnMut(&mut Vector, usize)) -> Result<(), Errno> {
        let mut vectors = self.vectors();
        let start = usize::try_from(start).map_err(|_large| Errno::INVAL)?;
        let end =
            usize::try_from(count).ok().and_then(|count| start.checked_add(count)).ok_or(Errno::INVAL)?;
        let range = vectors.get_mut(start..end).ok_or(Errno::INVAL)?;
        for (index, vector) in range.iter_mut().enumerate() {
            act(vector, index);
        }
        Ok(())
    }

    /// Fires a vector.
    pub(crate) fn raise(&self, vector: u16) {
        // Vectors of the device itself exist.
        let _ = self.each(vector.into(), 1, |vector, _| vector.deliver());
    }

    /// Fires those of `count` vectors that `select` names.
    pub(crate) fn trigger(
        &self,
        start: u32,
        count: u32,
        select: impl Fn(usize) -> bool,
    ) -> Result<(), Errno> {
        self.each(start, count, |vector, index| {
            if select(index) {
                vector.deliver();
            }
        })
    }

    /// Attaches descriptors, or detaches where there is none. A pending interrupt fires at once.
    pub(crate) fn arm(&self, start: u32, count: u32, events: Vec<OwnedFd>) -> Result<(), Errno> {
        let mut events = events.into_iter();
        self.each(start, count, |vector, _| {
            vector.event = events.next();
            if vector.pending && vector.event.is_some() {
                vector.deliver();
            }
        })
    }

    pub(crate) fn mask(
        &self,
        start: u32,
        count: u32,
        masked: bool,
        select: impl Fn(usize) -> bool,
    ) -> Result<(), Errno> {
        self.each(start, count, |vector, index| {
            if select(index) {
                vector.masked = masked;
                if vector.pending && !masked {
                    vector.deliver();
                }
            }
        })
    }

    /// The pending bits, as the PBA has them: bit v is vector v.
    pub(crate) fn pending(&self) -> u64 {
        self.vectors().iter().rev().fold(0, |bits, vector| bits << 1 | u64::from(vector.pending))
    }

    /// Detaches every descriptor. What is pending stays so: a client that changes the number of vectors disables all and arms anew.
    pub(crate) fn disarm_all(&self) {
        for vector in self.vectors().iter_mut() {
            *vector = Vector { pending: vector.pending, ..Vector::default() };
        }
    }

    pub(crate) fn forget_pending(&self) {
        for vector in self.vectors().iter_mut() {
            vector.pending = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn count(event: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        match rustix::io::read(event, &mut bytes) {
            Ok(_) => u64::from_ne_bytes(bytes),
            Err(_) => 0,
        }
    }

    #[test]
    fn an_interrupt_before_arming_fires_on_arming() {
        let interrupts = Interrupts::default();
        interrupts.raise(1);
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        interrupts.arm(1, 1, vec![event.try_clone().unwrap()]).unwrap();
        assert_eq!(count(&event), 1);
        interrupts.arm(1, 1, vec![]).unwrap();
        interrupts.raise(1);
        assert_eq!(count(&event), 0);
        interrupts.arm(0, 2, vec![]).unwrap();
        interrupts.arm(1, 1, vec![event.try_clone().unwrap()]).unwrap();
        assert_eq!(count(&event), 1);
    }

    #[test]
    fn disabling_all_keeps_what_is_pending() {
        let interrupts = Interrupts::default();
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        interrupts.mask(0, 1, true, |_| true).unwrap();
        interrupts.raise(0);
        interrupts.disarm_all();
        interrupts.arm(0, 1, vec![event.try_clone().unwrap()]).unwrap();
        assert_eq!((count(&event), interrupts.pending()), (1, 0), "and the mask is gone");
    }

    #[test]
    fn masked_vectors_wait() {
        let interrupts = Interrupts::default();
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        interrupts.arm(0, 1, vec![event.try_clone().unwrap()]).unwrap();
        interrupts.mask(0, 2, true, |index| index == 0).unwrap();
        interrupts.raise(0);
        assert_eq!((count(&event), interrupts.pending()), (0, 0b01));
        interrupts.raise(1);
        assert_eq!(interrupts.pending(), 0b11);
        interrupts.mask(0, 1, false, |_| true).unwrap();
        assert_eq!((count(&event), interrupts.pending()), (1, 0b10));
    }

    #[test]
    fn evil_event_that_is_full_does_not_block_the_device() {
        let interrupts = Interrupts::default();
        let event = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let (_reader, pipe) = rustix::pipe::pipe().unwrap();
        rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK).unwrap();
        while rustix::io::write(&pipe, &[0; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::empty()).unwrap();
        interrupts.arm(0, 2, vec![event, pipe]).unwrap();
        interrupts.raise(0);
        interrupts.raise(1);
    }

    #[test]
    fn ranges_outside_the_vectors_are_refused() {
        let interrupts = Interrupts::default();
        for (start, count) in [(2, 1), (0, 3), (u32::MAX, 1), (1, u32::MAX)] {
            assert_eq!(interrupts.arm(start, count, vec![]), Err(Errno::INVAL));
        }
    }
}
