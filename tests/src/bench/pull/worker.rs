//! One image, pulled as the hub pulls it, in a process of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use attestation_agent::kbs::ResourceUri;
use cdh::config::HubConfig;
use cdh::hub_error::HubError;
use cdh::image::policy::Cause;
use cdh::image::pull::{ImageEvent, Measure, Puller, PullerOptions};
use cdh::modes::Modes;
use cdh::plaintext::Plaintext;
use cdh::registry::Transferred;
use cdh::resources::ResourceSource;
use cdh::worker::Executed;
use serde::{Deserialize, Serialize};

use super::image::{Sample, verify};

/// One pull.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) authority: String,
    pub(crate) image: String,
    /// For blobs and the bundle; empty.
    pub(crate) room: PathBuf,
    pub(crate) samples: Vec<Sample>,
    /// Look at the files afterwards; such a round is not a figure.
    pub(crate) look: bool,
}

/// Seconds from the start of the pull, at which these were there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Steps {
    /// All layers, each verified.
    pub(crate) fetched: f64,
    /// The tree, its objects, the metadata image.
    pub(crate) unpacked: f64,
    /// The root, mounted, of which a file was read.
    pub(crate) mounted: f64,
}

/// Nothing of this image is a resource.
struct NoResources;

#[async_trait]
impl ResourceSource for NoResources {
    async fn get(&self, uri: &ResourceUri, _: tokio::time::Instant) -> Result<Arc<Plaintext>, HubError> {
        Err(HubError::OfflineMissing { uri: uri.to_string() })
    }
}

/// A register that is no hardware.
struct Register(Mutex<Vec<String>>);

#[async_trait]
impl Measure for Register {
    async fn image(&self, event: &ImageEvent) -> Result<(), Cause> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.content().to_owned());
        Ok(())
    }
}

/// Pulls and mounts.
pub(crate) fn run(job: &Job) -> anyhow::Result<Steps> {
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}], "transports": {}}"#;
    let config = format!(
        "[image]\nwork_dir = \"{}\"\nimage_security_policy = '{policy}'\n\
         [[image.registry_config.registry]]\nlocation = \"{}\"\ninsecure = true\n",
        job.room.join("work").display(),
        job.authority
    );
    let config = HubConfig::parse(&config)?;
    let register = Arc::new(Register(Mutex::default()));
    let options = PullerOptions::default();
    let measure = Arc::clone(&register) as Arc<dyn Measure>;
    let workers = Arc::new(Executed::this_program());
    let resources = Arc::new(NoResources);
    let puller = Puller::new(config.image, resources, Modes::none(), measure, workers, options);
    let bundle = job.room.join("bundle");
    fs::create_dir_all(&bundle)?;
    // As the agent has it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let start = Instant::now();
    let fetched = Mutex::new(0.0);
    let progress = |state: &Transferred| {
        if state.done == state.total {
            *fetched.lock().unwrap_or_else(PoisonError::into_inner) = start.elapsed().as_secs_f64();
        }
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3600);
    let pulled = runtime.block_on(puller.pull(&job.image, deadline, &progress))?;
    let unpacked = start.elapsed().as_secs_f64();
    let bundle = pulled.mount(&bundle)?;
    let mounted = start.elapsed().as_secs_f64();
    if job.look {
        verify(bundle.root(), &job.samples)?;
    }
    drop(bundle);
    let fetched = fetched.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Steps { fetched, unpacked, mounted })
}
