//! Who unpacks: a process that knows nothing but one image, and can reach nothing at all.
//!
//! ```text
//!  pull ── socket: job, an empty directory, a pipe for the answer; then one read-only descriptor for each layer ──▶ child, confined:
//!    │      blobs are fed by a thread that hashes (and decrypts) them on the way; what landed is memory that nobody writes          │
//!    ◀── answer: a tree, or a refusal ──────────────────────────────────────────────────────────────────────────────────────────────┘
//!    └─▶ child killed and gone ─▶ its directory read-only ─▶ every object hashed ─▶ the tree's own digest, pins
//! ```
//!
//! This is the child's side: it gets its job, gives everything else up, and only then reads the first byte of a layer. Who starts it is told
//! in [`worker`](crate::worker). There is no way to unpack in the process that asked.
//!
//! A blob may lie on a disk of the host. So its bytes reach the child through a pipe, while the other side hashes them: what the host altered after
//! the blob was verified can take over the child, and its tree is thrown away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use protected_memory::confine::{WorkerKind, WorkerLimits, become_worker};
use protected_memory::harden::harden_process;

use crate::image::layer::LayerError;
use crate::image::layer::confine::{self, Job};
use crate::worker::channel::{Mark, read_job, receive};

/// User and group of children: nobody else's.
const USER: u32 = 0x7ffe_4b55;
/// Descriptors of a child at a time: streams, socket, directory, answer, a layer, an object, and some more.
const DESCRIPTORS: u64 = 32;
/// Longest job: 512 layers with two digests' worth of digits each.
const JOB_BYTES_MAX: u64 = 1 << 20;

/// A child that has its job and nothing else any more.
#[derive(Debug)]
pub struct Confined {
    /// What it is to do.
    pub job: Job,
    /// The bytes of its layers, one after the other.
    pub layers: Layers,
    /// Its root, which is the directory of its objects.
    pub objects: OwnedFd,
    /// Where it answers.
    pub answer: File,
}

/// The descriptors of layers, as they are asked for.
#[derive(Debug)]
pub struct Layers(OwnedFd);

impl Iterator for Layers {
    type Item = io::Result<File>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(receive(&self.0, Mark::Next).and_then(|found| {
            found.into_iter().next().map(File::from).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }))
    }
}

impl Confined {
    /// Receives a job and becomes what works on it. A process that has only one thread, and no descriptor but this one and standard streams.
    ///
    /// # Errors
    ///
    /// Without a job there is nobody to tell. Who asked is told why there is no confinement.
    pub fn begin(socket: OwnedFd) -> io::Result<Self> {
        harden_process().map_err(io::Error::other)?;
        let mut found = receive(&socket, Mark::Job)?.into_iter();
        let (Some(job), Some(objects), Some(answer)) = (found.next(), found.next(), found.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (job, mut answer) = (read_job::<Job>(job, JOB_BYTES_MAX)?, File::from(answer));
        let limits = WorkerLimits {
            file_bytes: job.limits.content_bytes,
            memory_bytes: job.limits.memory_bytes(),
            descriptors: DESCRIPTORS,
        };
        // GUARD: unpacker-confined -> evil_layer_takes_over_the_process_that_unpacks
        if let Err(source) = become_worker(objects.as_fd(), USER, WorkerKind::Files, &limits) {
            confine::refuse(&LayerError::Confinement(source), &mut answer)?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self { job, layers: Layers(socket), objects, answer })
    }

    /// Unpacks, and answers. Returns the exit status.
    #[must_use]
    pub fn run(self) -> i32 {
        let Self { job, layers, objects, mut answer } = self;
        i32::from(confine::run(&job, layers, objects, &mut answer).is_err())
    }
}

/// All that a child does with the socket of its parent. Returns the exit status; why is the answer's to say.
#[must_use]
pub fn run(socket: OwnedFd) -> i32 {
    Confined::begin(socket).map_or(1, Confined::run)
}
