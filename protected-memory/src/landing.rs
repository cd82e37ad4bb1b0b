//! The landing file: where an artifact's plaintext becomes a file that one consumer can read and nobody can write.
//!
//! A [`Landing`] is one private tmpfs instance. While it is [`Filling`], its mount is attached nowhere: no path leads
//! to it and no mount table shows it. [`Landing::complete`] unmaps and closes every writer, remounts the *superblock*
//! read-only, which the kernel refuses while anyone can still write, and only then can the mount be attached.
//!
//! Dropped in any state, a landing is wiped. After SIGKILL the freed pages are the kernel's to clear.

mod attach;
mod complete;
mod error;
mod file;
mod host;
mod mount_table;
mod name;
mod plan;
mod policy;
mod preflight;
pub(crate) mod tmpfs;
mod window;

use std::fmt;
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::AsFd;

pub use attach::{AttachTarget, Attachment, DetachedMount};
pub use complete::{Complete, LandedBytes};
pub use error::LandingError;
pub use file::FillingFile;
pub(crate) use host::read_capped;
pub use host::{HostFacts, SwapTable};
pub use name::{FILE_NAME_MAX_BYTES, FileName};
pub use plan::{LANDING_MAX_FILES, LandingPlan};
pub use policy::{InsecureChoice, LandingPolicy, LandingReport, SwapPolicy, TeePolicy, TeeState};
pub use window::{Segments, Window};

use crate::sys::mapping::Mapping;
use crate::{HUGE_PAGE_BYTES, PageClass};
use tmpfs::{PrivateTmpfs, TmpfsOptions};

/// An artifact's files in protected memory, in the state `S`.
#[derive(Debug)]
pub struct Landing<S> {
    state: S,
    report: LandingReport,
}

/// The state in which files are written and invisible.
pub struct Filling {
    // Declared before the tmpfs: files are wiped and closed first.
    files: Vec<FillingFile>,
    tmpfs: PrivateTmpfs,
}

impl Landing<Filling> {
    /// Makes the files of the plan at their final sizes, invisible, after asking the machine whether they fit. What
    /// protects the machine's memory is for the caller to say.
    ///
    /// # Errors
    ///
    /// No active TEE, not enough memory, or swap, each without the choice that allows it; a kernel that refuses the
    /// mount (an ordinary user enters namespaces first, see [`crate::confine::enter_private_namespaces`]).
    pub fn create(plan: &LandingPlan, policy: LandingPolicy, tee: TeeState) -> Result<Self, LandingError> {
        Self::create_with_facts(plan, policy, tee, &HostFacts::read()?)
    }

    /// As [`Landing::create`], with facts about the machine that were read before.
    ///
    /// # Errors
    ///
    /// As [`Landing::create`].
    pub fn create_with_facts(
        plan: &LandingPlan,
        policy: LandingPolicy,
        tee: TeeState,
        facts: &HostFacts,
    ) -> Result<Self, LandingError> {
        preflight::before_mount(plan, policy, facts, tee)?;
        // One inode for the root, and room for what the kernel counts besides.
        let options = TmpfsOptions {
            size_bytes: plan.needed_bytes(),
            inodes: plan.files().len().saturating_add(8),
            for_plaintext: true,
        };
        let tmpfs = PrivateTmpfs::create(options)?;
        let noswap = tmpfs.granted().noswap;
        preflight::after_noswap(noswap, policy, facts)?;
        let files = plan
            .files()
            .iter()
            .map(|file| FillingFile::create(&tmpfs, file))
            .collect::<Result<Vec<_>, _>>()?;
        let huge = tmpfs.granted().huge && files.iter().all(|file| file.page_class() == PageClass::Huge2M);
        let report = LandingReport {
            page_class: if huge { PageClass::Huge2M } else { PageClass::Base4K },
            noswap,
            swap_areas: facts.swap().areas(),
            tee,
            insecure: preflight::insecure_in_effect(noswap, facts, tee),
        };
        Ok(Self { state: Filling { files, tmpfs }, report })
    }

    /// The files, in the order of the plan, each to be filled.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut FillingFile> {
        self.state.files.iter_mut()
    }

    /// One file, by its index in the plan.
    ///
    /// # Errors
    ///
    /// [`LandingError::UnknownFile`].
    pub fn file_mut(&mut self, index: usize) -> Result<&mut FillingFile, LandingError> {
        let count = self.state.files.len();
        self.state.files.get_mut(index).ok_or(LandingError::UnknownFile { index, count })
    }

    /// Ends writing for good: unmaps and closes every writer and makes the superblock read-only.
    ///
    /// Call it only when every byte is verified, and when every device has unmapped the files and said so.
    ///
    /// # Errors
    ///
    /// [`LandingError::DeviceKeepsMemory`] if anyone still has a writable descriptor or mapping,
    /// [`LandingError::DeviceChangedSize`] if a device changed the size of its file. After any error everything that
    /// had landed is wiped.
    pub fn complete(self) -> Result<Landing<Complete>, LandingError> {
        let Self { state: Filling { files, tmpfs }, report } = self;
        let count = files.len();
        // From here on the drop of `complete` wipes whatever was given up.
        let mut complete = Complete { files: Vec::with_capacity(count), tmpfs, wiped: false };
        for file in files {
            complete.files.push(file.give_up_writing()?);
        }
        // GUARD: superblock-read-only -> evil_device_keeps_descriptor_is_refused_and_wiped
        complete.tmpfs.make_read_only()?;
        for index in 0..count {
            complete.verify_file(index)?;
        }
        Ok(Landing { state: complete, report })
    }
}

impl Landing<Complete> {
    /// Attaches the landing at a directory of this thread's mount namespace and verifies the result in the mount table.
    ///
    /// # Errors
    ///
    /// The target is missing or has a symbolic link in its path, or another mount is found there afterwards.
    pub fn attach(&self, target: AttachTarget<'_>) -> Result<Attachment, LandingError> {
        self.mount()?.attach(target)
    }

    /// A mount of the landing that is attached nowhere yet.
    ///
    /// For a container: make it here, and attach it in a one-shot child that has entered the container's mount
    /// namespace.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn mount(&self) -> Result<DetachedMount, LandingError> {
        let mount = self.state.tmpfs.detached_clone().map_err(LandingError::mount("clone of the mount"))?;
        Ok(DetachedMount::new(mount))
    }

    /// Whether [`Self::mount`] gives any number of mounts. Kernels before 6.15 clone only what is attached in the caller's mount namespace:
    /// there one mount is to be had, and more once that one is attached in the caller's own.
    ///
    /// # Errors
    ///
    /// The kernel refuses for another reason.
    pub fn mounts_often(&self) -> Result<bool, LandingError> {
        self.state.tmpfs.clones_detached().map_err(LandingError::mount("clone of the mount"))
    }

    /// Opens a file for reading, for hashing or for handing the descriptor over.
    ///
    /// # Errors
    ///
    /// No such file, or the kernel refuses.
    pub fn open(&self, index: usize) -> Result<File, LandingError> {
        let record = self.state.record(index)?;
        let file = self
            .state
            .tmpfs
            .open_file(&record.name)
            .map_err(LandingError::system("opening of the landed file"))?;
        Ok(file.into())
    }

    /// Maps a file for reading, for example to hash it without a copy.
    ///
    /// # Errors
    ///
    /// No such file, or the kernel refuses.
    pub fn map(&self, index: usize) -> Result<LandedBytes<'_>, LandingError> {
        let record = self.state.record(index)?;
        let file = self.open(index)?;
        let failed = LandingError::system("mapping of the landed file");
        let mapping = match usize::try_from(record.size) {
            Ok(0) => None,
            Ok(len) => Some(Mapping::readable(file.as_fd(), len, HUGE_PAGE_BYTES).map_err(failed)?),
            Err(_) => return Err(failed(std::io::Error::from(std::io::ErrorKind::FileTooLarge))),
        };
        Ok(LandedBytes { mapping, landing: PhantomData })
    }

    /// Names and sizes of the files, in the order of the plan.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&FileName, u64)> {
        self.state.files.iter().map(|file| (&file.name, file.size))
    }

    /// Wipes the landing and gives its memory back. Readers that still have a file open or mapped see zeros.
    ///
    /// Dropping does the same and cannot say whether it succeeded.
    ///
    /// # Errors
    ///
    /// [`LandingError::WipeFailed`] if the superblock cannot be made writable again, for example because this process
    /// gave up its capabilities: the kernel then frees the pages as they are.
    pub fn release(mut self) -> Result<(), LandingError> {
        self.state.wipe()
    }
}

impl<S> Landing<S> {
    /// What the machine gave and which insecure choices had an effect.
    pub fn report(&self) -> &LandingReport {
        &self.report
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
