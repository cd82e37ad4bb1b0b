//! Public options and recipients from the annotations of a layer; private options from whoever opens one.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protected_memory::secret::SecretBytes;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::OcicryptError;
use crate::image::policy::json::{self, Members};
use crate::image::policy::{Cause, Digest};

/// Most recipients of a layer.
pub const RECIPIENTS_MAX: usize = 16;
/// Longest packet of a recipient, in bytes, without its base64.
pub const PACKET_MAX: usize = 32 << 10;
/// Longest private options, in bytes.
pub const UNWRAPPED_MAX: usize = 4 << 10;

const PREFIX: &str = "org.opencontainers.image.enc.";
const PUBLIC: &str = "org.opencontainers.image.enc.pubopts";
const PROVIDERS: &str = "org.opencontainers.image.enc.keys.provider.";
const SUFFIX: &str = "+encrypted";
const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";
const PUBLIC_MAX: usize = 4 << 10;
const KEY_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 16;

/// Opens packets: a key provider (cdh.md, section 7), in this process or behind its socket.
#[async_trait]
pub trait KeyUnwrap: Send + Sync {
    /// The private options in `packet`, which stood in the annotation of this provider.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from opening the packet. Another recipient is tried then.
    async fn unwrap(&self, provider: &str, packet: &[u8]) -> Result<SecretBytes, Cause>;
}

/// Somebody who can open a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The provider's name in the annotation.
    pub provider: String,
    /// The annotation packet, without its base64.
    pub packet: Vec<u8>,
}

/// What the descriptor of an encrypted layer says. None of it is authenticated by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedLayer {
    media_type: String,
    mac: [u8; 32],
    nonce: Option<[u8; NONCE_BYTES]>,
    recipients: Vec<Recipient>,
}

impl EncryptedLayer {
    /// Reads media type and annotations of a layer; `None` when it is not encrypted.
    ///
    /// # Errors
    ///
    /// `OCICRYPT_INCONSISTENT`, `OCICRYPT_MALFORMED`, `OCICRYPT_NO_RECIPIENT`, `OCICRYPT_TOO_LARGE`, `OCICRYPT_UNSUPPORTED`.
    pub fn parse(
        media_type: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, OcicryptError> {
        let inner = media_type.strip_suffix(SUFFIX);
        let annotated = annotations.keys().any(|name| name.starts_with(PREFIX));
        let Some(inner) = inner else {
            // GUARD: ocicrypt-inconsistent -> evil_encrypted_layer_that_says_to_be_clear
            if annotated {
                let found = "annotations of an encrypted layer beside the media type of a clear one";
                return Err(OcicryptError::Inconsistent { found });
            }
            return Ok(None);
        };
        let missing = OcicryptError::Inconsistent { found: "an encrypted layer without its public options" };
        let public = annotations.get(PUBLIC).ok_or(missing)?;
        let (mac, nonce) = public_options(public)?;
        let recipients = recipients(annotations)?;
        Ok(Some(Self { media_type: inner.to_owned(), mac, nonce, recipients }))
    }

    /// The media type of what is encrypted.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Who can open it, in the order in which they are tried.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Asks for the key, one recipient after another.
    ///
    /// # Errors
    ///
    /// `OCICRYPT_UNWRAP` when nobody opened it, `OCICRYPT_MEMORY`.
    pub async fn unwrap_key(&self, provider: &dyn KeyUnwrap) -> Result<LayerKey, OcicryptError> {
        let mut last: Cause = "no recipient".into();
        for recipient in &self.recipients {
            match provider.unwrap(&recipient.provider, &recipient.packet).await {
                Ok(options) => match LayerKey::parse(&options, self) {
                    Ok(key) => return Ok(key),
                    Err(error @ OcicryptError::Memory(_)) => return Err(error),
                    Err(error) => last = error.into(),
                },
                Err(error) => last = error,
            }
        }
        Err(OcicryptError::Unwrap { tried: self.recipients.len(), last })
    }
}

/// The key of a layer, with what its ciphertext and plaintext have to be.
pub struct LayerKey {
    pub(super) key: SecretBytes,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) mac: [u8; 32],
    pub(super) digest: Digest,
}

impl fmt::Debug for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerKey(of {})", self.digest)
    }
}

/// Private options. Texts are borrowed: a text with escapes, which would have to be copied, is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivateOptions<'a> {
    symkey: &'a str,
    digest: &'a str,
    #[serde(borrow, default)]
    cipheroptions: Option<CipherOptions<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CipherOptions<'a> {
    #[serde(borrow, default)]
    nonce: Option<&'a str>,
}

impl LayerKey {
    fn parse(options: &SecretBytes, layer: &EncryptedLayer) -> Result<Self, OcicryptError> {
        let bytes = options.expose();
        // GUARD: ocicrypt-private-size -> evil_private_options
        if bytes.len() > UNWRAPPED_MAX {
            return Err(too_large(UNWRAPPED_MAX, "bytes of private options"));
        }
        // Errors of the parser may quote the text.
        let options: PrivateOptions<'_> =
            serde_json::from_slice(bytes).map_err(|_| private("an object with key, digest and nonce"))?;
        let mut decoded = Zeroizing::new([0; KEY_BYTES + 4]);
        let length = STANDARD
            .decode_slice(options.symkey, decoded.as_mut_slice())
            .map_err(|_| private("a key of 32 bytes in base64"))?;
        // GUARD: ocicrypt-key-length -> evil_private_options
        if length != KEY_BYTES {
            return Err(private("a key of 32 bytes in base64"));
        }
        let key = decoded.first_chunk_mut::<KEY_BYTES>().ok_or(private("a key of 32 bytes in base64"))?;
        let key = SecretBytes::take_from(key)?;
        let digest = Digest::parse(options.digest).ok_or(private("the digest of the plaintext"))?;
        let own = options.cipheroptions.and_then(|options| options.nonce).map(nonce).transpose()?;
        // Public options override the private ones (ocicrypt). That nobody vouches for them is why the digest is compared.
        let nonce = layer.nonce.or(own).ok_or(private("a nonce"))?;
        Ok(Self { key, nonce, mac: layer.mac, digest })
    }
}

/// Authenticator, and nonce if there is one.
fn public_options(text: &str) -> Result<([u8; 32], Option<[u8; NONCE_BYTES]>), OcicryptError> {
    let bytes = decode(text, PUBLIC_MAX).ok_or(public("base64 of at most 4 KiB"))?;
    let options = json::parse(&bytes, PUBLIC_MAX).map_err(|_| public("JSON with each member once"))?;
    let mut options = Members::of(options, "options").map_err(|_| public("an object"))?;
    let cipher = options.text("cipher").map_err(|_| public("a cipher"))?;
    // GUARD: ocicrypt-cipher -> evil_public_options
    if cipher != CIPHER {
        return Err(OcicryptError::Unsupported);
    }
    let mac = options.text("hmac").map_err(|_| public("an authenticator"))?;
    let mac = decode(&mac, 32).and_then(|mac| mac.try_into().ok());
    let mac = mac.ok_or(public("an authenticator of 32 bytes in base64"))?;
    let override_nonce = match options.optional("cipheroptions") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let mut members = Members::of(value, "options").map_err(|_| public("options of the cipher"))?;
            let found = members.optional_text("nonce").map_err(|_| public("a nonce"))?;
            members.finish().map_err(|_| public("no option of the cipher but a nonce"))?;
            found.map(|text| nonce(&text)).transpose()?
        }
    };
    options.finish().map_err(|_| public("only documented members"))?;
    Ok((mac, override_nonce))
}

fn recipients(annotations: &BTreeMap<String, String>) -> Result<Vec<Recipient>, OcicryptError> {
    let mut recipients = Vec::new();
    for (name, value) in annotations {
        let Some(provider) = name.strip_prefix(PROVIDERS) else { continue };
        for packet in value.split(',') {
            // GUARD: ocicrypt-recipients -> evil_layer_with_too_many_recipients
            if recipients.len() >= RECIPIENTS_MAX {
                return Err(too_large(RECIPIENTS_MAX, "recipients"));
            }
            let expected =
                OcicryptError::Malformed { what: "recipient", expected: "base64 of at most 32 KiB" };
            let packet = decode(packet, PACKET_MAX).filter(|packet| !packet.is_empty()).ok_or(expected)?;
            recipients.push(Recipient { provider: provider.to_owned(), packet });
        }
    }
    if recipients.is_empty() {
        let found =
            match annotations.keys().any(|name| name.starts_with("org.opencontainers.image.enc.keys.")) {
                true => "recipients of other kinds only",
                false => "none",
            };
        return Err(OcicryptError::NoRecipient { found });
    }
    Ok(recipients)
}

fn nonce(text: &str) -> Result<[u8; NONCE_BYTES], OcicryptError> {
    let malformed = OcicryptError::Malformed { what: "options", expected: "a nonce of 16 bytes in base64" };
    decode(text, NONCE_BYTES).and_then(|nonce| nonce.try_into().ok()).ok_or(malformed)
}

/// Base64 of at most `maximum` bytes.
fn decode(text: &str, maximum: usize) -> Option<Vec<u8>> {
    // GUARD: ocicrypt-base64-size -> evil_layer_with_a_huge_packet
    if text.len() > maximum.div_ceil(3) * 4 {
        return None;
    }
    STANDARD.decode(text).ok()
}

const fn private(expected: &'static str) -> OcicryptError {
    OcicryptError::Malformed { what: "private options", expected }
}

const fn public(expected: &'static str) -> OcicryptError {
    OcicryptError::Malformed { what: "public options", expected }
}

fn too_large(most: usize, what: &'static str) -> OcicryptError {
    OcicryptError::TooLarge { most: u64::try_from(most).unwrap_or(u64::MAX), what }
}
