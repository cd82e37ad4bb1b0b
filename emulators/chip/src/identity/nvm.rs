//! What the chip remembers without power: certificates, tier, floors, epoch. Written atomically.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use chip_client::abi::limits::MAX_FLOORS;
use evidence::validate::Floors;
use evidence::verify::series::Series;

use super::collateral::{self, CollateralFloor, Minimums};

/// Largest file that is read back.
const MAX_BYTES: u64 = 4 << 20;

/// The chip could not read or write its memory.
#[derive(Debug, thiserror::Error)]
pub enum NvmError {
    /// No room for another floor.
    #[error("the chip's memory for floors is full")]
    Full,
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("{path}: not a chip memory: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

/// Given to the chip once by its maker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provisioned {
    pub(crate) environment: String,
    #[serde(with = "hex")]
    pub(crate) model: Vec<u8>,
    #[serde(with = "hex")]
    pub(crate) chip: Vec<u8>,
    #[serde(with = "hex")]
    pub(crate) root: Vec<u8>,
}

/// Smallest counter accepted for one sealer and family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Floor {
    #[serde(with = "hex")]
    pub(crate) sealer: [u8; 32],
    pub(crate) family: String,
    pub(crate) counter: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    key_epoch: u64,
    provisioned: Option<Provisioned>,
    floors: Vec<Floor>,
    /// They outlive a provisioning: of a former and a later one the higher counts.
    minimums: Minimums,
    collateral: Vec<CollateralFloor>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            version: 2,
            key_epoch: 1,
            provisioned: None,
            floors: Vec::new(),
            minimums: Minimums::default(),
            collateral: Vec::new(),
        }
    }
}

/// The memory and the file behind it. Each change is durable when the method that makes it returns.
#[derive(Debug)]
pub(crate) struct Nvm {
    path: PathBuf,
    contents: Contents,
}

impl Nvm {
    /// Writes the memory of a new chip.
    pub(crate) fn create(path: &Path) -> Result<Self, NvmError> {
        let nvm = Self { path: path.to_owned(), contents: Contents::default() };
        nvm.store(&nvm.contents)?;
        Ok(nvm)
    }

    pub(crate) fn load(path: &Path) -> Result<Self, NvmError> {
        let io_error = |source| NvmError::Io { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(io_error)?;
        let bytes = io::read_to_string(io::Read::take(file, MAX_BYTES)).map_err(io_error)?;
        let contents = serde_json::from_str(&bytes)
            .map_err(|source| NvmError::Malformed { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), contents })
    }

    pub(crate) fn key_epoch(&self) -> u64 {
        self.contents.key_epoch
    }

    pub(crate) fn provisioned(&self) -> Option<&Provisioned> {
        self.contents.provisioned.as_ref()
    }

    pub(crate) fn floors(&self) -> &[Floor] {
        &self.contents.floors
    }

    pub(crate) fn floor(&self, sealer: &[u8; 32], family: &str) -> Option<u64> {
        self.contents.floors.iter().find(|f| f.sealer == *sealer && f.family == family).map(|f| f.counter)
    }

    /// The highest number of each series of collateral that was accepted.
    pub(crate) fn collateral(&self) -> &[CollateralFloor] {
        &self.contents.collateral
    }

    /// The chip's minimums for evidence of these series.
    pub(crate) fn collateral_floors(&self, series: &[Series]) -> Floors {
        collateral::floors(&self.contents.collateral, self.contents.minimums, series)
    }

    /// Keeps certificates and tier, and raises the minimums.
    pub(crate) fn provision(&mut self, provisioned: Provisioned, minimums: Minimums) -> Result<(), NvmError> {
        self.change(|contents| {
            contents.provisioned = Some(provisioned);
            contents.minimums.raise(minimums);
            Ok(())
        })
    }

    /// Makes all grants of former epochs unusable; the certificates no longer fit and are forgotten, floors stay.
    pub(crate) fn raise_epoch(&mut self) -> Result<u64, NvmError> {
        self.change(|contents| {
            contents.key_epoch = contents.key_epoch.saturating_add(1);
            contents.provisioned = None;
            Ok(())
        })?;
        Ok(self.contents.key_epoch)
    }

    /// Raises the floor of a sealer's family and of the series of evidence, in one write; never lowers any.
    pub(crate) fn accept(&mut self, floor: Option<Floor>, series: &[Series]) -> Result<(), NvmError> {
        let floor = floor.filter(|it| self.floor(&it.sealer, &it.family).is_none_or(|old| old < it.counter));
        let mut seen = self.contents.collateral.clone();
        if !collateral::raise(&mut seen, series)? && floor.is_none() {
            return Ok(());
        }
        self.change(|contents| {
            contents.collateral = seen;
            let Some(floor) = floor else { return Ok(()) };
            let full = contents.floors.len() >= MAX_FLOORS as usize;
            let mut floors = contents.floors.iter_mut();
            match floors.find(|known| known.sealer == floor.sealer && known.family == floor.family) {
                Some(known) => known.counter = floor.counter,
                None if full => return Err(NvmError::Full),
                None => contents.floors.push(floor),
            }
            Ok(())
        })
    }

    fn change(&mut self, edit: impl FnOnce(&mut Contents) -> Result<(), NvmError>) -> Result<(), NvmError> {
        let mut next = self.contents.clone();
        edit(&mut next)?;
        self.store(&next)?;
        self.contents = next;
        Ok(())
    }

    fn store(&self, contents: &Contents) -> Result<(), NvmError> {
        let text = serde_json::to_vec_pretty(contents)
            .map_err(|source| NvmError::Malformed { path: self.path.clone(), source })?;
        write_atomically(&self.path, &text).map_err(|source| NvmError::Io { path: self.path.clone(), source })
    }
}

/// Writes beside the file, syncs, renames, syncs the directory. Readable by the owner only.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use evidence::Octets;
    use evidence::verify::series::SeriesKind;

    use super::*;

    const SERIES: Series = Series { kind: SeriesKind::SnpCrl, issuer: Octets([9; 32]), number: Some(6) };

    fn provisioned() -> Provisioned {
        Provisioned { environment: "lab".into(), model: vec![1], chip: vec![2], root: vec![3] }
    }

    fn floor(sealer: u8, family: &str, counter: u64) -> Floor {
        Floor { sealer: [sealer; 32], family: family.to_owned(), counter }
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nvm.json");
        let mut nvm = Nvm::create(&path).unwrap();
        nvm.provision(provisioned(), Minimums { snp_crl: 4, ..Minimums::default() }).unwrap();
        nvm.accept(Some(floor(7, "acme/x", 3)), &[]).unwrap();
        nvm.accept(Some(floor(7, "acme/y", u64::MAX)), &[SERIES]).unwrap();
        let again = Nvm::load(&path).unwrap();
        assert_eq!(again.contents, nvm.contents);
        assert_eq!(again.floor(&[7; 32], "acme/y"), Some(u64::MAX));
        assert_eq!(again.floor(&[8; 32], "acme/y"), None);
    }

    #[test]
    fn floors_only_rise() {
        let directory = tempfile::tempdir().unwrap();
        let mut nvm = Nvm::create(&directory.path().join("nvm.json")).unwrap();
        nvm.accept(Some(floor(1, "f", 9)), &[]).unwrap();
        nvm.accept(Some(floor(1, "f", 4)), &[]).unwrap();
        assert_eq!(nvm.floor(&[1; 32], "f"), Some(9));
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone").join("nvm.json");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let mut nvm = Nvm::create(&path).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert!(matches!(nvm.accept(Some(floor(1, "f", 9)), &[SERIES]), Err(NvmError::Io { .. })));
        assert_eq!(nvm.floor(&[1; 32], "f"), None);
        assert_eq!(nvm.collateral(), []);
    }

    #[test]
    fn raising_the_epoch_forgets_the_certificates_and_keeps_the_floors() {
        let directory = tempfile::tempdir().unwrap();
        let mut nvm = Nvm::create(&directory.path().join("nvm.json")).unwrap();
        let minimums = Minimums { tcb_evaluation: 17, pck_crl: 3, ..Minimums::default() };
        nvm.provision(provisioned(), minimums).unwrap();
        nvm.accept(None, &[SERIES]).unwrap();
        nvm.accept(Some(floor(1, "f", 9)), &[]).unwrap();
        assert_eq!(nvm.raise_epoch().unwrap(), 2);
        assert!(nvm.provisioned().is_none());
        // Who provisions the next epoch cannot lower what the chip demands.
        nvm.provision(provisioned(), Minimums { pck_crl: 4, ..Minimums::default() }).unwrap();
        let floors = nvm.collateral_floors(&[SERIES]);
        assert_eq!((floors.min_tcb_evaluation, floors.min_pck_crl_number), (17, 4));
        assert_eq!(floors.min_snp_crl_number, 6);
        assert_eq!(nvm.floor(&[1; 32], "f"), Some(9));
    }
}
