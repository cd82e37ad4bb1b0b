//! The child's side: it gets its job, gives everything else up, and only then reads the first byte of a layer.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use protected_memory::confine::{WorkerLimits, become_worker};
use protected_memory::harden::harden_process;

use super::channel::{Mark, read_job, receive};
use super::{DESCRIPTORS, USER};
use crate::image::layer::LayerError;
use crate::image::layer::confine::{self, Job};

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
        Some(receive(&self.0, Mark::Layer).and_then(|found| {
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
        let (job, mut answer) = (read_job(job)?, File::from(answer));
        let limits = WorkerLimits {
            file_bytes: job.limits.content_bytes,
            memory_bytes: job.limits.memory_bytes(),
            descriptors: DESCRIPTORS,
        };
        // GUARD: unpacker-confined -> evil_layer_takes_over_the_process_that_unpacks
        if let Err(source) = become_worker(objects.as_fd(), USER, &limits) {
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
