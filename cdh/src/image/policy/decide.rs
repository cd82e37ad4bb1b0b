//! The decision.

use super::accepted::{Accepted, Ground, Location, Proof};
use super::cosign::{COSIGN_KEY_MAX, CosignKey, CosignLayer};
use super::document::{Keys, Requirement, Requirements};
use super::error::{KeyFault, PolicyError, SignatureFault};
use super::identity::Identity;
use super::material::Material;
use super::name::ImageName;
use super::openpgp::{KEYRING_MAX, Keyring};
use super::payload::{Payload, PayloadKind};
use super::scope;
use super::source::{SIGNATURES_MAX, SignatureSource};
use super::{ImagePolicy, MirrorRule, Subject};

impl ImagePolicy {
    /// Whether this image may be used. It is asked for each use, also of an image that is already here.
    ///
    /// # Errors
    ///
    /// [`PolicyError`]: the image may not be used, whatever the reason.
    pub async fn decide(
        &self,
        subject: &Subject,
        source: &dyn SignatureSource,
        material: &dyn Material,
    ) -> Result<Accepted, PolicyError> {
        if subject.reference.tag().is_none() && subject.reference.digest().is_none() {
            return Err(PolicyError::NotWhole);
        }
        let named = subject.reference.digest();
        let moved = named.filter(|named| !subject.digests().any(|digest| digest == *named));
        // GUARD: policy-named-digest -> evil_registry_answers_with_another_manifest
        if let Some(expected) = moved {
            let found = subject.manifest_digest.clone();
            return Err(PolicyError::DigestMismatch { expected: expected.clone(), found });
        }
        let mut grounds = Vec::new();
        let original =
            Judge { subject, intended: &subject.reference, location: Location::Original, source, material };
        grounds.extend(original.entry(self).await?);
        if let (MirrorRule::Also, Some(intended)) = (self.mirrors, &subject.mirror) {
            let mirror = Judge { intended, location: Location::Mirror, ..original };
            let found = mirror.entry(self).await;
            // GUARD: policy-mirror -> evil_mirror_that_the_policy_rejects
            grounds.extend(found?);
        }
        Ok(Accepted::new(subject, grounds))
    }

    /// The requirements for a name, and the scope that they are from.
    fn requirements(&self, name: &ImageName) -> (&str, &Requirements) {
        let docker = &self.document.docker;
        let own = || docker.get("").map(|requirements| ("docker", requirements));
        scope::lookup(docker, name).or_else(own).unwrap_or(("default", &self.document.default))
    }
}

/// Keys, wherever they were.
enum Held<'k, K> {
    Policy(&'k [K]),
    Read(Vec<K>),
}

impl<K> Held<'_, K> {
    fn as_slice(&self) -> &[K] {
        match self {
            Self::Policy(keys) => keys,
            Self::Read(keys) => keys,
        }
    }
}

/// One name, judged by one entry.
#[derive(Clone, Copy)]
struct Judge<'a> {
    subject: &'a Subject,
    intended: &'a ImageName,
    location: Location,
    source: &'a dyn SignatureSource,
    material: &'a dyn Material,
}

impl Judge<'_> {
    /// All requirements have to hold.
    async fn entry(&self, policy: &ImagePolicy) -> Result<Vec<Ground>, PolicyError> {
        let (scope, requirements) = policy.requirements(self.intended);
        let mut grounds = Vec::new();
        for (number, requirement) in requirements.iter().enumerate() {
            let proof = match requirement {
                Requirement::AcceptAnything => Proof::InsecureAcceptAnything,
                Requirement::Reject => return Err(PolicyError::Rejected { scope: scope.to_owned() }),
                Requirement::SignedBy { keys, identity } => {
                    let rings = self.keys(keys, KEYRING_MAX, |bytes| Ok(Keyring::parse(bytes)?)).await?;
                    self.signed_by(scope, rings.as_slice(), identity).await?
                }
                Requirement::Sigstore { keys, identity } => {
                    let keys = self.keys(keys, COSIGN_KEY_MAX, |bytes| Ok(CosignKey::parse(bytes)?)).await?;
                    self.sigstore(scope, keys.as_slice(), identity).await?
                }
            };
            let scope = scope.to_owned();
            grounds.push(Ground { location: self.location, scope, requirement: number, proof });
        }
        Ok(grounds)
    }

    /// The keys of a requirement. All of them have to be usable.
    async fn keys<'k, K>(
        &self,
        keys: &'k Keys<K>,
        maximum: usize,
        parse: impl Fn(&[u8]) -> Result<K, KeyFault> + Send,
    ) -> Result<Held<'k, K>, PolicyError> {
        let uris = match keys {
            Keys::Here(keys) => return Ok(Held::Policy(keys)),
            Keys::Elsewhere(uris) => uris,
        };
        let mut read = Vec::new();
        for uri in uris {
            let bytes = self.material.read(uri, maximum).await;
            let bytes =
                bytes.map_err(|source| PolicyError::KeyUnreadable { place: uri.to_string(), source })?;
            let key = parse(&bytes).map_err(|source| PolicyError::Key { place: uri.to_string(), source })?;
            read.push(key);
        }
        Ok(Held::Read(read))
    }

    async fn signed_by(
        &self,
        scope: &str,
        rings: &[Keyring],
        identity: &Identity,
    ) -> Result<Proof, PolicyError> {
        let mut signatures = Vec::new();
        for digest in self.subject.digests() {
            let found = self.source.lookaside(self.intended, digest).await;
            signatures.extend(found.map_err(unreadable(digest))?);
        }
        self.first(scope, &signatures, |message| {
            let mut nearest: Option<SignatureFault> = None;
            for ring in rings {
                match ring.verify(message) {
                    Ok(verified) => {
                        let payload = Payload::parse(PayloadKind::Atomic, &verified.text)?;
                        self.fits(identity, &payload)?;
                        return Ok(Proof::SignedBy {
                            key: verified.primary,
                            signer: verified.signer,
                            signed: payload.digest,
                            identity: payload.identity.to_string(),
                        });
                    }
                    Err(fault) => nearest = Some(nearer(nearest, fault.into())),
                }
            }
            Err(nearest.unwrap_or(SignatureFault::OpenPgp(super::openpgp::OpenPgpFault::BadSignature)))
        })
    }

    async fn sigstore(
        &self,
        scope: &str,
        keys: &[CosignKey],
        identity: &Identity,
    ) -> Result<Proof, PolicyError> {
        let mut layers = Vec::new();
        for digest in self.subject.digests() {
            let found = self.source.cosign(self.intended, digest).await;
            layers.extend(found.map_err(unreadable(digest))?);
        }
        self.first(scope, &layers, |layer: &CosignLayer| {
            let key = layer.verify(keys)?;
            let payload = Payload::parse(PayloadKind::Cosign, &layer.payload)?;
            self.fits(identity, &payload)?;
            Ok(Proof::SigstoreSigned {
                key: key.id().clone(),
                signed: payload.digest,
                identity: payload.identity.to_string(),
            })
        })
    }

    /// The first good signature; why none is good otherwise.
    fn first<S>(
        &self,
        scope: &str,
        signatures: &[S],
        judge: impl Fn(&S) -> Result<Proof, SignatureFault>,
    ) -> Result<Proof, PolicyError> {
        let most = SIGNATURES_MAX * self.subject.digests().count();
        // GUARD: policy-signature-count -> evil_registry_sends_too_many_signatures
        if signatures.len() > most {
            return Err(PolicyError::TooManySignatures { most, found: signatures.len() });
        }
        let mut nearest: Option<SignatureFault> = None;
        for signature in signatures {
            match judge(signature) {
                Ok(proof) => return Ok(proof),
                Err(fault) => nearest = Some(nearer(nearest, fault)),
            }
        }
        let scope = scope.to_owned();
        Err(match nearest {
            None => PolicyError::Unsigned { scope },
            Some(nearest) => PolicyError::Signature { scope, found: signatures.len(), nearest },
        })
    }

    /// Whether what was signed is this image, under a name that the requirement accepts.
    fn fits(&self, identity: &Identity, payload: &Payload) -> Result<(), SignatureFault> {
        // GUARD: policy-signed-digest -> evil_signature_of_another_image, evil_registry_moves_a_tag
        if !self.subject.digests().any(|digest| *digest == payload.digest) {
            return Err(SignatureFault::OtherDigest { found: payload.digest.clone() });
        }
        // GUARD: policy-signed-identity -> evil_signature_of_another_repository
        if !identity.accepts(self.intended, &payload.identity) {
            let bare = payload.identity.tag().is_none() && payload.identity.digest().is_none();
            return Err(SignatureFault::OtherIdentity {
                expected: identity.name(),
                intended: self.intended.to_string(),
                found: payload.identity.to_string(),
                hint: if bare {
                    ": a name without a tag needs matchRepository or exactRepository"
                } else {
                    ""
                },
            });
        }
        Ok(())
    }
}

fn nearer(nearest: Option<SignatureFault>, fault: SignatureFault) -> SignatureFault {
    match nearest {
        Some(nearest) if nearest.rank() >= fault.rank() => nearest,
        _ => fault,
    }
}

fn unreadable(digest: &super::Digest) -> impl FnOnce(super::Cause) -> PolicyError {
    let digest = digest.clone();
    move |source| PolicyError::SignaturesUnreadable { digest, source }
}
