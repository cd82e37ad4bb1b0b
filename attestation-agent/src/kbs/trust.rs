//! How a broker is known: a CA, pinned keys, or both. Both come from bound initdata.
//!
//! The roots of the platform or of browsers are not used: an image or a host could add to them. With pins alone
//! neither names nor dates of the certificate matter: the key is the identity. With both, both have to hold.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

use super::error::{ConfigFault, TransportFault};

const PEM_MAX: usize = 256 << 10;
const PINS_MAX: usize = 16;

/// SHA-256 of a SubjectPublicKeyInfo (DER).
pub type SpkiSha256 = [u8; 32];

/// Who counts as the broker.
#[derive(Clone)]
pub struct BrokerTrust {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for BrokerTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrokerTrust")
    }
}

impl BrokerTrust {
    /// Certificates that chain to one of `ca_pem` (PEM, up to 256 KiB) and whose key is one of `pins` (up to 16).
    /// What is not given is not required; one of the two has to be.
    ///
    /// # Errors
    ///
    /// `KBS_TRUST_MISSING` without either, `KBS_TRUST_INVALID` for PEM without a usable certificate or too many pins.
    pub fn new(ca_pem: Option<&str>, pins: &[SpkiSha256]) -> Result<Self, ConfigFault> {
        // GUARD: kbs-trust-missing -> https_needs_trust
        if ca_pem.is_none() && pins.is_empty() {
            return Err(ConfigFault::TrustMissing);
        }
        // GUARD: kbs-pin-count -> trust_is_capped
        if pins.len() > PINS_MAX {
            return Err(ConfigFault::TrustInvalid { expected: "at most 16 pins" });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = ca_pem.map(|pem| chain_verifier(pem, &provider)).transpose()?;
        let verifier = Verifier { chain, pins: pins.to_vec(), provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| ConfigFault::TrustInvalid { expected: "a provider that knows TLS 1.2 and 1.3" })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn chain_verifier(
    pem: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, ConfigFault> {
    let bad = || ConfigFault::TrustInvalid { expected: "CA certificates in PEM, up to 256 KiB" };
    // GUARD: kbs-ca-size -> trust_is_capped
    if pem.len() > PEM_MAX {
        return Err(bad());
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| bad())?).map_err(|_| bad())?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|_| bad())
}

#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<SpkiSha256>,
    provider: Arc<CryptoProvider>,
}

/// The key is none of the pinned ones. Travels through rustls.
#[derive(Debug, thiserror::Error)]
#[error("SPKI SHA-256 {found}")]
struct NotPinned {
    found: String,
}

impl Verifier {
    fn require_pin(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let found = digest::digest(&digest::SHA256, &key);
        // GUARD: kbs-spki-pin -> evil_host_presents_another_key
        if !self.pins.iter().any(|pin| pin == found.as_ref()) {
            let cause = NotPinned { found: hex::encode(found) };
            return Err(CertificateError::Other(OtherError(Arc::new(cause))).into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            // GUARD: kbs-ca -> evil_host_presents_a_certificate_of_another_ca
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        // GUARD: kbs-pins -> evil_host_presents_another_key
        self.require_pin(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed TLS handshake means: an untrusted peer is final, a broken connection is not.
pub(super) fn handshake_fault(error: std::io::Error, to: String) -> TransportFault {
    use super::error::Cause;
    let found = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match found {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            match other.0.downcast_ref::<NotPinned>() {
                Some(NotPinned { found }) => TransportFault::TlsPin { found: found.clone() },
                None => TransportFault::TlsUntrusted { source: Cause::new(error) },
            }
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            TransportFault::TlsUntrusted { source: Cause::new(error) }
        }
        Some(_) => TransportFault::Tls { source: Cause::new(error) },
        None => TransportFault::Connect { to, source: Cause::new(error) },
    }
}
