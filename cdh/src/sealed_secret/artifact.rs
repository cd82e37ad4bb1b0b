//! A secret that is a sealed artifact: the text holds a whole `.sealed` file, and whoever its grants name opens it. Neither a broker nor a key of
//! its own is needed for it; what vouches for it is its origin, as for a model.
//!
//! ```text
//!  sealed.innerkeep-v1.BASE64URL ─▶ file in memory ─an origin of bound configuration?─▶ one small payload? ─▶ Opener ─▶ Plaintext
//! ```
//! The form is ours: `docs/spec/sealed-artifact-v1.md`, §10.4.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{MemfdFlags, memfd_create};
use sealed_artifact::signature::Pin;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::MAXIMUM_SEALED_BYTES;
use crate::Error;
use crate::artifact::{Opener, Prepared, pin_of, require_environment};
use crate::config::SealedSecretOrigin;
use crate::hub_error::HubError;
use crate::plaintext::Plaintext;

/// What such a text begins with. Headers of the other form are JSON in base64url, which begins otherwise.
pub const PREFIX: &str = "sealed.innerkeep-v1.";
/// Longest secret, in bytes: no text holds more.
pub const MAXIMUM_SECRET_BYTES: u64 = 512 << 10;
/// Threads that open them: a chip serves one after the other anyway.
const MAXIMUM_AT_ONCE: usize = 4;
/// What it is called in errors.
const NAME: &str = "sealed secret";

/// Whether a text is of this form: what is behind it never becomes another secret.
#[must_use]
pub fn is_one(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

/// The text of a `.sealed` file.
///
/// # Errors
///
/// `CDH_REQUEST_TOO_LARGE`.
pub fn text_of(file: &[u8]) -> Result<String, HubError> {
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(file));
    require_length(text.len())?;
    Ok(text)
}

fn require_length(found: usize) -> Result<(), HubError> {
    // GUARD: secret-artifact-cap -> evil_author_artifact_as_a_secret_of_any_size
    if found > MAXIMUM_SEALED_BYTES {
        return Err(HubError::TooLarge { what: NAME, most: MAXIMUM_SEALED_BYTES, found });
    }
    Ok(())
}

/// The `.sealed` file in a text. What follows as blanks or line ends is cut off, because files end with them.
///
/// # Errors
///
/// `CDH_REQUEST_TOO_LARGE`, `SEALED_SECRET_MALFORMED`.
pub fn file_of(text: &[u8]) -> Result<Vec<u8>, HubError> {
    require_length(text.len())?;
    let form = HubError::SealedForm { part: "artifact", expected: "base64url without padding" };
    let encoded = text.trim_ascii_end().strip_prefix(PREFIX.as_bytes());
    let decoded = encoded.map(|encoded| URL_SAFE_NO_PAD.decode(encoded));
    decoded.and_then(Result::ok).ok_or(form)
}

/// Who opens such secrets, and which are acceptable.
#[derive(Debug)]
pub struct SealedSecrets {
    opener: Arc<Opener>,
    accepted: Vec<(Pin, SealedSecretOrigin)>,
    places: Arc<Semaphore>,
}

impl SealedSecrets {
    /// Those of these origins.
    ///
    /// # Errors
    ///
    /// `CDH_CONFIG_INVALID` for an origin that no artifact can have.
    pub fn new(opener: Arc<Opener>, origins: &[SealedSecretOrigin]) -> Result<Self, HubError> {
        let pin = |origin: &SealedSecretOrigin| {
            let pin = pin_of(&origin.origin);
            let invalid =
                |error| HubError::ConfigInvalid { reason: format!("innerkeep.sealed_secrets: {error}") };
            Ok((pin.map_err(invalid)?, origin.clone()))
        };
        let accepted = origins.iter().map(pin).collect::<Result<_, HubError>>()?;
        Ok(Self { opener, accepted, places: Arc::new(Semaphore::new(MAXIMUM_AT_ONCE)) })
    }

    /// Opens one on a thread of its own. Whoever does not wait any longer leaves at most that thread behind, and there are few of them.
    ///
    /// # Errors
    ///
    /// `CDH_DEADLINE`; as [`Self::open`].
    pub async fn open_by(
        self: &Arc<Self>,
        text: &[u8],
        deadline: Instant,
    ) -> Result<Arc<Plaintext>, HubError> {
        let (own, text) = (Arc::clone(self), text.to_vec());
        let opened = async {
            let place = Arc::clone(&own.places).acquire_owned().await.map_err(|_| HubError::Interrupted)?;
            let work = move || {
                let opened = own.open(&text);
                drop(place);
                opened
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| HubError::Interrupted)
        };
        // What is opened later is dropped, and wiped.
        let opened = tokio::time::timeout_at(deadline, opened).await.map_err(|_| HubError::Late)??;
        Ok(Arc::new(opened?))
    }

    /// Opens one. For threads that may block.
    ///
    /// # Errors
    ///
    /// `CDH_REQUEST_TOO_LARGE`, `SEALED_SECRET_MALFORMED`, `CDH_ARTIFACT_NOT_NAMED`; those of an artifact's origin and of whoever opens it.
    pub fn open(&self, text: &[u8]) -> Result<Plaintext, Error> {
        let file = in_memory(&file_of(text)?)?;
        let (prepared, environment) = self.prepare(&file)?;
        require_environment(NAME, environment, &prepared)?;
        let [payload] = prepared.store().core.parameters().payloads() else { return Err(form().into()) };
        let size = payload.layout.size();
        // GUARD: secret-artifact-small -> evil_author_artifact_as_a_secret_of_any_size
        if size > MAXIMUM_SECRET_BYTES {
            return Err(form().into());
        }
        let landed = self.opener.land(NAME, environment, &prepared, &())?;
        let mut secret = Zeroizing::new(vec![0; usize::try_from(size).map_err(|_| form())?]);
        let mut file = landed.landing.open(0)?;
        file.read_exact(&mut secret).map_err(Error::file("read", NAME))?;
        Ok(Plaintext::take_from(&mut secret)?)
    }

    /// The artifact, and the environment that it has to be of: by the first origin that it has.
    fn prepare(&self, file: &File) -> Result<(Prepared, &str), Error> {
        let mut first = None;
        for (pin, accepted) in &self.accepted {
            let file = file.try_clone().map_err(Error::file("open", NAME))?;
            match Prepared::of_file(file, Path::new(NAME), std::slice::from_ref(pin)) {
                Ok(prepared) => return Ok((prepared, accepted.environment.as_str())),
                Err(error) => first.get_or_insert(error),
            };
        }
        let unnamed = || HubError::NotNamed { reference: "of innerkeep.sealed_secrets".to_owned() }.into();
        Err(first.unwrap_or_else(unnamed))
    }
}

fn form() -> HubError {
    HubError::SealedForm { part: "artifact", expected: "one payload of at most 524288 bytes" }
}

/// Ciphertext, where a file is needed.
fn in_memory(bytes: &[u8]) -> Result<File, Error> {
    let failed = |error: std::io::Error| Error::file("keep", NAME)(error);
    let file = memfd_create(NAME, MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = File::from(file);
    file.write_all(bytes).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
