//! Sessions: a challenge, then the token that answered it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::rand::fill;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::rcar::Tee;
use crate::token::Verified;

/// Name of the cookie.
pub(crate) const COOKIE: &str = "kbs-session-id";
/// Most sessions at a time.
const MAXIMUM_SESSIONS: usize = 4096;
/// Most evidence that is looked at for one challenge.
pub(crate) const MAXIMUM_ATTEMPTS: u32 = 16;

/// One session.
pub(crate) struct Session {
    /// The value of the cookie: whoever has it is the guest.
    pub(crate) id: String,
    /// Kind of the guest.
    pub(crate) tee: Tee,
    /// The challenge, as text.
    pub(crate) nonce: String,
    /// When the session ends, for the cookie.
    pub(crate) expires: SystemTime,
    end: Instant,
    attested: OnceLock<Attested>,
    /// Held while evidence is looked at: one answer to a challenge is accepted, others wait for it.
    pub(crate) attempts: Mutex<u32>,
}

/// What an accepted answer left behind.
#[derive(Debug)]
pub(crate) struct Attested {
    /// The token as text.
    pub(crate) token: String,
    /// What it says.
    pub(crate) verified: Arc<Verified>,
}

impl Session {
    /// The accepted answer, if there was one.
    pub(crate) fn attested(&self) -> Option<&Attested> {
        self.attested.get()
    }

    /// Keeps the accepted answer; a second one changes nothing.
    pub(crate) fn accept(&self, attested: Attested) -> &Attested {
        self.attested.get_or_init(|| attested)
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tee", &self.tee).finish_non_exhaustive()
    }
}

/// No session can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// The system gives no random bytes.
    #[error("no randomness for a session")]
    Randomness,
    /// All places are taken by attested guests.
    #[error("{MAXIMUM_SESSIONS} attested sessions are the most at a time")]
    Full,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    lifetime: Duration,
    by_id: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// No sessions yet.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { lifetime, by_id: Mutex::default() }
    }

    /// A new challenge. Where no place is left the oldest session without an answer goes.
    pub(crate) fn open(&self, tee: Tee) -> Result<Arc<Session>, SessionError> {
        let mut random = [0; 48];
        fill(&mut random).map_err(|_unspecified| SessionError::Randomness)?;
        let (nonce, id) = random.split_at(32);
        let now = Instant::now();
        let session = Arc::new(Session {
            id: uuid(id),
            tee,
            nonce: STANDARD.encode(nonce),
            expires: SystemTime::now() + self.lifetime,
            end: now + self.lifetime,
            attested: OnceLock::new(),
            attempts: Mutex::new(0),
        });
        let mut sessions = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAXIMUM_SESSIONS {
            sessions.retain(|_, known| !known.is_over(now));
        }
        if sessions.len() >= MAXIMUM_SESSIONS {
            let waiting = sessions.values().filter(|known| known.attested().is_none());
            let oldest = waiting.min_by_key(|known| known.end).map(|known| known.id.clone());
            sessions.remove(&oldest.ok_or(SessionError::Full)?);
        }
        sessions.insert(session.id.clone(), Arc::clone(&session));
        Ok(session)
    }

    /// The session of a cookie that is not over.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Session>> {
        let mut sessions = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(id).cloned()?;
        // GUARD: broker-session-end -> evil_client_uses_a_session_after_its_end
        if session.is_over(Instant::now()) {
            return sessions.remove(id).and(None);
        }
        Some(session)
    }

    /// Forgets a session.
    pub(crate) fn close(&self, id: &str) {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Forgets all sessions that are over.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, known| !known.is_over(now));
    }
}

/// 16 random bytes as a UUID of version 4 without hyphens.
fn uuid(random: &[u8]) -> String {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(random).for_each(|(to, from)| *to = *from);
    let value = u128::from_be_bytes(bytes);
    let value = value & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    format!("{value:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_challenges_are_new() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let (one, two) = (sessions.open(Tee::Tdx).unwrap(), sessions.open(Tee::Tdx).unwrap());
        for session in [&one, &two] {
            assert_eq!(session.id.len(), 32);
            assert_eq!(&session.id[12..13], "4");
            assert!("89ab".contains(&session.id[16..17]));
            assert_eq!(STANDARD.decode(&session.nonce).unwrap().len(), 32);
            assert_eq!(sessions.find(&session.id).unwrap().nonce, session.nonce);
        }
        assert!(one.id != two.id && one.nonce != two.nonce);
        assert_eq!(uuid(&[0xff; 16]), "ffffffffffff4fffbfffffffffffffff");
        assert_eq!(uuid(&[0; 16]), "00000000000040008000000000000000");
        sessions.close(&one.id);
        assert!(sessions.find(&one.id).is_none());
        assert!(!format!("{two:?}").contains(&two.id));
    }

    #[test]
    fn evil_client_uses_a_session_after_its_end() {
        let sessions = Sessions::new(Duration::ZERO);
        let session = sessions.open(Tee::Snp).unwrap();
        assert!(sessions.find(&session.id).is_none());
        sessions.open(Tee::Snp).unwrap();
        sessions.sweep();
        assert!(sessions.by_id.lock().unwrap().is_empty());
    }

    #[test]
    fn evil_client_opens_sessions_without_end() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let first = sessions.open(Tee::Tdx).unwrap();
        for _ in 0..MAXIMUM_SESSIONS + 5 {
            sessions.open(Tee::Tdx).unwrap();
        }
        assert_eq!(sessions.by_id.lock().unwrap().len(), MAXIMUM_SESSIONS);
        assert!(sessions.find(&first.id).is_none());
    }
}
