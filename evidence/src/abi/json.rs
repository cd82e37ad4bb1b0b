//! Evidence as upstream's attestation agent hands it out: compact JSON, members in ascending order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::abi::snp::{FirmwareVersion, GuestPolicy, KeyInfo, REPORT_BYTES, SnpReport, Tcb};
use crate::bytes::{Octets, limit};
use crate::error::{EvidenceError, Found};

/// Longest evidence text.
pub const MAXIMUM_JSON_BYTES: usize = 2 * 1024 * 1024;
/// Most certificates beside an SNP report.
pub const MAXIMUM_CERTIFICATES: usize = 8;
/// Longest certificate or revocation list beside an SNP report.
pub const MAXIMUM_CERTIFICATE_BYTES: usize = 64 * 1024;

/// TDX evidence: quote and event log, both still to be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxEvidence {
    /// The event log.
    pub event_log: Option<Vec<u8>>,
    /// The quote.
    pub quote: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxJson {
    cc_eventlog: Option<String>,
    quote: String,
}

impl TdxEvidence {
    /// Parses the JSON text.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE`.
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        limit("TDX evidence", MAXIMUM_JSON_BYTES, json.len())?;
        let json: TdxJson = from_json("TDX evidence", json)?;
        let decode = |what, text: String| {
            STANDARD.decode(text).map_err(|error| EvidenceError::Malformed {
                what,
                expected: "standard base64",
                found: Found::value(error),
            })
        };
        Ok(Self {
            event_log: json.cc_eventlog.map(|text| decode("cc_eventlog", text)).transpose()?,
            quote: decode("quote", json.quote)?,
        })
    }

    /// The JSON text.
    #[must_use]
    pub fn encode(&self) -> String {
        to_json(&TdxJson {
            cc_eventlog: self.event_log.as_ref().map(|log| STANDARD.encode(log)),
            quote: STANDARD.encode(&self.quote),
        })
    }
}

/// SNP evidence: a report and what the host delivered beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpEvidence {
    /// The report.
    pub report: SnpReport,
    /// Certificates; absent is not the same as an empty list, which upstream refuses.
    pub certificates: Option<Vec<SnpCertificate>>,
}

/// One certificate beside an SNP report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpCertificate {
    /// What the host says it is.
    #[serde(rename = "cert_type")]
    pub kind: SnpCertificateKind,
    /// DER or PEM, as the host delivered it.
    pub data: Vec<u8>,
}

/// What a certificate beside an SNP report is, by the word of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnpCertificateKind {
    /// Root.
    #[serde(rename = "ARK")]
    Ark,
    /// Intermediate of VCEK or VLEK.
    #[serde(rename = "ASK")]
    Ask,
    /// Revocation list.
    #[serde(rename = "CRL")]
    Crl,
    /// Nothing.
    Empty,
    /// Another one, by its UUID.
    #[serde(rename = "OTHER")]
    Other(String),
    /// Key of the chip.
    #[serde(rename = "VCEK")]
    Vcek,
    /// Key of the cloud operator.
    #[serde(rename = "VLEK")]
    Vlek,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpJson {
    attestation_report: ReportJson,
    cert_chain: Option<Vec<SnpCertificate>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TcbJson {
    bootloader: u8,
    fmc: Option<u8>,
    microcode: u8,
    snp: u8,
    tee: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionJson {
    build: u8,
    major: u8,
    minor: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    r: Vec<u8>,
    s: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportJson {
    author_key_digest: Vec<u8>,
    chip_id: Vec<u8>,
    committed: VersionJson,
    committed_tcb: TcbJson,
    cpuid_fam_id: Option<u8>,
    cpuid_mod_id: Option<u8>,
    cpuid_step: Option<u8>,
    current: VersionJson,
    current_mit_vector: Option<u64>,
    current_tcb: TcbJson,
    family_id: Vec<u8>,
    guest_svn: u32,
    host_data: Vec<u8>,
    id_key_digest: Vec<u8>,
    image_id: Vec<u8>,
    key_info: u32,
    launch_mit_vector: Option<u64>,
    launch_tcb: TcbJson,
    measurement: Vec<u8>,
    plat_info: u64,
    policy: u64,
    report_data: Vec<u8>,
    report_id: Vec<u8>,
    report_id_ma: Vec<u8>,
    reported_tcb: TcbJson,
    sig_algo: u32,
    signature: SignatureJson,
    version: u32,
    vmpl: u32,
}

impl SnpEvidence {
    /// Parses the JSON text. The report is put back into its bytes and parsed from those, so that every rule of the
    /// binary form holds.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE` and those of [`SnpReport::parse`].
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        limit("SNP evidence", MAXIMUM_JSON_BYTES, json.len())?;
        let json: SnpJson = from_json("SNP evidence", json)?;
        for certificate in json.cert_chain.iter().flatten() {
            limit("certificate beside an SNP report", MAXIMUM_CERTIFICATE_BYTES, certificate.data.len())?;
        }
        limit(
            "certificates beside an SNP report",
            MAXIMUM_CERTIFICATES,
            json.cert_chain.iter().flatten().count(),
        )?;
        let members = report_from_json(json.attestation_report)?;
        let bytes = members.encode();
        let report = SnpReport::parse(&bytes)?;
        // GUARD: json-report-faithful -> evil_json_members_that_no_report_has_are_refused
        if report != members {
            return Err(EvidenceError::Malformed {
                what: "SNP evidence",
                expected: "members as the report's version and processor have them",
                found: Found::text("members that the binary report cannot have"),
            });
        }
        limit("SNP report", REPORT_BYTES, bytes.len())?;
        Ok(Self { report, certificates: json.cert_chain })
    }

    /// The JSON text.
    #[must_use]
    pub fn encode(&self) -> String {
        to_json(&SnpJson {
            attestation_report: report_to_json(&self.report),
            cert_chain: self.certificates.clone(),
        })
    }
}

fn report_from_json(json: ReportJson) -> Result<SnpReport, EvidenceError> {
    let tcb = |json: TcbJson| Tcb {
        fmc: json.fmc,
        bootloader: json.bootloader,
        tee: json.tee,
        snp: json.snp,
        microcode: json.microcode,
    };
    let version =
        |json: VersionJson| FirmwareVersion { major: json.major, minor: json.minor, build: json.build };
    Ok(SnpReport {
        version: json.version,
        guest_svn: json.guest_svn,
        policy: GuestPolicy(json.policy),
        family_id: octets("family_id", &json.family_id)?,
        image_id: octets("image_id", &json.image_id)?,
        vmpl: json.vmpl,
        signature_algorithm: json.sig_algo,
        current_tcb: tcb(json.current_tcb),
        platform_info: json.plat_info,
        key_info: KeyInfo(json.key_info),
        report_data: octets("report_data", &json.report_data)?,
        measurement: octets("measurement", &json.measurement)?,
        host_data: octets("host_data", &json.host_data)?,
        id_key_digest: octets("id_key_digest", &json.id_key_digest)?,
        author_key_digest: octets("author_key_digest", &json.author_key_digest)?,
        report_id: octets("report_id", &json.report_id)?,
        report_id_ma: octets("report_id_ma", &json.report_id_ma)?,
        reported_tcb: tcb(json.reported_tcb),
        cpuid: all(
            "cpuid_fam_id, cpuid_mod_id, cpuid_step",
            [json.cpuid_fam_id, json.cpuid_mod_id, json.cpuid_step],
        )?,
        chip_id: octets("chip_id", &json.chip_id)?,
        committed_tcb: tcb(json.committed_tcb),
        current: version(json.current),
        committed: version(json.committed),
        launch_tcb: tcb(json.launch_tcb),
        mitigations: all(
            "launch_mit_vector, current_mit_vector",
            [json.launch_mit_vector, json.current_mit_vector],
        )?,
        signature_r: octets("signature.r", &json.signature.r)?,
        signature_s: octets("signature.s", &json.signature.s)?,
    })
}

fn report_to_json(report: &SnpReport) -> ReportJson {
    let tcb = |tcb: Tcb| TcbJson {
        bootloader: tcb.bootloader,
        fmc: tcb.fmc,
        microcode: tcb.microcode,
        snp: tcb.snp,
        tee: tcb.tee,
    };
    let version = |v: FirmwareVersion| VersionJson { build: v.build, major: v.major, minor: v.minor };
    ReportJson {
        author_key_digest: report.author_key_digest.0.to_vec(),
        chip_id: report.chip_id.0.to_vec(),
        committed: version(report.committed),
        committed_tcb: tcb(report.committed_tcb),
        cpuid_fam_id: report.cpuid.map(|[family, _, _]| family),
        cpuid_mod_id: report.cpuid.map(|[_, model, _]| model),
        cpuid_step: report.cpuid.map(|[_, _, stepping]| stepping),
        current: version(report.current),
        current_mit_vector: report.mitigations.map(|[_, current]| current),
        current_tcb: tcb(report.current_tcb),
        family_id: report.family_id.0.to_vec(),
        guest_svn: report.guest_svn,
        host_data: report.host_data.0.to_vec(),
        id_key_digest: report.id_key_digest.0.to_vec(),
        image_id: report.image_id.0.to_vec(),
        key_info: report.key_info.0,
        launch_mit_vector: report.mitigations.map(|[launch, _]| launch),
        launch_tcb: tcb(report.launch_tcb),
        measurement: report.measurement.0.to_vec(),
        plat_info: report.platform_info,
        policy: report.policy.0,
        report_data: report.report_data.0.to_vec(),
        report_id: report.report_id.0.to_vec(),
        report_id_ma: report.report_id_ma.0.to_vec(),
        reported_tcb: tcb(report.reported_tcb),
        sig_algo: report.signature_algorithm,
        signature: SignatureJson { r: report.signature_r.0.to_vec(), s: report.signature_s.0.to_vec() },
        version: report.version,
        vmpl: report.vmpl,
    }
}

fn octets<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<Octets<N>, EvidenceError> {
    bytes.try_into().map(Octets).map_err(|_| EvidenceError::Malformed {
        what,
        expected: "an array of the field's length",
        found: Found::value(format_args!("{} bytes instead of {N}", bytes.len())),
    })
}

/// All of several members, or none of them.
fn all<T: Copy + Default, const N: usize>(
    what: &'static str,
    members: [Option<T>; N],
) -> Result<Option<[T; N]>, EvidenceError> {
    let present = members.iter().flatten().count();
    if present != 0 && present != N {
        return Err(EvidenceError::Malformed {
            what,
            expected: "all or none of them",
            found: Found::value(format_args!("{present} of {N}")),
        });
    }
    Ok((present == N).then(|| members.map(Option::unwrap_or_default)))
}

fn from_json<'a, T: Deserialize<'a>>(what: &'static str, json: &'a [u8]) -> Result<T, EvidenceError> {
    serde_json::from_slice(json).map_err(|error| EvidenceError::Malformed {
        what,
        expected: "the members of its format",
        found: Found::value(error),
    })
}

fn to_json(value: &impl Serialize) -> String {
    // Numbers, strings and arrays always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}
