//! Which configuration of the hub counts: the `cdh.toml` of bound initdata, by the rules of the attestation agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation_agent::binding::{Launch, launched_config, launched_initdata};
use attestation_agent::{Attester, Options, TeeRoot};
use initdata::{Initdata, InsecureMode};
use protected_memory::landing::{TeePolicy, TeeState};

use crate::artifact::{BrokerPlace, Chips, Guest, HubBroker, NamedArtifacts, Opener, Shared};
use crate::config::{HubConfig, ImageConfig};
use crate::hub_error::HubError;
use crate::image::pull::{Puller, PullerOptions, Registers};
use crate::modes::Modes;
use crate::sealed_secret::Verification;
use crate::sealed_secret::artifact::SealedSecrets;
use crate::service::{Access, Hub, HubService, Jobs};
use crate::volume::ext4::{Helper, OwnChildren};
use crate::volume::{BlockVolumes, Keys};
use crate::worker::{Executed, Workers};

/// Where the guest agent puts bound initdata: what counts is what the register holds, wherever it lies.
const INITDATA: &str = "/run/confidential-containers/initdata/initdata.toml";

/// What the hub was started with. Nothing of it is trusted.
#[derive(Clone, Debug, Default)]
pub struct HubLaunch {
    /// `-c`: has to be the `cdh.toml` of bound initdata.
    pub config_file: Option<PathBuf>,
    /// Initdata; without it the file that the guest agent writes, if it is there.
    pub initdata_toml: Option<PathBuf>,
    /// An emulated platform below this directory; refused inside a TEE.
    pub insecure_tee_root: Option<PathBuf>,
    /// Evidence that proves nothing; refused inside a TEE.
    pub insecure_sample: bool,
    /// A configuration that nothing vouches for counts; only with one of the two above.
    pub insecure_unbound_config: bool,
    /// Flags and the insecure modes that they name; refused inside a TEE.
    pub insecure: Vec<(&'static str, InsecureMode)>,
}

/// What the platform vouches for, and a service of it.
#[derive(Debug)]
pub struct Launched {
    /// The configuration.
    pub config: HubConfig,
    /// The insecure modes that are in effect.
    pub modes: Modes,
    /// The service; nothing is served yet, and no credential written.
    pub service: HubService,
    /// The hub of that service.
    pub hub: Arc<Hub>,
    /// The platform.
    pub attester: Arc<Attester>,
    /// Bound initdata, if there is any.
    pub initdata: Option<Initdata>,
    /// The platform's name.
    pub tee: &'static str,
}

/// Decides which configuration counts, and makes the hub of it. Images are unpacked, and registries spoken to, by this program executed anew: its
/// `main` begins with [`worker::main`](crate::worker::main).
///
/// # Errors
///
/// No TEE; what the host withholds, or what nothing vouches for; a configuration that is refused.
pub fn launch(asked: &HubLaunch) -> Result<Launched, HubError> {
    let root = asked.insecure_tee_root.as_ref().map_or_else(TeeRoot::system, TeeRoot::insecure);
    let attester = Attester::detect(&root, Options { insecure_sample: asked.insecure_sample })?;
    let attester = Arc::new(attester);
    let found = root.join(INITDATA);
    let initdata = asked.initdata_toml.as_deref().or_else(|| found.is_file().then_some(found.as_path()));
    let (initdata, text) = bound(asked, &attester, initdata)?;
    let config = text.map_or_else(|| Ok(HubConfig::default()), |text| HubConfig::parse(&text))?;
    let modes = Modes::decide(&attester, initdata.as_ref(), &asked.insecure)?;
    let hub = Hub::new(&config, modes.clone(), &attester, initdata.as_ref(), &root)?;
    let hub = with_volumes(hub, &config, &modes, Box::new(OwnChildren))?;
    let stored = config.innerkeep.artifact_cache.clone().map(|place| Arc::new(place) as _);
    let opener = opener(&config, &modes, &attester, initdata.as_ref(), &root, Shared::at(stored))?;
    let secrets = SealedSecrets::new(Arc::new(opener.clone()), &config.innerkeep.sealed_secrets)?;
    let hub = hub.with_secrets(secrets);
    let workers: Arc<dyn Workers> = Arc::new(Executed::this_program());
    let hub = with_artifacts(hub, &config, initdata.as_ref(), opener.clone(), Arc::clone(&workers));
    // Nothing is permitted where nothing is said about images.
    let hub = if config.image == ImageConfig::default() {
        hub
    } else {
        let images = puller(&hub, &config, &modes, &attester, opener, workers);
        hub.with_images(Arc::new(images))
    };
    let hub = Arc::new(hub);
    let service = HubService::new(Arc::clone(&hub), &config, &root);
    let tee = attester.tee().name();
    Ok(Launched { config, modes, service, hub, attester, initdata, tee })
}

/// The hub, which lands what bound `sealed.toml` names for its peers.
fn with_artifacts(
    hub: Hub,
    config: &HubConfig,
    initdata: Option<&Initdata>,
    opener: Opener,
    workers: Arc<dyn Workers>,
) -> Hub {
    let Some(sealed) = initdata.and_then(|bound| bound.document().sealed()) else { return hub };
    let resources = Arc::clone(hub.resources()) as _;
    let lander = NamedArtifacts::new(sealed.clone(), opener, config.image.clone(), resources, workers);
    let access = Access::new(rustix::process::geteuid().as_raw(), config.innerkeep.peers.clone());
    let socket = Path::new(config.socket()).with_extension("files.sock");
    hub.with_artifacts(Arc::new(Jobs::with_socket(Arc::new(lander), socket, access.socket_mode())))
}

/// What pulls images for a hub: with its resources and the pins of its configuration, and with the platform's registers to measure them; sealed
/// layers of those that its configuration names are opened by `opener`. Children of `workers` speak to registries and unpack layers.
#[must_use]
pub fn puller(
    hub: &Hub,
    config: &HubConfig,
    modes: &Modes,
    attester: &Arc<Attester>,
    opener: Opener,
    workers: Arc<dyn Workers>,
) -> Puller {
    let resources = Arc::clone(hub.resources()) as _;
    let measure = Arc::new(Registers::new(Arc::clone(attester)));
    let mut options = PullerOptions {
        pins: config.innerkeep.image_pins.to_map(),
        keep_layers: config.innerkeep.images.keep_layers,
        ..PullerOptions::default()
    };
    options.total = config.innerkeep.images.memory_bytes.unwrap_or(options.total);
    let puller = Puller::new(config.image.clone(), resources, modes.clone(), measure, workers, options);
    puller.opening(Arc::new(opener), config.innerkeep.sealed_images.clone())
}

/// The hub, which mounts encrypted volumes; `helper` makes their file systems.
///
/// # Errors
///
/// `CDH_INSECURE_UNBOUND`.
pub fn with_volumes(
    hub: Hub,
    config: &HubConfig,
    modes: &Modes,
    helper: Box<dyn Helper>,
) -> Result<Hub, HubError> {
    let keys = Keys {
        resources: Arc::clone(hub.resources()) as _,
        verification: Verification::decide(config.skip_sealed_secret_verification, modes)?,
        modes: modes.clone(),
    };
    let volumes = BlockVolumes::new(keys, config.innerkeep.volumes.clone(), helper);
    Ok(hub.with_volumes(Arc::new(volumes)))
}

/// What opens artifacts for a hub: chips below the root of bound `sealed.toml`, the broker that bound `cdh.toml` names, the processor. What chips
/// verify its evidence with is where the host stores artifacts.
///
/// # Errors
///
/// `CDH_CONFIG_INVALID`; those of the broker's configuration.
pub fn opener(
    config: &HubConfig,
    modes: &Modes,
    attester: &Arc<Attester>,
    initdata: Option<&Initdata>,
    root: &TeeRoot,
    shared: Shared,
) -> Result<Opener, HubError> {
    let sealed = initdata.and_then(|bound| bound.document().sealed());
    let chips = sealed.and_then(|sealed| sealed.chip_root.as_deref()).map(Chips::on_the_bus).transpose();
    let chips = chips
        .map_err(|error| HubError::ConfigInvalid { reason: format!("chip_root of sealed.toml: {error}") })?;
    let text = initdata.map(|bound| bound.text().to_owned());
    let broker = config.kbs_recipient()?.zip(config.kbs_options(modes)?).map(|(recipient, options)| {
        BrokerPlace { recipient, access: Arc::new(HubBroker { options, initdata: text }) }
    });
    let name = attester.tee().name();
    // An emulation was asked for by its flag, and is said aloud where this was started.
    let (tee, policy) = if attester.insecure_modes().is_empty() {
        (TeeState::Active(name), TeePolicy::Require)
    } else {
        (TeeState::Emulated(name), TeePolicy::InsecureEmulatedTee)
    };
    let bound = matches!(tee, TeeState::Active(_))
        .then(|| initdata.map(|bound| bound.document().settings().insecure.clone()).unwrap_or_default());
    let guest =
        Guest { tee, attester: Some(Arc::clone(attester)), collateral: None, bound, root: root.clone() };
    let insecure = InsecureMode::ALL.into_iter().filter(|mode| modes.has(*mode)).collect();
    Ok(Opener { guest, chips, broker, insecure, tee: policy, shared })
}

fn bound(
    asked: &HubLaunch,
    attester: &Attester,
    initdata: Option<&Path>,
) -> Result<(Option<Initdata>, Option<String>), HubError> {
    let launch = Launch {
        config_file: asked.config_file.as_deref(),
        initdata_digest: None,
        initdata_toml: initdata,
        insecure_unbound_config: asked.insecure_unbound_config,
    };
    let initdata = launched_initdata(attester, &launch)?;
    let named = initdata.as_ref().and_then(|bound| bound.document().cdh_config());
    let text = launched_config(attester, &launch, named, "the cdh.toml of bound initdata")?;
    Ok((initdata, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(asked: &HubLaunch) -> &'static str {
        launch(asked).map_or_else(|error| error.code(), |_| "OK")
    }

    fn sample() -> HubLaunch {
        HubLaunch { insecure_sample: true, ..HubLaunch::default() }
    }

    #[test]
    fn evil_host_hub_configuration_that_nothing_vouches_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cdh.toml");
        std::fs::write(&path, "[kbc]\nname = \"cc_kbc\"\nurl = \"http://127.0.0.1:9\"\n").unwrap();
        let with = |unbound| HubLaunch {
            config_file: Some(path.clone()),
            insecure_unbound_config: unbound,
            ..sample()
        };
        assert_eq!(code(&sample()), "OK");
        assert_eq!(code(&with(false)), "ATTEST_CONFIG_UNBOUND");
        assert_eq!(code(&with(true)), "OK");
    }

    #[test]
    fn without_a_platform_there_is_no_hub() {
        let directory = tempfile::tempdir().unwrap();
        let asked =
            HubLaunch { insecure_tee_root: Some(directory.path().to_owned()), ..HubLaunch::default() };
        assert_eq!(code(&asked), "ATTEST_NO_TEE");
    }

    #[test]
    fn insecure_modes_need_their_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cdh.toml");
        let mode = |text: &str, insecure: &[(&'static str, InsecureMode)]| {
            std::fs::write(&path, text).unwrap();
            let insecure = insecure.to_vec();
            let config_file = Some(path.clone());
            code(&HubLaunch { config_file, insecure_unbound_config: true, insecure, ..sample() })
        };
        let (offline, skip) = ("[kbc]\nname = \"offline_fs_kbc\"", "skip_sealed_secret_verification = true");
        assert_eq!(mode(offline, &[]), "CDH_INSECURE_UNBOUND");
        assert_eq!(mode(offline, &[("--x", InsecureMode::OfflineKbc)]), "OK");
        assert_eq!(mode(skip, &[("--x", InsecureMode::OfflineKbc)]), "CDH_INSECURE_UNBOUND");
        assert_eq!(mode(skip, &[("--x", InsecureMode::UnverifiedSecrets)]), "OK");
        // A document asks for a mode: enough, if something vouches for it. Nothing does here, and that was said by name.
        let document = directory.path().join("initdata.toml");
        let text = format!(
            "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"cdh.toml\" = '''\n{offline}\n'''\n\"innerkeep.toml\" = 'insecure = [\"offline-kbc\"]'\n"
        );
        std::fs::write(&document, text).unwrap();
        let bound = |unbound| HubLaunch {
            initdata_toml: Some(document.clone()),
            insecure_unbound_config: unbound,
            ..sample()
        };
        assert_eq!(code(&bound(false)), "ATTEST_INITDATA_NO_REGISTER");
        assert_eq!(code(&bound(true)), "OK");
    }
}
