//! `innerkeep chip`: look at a chip, or certify a new one.

use std::path::Path;

use chip_client::abi::{CertificateList, IdentityFlags, Provision};
use chip_client::address::DeviceAddress;
use chip_client::chain::{Authority, ChipIdentity, PrivateKey, certificate_to_pem};
use chip_client::driver::{Driver, DriverOptions, RingMemory};
use chip_client::error::ChipError;
use chip_client::vfio::VfioDevice;
use protected_memory::dma::SharedMemoryProvider;
use serde_json::json;

use crate::args::{ChipCommand, ProvisionMinimums};
use crate::certificates;
use crate::error::Failure;
use crate::files;
use crate::output::Report;

/// Runs the command.
pub(crate) fn run(command: &ChipCommand) -> Result<Report, Failure> {
    match command {
        ChipCommand::Bind { chip } => bind(chip),
        ChipCommand::Info { chip, chip_root, chain_out } => {
            info(chip, chip_root.as_deref(), chain_out.as_deref())
        }
        ChipCommand::Provision { chip, ca, environment, model, minimums } => {
            provision(chip, ca, environment, model, *minimums)
        }
    }
}

/// Brings a chip up.
pub(crate) fn open(chip: &DeviceAddress, ring_memory: RingMemory) -> Result<Driver, Failure> {
    Ok(Driver::open(chip.open()?, DriverOptions::new(ring_memory))?)
}

/// Rings where a laptop has them.
pub(crate) const SHARED_RINGS: RingMemory = RingMemory::Shared(SharedMemoryProvider::Emulated);

fn bind(chip: &DeviceAddress) -> Result<Report, Failure> {
    let DeviceAddress::Pci(address) = chip else {
        let expected = "a PCI function, as in pci:0000:01:00.0";
        return Err(Failure::Usage { argument: "--chip", expected, found: chip.to_string() });
    };
    VfioDevice::bind(*address)?;
    Ok(Report { text: format!("bound        {chip} to vfio-pci"), json: json!({ "chip": chip.to_string() }) })
}

fn info(chip: &DeviceAddress, root: Option<&Path>, chain_out: Option<&Path>) -> Result<Report, Failure> {
    let mut driver = open(chip, SHARED_RINGS)?;
    let record = driver.identify()?;
    let emulated = record.flags.contains(IdentityFlags::EMULATED);
    let provisioned = record.flags.contains(IdentityFlags::PROVISIONED);
    let chain = if provisioned { Some(driver.chain()?) } else { None };
    let verified = match (root, &chain) {
        (Some(root), Some(chain)) => {
            Some(ChipIdentity::verify(&certificates::read_root(root)?, chain).map_err(ChipError::from)?)
        }
        _ => None,
    };
    if let Some(path) = chain_out {
        let Some(chain) = &chain else {
            return Err(Failure::Usage {
                argument: "--chain-out",
                expected: "a provisioned chip",
                found: "one that is not".to_owned(),
            });
        };
        files::replace("write the chain", path, certificates::chain_to_pem(chain).as_bytes())?;
    }
    let id = hex::encode(record.id);
    let judged = if verified.is_some() {
        "verified up to the root"
    } else {
        "NOT verified: it is what the device says"
    };
    Ok(Report {
        text: format!(
            "id           {id} ({judged})\nenvironment  {}\nkey epoch    {}\nprovisioned  {provisioned}\nemulated     {}",
            record.environment, record.key_epoch, emulated
        ),
        json: json!({
            "id": id, "verified": verified.is_some(), "environment": record.environment, "key_epoch": record.key_epoch,
            "provisioned": provisioned, "emulated": emulated, "chain": chain.as_ref().map(certificates::chain_to_pem),
        }),
    })
}

fn provision(
    chip: &DeviceAddress,
    ca: &Path,
    environment: &str,
    model: &str,
    minimums: ProvisionMinimums,
) -> Result<Report, Failure> {
    std::fs::create_dir_all(ca).map_err(Failure::file("create", ca))?;
    let root =
        authority(ca, "root", |_| Authority::create_root("Innerkeep chip root"), Authority::load_root)?;
    let model_ca = authority(
        ca,
        "model",
        |_| root.create_model(&format!("Innerkeep chip model {model}")),
        Authority::load_model,
    )?;
    let mut driver = open(chip, SHARED_RINGS)?;
    let record = driver.identify()?;
    let leaf = model_ca.issue_chip(&record, environment, record.key_epoch, model).map_err(ChipError::from)?;
    driver.provision(&Provision {
        environment: environment.to_owned(),
        key_epoch: record.key_epoch,
        certificates: CertificateList { model: model_ca.certificate().to_vec(), chip: leaf },
        root: root.certificate().to_vec(),
        min_tcb_evaluation: minimums.min_tcb_evaluation,
        min_pck_crl: minimums.min_pck_crl,
        min_root_crl: minimums.min_root_crl,
        min_snp_crl: minimums.min_snp_crl,
    })?;
    let id = hex::encode(record.id);
    Ok(Report {
        text: format!("provisioned  {id} for {environment}\nroot         {}", ca.join("root.pem").display()),
        json: json!({ "id": id, "environment": environment, "model": model, "key_epoch": record.key_epoch, "root": ca.join("root.pem") }),
    })
}

/// Loads an authority from `NAME.pem` and `NAME.key`, or makes it.
fn authority(
    ca: &Path,
    name: &str,
    create: impl Fn(&Path) -> Result<Authority, chip_client::error::ChainError>,
    load: impl Fn(PrivateKey, &[u8]) -> Result<Authority, chip_client::error::ChainError>,
) -> Result<Authority, Failure> {
    let (certificate, key) = (ca.join(format!("{name}.pem")), ca.join(format!("{name}.key")));
    if certificate.exists() {
        let bytes = zeroize::Zeroizing::new(files::read(
            "read the authority's key",
            &key,
            certificates::MAXIMUM_FILE,
        )?);
        let key = PrivateKey::parse(&bytes).map_err(ChipError::from)?;
        let bytes =
            files::read("read the authority's certificate", &certificate, certificates::MAXIMUM_FILE)?;
        return Ok(load(key, &bytes).map_err(ChipError::from)?);
    }
    let made = create(ca).map_err(ChipError::from)?;
    files::create("write the authority's key", &key, 0o600, made.private_key().to_pem().as_bytes())?;
    files::create(
        "write the authority's certificate",
        &certificate,
        0o644,
        certificate_to_pem(made.certificate()).as_bytes(),
    )?;
    Ok(made)
}
