//! Collateral files: what verification needs beside evidence, since nothing is fetched from a network.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::abi::json::{SnpCertificate, SnpCertificateKind};
use evidence::abi::snp::Generation;
use evidence::verify::collateral::{MAXIMUM_COLLATERAL_BYTES, TdxCollateral};
use serde::Deserialize;
use serde_json::Value;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

/// What is known about platforms.
#[derive(Debug, Default)]
pub(crate) struct Collateral {
    /// By family, model and stepping, lower-case hex.
    tdx: BTreeMap<String, TdxCollateral>,
    snp: Vec<SnpFile>,
}

#[derive(Debug)]
struct SnpFile {
    certificates: Vec<SnpCertificate>,
    /// Revocation list and whose.
    list: Option<(Generation, Vec<u8>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpJson {
    certificates: Vec<SnpCertificate>,
    crl: Option<String>,
}

#[derive(Deserialize)]
struct TcbInfo {
    fmspc: String,
}

impl Collateral {
    /// Reads a file: TDX collateral, or certificates and revocation list for SNP.
    pub(crate) fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        let bytes = crate::serve::read_file(path, MAXIMUM_COLLATERAL_BYTES as u64)?;
        self.add(&bytes).with_context(|| path.display().to_string())
    }

    pub(super) fn add(&mut self, json: &[u8]) -> anyhow::Result<()> {
        let tree: Value = serde_json::from_slice(json).context("expected JSON")?;
        if tree.get("tcb_info").is_none() {
            let file = SnpFile::parse(json)?;
            self.snp.push(file);
            return Ok(());
        }
        let collateral = TdxCollateral::parse(json)?;
        let info: TcbInfo = serde_json::from_str(&collateral.tcb_info).context("fmspc of tcb_info")?;
        let fmspc = info.fmspc.to_ascii_lowercase();
        if self.tdx.insert(fmspc.clone(), collateral).is_some() {
            bail!("a second collateral for FMSPC {fmspc}");
        }
        Ok(())
    }

    /// TDX collateral of a platform.
    pub(super) fn tdx(&self, fmspc: &str) -> Option<&TdxCollateral> {
        self.tdx.get(fmspc)
    }

    /// Certificates of SNP platforms, file by file.
    pub(super) fn snp_certificates(&self) -> impl Iterator<Item = &[SnpCertificate]> {
        self.snp
            .iter()
            .map(|file| file.certificates.as_slice())
            .filter(|certificates| !certificates.is_empty())
    }

    /// The revocation list of a generation's root, if a file has one.
    pub(super) fn snp_list(&self, generation: Option<Generation>) -> Option<&[u8]> {
        let mut lists = self.snp.iter().filter_map(|file| file.list.as_ref());
        let wanted = generation?;
        lists.find(|(of, _)| *of == wanted).map(|(_, list)| list.as_slice())
    }

    /// How many files were read.
    pub(crate) fn len(&self) -> usize {
        self.tdx.len() + self.snp.len()
    }
}

impl SnpFile {
    fn parse(json: &[u8]) -> anyhow::Result<Self> {
        let json: SnpJson = serde_json::from_slice(json).context("expected TDX or SNP collateral")?;
        let list = json.crl.map(|text| STANDARD.decode(text)).transpose().context("crl")?;
        let list = list.map(|der| Ok::<_, anyhow::Error>((issuer(&der)?, der))).transpose()?;
        if json.certificates.iter().any(|certificate| certificate.kind == SnpCertificateKind::Crl) {
            bail!("a revocation list stands in the member crl");
        }
        Ok(Self { certificates: json.certificates, list })
    }
}

/// Whose list it says it is; it is believed when a root's key verifies it.
fn issuer(der: &[u8]) -> anyhow::Result<Generation> {
    let list = <CertificateList>::from_der(der).context("crl")?;
    let name = list.tbs_cert_list.issuer.to_string();
    let generations = [Generation::Milan, Generation::Genoa, Generation::Turin];
    let of = |generation: &Generation| name.contains(&format!("ARK-{generation}"));
    generations.into_iter().find(of).with_context(|| format!("crl: expected an ARK as issuer, found {name}"))
}
