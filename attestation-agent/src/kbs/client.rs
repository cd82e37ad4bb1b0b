//! The client: sessions, resources, tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::error::{ConfigFault, Fault, Hop, KbsError};
use super::handshake::{EvidenceSource, handshake};
use super::http::{Broker, Limits, PlainHttp};
use super::jwe::Jwe;
use super::rcar::{self, Credential};
use super::resource_uri::ResourceUri;
use super::retry::{Next, Retry, random};
use super::secret::Secret;
use super::session::{Session, Sessions};
use super::tee_key::{ExportableKey, ExportableKeyKind, TeeKey, TeeKeyKind};
use super::token::Token;
use super::trust::BrokerTrust;
use super::url::KbsUrl;

/// Longest answer with a resource, in bytes, unless configured: 2 MiB in base64 and its envelope.
const RESOURCE_BODY_MAX: usize = 3 << 20;
/// Longest time for one answer, unless configured: as upstream.
const ATTEMPT: Duration = Duration::from_secs(60);

/// Evidence of the verifier itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifierEvidence {
    /// Demanded: refused, because it cannot be verified yet.
    Demanded,
    /// Not demanded.
    #[default]
    NotDemanded,
}

/// How to reach a broker, and what to make for it. All of it comes from bound configuration.
#[derive(Clone, Debug)]
pub struct KbsOptions {
    /// Where it is.
    pub url: KbsUrl,
    /// How it is known; needed for https.
    pub trust: Option<BrokerTrust>,
    /// Whether plain http may leave this machine.
    pub plain_http: PlainHttp,
    /// Which key answers are encrypted to.
    pub key: TeeKeyKind,
    /// Longest answer with a resource, in bytes.
    pub resource_body_max: usize,
    /// Longest time for one answer.
    pub attempt: Duration,
    /// Whether the verifier has to show evidence.
    pub verifier_evidence: VerifierEvidence,
    /// Who hears when tokens of this broker were made.
    pub dated: Option<Dated>,
}

/// Hears when a broker, known by its TLS key, made a token: seconds since 1970. It is no earlier than that, whatever the clock says.
#[derive(Clone)]
pub struct Dated(Arc<dyn Fn(u64) + Send + Sync>);

impl Dated {
    /// Calls this. It must not block.
    pub fn new(hear: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Tells when.
    pub fn hear(&self, issued: u64) {
        (self.0)(issued);
    }
}

impl std::fmt::Debug for Dated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dated").finish_non_exhaustive()
    }
}

impl KbsOptions {
    /// The safe choice for everything but the place: loopback http or https with `trust`.
    pub fn new(url: KbsUrl, trust: Option<BrokerTrust>) -> Self {
        Self {
            url,
            trust,
            plain_http: PlainHttp::LoopbackOnly,
            key: TeeKeyKind::default(),
            resource_body_max: RESOURCE_BODY_MAX,
            attempt: ATTEMPT,
            verifier_evidence: VerifierEvidence::default(),
            dated: None,
        }
    }

    fn broker(&self) -> Result<Broker, KbsError> {
        self.open().map_err(KbsError::at(Hop::Setup))
    }

    fn open(&self) -> Result<Broker, ConfigFault> {
        // GUARD: kbs-verifier-evidence -> demanded_verifier_evidence_is_refused
        if self.verifier_evidence == VerifierEvidence::Demanded {
            return Err(ConfigFault::VerifierEvidence);
        }
        Broker::new(self.url.clone(), self.trust.clone(), self.plain_http)
    }
}

/// Where a passport comes from: a session with a key, made at some verifier.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// A session whose token is valid and which is not `stale`.
    ///
    /// # Errors
    ///
    /// As [`KbsClient::get`].
    async fn session(
        &self,
        stale: Option<&Arc<Session>>,
        deadline: Instant,
    ) -> Result<Arc<Session>, KbsError>;
}

/// A client of one broker. Calls may run at the same time; they share one session.
pub struct KbsClient {
    broker: Broker,
    mode: Mode,
    key: TeeKeyKind,
    resource_body_max: usize,
    attempt: Duration,
    dated: Option<Dated>,
}

enum Mode {
    BackgroundCheck { source: Arc<dyn EvidenceSource>, sessions: Sessions },
    Passport(Arc<dyn TokenSource>),
}

impl std::fmt::Debug for KbsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KbsClient({:?})", self.broker)
    }
}

impl KbsClient {
    /// A client that attests to the broker itself and then uses its session.
    ///
    /// # Errors
    ///
    /// `KBS_PLAIN_HTTP_REFUSED`, `KBS_TRUST_MISSING`, `KBS_VERIFIER_EVIDENCE_UNSUPPORTED`.
    pub fn background_check(options: &KbsOptions, source: Arc<dyn EvidenceSource>) -> Result<Self, KbsError> {
        Self::new(options, Mode::BackgroundCheck { source, sessions: Sessions::default() })
    }

    /// A client that shows the tokens of `source`.
    ///
    /// # Errors
    ///
    /// As [`Self::background_check`].
    pub fn passport(options: &KbsOptions, source: Arc<dyn TokenSource>) -> Result<Self, KbsError> {
        Self::new(options, Mode::Passport(source))
    }

    fn new(options: &KbsOptions, mode: Mode) -> Result<Self, KbsError> {
        Ok(Self {
            broker: options.broker()?,
            mode,
            key: options.key,
            resource_body_max: options.resource_body_max,
            attempt: options.attempt,
            dated: options.dated.clone(),
        })
    }

    /// A resource, decrypted. Attests first if there is no valid session.
    ///
    /// # Errors
    ///
    /// See the table in [`crate::kbs`]. The last error is kept when time or attempts run out.
    pub async fn get(&self, uri: &ResourceUri, deadline: Instant) -> Result<Secret, KbsError> {
        let mut retry = Retry::new(deadline);
        let mut used = None;
        let mut stale = None;
        loop {
            let error = match self.attempt(uri, &mut used, stale.take().as_ref(), deadline).await {
                Ok(secret) => return Ok(secret),
                Err(error) => error,
            };
            match retry.after(error, Instant::now(), random())? {
                Next::Reattest => stale = used.take(),
                Next::Wait(time) => sleep(time).await,
            }
        }
    }

    /// A valid token about a key of this process, for requests in which the key is not needed.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub async fn token(&self, deadline: Instant) -> Result<Arc<Session>, KbsError> {
        let mut retry = Retry::new(deadline);
        loop {
            let error = match self.session(None, deadline).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            if let Next::Wait(time) = retry.after(error, Instant::now(), random())? {
                sleep(time).await;
            }
        }
    }

    /// Whether a session is held, valid or not.
    pub async fn holds_session(&self) -> bool {
        match &self.mode {
            Mode::BackgroundCheck { sessions, .. } => sessions.is_held().await,
            Mode::Passport(_) => false,
        }
    }

    async fn attempt(
        &self,
        uri: &ResourceUri,
        used: &mut Option<Arc<Session>>,
        stale: Option<&Arc<Session>>,
        deadline: Instant,
    ) -> Result<Secret, KbsError> {
        let session = used.insert(self.session(stale, deadline).await?);
        let credential = match self.mode {
            Mode::BackgroundCheck { .. } => session.own_credential(),
            Mode::Passport(_) => Credential::Bearer(session.token()),
        };
        let request = rcar::resource(uri, credential);
        let limits = Limits { body_max: self.resource_body_max, deadline, attempt: self.attempt };
        let received = self.broker.exchange(&request, limits).await.map_err(KbsError::at(Hop::Resource))?;
        open(&received.answer(), session).map_err(KbsError::at(Hop::Resource))
    }

    async fn session(
        &self,
        stale: Option<&Arc<Session>>,
        deadline: Instant,
    ) -> Result<Arc<Session>, KbsError> {
        match &self.mode {
            Mode::BackgroundCheck { source, sessions } => {
                sessions.session(stale, deadline, || self.attest(source, deadline)).await
            }
            Mode::Passport(source) => source.session(stale, deadline).await,
        }
    }

    async fn attest(&self, source: &Arc<dyn EvidenceSource>, deadline: Instant) -> Result<Session, KbsError> {
        let kind = self.key;
        let make = move || TeeKey::generate(kind);
        let (key, attested) = handshake(&self.broker, source, make, deadline, self.attempt).await?;
        let (cookie, token) = attested.into_parts();
        if let (Some(dated), Some(issued)) = (&self.dated, token.issued()) {
            dated.hear(issued);
        }
        Ok(Session::with_cookie(key, token, cookie))
    }
}

fn open(answer: &rcar::Answer<'_>, session: &Session) -> Result<Secret, Fault> {
    Jwe::parse(rcar::encrypted_resource(answer)?)?.open(session.key())
}

#[async_trait]
impl TokenSource for KbsClient {
    async fn session(
        &self,
        stale: Option<&Arc<Session>>,
        deadline: Instant,
    ) -> Result<Arc<Session>, KbsError> {
        self.session(stale, deadline).await
    }
}

/// Gets tokens for peers together with the key they speak of. Only for peers that bound initdata lists.
///
/// Every call makes a key of its own and attests for it. The key is used for nothing in this process, and no key of a
/// [`KbsClient`] can come out here.
pub struct TokenExporter {
    broker: Broker,
    source: Arc<dyn EvidenceSource>,
    attempt: Duration,
}

impl std::fmt::Debug for TokenExporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenExporter({:?})", self.broker)
    }
}

impl TokenExporter {
    /// An exporter of tokens of one broker.
    ///
    /// # Errors
    ///
    /// As [`KbsClient::background_check`].
    pub fn new(options: &KbsOptions, source: Arc<dyn EvidenceSource>) -> Result<Self, KbsError> {
        Ok(Self { broker: options.broker()?, source, attempt: options.attempt })
    }

    /// A token and its key, for one peer.
    ///
    /// # Errors
    ///
    /// As [`KbsClient::get`].
    pub async fn export(
        &self,
        kind: ExportableKeyKind,
        deadline: Instant,
    ) -> Result<(Token, ExportableKey), KbsError> {
        let mut retry = Retry::new(deadline);
        loop {
            let make = move || ExportableKey::generate(kind);
            let error = match handshake(&self.broker, &self.source, make, deadline, self.attempt).await {
                Ok((key, attested)) => return Ok((attested.into_parts().1, key)),
                Err(error) => error,
            };
            if let Next::Wait(time) = retry.after(error, Instant::now(), random())? {
                sleep(time).await;
            }
        }
    }
}
