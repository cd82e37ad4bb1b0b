//! Requests of the guest agent's port, by method: limits are checked before anything is decoded, and what was decoded says the same when it is
//! written again, within the same limits. Ids and paths that are taken lead nowhere else.
//!
//! Input: one byte (which method), then the payload.

#![no_main]

use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use protocol::Endpoint;
use protocol::ids::{AbsolutePath, ContainerId, ProcessRef, SharedPath};
use protocol::limits::LimitError;

fuzz_target!(|data: &[u8]| {
    let [which, payload @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(*which) % Endpoint::ALL.len()];
    bounded(payload.len(), || request(endpoint, payload));
    if let Ok(text) = std::str::from_utf8(payload) {
        values(text);
    }
});

fn request(endpoint: Endpoint, payload: &[u8]) {
    let message = match (endpoint.check(payload), endpoint.decode(payload)) {
        (Ok(()), Ok(message)) => message,
        (Ok(()), Err(error)) => return assert_eq!(error, LimitError::Undecodable),
        (Err(refused), decoded) => return assert_eq!(decoded.err(), Some(refused)),
    };
    let written = message.write_to_bytes_dyn().expect("it was read");
    let again = endpoint.decode(&written).expect("it was within the limits");
    assert_eq!(again.write_to_bytes_dyn().expect("it was read").len(), written.len());
}

fn values(text: &str) {
    if let Ok(id) = ContainerId::parse(text) {
        assert!(id.as_str() == text && !text.contains('/') && text != "..");
        assert!(ProcessRef::parse(text, text).is_ok());
    }
    for path in [
        AbsolutePath::parse(text).ok().map(|path| path.as_path().to_owned()),
        SharedPath::parse(text).ok().map(|path| path.as_path().to_owned()),
    ] {
        assert!(path.is_none_or(|path| path.components().all(|part| part.as_os_str() != "..")));
    }
}
