//! `overlayfs`: layers on top of each other, each one a directory that the host may use.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use protocol::ids::ContainerId;
use rustix::fs::{FileType, Mode, fstat};

use super::beneath::{Beneath, by_number};
use super::mount::Detached;
use super::options::name;
use super::place::Place;
use super::request::Request;
use super::steps::{Step, Steps};
use super::{Site, StorageError, VerifiedRoot};

/// Layer and work directory are the agent's own, in the container's directory.
const WRITABLE: &str = "io.katacontainers.fs-opt.overlay-rw";
/// A directory that is made first.
pub(super) const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory";
/// More layers than the kernel takes.
const MAXIMUM_LAYERS: usize = 500;
const MAXIMUM_DIRECTORIES: usize = 16;
/// Parameters that change how layers are read, not which ones.
const KEYS: [&str; 9] =
    ["index", "xino", "redirect_dir", "metacopy", "nfs_export", "userxattr", "volatile", "uuid", "verity"];
/// Those under which a single verified layer still is what it was.
const PLAIN_KEYS: [&str; 3] = ["index", "xino", "volatile"];

/// What is on top of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    /// The topmost first.
    lower: Vec<Place>,
    upper: Upper,
    create: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Upper {
    /// Nothing is written.
    None,
    /// Two directories of the host's choice.
    Given { upper: Place, work: Place },
    /// New ones in the container's directory, which the host does not reach.
    Own { upper: PathBuf, work: PathBuf },
}

impl Layers {
    /// Takes the layers out of the options.
    pub(super) fn take(
        words: &mut Vec<&str>,
        driver_options: &[String],
        container: Option<&ContainerId>,
    ) -> Result<Self, StorageError> {
        let refuse = |option: &str, expected| StorageError::Option { option: option.to_owned(), expected };
        let is_layer = |word: &&mut &str| {
            matches!(name(word), "lowerdir" | "lowerdir+" | "datadir+" | "upperdir" | "workdir" | WRITABLE)
        };
        let (mut lower, mut upper, mut work, mut own) = (Vec::new(), None, None, false);
        for word in words.extract_if(.., |word| is_layer(&word)) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                // Two colons would begin layers of data without names, which nobody sends.
                "lowerdir" if lower.is_empty() && !value.contains("::") && !value.contains('\\') => {
                    for path in value.split(':').take(MAXIMUM_LAYERS + 1) {
                        lower.push(Place::parse(path, container)?);
                    }
                }
                "upperdir" if upper.is_none() => upper = Some(Place::parse(value, container)?),
                "workdir" if work.is_none() => work = Some(Place::parse(value, container)?),
                WRITABLE => own = true,
                _ => return Err(refuse(key, "one list of layers, one upper layer, one work directory")),
            }
        }
        if lower.is_empty() || lower.len() > MAXIMUM_LAYERS {
            return Err(refuse("lowerdir", "1 to 500 layers"));
        }
        let upper = match (upper, work, own, container) {
            (None, None, false, _) => Upper::None,
            (Some(upper), Some(work), false, _) => Upper::Given { upper, work },
            (None, None, true, Some(id)) => {
                let own = PathBuf::from(id.as_str());
                Upper::Own { upper: own.join("upper"), work: own.join("work") }
            }
            _ => return Err(refuse("upperdir", "with workdir, or a container's own")),
        };
        let create = driver_options.iter().filter_map(|option| option.split_once('='));
        let create = create.filter(|(key, _)| *key == CREATE_DIRECTORY).take(MAXIMUM_DIRECTORIES + 1);
        let create = create.map(|(_, path)| Place::parse(path, container)).collect::<Result<Vec<_>, _>>()?;
        if create.len() > MAXIMUM_DIRECTORIES {
            return Err(refuse(CREATE_DIRECTORY, "at most 16"));
        }
        Ok(Self { lower, upper, create })
    }

    /// The one layer below, if nothing else can change what is seen but the container itself.
    fn single(&self) -> Option<&Place> {
        match (self.lower.as_slice(), &self.upper) {
            ([lower], Upper::None | Upper::Own { .. }) => Some(lower),
            _ => None,
        }
    }
}

pub(super) async fn make(
    site: &Site<'_>,
    request: &Request,
    steps: &mut Steps,
) -> Result<Option<VerifiedRoot>, StorageError> {
    request.expect_type("overlayfs", &["overlay", "overlayfs"], "overlay")?;
    request.options.only(&KEYS, "those of overlay")?;
    let Some(layers) = request.overlay.clone() else {
        return Err(StorageError::Option { option: "lowerdir".to_owned(), expected: "1 to 500 layers" });
    };
    let root = layers.single().and_then(|lower| site.inner.table().verified_at(lower));
    let root = root.filter(|_| request.options.only(&PLAIN_KEYS, "").is_ok());
    let request = request.clone();
    steps.blocking(move |steps| mount(&request, &layers, steps)).await?;
    Ok(root)
}

fn mount(request: &Request, layers: &Layers, steps: &mut Steps) -> Result<(), StorageError> {
    for place in &layers.create {
        steps.make_directory(place)?;
    }
    // Held open until the kernel has them: it is given numbers of open files, not names that somebody may change.
    let mut held = Vec::new();
    let mut options = request.options.clone();
    let mut opened = |steps: &Steps, place: &Place| -> Result<String, StorageError> {
        let directory = open(steps, place)?;
        let path = by_number(&directory).display().to_string();
        held.push(directory);
        Ok(path)
    };
    let mut values = Vec::new();
    for place in &layers.lower {
        values.push(opened(steps, place)?);
    }
    let mut parameters = lower_parameters(&values);
    match &layers.upper {
        Upper::None => options.read_only = true,
        Upper::Given { upper, work } => {
            parameters.push(("upperdir".to_owned(), opened(steps, upper)?));
            parameters.push(("workdir".to_owned(), opened(steps, work)?));
        }
        Upper::Own { upper, work } => {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                new_directory(path, steps)?;
                parameters.push((key.to_owned(), opened(steps, &Place::own(path.clone()))?));
            }
        }
    }
    options.values.splice(0..0, parameters);
    let mounted = Detached::new("overlay", "overlay", &options)?;
    drop(held);
    steps.attach(mounted, &request.place)
}

/// One list where it fits into a parameter, which every kernel takes; else one parameter for each, which kernels take since 6.8.
fn lower_parameters(layers: &[String]) -> Vec<(String, String)> {
    let list = layers.join(":");
    if list.len() <= 255 {
        return vec![("lowerdir".to_owned(), list)];
    }
    layers.iter().map(|layer| ("lowerdir+".to_owned(), layer.clone())).collect()
}

fn open(steps: &Steps, place: &Place) -> Result<OwnedFd, StorageError> {
    let at = place.on_the_wire();
    let opened = Beneath::open(steps.run()).and_then(|root| root.directory(place.as_path()));
    let directory = opened.map_err(StorageError::io("open layer", &at))?;
    let found = fstat(&directory).map_err(StorageError::errno("open layer", &at))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(StorageError::Place { place: at.display().to_string(), reason: "expected a directory" });
    }
    Ok(directory)
}

/// A directory that was not there before: what is in an upper layer is seen instead of what is verified.
fn new_directory(path: &std::path::Path, steps: &mut Steps) -> Result<(), StorageError> {
    let at = Place::own(path.to_owned()).on_the_wire();
    let failed = |error: std::io::Error| StorageError::io("make", &at)(error);
    if let Some(parent) = path.parent() {
        steps.make_directory(&Place::own(parent.to_owned()))?;
    }
    let root = Beneath::open(steps.run()).map_err(failed)?;
    let (parent, name) = root.parent(path).map_err(failed)?;
    // GUARD: upper-layer-is-new -> evil_host_prepares_the_upper_layer
    rustix::fs::mkdirat(&parent, name, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH)
        .map_err(|error| failed(error.into()))?;
    steps.push(Step::Tree(path.to_owned()));
    Ok(())
}
