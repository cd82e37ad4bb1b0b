//! A key pair that is made to be handed over: for the one peer that asked, and for nothing else.

use std::fmt;

use aws_lc_rs::agreement::PrivateKey;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{FAILED, algorithm, ec_public, rsa_public};
use crate::kbs::der;
use crate::kbs::error::LocalFault;
use crate::kbs::jwk::{Curve, Jwk};

const LINE: usize = 64;

/// The kinds that have a form to be handed over in. ML-KEM has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExportableKeyKind {
    /// P-256, as PKCS #8.
    #[default]
    EcP256,
    /// P-521, as PKCS #8.
    EcP521,
    /// RSA of 2,048 bits, as PKCS #1.
    Rsa2048,
}

/// A key pair for a peer. It opens nothing in this process.
pub struct ExportableKey {
    public: Jwk,
    label: &'static str,
    der: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ExportableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExportableKey(..)")
    }
}

impl ExportableKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// `KBS_CRYPTO_FAILED`: no randomness.
    pub(in crate::kbs) fn generate(kind: ExportableKeyKind) -> Result<Self, LocalFault> {
        match kind {
            ExportableKeyKind::EcP256 => Self::generate_ec(Curve::P256),
            ExportableKeyKind::EcP521 => Self::generate_ec(Curve::P521),
            ExportableKeyKind::Rsa2048 => {
                let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| FAILED)?;
                let public = rsa_public(&key).ok_or(FAILED)?;
                let envelope: Pkcs8V1Der<'_> = key.as_der().map_err(|_| FAILED)?;
                let der = Zeroizing::new(der::pkcs8_inner(envelope.as_ref()).ok_or(FAILED)?.to_vec());
                Ok(Self { public, label: "RSA PRIVATE KEY", der })
            }
        }
    }

    fn generate_ec(curve: Curve) -> Result<Self, LocalFault> {
        let key = PrivateKey::generate(algorithm(curve)).map_err(|_| FAILED)?;
        let public = ec_public(curve, &key).ok_or(FAILED)?;
        let envelope: Pkcs8V1Der<'_> = key.as_der().map_err(|_| FAILED)?;
        Ok(Self { public, label: "PRIVATE KEY", der: Zeroizing::new(envelope.as_ref().to_vec()) })
    }

    /// The public part.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// The private part for the peer: PEM, PKCS #8 for EC and PKCS #1 for RSA. The key is gone afterwards.
    pub fn into_pem(self) -> Zeroizing<String> {
        let body = Zeroizing::new(STANDARD.encode(&self.der));
        // Room for everything, so that no copy is left behind by a growing string.
        let mut pem = Zeroizing::new(String::with_capacity(body.len() + body.len() / LINE + 128));
        for part in ["-----BEGIN ", self.label, "-----\n"] {
            pem.push_str(part);
        }
        let mut rest = body.as_str();
        while let Some((line, after)) =
            rest.split_at_checked(LINE.min(rest.len())).filter(|(line, _)| !line.is_empty())
        {
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        for part in ["-----END ", self.label, "-----\n"] {
            pem.push_str(part);
        }
        pem
    }
}
