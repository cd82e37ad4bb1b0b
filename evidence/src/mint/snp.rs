//! An emulated SEV-SNP platform: ARK, ASK, VCEK or VLEK, revocation list, reports.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA384, RsaKeyPair};

use crate::abi::snp::{FirmwareVersion, Generation, GuestPolicy, KeyInfo, SnpReport, Tcb};
use crate::bytes::Octets;
use crate::mint::der::{
    CertificateTemplate, Extension, ListTemplate, authority_extensions, bit_string, integer, name, oid,
    sequence, tlv,
};
use crate::mint::{MintError, P384Key, failed};
use crate::verify::roots::SnpRoot;
use crate::verify::snp::{SnpCollateral, VekKind};

/// An RSA key of an emulated root or intermediate.
#[derive(Debug)]
pub struct RsaKey(RsaKeyPair);

impl RsaKey {
    /// A key from PKCS #8.
    ///
    /// # Errors
    /// For bytes that are none.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, MintError> {
        RsaKeyPair::from_pkcs8(pkcs8).map(Self).map_err(failed("an RSA key in PKCS #8"))
    }

    /// A new key of 4096 bits and its PKCS #8; takes a second or more.
    ///
    /// # Errors
    /// If the library fails.
    pub fn generate() -> Result<(Self, Vec<u8>), MintError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed("a new RSA key"))?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(failed("an RSA key in PKCS #8"))?;
        let pkcs8 = pkcs8.as_ref().to_vec();
        Ok((Self(pair), pkcs8))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MintError> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature)
            .map_err(failed("an RSA signature"))?;
        Ok(signature)
    }
}

/// An emulated platform. All that it says can be changed before something is made from it.
#[derive(Debug)]
pub struct SnpPlatform {
    /// Which processors.
    pub generation: Generation,
    /// Which key signs reports.
    pub kind: VekKind,
    /// Id of the chip.
    pub chip_id: Octets<64>,
    /// TCB.
    pub tcb: Tcb,
    /// Root.
    pub ark: CertificateTemplate,
    /// Intermediate.
    pub ask: CertificateTemplate,
    /// VCEK or VLEK.
    pub vek: CertificateTemplate,
    /// Revocation list of the root.
    pub crl: ListTemplate,
    ark_key: RsaKey,
    ask_key: RsaKey,
    vek_key: P384Key,
}

impl SnpPlatform {
    /// The platform of a seed; everything holds from `issued` to `expires`.
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn new(
        (ark_key, ask_key): (RsaKey, RsaKey),
        (generation, kind): (Generation, VekKind),
        seed: &str,
        issued: u64,
        expires: u64,
    ) -> Result<Self, MintError> {
        let turin = generation == Generation::Turin;
        let mut chip_id = Octets([0; 64]);
        chip_id
            .0
            .iter_mut()
            .take(if turin { 8 } else { 64 })
            .zip(0x40..)
            .for_each(|(byte, value)| *byte = value);
        let tcb = Tcb { fmc: turin.then_some(1), bootloader: 3, tee: 2, snp: 20, microcode: 209 };
        let ark_name = format!("ARK-{generation}");
        let (ask_name, vek_name) = match kind {
            VekKind::Vcek => (format!("SEV-{generation}"), "SEV-VCEK"),
            VekKind::Vlek => (format!("SEV-VLEK-{generation}"), "SEV-VLEK"),
        };
        let vek_key = P384Key::derive(seed, "vek")?;
        let certificate = |serial: u8, issuer: &str, subject: &str, public_key, extensions| {
            Ok(CertificateTemplate {
                serial: vec![serial],
                issuer: name(issuer)?,
                subject: name(subject)?,
                not_before: issued,
                not_after: expires,
                public_key,
                extensions,
                algorithm: pss_algorithm()?,
            })
        };
        let ark_public = rsa_public_key(ark_key.0.public_key().as_ref())?;
        let ask_public = rsa_public_key(ask_key.0.public_key().as_ref())?;
        let curve = sequence(&[oid("1.2.840.10045.2.1")?, oid("1.3.132.0.34")?]);
        let vek_public = sequence(&[curve, bit_string(&vek_key.sec1())]);
        Ok(Self {
            ark: certificate(1, &ark_name, &ark_name, ark_public, authority_extensions())?,
            ask: certificate(2, &ark_name, &ask_name, ask_public, authority_extensions())?,
            vek: certificate(
                0,
                &ask_name,
                vek_name,
                vek_public,
                vek_extensions(generation, kind, tcb, chip_id),
            )?,
            crl: ListTemplate {
                issuer: name(&ark_name)?,
                this_update: issued,
                next_update: expires,
                revoked: Vec::new(),
                number: 5,
                algorithm: pss_algorithm()?,
            },
            generation,
            kind,
            chip_id,
            tcb,
            ark_key,
            ask_key,
            vek_key,
        })
    }

    /// The trusted pair, for [`SnpRoots::danger_emulator`](crate::verify::roots::SnpRoots::danger_emulator).
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn root(&self) -> Result<SnpRoot, MintError> {
        Ok(SnpRoot {
            generation: self.generation,
            ark: self.ark.issue(|bytes| self.ark_key.sign(bytes))?,
            ask: self.ask.issue(|bytes| self.ark_key.sign(bytes))?,
        })
    }

    /// Certificates and list.
    ///
    /// # Errors
    /// For dates after 2049.
    pub fn collateral(&self) -> Result<SnpCollateral, MintError> {
        let SnpRoot { ark, ask, .. } = self.root()?;
        Ok(SnpCollateral {
            ark: Some(ark),
            ask: Some(ask),
            crl: Some(self.crl.issue(|bytes| self.ark_key.sign(bytes))?),
            kind: self.kind,
            vek: self.vek.issue(|bytes| self.ask_key.sign(bytes))?,
        })
    }

    /// A report of this platform in `version`, not yet signed; to be filled in.
    #[must_use]
    pub fn report(&self, version: u32) -> SnpReport {
        let cpuid = match self.generation {
            Generation::Milan => [0x19, 0x01, 1],
            Generation::Genoa => [0x19, 0x11, 1],
            Generation::Turin => [0x1a, 0x02, 1],
        };
        let firmware = FirmwareVersion { major: 1, minor: 55, build: 21 };
        SnpReport {
            version,
            guest_svn: 0,
            policy: GuestPolicy(0x3_0000),
            family_id: Octets::default(),
            image_id: Octets::default(),
            vmpl: 0,
            signature_algorithm: 1,
            current_tcb: self.tcb,
            platform_info: 1,
            key_info: KeyInfo(if self.kind == VekKind::Vlek { 1 << 2 } else { 0 }),
            report_data: Octets::default(),
            measurement: Octets::default(),
            host_data: Octets::default(),
            id_key_digest: Octets::default(),
            author_key_digest: Octets::default(),
            report_id: Octets([0x1d; 32]),
            report_id_ma: Octets([0xff; 32]),
            reported_tcb: self.tcb,
            cpuid: (version > 2).then_some(cpuid),
            chip_id: self.chip_id,
            committed_tcb: self.tcb,
            current: firmware,
            committed: firmware,
            launch_tcb: self.tcb,
            mitigations: (version > 4).then_some([0, 0]),
            signature_r: Octets::default(),
            signature_s: Octets::default(),
        }
    }

    /// Signs a report with the platform's key.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn sign(&self, mut report: SnpReport) -> Result<SnpReport, MintError> {
        let bytes = report.encode();
        let signed = bytes.get(..crate::abi::snp::SIGNED_BYTES).unwrap_or_default();
        let signature = self.vek_key.sign(signed)?;
        let (r, s) = signature.split_at(48);
        let little = |half: &[u8]| Octets::fitted(&half.iter().rev().copied().collect::<Vec<_>>());
        report.signature_r = little(r);
        report.signature_s = little(s);
        Ok(report)
    }
}

/// Public key of RSA, from its PKCS #1 form.
///
/// # Errors
/// Never for these constants.
pub fn rsa_public_key(pkcs1: &[u8]) -> Result<Vec<u8>, MintError> {
    Ok(sequence(&[sequence(&[oid("1.2.840.113549.1.1.1")?, tlv(0x05, &[])]), bit_string(pkcs1)]))
}

/// RSASSA-PSS with SHA-384 as AMD writes it.
///
/// # Errors
/// Never for these constants.
pub fn pss_algorithm() -> Result<Vec<u8>, MintError> {
    let sha384 = sequence(&[oid("2.16.840.1.101.3.4.2.2")?, tlv(0x05, &[])]);
    let mgf1 = sequence(&[oid("1.2.840.113549.1.1.8")?, sha384.clone()]);
    let parameters = sequence(&[
        tlv(0xa0, &sha384),
        tlv(0xa1, &mgf1),
        tlv(0xa2, &integer(&[48])),
        tlv(0xa3, &integer(&[1])),
    ]);
    Ok(sequence(&[oid("1.2.840.113549.1.1.10")?, parameters]))
}

/// AMD's extensions of a VEK.
#[must_use]
pub fn vek_extensions(
    generation: Generation,
    kind: VekKind,
    tcb: Tcb,
    chip_id: Octets<64>,
) -> Vec<Extension> {
    let extension =
        |suffix: &str, value| Extension::new(&format!("1.3.6.1.4.1.3704.1.{suffix}"), false, value);
    let mut extensions = vec![
        extension("1", integer(&[u8::from(generation == Generation::Turin)])),
        extension("2", tlv(0x16, generation.name().as_bytes())),
        extension("3.1", integer(&[tcb.bootloader])),
        extension("3.2", integer(&[tcb.tee])),
        extension("3.3", integer(&[tcb.snp])),
        extension("3.8", integer(&[tcb.microcode])),
    ];
    extensions.extend(tcb.fmc.map(|fmc| extension("3.9", integer(&[fmc]))));
    extensions.push(match kind {
        VekKind::Vcek if generation == Generation::Turin => {
            extension("4", chip_id.0.iter().take(8).copied().collect())
        }
        VekKind::Vcek => extension("4", chip_id.0.to_vec()),
        VekKind::Vlek => extension("5", tlv(0x16, b"emulated operator")),
    });
    extensions
}
