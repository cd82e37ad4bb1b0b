//! Blobs and manifests to a registry.
//!
//! A blob that the registry has is not sent; one that another repository of it has is mounted; the others go in one request of an
//! upload. Digests are computed here, from what is sent: a file that changes while it is read ends the push.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::Method;
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use tokio::time::Instant;

use super::Registry;
use super::client::{Access, Call, Repository};
use super::connection::Outgoing;
use super::digest::{Digest, Hasher};
use super::error::{RegistryError, shown};
use super::manifest::MANIFEST_MAX;
use super::reference::Reference;
use super::retry::Retry;
use super::sources::Source;
use super::transfer::blocking;
use super::url::Url;

/// Bytes that are read and sent at once.
const PIECE: usize = 256 << 10;

/// Bytes that are to be pushed.
#[derive(Clone, Debug)]
pub enum PushSource {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A part of an open file, read once for each attempt.
    File {
        /// The file.
        file: Arc<File>,
        /// First byte.
        offset: u64,
    },
}

/// How a blob got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// Mounted from another repository of the registry.
    Mounted,
    /// Sent.
    Sent,
}

/// A repository that is pushed to. Mirrors are for pulling: a push goes to the location alone.
#[derive(Debug)]
pub struct Push<'a> {
    repository: Repository<'a>,
    mounts: Vec<String>,
}

impl Registry {
    /// A repository to push to. Blobs may be mounted from `mounts`, repositories of the same registry.
    ///
    /// # Errors
    ///
    /// `REGISTRY_BLOCKED`, `REGISTRY_REFERENCE`.
    pub fn push(&self, to: &Reference, mounts: &[Reference]) -> Result<Push<'_>, RegistryError> {
        let mut sources = self.options.sources.of(to)?;
        let source = sources.pop().unwrap_or(Source { reference: to.clone(), insecure: false });
        let mounts = mounts
            .iter()
            .filter(|other| other.registry() == source.reference.registry())
            .filter(|other| other.repository() != source.reference.repository())
            .map(|other| other.repository().to_owned());
        let mounts: Vec<String> = mounts.collect();
        let repository = self.repository(&source, Access::Push(&mounts))?;
        Ok(Push { repository, mounts })
    }
}

impl Push<'_> {
    /// Pushes a blob.
    ///
    /// # Errors
    ///
    /// `REGISTRY_DIGEST` for bytes that have another digest, and the codes of [`crate::registry`].
    pub async fn blob(
        &self,
        digest: &Digest,
        size: u64,
        source: &PushSource,
        advanced: &(dyn Fn(u64) + Sync),
        deadline: Instant,
    ) -> Result<Pushed, RegistryError> {
        let mut retry = Retry::new(deadline);
        loop {
            match self.try_blob(digest, size, source, deadline).await {
                Ok(pushed) => {
                    advanced(size);
                    return Ok(pushed);
                }
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`].
    pub async fn has(&self, digest: &Digest, deadline: Instant) -> Result<bool, RegistryError> {
        self.exists("blobs", &digest.to_string(), deadline).await
    }

    pub(super) const fn repository(&self) -> &Repository<'_> {
        &self.repository
    }

    /// Pushes a manifest under a tag, or under its digest alone.
    ///
    /// # Errors
    ///
    /// `REGISTRY_DIGEST` from a registry that stored something else.
    pub async fn manifest(
        &self,
        bytes: &[u8],
        media_type: &str,
        tag: Option<&str>,
        deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > MANIFEST_MAX {
            return Err(RegistryError::TooLarge { what: "manifest", maximum: MANIFEST_MAX, found: length });
        }
        let selector = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let what = format!("manifest {selector} of {}", self.repository.reference.name());
        let media_type = HeaderValue::from_str(media_type).map_err(|_| RegistryError::Config {
            what: "media type",
            expected: "a media type",
            found: shown(media_type),
        })?;
        let headers = [(CONTENT_TYPE, media_type), (CONTENT_LENGTH, HeaderValue::from(length))];
        let mut retry = Retry::new(deadline);
        let answer = loop {
            // The body of a request goes once: who has to be told first asks before.
            self.exists("manifests", &selector, deadline).await?;
            let path = self.repository.path(&format!("manifests/{selector}"));
            let body = Full::new(Bytes::copy_from_slice(bytes)).map_err(|never| match never {}).boxed();
            let call = Call { method: Method::PUT, path, headers: &headers, body: Some(body), what: &what };
            match self.repository.call(call, deadline).await {
                Ok(answer) => break answer,
                Err(error) => retry.after(error).await?,
            }
        };
        let stated = answer.header(HeaderName::from_static("docker-content-digest")).map(str::to_owned);
        answer.drain(deadline).await;
        if let Some(stated) = stated {
            // GUARD: push-stated-digest -> evil_registry_stores_another_manifest
            Digest::verify_stated(&self.repository.origin.to_string(), &stated, bytes)?;
        }
        Ok(digest)
    }

    async fn try_blob(
        &self,
        digest: &Digest,
        size: u64,
        source: &PushSource,
        deadline: Instant,
    ) -> Result<Pushed, RegistryError> {
        if self.exists("blobs", &digest.to_string(), deadline).await? {
            return Ok(Pushed::Present);
        }
        for other in &self.mounts {
            let query = Url::new(self.repository.origin.clone(), self.repository.path("blobs/uploads/"));
            let query = query.with_query("mount", &digest.to_string()).with_query("from", other);
            let (status, location) = self.post(query.path, deadline).await?;
            if status == 201 {
                return Ok(Pushed::Mounted);
            }
            // Not there: this is the beginning of an upload.
            if let Some(location) = location {
                return self.put(location, digest, size, source, deadline).await;
            }
        }
        let (_, location) = self.post(self.repository.path("blobs/uploads/"), deadline).await?;
        let location = location.ok_or_else(|| RegistryError::Answer {
            from: self.repository.origin.to_string(),
            expected: "a Location for the upload",
            found: "none".to_owned(),
        })?;
        self.put(location, digest, size, source, deadline).await
    }

    async fn exists(&self, kind: &str, selector: &str, deadline: Instant) -> Result<bool, RegistryError> {
        let path = self.repository.path(&format!("{kind}/{selector}"));
        let accept = (hyper::header::ACCEPT, HeaderValue::from_static(super::manifest::ACCEPT));
        let headers: &[(HeaderName, HeaderValue)] = &[accept];
        let what = format!("{kind} {selector}");
        let call = Call { method: Method::HEAD, path, headers, body: None, what: &what };
        match self.repository.call(call, deadline).await {
            Ok(answer) => {
                answer.drain(deadline).await;
                Ok(true)
            }
            Err(RegistryError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins an upload: status, and where it goes on.
    async fn post(&self, path: String, deadline: Instant) -> Result<(u16, Option<Url>), RegistryError> {
        let headers = [(CONTENT_LENGTH, HeaderValue::from(0))];
        let what = format!("upload to {}", self.repository.reference.name());
        let call = Call { method: Method::POST, path, headers: &headers, body: None, what: &what };
        let answer = self.repository.call(call, deadline).await?;
        let status = answer.status;
        let location = answer.header(LOCATION).map(|text| self.upload_url(text)).transpose()?;
        answer.drain(deadline).await;
        Ok((status, location))
    }

    fn upload_url(&self, text: &str) -> Result<Url, RegistryError> {
        let origin = &self.repository.origin;
        let refused = || RegistryError::Redirect {
            from: origin.to_string(),
            expected: "an upload at the registry itself",
            found: shown(text.split('?').next().unwrap_or_default()),
        };
        let url = Url::parse(text, Some(origin)).ok_or_else(refused)?;
        // GUARD: push-location -> evil_registry_sends_the_upload_elsewhere
        if url.origin != *origin {
            return Err(refused());
        }
        Ok(url)
    }

    async fn put(
        &self,
        location: Url,
        digest: &Digest,
        size: u64,
        source: &PushSource,
        deadline: Instant,
    ) -> Result<Pushed, RegistryError> {
        // Hashed before it is sent as well: whose bytes are wrong is said here, and not by the registry.
        let (own, expected) = (source.clone(), *digest);
        blocking(move || own.verify(&expected, size)).await?;
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_LENGTH, HeaderValue::from(size)),
        ];
        let path = location.with_query("digest", &digest.to_string()).path;
        let what = format!("blob {digest}");
        let call =
            Call { method: Method::PUT, path, headers: &headers, body: Some(source.body(size)), what: &what };
        let answer = self.repository.call(call, deadline).await?;
        let (status, from) = (answer.status, answer.from.clone());
        answer.drain(deadline).await;
        if status != 201 {
            return Err(RegistryError::Status { from, what, status });
        }
        Ok(Pushed::Sent)
    }
}

impl PushSource {
    fn verify(&self, digest: &Digest, size: u64) -> Result<(), RegistryError> {
        let mut hasher: Hasher = digest.hasher();
        let mut offset = 0;
        while offset < size {
            let piece = self.piece(offset, size).map_err(RegistryError::store("read", "what is pushed"))?;
            hasher.update(&piece);
            offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        // GUARD: push-digest -> a_changed_file_is_not_pushed
        digest.require("blob that is pushed", &hasher.finish())?;
        Ok(())
    }

    fn piece(&self, offset: u64, size: u64) -> io::Result<Bytes> {
        let length = usize::try_from(size - offset).unwrap_or(usize::MAX).min(PIECE);
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let piece = bytes.get(start..start.saturating_add(length));
                piece.map(Bytes::copy_from_slice).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Self::File { file, offset: first } => {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, first.saturating_add(offset))?;
                Ok(piece.into())
            }
        }
    }

    fn body(&self, size: u64) -> Outgoing {
        let source = self.clone();
        let pieces = stream::unfold((source, 0), move |(source, offset)| async move {
            if offset >= size {
                return None;
            }
            let own = source.clone();
            let read = tokio::task::spawn_blocking(move || own.piece(offset, size)).await;
            let piece = read.map_err(io::Error::other).and_then(|piece| piece);
            let next = match &piece {
                Ok(piece) => offset + u64::try_from(piece.len()).unwrap_or(u64::MAX),
                Err(_) => size,
            };
            Some((piece.map(Frame::data), (source, next)))
        });
        StreamBody::new(pieces).boxed()
    }
}
