//! `image_guest_pull`: a root that this guest pulls itself, as bound configuration permits; for the sandbox's own container it is the pause
//! program of the measured image, and nothing is pulled.
//!
//! ```text
//!  CreateContainer ─▶ one name, in every place where it stands? ─▶ hub: attested? policy, layers, pins, measured ─▶ Pulled
//!                                                                     in nobody's way: no lock is held, and no mount is made
//!  storages ─▶ Pulled ─▶ mounted detached: verified tree, a layer of this container's above it ─▶ attached
//! ```
//! Arguments, environment, directory and user are those of the request, which the policy judged; of the image's own configuration nothing is
//! taken, as upstream takes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cdh::image::pull::Pulled;
use protocol::agent::Storage;
use protocol::ids::ContainerId;
use serde::Deserialize;
use tokio::time::Instant;

use super::mount::Detached;
use super::pause::Pause;
use super::request::Request;
use super::steps::Steps;
use super::{StorageError, VerifiedRoot};
use crate::error::chain;
use crate::hub::{DataHub, DataHubError};
use crate::log::{Key, Level, Log, Value};

/// The driver, and the name of its option.
pub(super) const DRIVER: &str = "image_guest_pull";
/// What nobody serves where there is no hub.
const WHAT: &str = "an image that the guest pulls";
/// Longest option: what a runtime copies into it are annotations.
const MAXIMUM_OPTION_BYTES: usize = 256 << 10;
/// Under which names runtimes say the image of a container.
const IMAGE_NAMES: [&str; 2] = ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"];
/// Under which names they say what kind of container it is, and what stands there for the sandbox's own.
const CONTAINER_TYPES: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
const SANDBOX: &str = "sandbox";
const SUBSYSTEM: &str = "image";

/// `{"metadata": {…}}`, behind `image_guest_pull=`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Volume {
    metadata: Option<BTreeMap<String, String>>,
}

/// What a storage asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Image(String),
    Pause,
}

/// What is to be mounted.
#[derive(Clone, Debug)]
pub(super) enum Image {
    Pulled(Arc<Pulled>),
    Pause(Arc<Pause>),
}

/// The image of a request, if a storage asks for one.
#[derive(Debug, Default)]
pub(crate) struct Images(Option<(usize, Image)>);

/// By whose permission an image is pulled, and for how long.
pub(crate) struct Permission<'a> {
    /// The hub of bound configuration.
    pub(crate) hub: &'a DataHub,
    /// What the specification says of the container.
    pub(crate) annotations: &'a HashMap<String, String>,
    /// When nobody waits any more.
    pub(crate) deadline: Instant,
    /// Whether this is a confidential guest.
    pub(crate) tee_active: bool,
    /// Where it is told.
    pub(crate) log: &'a Log,
}

impl Images {
    /// Pulls what the storages of a container ask for. Nothing is mounted.
    ///
    /// # Errors
    /// `STORAGE_IMAGE`; whatever the hub refuses, with its code.
    pub(crate) async fn obtain(
        storages: &[Storage],
        container: &ContainerId,
        permission: &Permission<'_>,
    ) -> Result<Self, StorageError> {
        let mut asked = storages.iter().enumerate().filter(|(_, storage)| storage.driver == DRIVER);
        let Some((index, storage)) = asked.next() else { return Ok(Self::default()) };
        if asked.next().is_some() {
            return Err(wrong("one image for a container"));
        }
        // Nothing is fetched for a storage that could not be mounted.
        check(&Request::parse(storage, Some(container))?)?;
        let image = match wanted(storage, permission.annotations)? {
            Wanted::Pause => Image::Pause(Arc::new(Pause::read(permission.tee_active).await?)),
            Wanted::Image(name) => Image::Pulled(Arc::new(permission.pull(&name).await?)),
        };
        Ok(Self(Some((index, image))))
    }

    /// The pause program, if the container is the sandbox's own.
    pub(crate) fn pause(&self) -> Option<&Pause> {
        match &self.0 {
            Some((_, Image::Pause(pause))) => Some(pause),
            _ => None,
        }
    }

    /// That of the storage with this number.
    pub(super) fn of(&self, index: usize) -> Option<Image> {
        self.0.as_ref().filter(|(found, _)| *found == index).map(|(_, image)| image.clone())
    }

    #[cfg(test)]
    pub(super) fn of_test(image: Image) -> Self {
        Self(Some((0, image)))
    }
}

impl Permission<'_> {
    async fn pull(&self, name: &str) -> Result<Pulled, StorageError> {
        let begun = Instant::now();
        match self.hub.pull(name, self.deadline).await {
            Ok(pulled) => {
                let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let fields = [
                    (Key::Image, Value::shown(name)),
                    (Key::Digest, Value::shown(&pulled.manifest_digest().to_string())),
                    (Key::Bytes, pulled.received().into()),
                    (Key::Milliseconds, milliseconds.into()),
                ];
                self.log.info(SUBSYSTEM, "image pulled", &fields);
                Ok(pulled)
            }
            Err(error) => {
                let fields = [
                    (Key::Image, Value::shown(name)),
                    (Key::Code, error.code().into()),
                    (Key::Error, Value::shown(&chain(&error))),
                ];
                self.log.say(Level::Warning, SUBSYSTEM, "image not pulled", &fields);
                Err(refused(&error))
            }
        }
    }
}

/// What is told to the host: where a broker is and what it says is the log's to tell.
fn refused(error: &DataHubError) -> StorageError {
    let text = match error {
        DataHubError::Absent { .. } => return StorageError::CdhAbsent { what: WHAT },
        DataHubError::NotAttested => error.to_string(),
        DataHubError::Image(
            source @ (cdh::Error::Registry(_)
            | cdh::Error::ImagePolicy(_)
            | cdh::Error::Layer(_)
            | cdh::Error::Composefs(_)
            | cdh::Error::Pull(_)),
        ) => chain(source),
        _ => "see the log of the guest".to_owned(),
    };
    StorageError::Image { code: error.code(), text }
}

fn wrong(expected: &'static str) -> StorageError {
    StorageError::Image { code: "STORAGE_IMAGE", text: format!("expected {expected}, found another request") }
}

/// Which image is meant. Policies judge the storage, its option and the annotations of the specification, each by itself: what they say has to
/// be one thing.
fn wanted(storage: &Storage, annotations: &HashMap<String, String>) -> Result<Wanted, StorageError> {
    let metadata = metadata(&storage.driver_options)?;
    let said = |key: &str| [metadata.get(key), annotations.get(key)].into_iter().flatten();
    let is_sandbox = |found: Option<&String>| found.is_some_and(|kind| kind == SANDBOX);
    let by_storage = CONTAINER_TYPES.iter().any(|key| is_sandbox(metadata.get(*key)));
    let by_specification = CONTAINER_TYPES.iter().any(|key| is_sandbox(annotations.get(*key)));
    // GUARD: image-kind-agrees -> evil_host_pause_program_for_another_container
    if by_storage != by_specification {
        return Err(wrong("one kind of container in storage and specification"));
    }
    if by_storage {
        return Ok(Wanted::Pause);
    }
    // GUARD: image-name-agrees -> evil_host_another_image_than_the_policy_saw
    if IMAGE_NAMES.iter().flat_map(|key| said(key)).any(|name| *name != storage.source) {
        return Err(wrong("one image in source, metadata and annotations"));
    }
    if storage.source.is_empty() {
        return Err(wrong("the name of an image"));
    }
    Ok(Wanted::Image(storage.source.clone()))
}

/// What the runtime copied into the storage's option; without one nothing.
fn metadata(options: &[String]) -> Result<BTreeMap<String, String>, StorageError> {
    let mut found = options.iter().filter_map(|option| option.strip_prefix(DRIVER)?.strip_prefix('='));
    let Some(text) = found.next() else { return Ok(BTreeMap::new()) };
    // GUARD: image-option -> evil_host_image_option_of_another_form
    if found.next().is_some() || text.len() > MAXIMUM_OPTION_BYTES {
        return Err(wrong("one option of at most 262144 bytes"));
    }
    let volume: Volume = serde_json::from_str(text).map_err(|_| wrong("an option {\"metadata\": {…}}"))?;
    Ok(volume.metadata.unwrap_or_default())
}

fn check(request: &Request) -> Result<(), StorageError> {
    request.expect_type(DRIVER, &["", "overlay", "overlayfs"], "overlay")?;
    request.options.only(&[], "those of every mount")
}

pub(super) async fn make(request: &Request, steps: &mut Steps) -> Result<Option<VerifiedRoot>, StorageError> {
    check(request)?;
    let Some(image) = request.image.clone() else { return Err(StorageError::CdhAbsent { what: WHAT }) };
    let request = request.clone();
    let work = move |steps: &mut Steps| {
        let (mounted, root) = match &image {
            Image::Pulled(pulled) => {
                let root = pulled.root(request.options.read_only);
                let root = root.map_err(|error| refused(&DataHubError::Image(error)))?;
                let mounted = Detached::of(root, &request.options)?;
                (mounted, Some(VerifiedRoot::of_image(pulled)))
            }
            Image::Pause(pause) => (pause.mount(&request.options)?, None),
        };
        steps.attach(mounted, &request.place)?;
        Ok(root)
    };
    steps.blocking(work).await
}

#[cfg(test)]
mod tests;
