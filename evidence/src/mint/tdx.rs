//! An emulated TDX platform: root, PCK CA, PCK, TCB signer, collateral, quoting enclave.

use std::time::Duration;

use sha2::{Digest, Sha256};
use x509_cert::der::DateTime;

use crate::abi::tdx::{QuoteHeader, QuoteVersion, TdBody, TdExtension, TdxQuote};
use crate::bytes::Octets;
use crate::mint::der::{
    CertificateTemplate, Extension, ListTemplate, authority_extensions, bit_string, integer, name,
    octet_string, oid, sequence, tlv,
};
use crate::mint::{MintError, P256Key, failed};
use crate::verify::collateral::TdxCollateral;
use crate::verify::pem;

const SGX: &str = "1.2.840.113741.1.13.1";
/// `SEPT_VE_DISABLE`, without which no verifier takes a TD.
pub const SEPT_VE_DISABLE: Octets<8> = Octets([0, 0, 0, 0x10, 0, 0, 0, 0]);

/// An emulated platform. All that it says can be changed before something is made from it.
#[derive(Debug)]
pub struct TdxPlatform {
    /// Root.
    pub root: CertificateTemplate,
    /// Issuer of the PCK certificate.
    pub ca: CertificateTemplate,
    /// PCK certificate.
    pub pck: CertificateTemplate,
    /// Signer of TCB info and QE identity.
    pub signer: CertificateTemplate,
    /// Revocation list of the root.
    pub root_crl: ListTemplate,
    /// Revocation list of the PCK CA.
    pub pck_crl: ListTemplate,
    /// Dates of TCB info.
    pub tcb_info_window: (u64, u64),
    /// Dates of QE identity.
    pub qe_identity_window: (u64, u64),
    /// Platform family.
    pub fmspc: [u8; 6],
    /// Id of the certification enclave in the TCB info.
    pub tcb_info_pce_id: [u8; 2],
    /// Status of the platform's TCB level.
    pub tcb_status: &'static str,
    /// TCB-evaluation number.
    pub tcb_evaluation: u32,
    root_key: P256Key,
    ca_key: P256Key,
    pck_key: P256Key,
    signer_key: P256Key,
    attestation_key: P256Key,
}

impl TdxPlatform {
    /// The platform of a seed; everything holds from `issued` to `expires`.
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn new(seed: &str, issued: u64, expires: u64) -> Result<Self, MintError> {
        let key = |label| P256Key::derive(seed, label);
        let (root_key, ca_key, pck_key, signer_key) = (key("root")?, key("ca")?, key("pck")?, key("signer")?);
        let algorithm = sequence(&[oid("1.2.840.10045.4.3.2")?]);
        let certificate =
            |serial: u8, issuer: &str, subject: &str, key: &P256Key, extensions| -> Result<_, MintError> {
                Ok(CertificateTemplate {
                    serial: vec![serial],
                    issuer: name(issuer)?,
                    subject: name(subject)?,
                    not_before: issued,
                    not_after: expires,
                    public_key: public_key(key)?,
                    extensions,
                    algorithm: algorithm.clone(),
                })
            };
        let list = |issuer: &str, number| -> Result<_, MintError> {
            Ok(ListTemplate {
                issuer: name(issuer)?,
                this_update: issued,
                next_update: expires,
                revoked: Vec::new(),
                number,
                algorithm: algorithm.clone(),
            })
        };
        let (fmspc, pce_id) = ([0xe0, 0, 0, 0, 0, 1], [0, 0]);
        let (root, ca) = ("Emulated SGX Root CA", "Emulated PCK Platform CA");
        let leaf = vec![Extension::new("2.5.29.15", true, tlv(0x03, &[6, 0xc0]))];
        let mut pck_extensions = leaf.clone();
        pck_extensions.push(Extension::new(SGX, false, sgx_extension(fmspc, pce_id)?));
        Ok(Self {
            root: certificate(1, root, root, &root_key, authority_extensions())?,
            ca: certificate(2, root, ca, &ca_key, authority_extensions())?,
            pck: certificate(3, ca, "Emulated PCK", &pck_key, pck_extensions)?,
            signer: certificate(4, root, "Emulated TCB Signing", &signer_key, leaf)?,
            root_crl: list(root, 7)?,
            pck_crl: list(ca, 9)?,
            tcb_info_window: (issued, expires),
            qe_identity_window: (issued, expires),
            fmspc,
            tcb_info_pce_id: pce_id,
            tcb_status: "UpToDate",
            tcb_evaluation: 17,
            attestation_key: key("attestation")?,
            root_key,
            ca_key,
            pck_key,
            signer_key,
        })
    }

    /// The root certificate, DER: for [`TdxRoot::danger_emulator`](crate::verify::roots::TdxRoot::danger_emulator).
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn root_der(&self) -> Result<Vec<u8>, MintError> {
        self.root.issue(|bytes| der_signature(&self.root_key, bytes))
    }

    /// The collateral.
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn collateral(&self) -> Result<TdxCollateral, MintError> {
        let signer = self.signer.issue(|bytes| der_signature(&self.root_key, bytes))?;
        let issuer_chain = pem::encode_chain(&[signer, self.root_der()?]);
        let tcb_info = self.tcb_info()?;
        let qe_identity = self.qe_identity()?;
        Ok(TdxCollateral {
            pck_crl: self.pck_crl.issue(|bytes| der_signature(&self.ca_key, bytes))?,
            pck_crl_issuer_chain: String::new(),
            pck_certificate_chain: None,
            qe_identity_signature: self.signer_key.sign(qe_identity.as_bytes())?.to_vec(),
            qe_identity,
            qe_identity_issuer_chain: issuer_chain.clone(),
            root_ca_crl: self.root_crl.issue(|bytes| der_signature(&self.root_key, bytes))?,
            tcb_info_signature: self.signer_key.sign(tcb_info.as_bytes())?.to_vec(),
            tcb_info,
            tcb_info_issuer_chain: issuer_chain,
        })
    }

    /// A quote over `body`. Version 4 where the body is of TDX 1.0, else 5.
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn quote(&self, body: TdBody) -> Result<TdxQuote, MintError> {
        let version = match body.extension {
            TdExtension::Td10 => QuoteVersion::V4,
            TdExtension::Td15(_) | TdExtension::Td15Extended(..) => QuoteVersion::V5,
        };
        self.quote_of_version(version, body)
    }

    /// A quote of a chosen version.
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn quote_of_version(&self, version: QuoteVersion, body: TdBody) -> Result<TdxQuote, MintError> {
        let authentication = Octets([0x0a; 32]);
        let key = self.attestation_key.point();
        let bound = Sha256::digest([key.as_slice(), &authentication.0].concat());
        let mut qe_report = [0; 384];
        let fields = [(256, [2, 0].as_slice()), (320, &bound)];
        for (offset, field) in fields {
            qe_report.iter_mut().skip(offset).zip(field).for_each(|(to, from)| *to = *from);
        }
        let chain = [
            self.pck.issue(|bytes| der_signature(&self.ca_key, bytes))?,
            self.ca.issue(|bytes| der_signature(&self.root_key, bytes))?,
            self.root_der()?,
        ];
        let header = QuoteHeader { version, service_svns: Octets::default(), user_data: Octets::default() };
        let mut quote = TdxQuote {
            header,
            body,
            signature: Octets([0; 64]),
            attestation_key: Octets(key),
            qe_report_signature: Octets(self.pck_key.sign(&qe_report)?),
            qe_report: Octets(qe_report),
            qe_authentication_data: authentication,
            pck_chain: pem::encode_chain(&chain).into_bytes(),
        };
        quote.signature = Octets(self.attestation_key.sign(&quote.signed_bytes())?);
        Ok(quote)
    }

    fn tcb_info(&self) -> Result<String, MintError> {
        let (issued, expires) = self.tcb_info_window;
        let components = vec![r#"{"svn":0}"#; 16].join(",");
        let (mrsigner, zero) = ("0".repeat(96), "0".repeat(16));
        Ok(format!(
            r#"{{"id":"TDX","version":3,"issueDate":"{}","nextUpdate":"{}","fmspc":"{}","pceId":"{}","tcbType":0,"tcbEvaluationDataNumber":{},"tdxModule":{{"mrsigner":"{mrsigner}","attributes":"{zero}","attributesMask":"FFFFFFFFFFFFFFFF"}},"tdxModuleIdentities":[],"tcbLevels":[{{"tcb":{{"sgxtcbcomponents":[{components}],"pcesvn":0,"tdxtcbcomponents":[{components}]}},"tcbDate":"{}","tcbStatus":"{}"}}]}}"#,
            date(issued)?,
            date(expires)?,
            hex::encode_upper(self.fmspc),
            hex::encode_upper(self.tcb_info_pce_id),
            self.tcb_evaluation,
            date(issued)?,
            self.tcb_status,
        ))
    }

    fn qe_identity(&self) -> Result<String, MintError> {
        let (issued, expires) = self.qe_identity_window;
        Ok(format!(
            r#"{{"id":"TD_QE","version":2,"issueDate":"{}","nextUpdate":"{}","tcbEvaluationDataNumber":{},"miscselect":"00000000","miscselectMask":"FFFFFFFF","attributes":"{zero}","attributesMask":"{ones}","mrsigner":"{zero}{zero}","isvprodid":2,"tcbLevels":[{{"tcb":{{"isvsvn":0}},"tcbDate":"{}","tcbStatus":"UpToDate"}}]}}"#,
            date(issued)?,
            date(expires)?,
            self.tcb_evaluation,
            date(issued)?,
            zero = "0".repeat(32),
            ones = "F".repeat(32),
        ))
    }
}

fn date(seconds: u64) -> Result<String, MintError> {
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds));
    date.map(|date| date.to_string()).map_err(failed("a date"))
}

fn public_key(key: &P256Key) -> Result<Vec<u8>, MintError> {
    let point = [&[4], key.point().as_slice()].concat();
    let algorithm = sequence(&[oid("1.2.840.10045.2.1")?, oid("1.2.840.10045.3.1.7")?]);
    Ok(sequence(&[algorithm, bit_string(&point)]))
}

fn der_signature(key: &P256Key, message: &[u8]) -> Result<Vec<u8>, MintError> {
    let signature = key.sign(message)?;
    let (r, s) = signature.split_at(32);
    Ok(sequence(&[integer(r), integer(s)]))
}

/// Intel's extension of a PCK certificate.
///
/// # Errors
/// Never for these constants.
pub fn sgx_extension(fmspc: [u8; 6], pce_id: [u8; 2]) -> Result<Vec<u8>, MintError> {
    let entry = |suffix: &str, value: Vec<u8>| -> Result<Vec<u8>, MintError> {
        Ok(sequence(&[oid(&format!("{SGX}.{suffix}"))?, value]))
    };
    let mut tcb = Vec::new();
    for component in 1..=17 {
        tcb.push(entry(&format!("2.{component}"), integer(&[0]))?);
    }
    tcb.push(entry("2.18", octet_string(&[0; 16]))?);
    Ok(sequence(&[
        entry("1", octet_string(&[0xee; 16]))?,
        entry("2", sequence(&tcb))?,
        entry("3", octet_string(&pce_id))?,
        entry("4", octet_string(&fmspc))?,
        entry("5", tlv(0x0a, &[1]))?,
    ]))
}
