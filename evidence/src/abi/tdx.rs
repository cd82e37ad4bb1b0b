//! TDX quotes: version 4, and version 5 with bodies of TDX 1.0, 1.5 and 1.5 extended.

use crate::bytes::{Octets, Reader, length_u32, limit};
use crate::error::{EvidenceError, Found};

/// Longest quote.
pub const MAXIMUM_QUOTE_BYTES: usize = 16 * 1024;
/// Longest PCK certificate chain in a quote.
pub const MAXIMUM_CHAIN_BYTES: usize = 12 * 1024;
/// Most zero bytes that a quoting service may put after a quote.
pub const MAXIMUM_PADDING_BYTES: usize = 4096;
const HEADER_BYTES: usize = 48;
const VENDOR_INTEL: Octets<16> = Octets(*b"\x93\x9a\x72\x33\xf7\x9c\x4c\xa9\x94\x0a\x0d\xb3\x95\x7f\x06\x07");
const KEY_TYPE_P256: u16 = 2;
const TEE_TYPE_TDX: u32 = 0x81;
const CERTIFICATION_QE_REPORT: u16 = 6;
const CERTIFICATION_PCK_CHAIN: u16 = 5;

/// A TDX quote. What it says is true only after [`verify`](crate::verify::tdx).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxQuote {
    /// What stands before the body.
    pub header: QuoteHeader,
    /// What the TDX module reported.
    pub body: TdBody,
    /// Signature by the attestation key.
    pub signature: Octets<64>,
    /// The attestation key, as point coordinates.
    pub attestation_key: Octets<64>,
    /// Report of the quoting enclave, which vouches for the attestation key.
    pub qe_report: Octets<384>,
    /// Signature over that report by the PCK.
    pub qe_report_signature: Octets<64>,
    /// What the quoting enclave hashed with the attestation key.
    pub qe_authentication_data: Octets<32>,
    /// The PCK certificate chain in PEM, as it stood in the quote.
    pub pck_chain: Vec<u8>,
}

/// Header of a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuoteHeader {
    /// Layout of what follows.
    pub version: QuoteVersion,
    /// Two security versions of the quoting service, or zero.
    pub service_svns: Octets<4>,
    /// Data of the quoting enclave.
    pub user_data: Octets<20>,
}

/// Version of a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteVersion {
    /// Version 4: body of TDX 1.0.
    V4,
    /// Version 5: the body's type stands before it.
    V5,
}

/// Body of a quote: the TD report without what is bound to one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TdBody {
    /// Security versions of the TDX module at launch.
    pub tee_tcb_svn: Octets<16>,
    /// Measurement of the TDX module.
    pub mr_seam: Octets<48>,
    /// Signer of the TDX module.
    pub mr_signer_seam: Octets<48>,
    /// Attributes of the TDX module.
    pub seam_attributes: Octets<8>,
    /// Attributes of the TD, debug among them.
    pub td_attributes: Octets<8>,
    /// Extended features of the TD.
    pub xfam: Octets<8>,
    /// Build-time measurement.
    pub mr_td: Octets<48>,
    /// Configuration chosen by the host at launch: here, the initdata digest.
    pub mr_config_id: Octets<48>,
    /// Owner, chosen by the host at launch.
    pub mr_owner: Octets<48>,
    /// Owner's configuration, chosen by the host at launch.
    pub mr_owner_config: Octets<48>,
    /// Runtime measurement registers.
    pub rtmr: [Octets<48>; 4],
    /// What the guest had attested.
    pub report_data: Octets<64>,
    /// What later versions of TDX add.
    pub extension: TdExtension,
}

/// What a body has beyond TDX 1.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one per quote, beside a body of the same size")]
pub enum TdExtension {
    /// Nothing.
    #[default]
    Td10,
    /// TDX 1.5.
    Td15(Td15),
    /// TDX 1.5, extended.
    Td15Extended(Td15, Octets<237>),
}

/// What TDX 1.5 adds to a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Td15 {
    /// Security versions of the TDX module that runs now.
    pub tee_tcb_svn2: Octets<16>,
    /// Measurement of service TDs.
    pub mr_service_td: Octets<48>,
}

impl TdBody {
    /// Whether the host can debug or profile the TD.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        let [first, ..] = self.td_attributes.0;
        first & 0x71 != 0
    }

    fn parse(kind: u16, reader: &mut Reader<'_>) -> Result<Self, EvidenceError> {
        let mut body = Self {
            tee_tcb_svn: reader.octets()?,
            mr_seam: reader.octets()?,
            mr_signer_seam: reader.octets()?,
            seam_attributes: reader.octets()?,
            td_attributes: reader.octets()?,
            xfam: reader.octets()?,
            mr_td: reader.octets()?,
            mr_config_id: reader.octets()?,
            mr_owner: reader.octets()?,
            mr_owner_config: reader.octets()?,
            rtmr: [reader.octets()?, reader.octets()?, reader.octets()?, reader.octets()?],
            report_data: reader.octets()?,
            extension: TdExtension::Td10,
        };
        if kind > 2 {
            let td15 = Td15 { tee_tcb_svn2: reader.octets()?, mr_service_td: reader.octets()? };
            body.extension = match kind {
                3 => TdExtension::Td15(td15),
                _ => TdExtension::Td15Extended(td15, reader.octets()?),
            };
        }
        Ok(body)
    }

    const fn kind_and_length(&self) -> (u16, u32) {
        match self.extension {
            TdExtension::Td10 => (2, 584),
            TdExtension::Td15(_) => (3, 648),
            TdExtension::Td15Extended(..) => (4, 885),
        }
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend(self.tee_tcb_svn.0);
        out.extend(self.mr_seam.0);
        out.extend(self.mr_signer_seam.0);
        out.extend(self.seam_attributes.0);
        out.extend(self.td_attributes.0);
        out.extend(self.xfam.0);
        out.extend(self.mr_td.0);
        out.extend(self.mr_config_id.0);
        out.extend(self.mr_owner.0);
        out.extend(self.mr_owner_config.0);
        self.rtmr.iter().for_each(|register| out.extend(register.0));
        out.extend(self.report_data.0);
        let (TdExtension::Td15(td15) | TdExtension::Td15Extended(td15, _)) = &self.extension else { return };
        out.extend(td15.tee_tcb_svn2.0);
        out.extend(td15.mr_service_td.0);
        if let TdExtension::Td15Extended(_, more) = &self.extension {
            out.extend(more.0);
        }
    }
}

impl QuoteHeader {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, EvidenceError> {
        let version = match reader.u16()? {
            4 => QuoteVersion::V4,
            5 => QuoteVersion::V5,
            other => return Err(unsupported("quote version", "4 or 5", other)),
        };
        let key_type = reader.u16()?;
        // GUARD: quote-key-type -> evil_quote_header_of_another_kind_is_refused
        if key_type != KEY_TYPE_P256 {
            return Err(unsupported("quote attestation key type", "2 (ECDSA P-256)", key_type));
        }
        let tee_type = reader.u32()?;
        // GUARD: quote-tee-type -> evil_quote_header_of_another_kind_is_refused
        if tee_type != TEE_TYPE_TDX {
            return Err(unsupported("quote TEE type", "129 (TDX)", tee_type));
        }
        let service_svns = reader.octets()?;
        let vendor: Octets<16> = reader.octets()?;
        // GUARD: quote-vendor -> evil_quote_header_of_another_kind_is_refused
        if vendor != VENDOR_INTEL {
            return Err(unsupported("quote vendor", "939a7233f79c4ca9940a0db3957f0607", vendor));
        }
        Ok(Self { version, service_svns, user_data: reader.octets()? })
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let version: u16 = match self.version {
            QuoteVersion::V4 => 4,
            QuoteVersion::V5 => 5,
        };
        out.extend(version.to_le_bytes());
        out.extend(KEY_TYPE_P256.to_le_bytes());
        out.extend(TEE_TYPE_TDX.to_le_bytes());
        out.extend(self.service_svns.0);
        out.extend(VENDOR_INTEL.0);
        out.extend(self.user_data.0);
    }
}

impl TdxQuote {
    /// Parses exactly one quote.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE`, `EVIDENCE_TRAILING_BYTES`, `EVIDENCE_UNSUPPORTED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        limit("TDX quote", MAXIMUM_QUOTE_BYTES, bytes.len())?;
        let mut reader = Reader::new("TDX quote", bytes);
        let quote = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(quote)
    }

    /// The quote at the front of `bytes`, without the zero bytes that some quoting services put after it. For the
    /// guest that received it; a verifier takes no bytes after a quote.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); anything but zero bytes is `EVIDENCE_TRAILING_BYTES`.
    pub fn without_padding(bytes: &[u8]) -> Result<&[u8], EvidenceError> {
        limit("TDX quote", MAXIMUM_QUOTE_BYTES + MAXIMUM_PADDING_BYTES, bytes.len())?;
        let mut reader = Reader::new("TDX quote", bytes);
        Self::read(&mut reader)?;
        let padding = reader.rest();
        if padding.iter().any(|byte| *byte != 0) {
            reader.finish()?;
        }
        let (quote, _) = bytes.split_at_checked(bytes.len() - padding.len()).unwrap_or_default();
        limit("TDX quote", MAXIMUM_QUOTE_BYTES, quote.len())?;
        Ok(quote)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, EvidenceError> {
        let header = QuoteHeader::parse(reader)?;
        let kind = match header.version {
            QuoteVersion::V4 => 2,
            QuoteVersion::V5 => body_kind(reader.u16()?, reader.u32()?)?,
        };
        let body = TdBody::parse(kind, reader)?;
        let length = reader.length("quote signature data", MAXIMUM_QUOTE_BYTES)?;
        let mut auth = Reader::new("quote signature data", reader.take(length)?);
        let signature = auth.octets()?;
        let attestation_key = auth.octets()?;
        certification("quote certification data type", CERTIFICATION_QE_REPORT, auth.u16()?)?;
        let length = auth.length("quote certification data", MAXIMUM_QUOTE_BYTES)?;
        let mut inner = Reader::new("quote certification data", auth.take(length)?);
        auth.finish()?;
        let qe_report = inner.octets()?;
        let qe_report_signature = inner.octets()?;
        let length = inner.u16()?;
        // GUARD: quote-authentication-data-length -> evil_quote_inner_lengths_are_exact
        if length != 32 {
            return Err(unsupported("quote authentication data length", "32", length));
        }
        let qe_authentication_data = inner.octets()?;
        certification("quote PCK certification type", CERTIFICATION_PCK_CHAIN, inner.u16()?)?;
        let length = inner.length("PCK certificate chain", MAXIMUM_CHAIN_BYTES)?;
        let pck_chain = inner.take(length)?.to_vec();
        inner.finish()?;
        Ok(Self {
            header,
            body,
            signature,
            attestation_key,
            qe_report,
            qe_report_signature,
            qe_authentication_data,
            pck_chain,
        })
    }

    /// The bytes that the attestation key signs.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + 1024);
        self.header.encode_into(&mut out);
        if self.header.version == QuoteVersion::V5 {
            let (kind, length) = self.body.kind_and_length();
            out.extend(kind.to_le_bytes());
            out.extend(length.to_le_bytes());
        }
        self.body.encode_into(&mut out);
        out
    }

    /// The quote's bytes. A version-4 quote with a body beyond TDX 1.0 encodes to bytes that no parser takes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut inner = Vec::with_capacity(512 + self.pck_chain.len());
        inner.extend(self.qe_report.0);
        inner.extend(self.qe_report_signature.0);
        inner.extend(32u16.to_le_bytes());
        inner.extend(self.qe_authentication_data.0);
        inner.extend(CERTIFICATION_PCK_CHAIN.to_le_bytes());
        inner.extend(length_u32(self.pck_chain.len()));
        inner.extend(&self.pck_chain);
        let mut auth = Vec::with_capacity(160 + inner.len());
        auth.extend(self.signature.0);
        auth.extend(self.attestation_key.0);
        auth.extend(CERTIFICATION_QE_REPORT.to_le_bytes());
        auth.extend(length_u32(inner.len()));
        auth.extend(inner);
        let mut out = self.signed_bytes();
        out.extend(length_u32(auth.len()));
        out.extend(auth);
        out
    }
}

fn body_kind(kind: u16, length: u32) -> Result<u16, EvidenceError> {
    let expected = match kind {
        2 => 584,
        3 => 648,
        4 => 885,
        other => return Err(unsupported("quote body type", "2, 3 or 4", other)),
    };
    // GUARD: quote-body-length -> evil_quote_inner_lengths_are_exact
    if length != expected {
        return Err(EvidenceError::Malformed {
            what: "quote body length",
            expected: "584, 648 or 885 for body type 2, 3 or 4",
            found: Found::value(format_args!("{length} for type {kind}")),
        });
    }
    Ok(kind)
}

fn certification(what: &'static str, expected: u16, found: u16) -> Result<(), EvidenceError> {
    // GUARD: quote-certification-type -> evil_quote_inner_lengths_are_exact
    if found != expected {
        return Err(unsupported(what, "a QE report with a PCK certificate chain", found));
    }
    Ok(())
}

fn unsupported(what: &'static str, expected: &'static str, found: impl std::fmt::Display) -> EvidenceError {
    EvidenceError::Unsupported { what, expected, found: Found::value(found) }
}
