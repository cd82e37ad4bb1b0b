//! The state directory: the platform's keys and what a verifier needs of it. Any number of guests may run on it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::Octets;
use evidence::abi::json::{SnpCertificate, SnpCertificateKind};
use evidence::abi::snp::Generation;
use evidence::mint::snp::{RsaKey, SnpPlatform, vek_extensions};
use evidence::mint::tdx::TdxPlatform;
use evidence::verify::roots::{SnpRoot, TrustBundle};
use evidence::verify::snp::{SnpCollateral, VekKind};
use serde::Serialize;
use sha2::{Digest, Sha256, Sha512};

use crate::launch::{CERTIFICATES_EXPIRE, CERTIFICATES_ISSUED, Launch, TeeKind};

const SEED: &str = "seed";
const ARK_KEY: &str = "snp-ark.pk8";
const ASK_KEY: &str = "snp-ask.pk8";
const ROOTS: &str = "trust-roots.json";
const GENERATIONS: [Generation; 3] = [Generation::Milan, Generation::Genoa, Generation::Turin];
const MAXIMUM_FILE_BYTES: u64 = 512 * 1024;

/// The state directory of a platform.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    seed: String,
    bundle: TrustBundle,
}

#[derive(Serialize)]
struct SnpCollateralJson {
    certificates: Vec<SnpCertificate>,
    crl: Option<String>,
}

impl State {
    /// Makes a platform in a directory that has none. RSA keys that lie there already are used.
    ///
    /// # Errors
    /// If there is a platform, for a launch file that is none, and for what the file system says.
    pub fn init(directory: &Path, launch: &str) -> anyhow::Result<()> {
        let parsed = Launch::parse(launch)?;
        let name = directory.display();
        DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(|| name.to_string())?;
        ensure!(!directory.join(SEED).exists(), "{name}: a platform is here already");
        make_rsa_keys(directory)?;
        let mut random = [0; 32];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .context("random bytes")?;
        let seed = hex::encode(random);
        let mut snp = Vec::new();
        for generation in GENERATIONS {
            snp.push(snp_platform(directory, &seed, generation, VekKind::Vcek)?.root()?);
        }
        let tdx = Some(tdx_platform(&seed)?.root_der()?);
        let bundle = TrustBundle { snp, tdx };
        write_file(&directory.join(ROOTS), bundle.encode().as_bytes())?;
        write_file(&directory.join("launch.toml"), launch.as_bytes())?;
        // Last, because it says that the directory is complete.
        write_file(&directory.join(SEED), seed.as_bytes())?;
        let state = Self { directory: directory.to_owned(), seed, bundle };
        state.write_collateral(&parsed, now()?, None)
    }

    /// Opens a platform.
    ///
    /// # Errors
    /// If there is none or its roots are not those of its keys.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let name = directory.display();
        let seed = read_limited(&directory.join(SEED), 64)
            .with_context(|| format!("{name}: no platform; make one with `init`"))?;
        let seed = String::from_utf8(seed).context("seed")?;
        let roots = read_limited(&directory.join(ROOTS), MAXIMUM_FILE_BYTES)?;
        let bundle = TrustBundle::parse(&roots).with_context(|| format!("{name}/{ROOTS}"))?;
        ensure!(
            bundle.tdx == Some(tdx_platform(&seed)?.root_der()?),
            "{name}/{ROOTS}: expected the root of this platform's keys"
        );
        Ok(Self { directory: directory.to_owned(), seed, bundle })
    }

    /// The emulated roots, for a verifier that shall believe them.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The TDX platform with the numbers and dates of a launch.
    ///
    /// # Errors
    /// For dates that cannot be written.
    pub fn tdx(&self, launch: &Launch, now: u64) -> anyhow::Result<TdxPlatform> {
        let mut platform = tdx_platform(&self.seed)?;
        let window = launch.dates.collateral(now)?;
        for list in [&mut platform.root_crl, &mut platform.pck_crl] {
            (list.this_update, list.next_update) = window;
        }
        (platform.tcb_info_window, platform.qe_identity_window) = (window, window);
        for certificate in [&mut platform.pck, &mut platform.signer] {
            (certificate.not_before, certificate.not_after) = launch.dates.certificates()?;
        }
        let tdx = &launch.tdx;
        platform.tcb_status = tdx.tcb_status.0;
        platform.tcb_evaluation = tdx.tcb_evaluation;
        (platform.root_crl.number, platform.pck_crl.number) = (tdx.root_crl, tdx.pck_crl);
        if tdx.pck_revoked {
            platform.pck_crl.revoked.push(platform.pck.serial.clone());
        }
        Ok(platform)
    }

    /// The SNP platform with the numbers and dates of a launch, and its certificates.
    ///
    /// A certificate's signature is salted, so each is made once and kept: the same launch always has the same chain.
    ///
    /// # Errors
    /// For dates that cannot be written, and for what the file system says.
    pub fn snp(&self, launch: &Launch, now: u64) -> anyhow::Result<(SnpPlatform, SnpCollateral)> {
        let snp = &launch.snp;
        let (generation, kind) = (snp.generation, snp.key);
        let mut platform = snp_platform(&self.directory, &self.seed, generation, kind)?;
        platform.tcb = snp.tcb.of(generation);
        platform.chip_id = snp.chip_id.unwrap_or_else(|| self.chip_id(generation));
        platform.vek.extensions = vek_extensions(generation, kind, platform.tcb, platform.chip_id);
        (platform.vek.not_before, platform.vek.not_after) = launch.dates.certificates()?;
        (platform.crl.this_update, platform.crl.next_update) = launch.dates.collateral(now)?;
        platform.crl.number = snp.crl;
        if snp.ask_revoked {
            platform.crl.revoked.push(platform.ask.serial.clone());
        }
        let mut collateral = platform.collateral()?;
        let root = self.snp_root(generation)?;
        collateral.ark = Some(root.ark.clone());
        collateral.ask = match (kind, collateral.ask.take()) {
            (VekKind::Vlek, Some(asvk)) => Some(self.kept("asvk", &format!("{:?}", platform.ask), asvk)?),
            _ => Some(root.ask.clone()),
        };
        collateral.vek = self.kept("vek", &format!("{generation}{:?}", platform.vek), collateral.vek)?;
        Ok((platform, collateral))
    }

    /// Writes both collateral files, and the one of the guest's kind to `out` too.
    ///
    /// # Errors
    /// For dates that cannot be written, and for what the file system says.
    pub fn write_collateral(&self, launch: &Launch, now: u64, out: Option<&Path>) -> anyhow::Result<()> {
        let tdx = self.tdx(launch, now)?.collateral()?.encode();
        let snp = self.snp_collateral_json(launch, now)?;
        write_file(&self.directory.join("collateral-tdx.json"), tdx.as_bytes())?;
        write_file(&self.directory.join("collateral-snp.json"), snp.as_bytes())?;
        let own = match launch.tee {
            TeeKind::Tdx => tdx,
            TeeKind::Snp => snp,
        };
        out.map_or(Ok(()), |path| write_file(path, own.as_bytes()))
    }

    /// Writes the collateral of the guest's kind to `out` alone.
    ///
    /// # Errors
    /// As [`Self::write_collateral`].
    pub fn write_own_collateral(&self, launch: &Launch, now: u64, out: &Path) -> anyhow::Result<()> {
        let own = match launch.tee {
            TeeKind::Tdx => self.tdx(launch, now)?.collateral()?.encode(),
            TeeKind::Snp => self.snp_collateral_json(launch, now)?,
        };
        write_file(out, own.as_bytes())
    }

    /// The secret that keys derived in the guest follow from.
    pub(crate) fn derivation_secret(&self) -> [u8; 32] {
        Sha256::digest(format!("innerkeep emulated derivation\0{}", self.seed)).into()
    }

    fn snp_collateral_json(&self, launch: &Launch, now: u64) -> anyhow::Result<String> {
        let (_, collateral) = self.snp(launch, now)?;
        let kind = match collateral.kind {
            VekKind::Vcek => SnpCertificateKind::Vcek,
            VekKind::Vlek => SnpCertificateKind::Vlek,
        };
        let parts = [
            (kind, Some(collateral.vek)),
            (SnpCertificateKind::Ask, collateral.ask),
            (SnpCertificateKind::Ark, collateral.ark),
        ];
        let certificates = parts.into_iter().filter_map(|(kind, data)| {
            let data = data?;
            Some(SnpCertificate { kind, data })
        });
        let json = SnpCollateralJson {
            certificates: certificates.collect(),
            crl: collateral.crl.map(|list| STANDARD.encode(list)),
        };
        serde_json::to_string(&json).context("SNP collateral")
    }

    fn snp_root(&self, generation: Generation) -> anyhow::Result<&SnpRoot> {
        let root = self.bundle.snp.iter().find(|root| root.generation == generation);
        root.with_context(|| format!("{ROOTS}: expected a root for {generation}"))
    }

    fn chip_id(&self, generation: Generation) -> Octets<64> {
        let id: [u8; 64] = Sha512::digest(format!("innerkeep emulated chip id\0{}", self.seed)).into();
        let length = if generation == Generation::Turin { 8 } else { 64 };
        Octets::fitted(id.get(..length).unwrap_or_default())
    }

    /// The certificate that was made first for this template.
    fn kept(&self, name: &str, template: &str, fresh: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let digest = hex::encode(Sha256::digest(template));
        let path = self.directory.join(format!("{name}-{}.der", digest.get(..16).unwrap_or_default()));
        if !path.exists() {
            write_file(&path, &fresh)?;
        }
        read_limited(&path, MAXIMUM_FILE_BYTES)
    }
}

fn tdx_platform(seed: &str) -> anyhow::Result<TdxPlatform> {
    Ok(TdxPlatform::new(seed, CERTIFICATES_ISSUED, CERTIFICATES_EXPIRE)?)
}

fn snp_platform(
    directory: &Path,
    seed: &str,
    generation: Generation,
    kind: VekKind,
) -> anyhow::Result<SnpPlatform> {
    let key = |name| -> anyhow::Result<RsaKey> {
        Ok(RsaKey::from_pkcs8(&read_limited(&directory.join(name), MAXIMUM_FILE_BYTES)?)?)
    };
    let keys = (key(ARK_KEY)?, key(ASK_KEY)?);
    Ok(SnpPlatform::new(keys, (generation, kind), seed, CERTIFICATES_ISSUED, CERTIFICATES_EXPIRE)?)
}

/// Both keys at once, because each takes seconds.
fn make_rsa_keys(directory: &Path) -> anyhow::Result<()> {
    let make = |name: &str| -> anyhow::Result<()> {
        let path = directory.join(name);
        if path.exists() {
            return Ok(());
        }
        write_file(&path, &RsaKey::generate()?.1)
    };
    let make = &make;
    std::thread::scope(|scope| {
        let other = scope.spawn(move || make(ARK_KEY));
        make(ASK_KEY)?;
        other.join().unwrap_or_else(|_| bail!("a thread that makes a key failed"))
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> anyhow::Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(since.context("the clock stands before 1970")?.as_secs())
}

/// All bytes of a file that has at most `maximum`.
pub(crate) fn read_limited(path: &Path, maximum: u64) -> anyhow::Result<Vec<u8>> {
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(maximum + 1).read_to_end(&mut bytes)).with_context(name)?;
    ensure!(u64::try_from(bytes.len())? <= maximum, "{}: larger than {maximum} bytes", name());
    Ok(bytes)
}

/// Replaces a file as a whole; readable by its owner.
fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = || path.display().to_string();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let mut open = OpenOptions::new();
    let mut file =
        open.write(true).create(true).truncate(true).mode(0o600).open(&temporary).with_context(name)?;
    file.write_all(bytes).with_context(name)?;
    fs::rename(&temporary, path).with_context(name)
}

#[cfg(test)]
mod tests;
