//! One file of a landing while it is filled, and what is known of it afterwards.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, fallocate, fchmod, fstat, ftruncate};
use rustix::io::{Errno, pwrite};

use super::plan::PlannedFile;
use super::tmpfs::PrivateTmpfs;
use super::window::{Segments, Window};
use super::{FileName, LandingError};
use crate::dma::DmaRegion;
use crate::sys::mapping::Mapping;
use crate::{HUGE_PAGE_BYTES, PageClass};

/// Room is taken from the kernel in pieces, so that a signal does not undo the work of seconds.
const ALLOCATION_PIECE_BYTES: u64 = 256 << 20;

/// A file that is being filled: by threads through windows, or by a device through its DMA region, never by both.
///
/// Dropped without completion, it is wiped.
pub struct FillingFile {
    name: FileName,
    size: u64,
    page_class: PageClass,
    file: OwnedFd,
    /// `None` for an empty file.
    mapping: Option<Mapping>,
    given_to_device: bool,
}

/// What stays of a file when its writers are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord {
    pub(crate) name: FileName,
    pub(crate) size: u64,
    /// A device had a writable descriptor and may have kept it.
    pub(crate) given_to_device: bool,
}

impl FillingFile {
    /// Makes the file at its final size, with all its room taken, and maps it.
    pub(crate) fn create(tmpfs: &PrivateTmpfs, plan: &PlannedFile) -> Result<Self, LandingError> {
        let file =
            tmpfs.create_file(&plan.name).map_err(LandingError::system("creation of the landing file"))?;
        ftruncate(&file, plan.size).map_err(LandingError::system("sizing of the landing file"))?;
        take_room(&file, plan.size)?;
        let stat = fstat(&file).map_err(LandingError::system("stat of the landing file"))?;
        // tmpfs states the huge page as its preferred block when it gives huge pages.
        let page_class = match usize::try_from(stat.st_blksize) {
            Ok(block) if block >= HUGE_PAGE_BYTES => PageClass::Huge2M,
            _ => PageClass::Base4K,
        };
        let len = usize::try_from(plan.size)
            .map_err(|_| LandingError::InvalidPlan { reason: "a file is larger than the address space" })?;
        let align = match page_class {
            PageClass::Base4K => 1,
            PageClass::Huge2M => HUGE_PAGE_BYTES,
        };
        let mapping = match len {
            0 => None,
            len => Some(
                Mapping::writable(file.as_fd(), len, align)
                    .map_err(LandingError::system("mapping of the landing file"))?,
            ),
        };
        Ok(Self {
            name: plan.name.clone(),
            size: plan.size,
            page_class,
            file,
            mapping,
            given_to_device: false,
        })
    }

    /// The name.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// The final size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The pages that the file system gives to this file.
    pub fn page_class(&self) -> PageClass {
        self.page_class
    }

    /// The whole file as one window.
    ///
    /// # Errors
    ///
    /// [`LandingError::FileGivenToDevice`] once [`Self::dma_region`] was called.
    pub fn window(&mut self) -> Result<Window<'_>, LandingError> {
        self.refuse_second_writer()?;
        Ok(Window::new(0, self.mapping.as_mut().map(Mapping::bytes_mut).unwrap_or_default()))
    }

    /// The file as disjoint windows of `segment_bytes` each, the last one shorter. Each can go to its own thread.
    ///
    /// # Errors
    ///
    /// [`LandingError::FileGivenToDevice`] once [`Self::dma_region`] was called; [`LandingError::InvalidPlan`] if the
    /// segment size is zero.
    pub fn segments(&mut self, segment_bytes: usize) -> Result<Segments<'_>, LandingError> {
        let segment = NonZeroUsize::new(segment_bytes)
            .ok_or(LandingError::InvalidPlan { reason: "the segment size is zero" })?;
        Ok(Segments::new(self.window()?, segment))
    }

    fn refuse_second_writer(&self) -> Result<(), LandingError> {
        // GUARD: one-kind-of-writer -> evil_device_file_is_refused_to_the_cpu
        if self.given_to_device {
            return Err(LandingError::FileGivenToDevice { name: self.name.to_string() });
        }
        Ok(())
    }

    /// What a device needs to write this file by DMA. From now on the CPU gets no window of it.
    ///
    /// The descriptor is writable and is meant for exactly one receiver, by `SCM_RIGHTS`. A receiver that keeps it, or
    /// a mapping of it, makes [`Landing::complete`](super::Landing::complete) fail with
    /// [`LandingError::DeviceKeepsMemory`]. Pins at an IOMMU are not seen there: unmap and confirm first.
    pub fn dma_region(&mut self) -> DmaRegion<'_> {
        self.given_to_device = true;
        let address = self.mapping.as_ref().map(Mapping::address);
        DmaRegion::new(self.file.as_fd(), 0, self.size, address, self.page_class)
    }

    /// Gives up every right to write: unmaps, closes, and leaves the file readable only.
    pub(crate) fn give_up_writing(mut self) -> Result<FileRecord, LandingError> {
        fchmod(&self.file, Mode::RUSR | Mode::RGRP | Mode::ROTH)
            .map_err(LandingError::system("change of the landing file's mode"))?;
        let Self { ref name, size, given_to_device, .. } = self;
        let record = FileRecord { name: name.clone(), size, given_to_device };
        // What landed must survive this value: without a mapping, and not a device's, its drop has nothing to wipe.
        self.mapping = None;
        self.given_to_device = false;
        Ok(record)
    }

    fn wipe(&mut self) {
        // A device can shorten a file that it was given: touching the mapping would then kill this process.
        if self.given_to_device {
            let _ = wipe_through_descriptor(&self.file, self.size);
        } else if let Some(mapping) = self.mapping.as_mut() {
            mapping.wipe();
        }
    }
}

impl Drop for FillingFile {
    fn drop(&mut self) {
        // GUARD: wipe-on-drop -> dropped_landing_is_wiped
        self.wipe();
    }
}

impl std::fmt::Debug for FillingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FillingFile")
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn take_room(file: &OwnedFd, size: u64) -> Result<(), LandingError> {
    let mut offset = 0;
    while offset < size {
        let piece = ALLOCATION_PIECE_BYTES.min(size - offset);
        match fallocate(file, FallocateFlags::empty(), offset, piece) {
            Ok(()) => offset += piece,
            Err(Errno::INTR) => {}
            Err(error) => return Err(LandingError::system("allocation of the landing file")(error)),
        }
    }
    Ok(())
}

/// Overwrites with zero by writing, which cannot fault. Covers what a receiver may have added behind the end.
pub(crate) fn wipe_through_descriptor(file: &OwnedFd, size: u64) -> Result<(), Errno> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let end = fstat(file).map_or(size, |stat| u64::try_from(stat.st_size).unwrap_or(size).max(size));
    let mut offset = 0;
    while offset < end {
        let piece = usize::try_from(end - offset).unwrap_or(usize::MAX).min(ZEROS.len());
        match pwrite(file, ZEROS.get(..piece).unwrap_or(ZEROS), offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => offset += written as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
