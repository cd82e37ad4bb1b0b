//! Certificates of AMD's chain: what `sev`, which looks at signatures alone, leaves open.

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_cert::der::asn1::{Ia5String, ObjectIdentifier, Uint};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::abi::snp::{Generation, SnpReport, Tcb};
use crate::bytes::Octets;
use crate::error::{EvidenceError, Found};
use crate::verify::certificate::{Parsed, RevocationList, big_endian, invalid};

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const OID_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");
const OID_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
const OID_EC: ObjectIdentifier = oid("1.2.840.10045.2.1");
const OID_P384: ObjectIdentifier = oid("1.3.132.0.34");
const OID_BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
const OID_KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
const OID_PRODUCT: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.2");
const OID_BOOTLOADER: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.1");
const OID_TEE: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.2");
const OID_SNP: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.3");
const OID_MICROCODE: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.8");
const OID_FMC: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.9");
const OID_HARDWARE_ID: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.4");
const OID_CSP_ID: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.5");

/// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes of salt; AMD writes the default trailer field out.
const PSS_PARAMETERS: [&[u8]; 2] = [
    b"\x30\x39\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\
      \x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30\
      \xa3\x03\x02\x01\x01",
    b"\x30\x34\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\
      \x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30",
];

/// Which key signs reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VekKind {
    /// Key of the chip.
    Vcek,
    /// Key of the cloud operator.
    Vlek,
}

/// The certificate's generation, by the product name in it.
pub(crate) fn product(vek: &Parsed) -> Result<Generation, EvidenceError> {
    let name = vek.extension(&OID_PRODUCT);
    let name = name.and_then(|extension| Ia5String::from_der(extension.extn_value.as_bytes()).ok());
    let name = name.map(|name| name.as_str().to_owned()).unwrap_or_default();
    [Generation::Milan, Generation::Genoa, Generation::Turin]
        .into_iter()
        .find(|generation| name.split('-').next() == Some(generation.name()))
        .ok_or_else(|| invalid(vek.which, "product name Milan, Genoa or Turin", Found::text(&name)))
}

/// ARK, ASK or ASVK: RSA-4096, PSS, an authority by its own word, with the name of its role.
pub(crate) fn authority(parsed: &Parsed, name: &str) -> Result<(), EvidenceError> {
    let which = parsed.which;
    let spki = parsed.certificate.tbs_certificate().subject_public_key_info();
    let key = Vec::<Uint>::from_der(parsed.public_key()).unwrap_or_default();
    let (bits, exponent) = match key.as_slice() {
        [modulus, exponent] => (modulus_bits(modulus.as_bytes()), big_endian(exponent.as_bytes())),
        _ => (0, None),
    };
    // GUARD: rsa-4096 -> evil_authority_with_a_short_key_is_refused
    if spki.algorithm.oid != OID_RSA || bits != 4096 {
        return Err(invalid(
            which,
            "an RSA key of 4096 bits",
            format_args!("{} of {bits} bits", spki.algorithm.oid),
        ));
    }
    // GUARD: rsa-exponent -> evil_authority_with_another_exponent_is_refused
    if exponent != Some(65_537) {
        return Err(invalid(which, "RSA exponent 65537", exponent.unwrap_or_default()));
    }
    let constraints = parsed.extension(&OID_BASIC_CONSTRAINTS);
    let is_ca = constraints
        .and_then(|extension| BasicConstraints::from_der(extension.extn_value.as_bytes()).ok())
        .is_some_and(|constraints| constraints.ca);
    // GUARD: authority-is-ca -> evil_authority_that_is_no_ca_is_refused
    if !is_ca {
        return Err(invalid(which, "basic constraints of an authority", "none"));
    }
    let usage = parsed.extension(&OID_KEY_USAGE);
    let may_sign = usage
        .and_then(|extension| KeyUsage::from_der(extension.extn_value.as_bytes()).ok())
        .is_some_and(|usage| usage.key_cert_sign());
    // GUARD: authority-may-sign -> evil_authority_that_may_not_sign_is_refused
    if !may_sign {
        return Err(invalid(which, "key usage certificate sign", "none"));
    }
    // GUARD: authority-name -> evil_vcek_under_the_authority_of_vleks_is_refused
    if parsed.common_name() != name {
        return Err(invalid(which, "the common name of its role", Found::text(&parsed.common_name())));
    }
    parsed.known_extensions(&[OID_BASIC_CONSTRAINTS, OID_KEY_USAGE])?;
    signature_algorithm(parsed)
}

fn modulus_bits(modulus: &[u8]) -> usize {
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros());
    (modulus.len() * 8).saturating_sub(usize::try_from(leading).unwrap_or(0))
}

fn signature_algorithm(parsed: &Parsed) -> Result<(), EvidenceError> {
    let outer = parsed.certificate.signature_algorithm();
    let inner = parsed.certificate.tbs_certificate().signature();
    // GUARD: pss-parameters -> evil_weaker_pss_parameters_are_refused
    if outer != inner || !is_pss(outer) {
        return Err(invalid(parsed.which, "RSASSA-PSS with SHA-384 and 48 bytes of salt", outer.oid));
    }
    Ok(())
}

fn is_pss(algorithm: &AlgorithmIdentifierOwned) -> bool {
    let parameters = algorithm.parameters.as_ref().and_then(|parameters| parameters.to_der().ok());
    algorithm.oid == OID_PSS
        && parameters.is_some_and(|parameters| PSS_PARAMETERS.contains(&parameters.as_slice()))
}

/// VCEK or VLEK: P-384, no authority, of this kind.
pub(crate) fn end_entity(vek: &Parsed, kind: VekKind) -> Result<(), EvidenceError> {
    let spki = vek.certificate.tbs_certificate().subject_public_key_info();
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    // GUARD: vek-p384 -> evil_vek_on_another_curve_is_refused
    if spki.algorithm.oid != OID_EC || curve != Some(OID_P384) || vek.public_key().len() != 97 {
        return Err(invalid(vek.which, "a P-384 key", spki.algorithm.oid));
    }
    let constraints = vek.extension(&OID_BASIC_CONSTRAINTS);
    let is_ca = constraints
        .and_then(|extension| BasicConstraints::from_der(extension.extn_value.as_bytes()).ok())
        .is_some_and(|constraints| constraints.ca);
    // GUARD: vek-is-no-ca -> evil_vek_that_is_an_authority_is_refused
    if is_ca {
        return Err(invalid(vek.which, "no authority", "basic constraints of one"));
    }
    let hardware = vek.extension(&OID_HARDWARE_ID).is_some();
    let operator = vek.extension(&OID_CSP_ID).is_some();
    let (name, expected) = match kind {
        VekKind::Vcek => ("SEV-VCEK", (true, false)),
        VekKind::Vlek => ("SEV-VLEK", (false, true)),
    };
    // GUARD: vek-kind -> evil_vlek_presented_as_vcek_is_refused
    if vek.common_name() != name || (hardware, operator) != expected {
        return Err(invalid(vek.which, "name and ids of its kind", Found::text(&vek.common_name())));
    }
    vek.known_extensions(&[OID_BASIC_CONSTRAINTS, OID_KEY_USAGE])?;
    signature_algorithm(vek)
}

/// The TCB that a VEK was derived for.
pub(crate) fn tcb(vek: &Parsed, generation: Generation) -> Result<Tcb, EvidenceError> {
    let fmc = match (generation, vek.extension(&OID_FMC)) {
        (Generation::Turin, _) => Some(version(vek, &OID_FMC, "extension of the FMC version")?),
        (_, None) => None,
        (_, Some(_)) => return Err(invalid(vek.which, "no FMC version before Turin", "one")),
    };
    Ok(Tcb {
        fmc,
        bootloader: version(vek, &OID_BOOTLOADER, "extension of the boot loader version")?,
        tee: version(vek, &OID_TEE, "extension of the TEE version")?,
        snp: version(vek, &OID_SNP, "extension of the SNP version")?,
        microcode: version(vek, &OID_MICROCODE, "extension of the microcode version")?,
    })
}

/// An INTEGER of 0 to 255; above 127 it has a zero byte in front.
fn version(vek: &Parsed, oid: &ObjectIdentifier, expected: &'static str) -> Result<u8, EvidenceError> {
    let extension = vek.extension(oid);
    let value = extension.and_then(|extension| u8::from_der(extension.extn_value.as_bytes()).ok());
    value.ok_or_else(|| invalid(vek.which, expected, "none"))
}

/// The certificate is that of the platform that made the report.
pub(crate) fn matches_report(
    vek: &Parsed,
    kind: VekKind,
    generation: Generation,
    report: &SnpReport,
) -> Result<Tcb, EvidenceError> {
    let found = tcb(vek, generation)?;
    // GUARD: vek-tcb -> evil_vek_of_another_tcb_is_refused
    if found != report.reported_tcb {
        return Err(EvidenceError::PlatformMismatch {
            field: "reported TCB",
            expected: Found::value(found),
            found: Found::value(report.reported_tcb),
        });
    }
    if kind == VekKind::Vcek {
        let id = vek.extension(&OID_HARDWARE_ID).map(|extension| extension.extn_value.as_bytes());
        let id = id.unwrap_or_default();
        let length = if generation == Generation::Turin { 8 } else { 64 };
        let padded = Octets::<64>::fitted(id);
        // GUARD: vek-hardware-id -> evil_vcek_of_another_chip_is_refused
        if id.len() != length || padded != report.chip_id || padded.is_zero() {
            return Err(EvidenceError::PlatformMismatch {
                field: "chip id",
                expected: Found::hex(id),
                found: Found::value(report.chip_id),
            });
        }
    }
    Ok(found)
}

/// A revocation list of the ARK: its signature, its issuer, and whether it names `authority`.
pub(crate) fn revocation(
    list: &RevocationList,
    which: &'static str,
    ark: &Parsed,
    authority: &Parsed,
) -> Result<(), EvidenceError> {
    // GUARD: list-issuer -> evil_revocation_list_of_another_issuer_is_refused
    if list.list.tbs_cert_list.issuer != *ark.subject() {
        return Err(invalid(which, "the root as issuer", &list.list.tbs_cert_list.issuer));
    }
    // GUARD: list-algorithm -> evil_revocation_list_with_weaker_parameters_is_refused
    if !is_pss(&list.list.signature_algorithm) {
        return Err(invalid(which, "RSASSA-PSS with SHA-384", list.list.signature_algorithm.oid));
    }
    let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, ark.public_key());
    // GUARD: list-signature -> evil_forged_revocation_list_is_refused
    key.verify(&list.signed_bytes(which)?, list.list.signature.raw_bytes()).map_err(|_| {
        EvidenceError::SignatureInvalid { what: which, reason: Found::text("not signed by the root") }
    })?;
    // GUARD: revoked-authority -> evil_revoked_authority_is_refused
    if list.revokes(authority.serial()) {
        return Err(EvidenceError::Revoked {
            which: authority.which,
            serial: Found::hex(authority.serial()),
        });
    }
    Ok(())
}
