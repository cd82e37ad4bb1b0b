//! Which certificate authorities vouch for registries, stores behind them, and token services.
//!
//! The roots of the platform or of browsers are not used: a host could add to them. Roots come from bound configuration
//! (`image.extra_root_certificates`) and from files of the measured image that the caller read. Without a root there is no
//! https at all; nothing falls back to http.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::error::RegistryError;

/// Most bytes of PEM in one text. A measured image's bundle of public roots has about 220 KiB.
pub const PEM_MAX: usize = 1 << 20;
/// Most texts.
pub const PEM_TEXTS_MAX: usize = 64;

/// The authorities that are trusted to vouch for registries.
#[derive(Clone)]
pub struct RegistryTrust {
    config: Arc<ClientConfig>,
    /// For whoever speaks to registries in another process.
    roots: Arc<[CertificateDer<'static>]>,
}

impl fmt::Debug for RegistryTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryTrust")
    }
}

impl RegistryTrust {
    /// Certificates of authorities in PEM: up to 64 texts of up to 1 MiB, one certificate or more
    /// in each.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG` for a text without a usable certificate, or too many.
    pub fn new(roots_pem: &[&str]) -> Result<Self, RegistryError> {
        let bad = |found: String| RegistryError::Config {
            what: "root certificates",
            expected: "up to 64 texts with CA certificates in PEM, up to 1 MiB each",
            found,
        };
        // GUARD: registry-roots-count -> evil_roots_are_bounded
        if roots_pem.len() > PEM_TEXTS_MAX {
            return Err(bad(format!("{} texts", roots_pem.len())));
        }
        let mut roots = Vec::new();
        for pem in roots_pem {
            // GUARD: registry-roots-size -> evil_roots_are_bounded
            if pem.len() > PEM_MAX {
                return Err(bad(format!("{} bytes", pem.len())));
            }
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| bad("damaged PEM".to_owned()))?;
                roots.push(certificate);
            }
            if roots.len() == before {
                return Err(bad("a text without a certificate".to_owned()));
            }
        }
        Self::of(roots)
    }

    /// Certificates of authorities in DER.
    pub(super) fn of_der(roots: impl Iterator<Item = Vec<u8>>) -> Result<Self, RegistryError> {
        Self::of(roots.map(CertificateDer::from).collect())
    }

    /// The authorities in DER.
    pub(super) fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.roots.iter().map(AsRef::as_ref)
    }

    fn of(roots: Vec<CertificateDer<'static>>) -> Result<Self, RegistryError> {
        let bad = |found: &str| RegistryError::Config {
            what: "root certificates",
            expected: "CA certificates",
            found: found.to_owned(),
        };
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|_| bad("something that is no certificate"))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| bad("a provider without TLS 1.2 and 1.3"))?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config), roots: roots.into() })
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// What a failed TLS handshake means: an untrusted peer is final, a broken connection is not.
pub(super) fn handshake_error(to: String, source: io::Error) -> RegistryError {
    let is_tls = source.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some());
    if is_tls { RegistryError::Tls { to, source } } else { RegistryError::Connect { to, source } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_roots_are_bounded() {
        let long = "x".repeat(PEM_MAX + 1);
        let many = vec!["x"; PEM_TEXTS_MAX + 1];
        for refused in [&[long.as_str()][..], &many, &[""], &["-----BEGIN CERTIFICATE-----\nAA\n"]] {
            assert_eq!(RegistryTrust::new(refused).unwrap_err().code(), "REGISTRY_CONFIG");
        }
        let long = RegistryTrust::new(&[long.as_str()]).unwrap_err().to_string();
        assert!(long.ends_with("found 1048577 bytes"), "{long}");
        assert!(RegistryTrust::new(&many).unwrap_err().to_string().ends_with("found 65 texts"));
        assert!(RegistryTrust::new(&[]).is_ok());
    }
}
