//! Bodies of requests: read whole, up to a limit, within a time.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use zeroize::Zeroizing;

/// Longest body, as upstream's default.
pub(crate) const MAXIMUM_BODY_BYTES: usize = 2 << 20;
/// What is read and thrown away of a body that is too long, so that its sender reads the answer.
const MAXIMUM_DRAINED_BYTES: usize = 4 * MAXIMUM_BODY_BYTES;
const TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_CAPACITY: usize = 64 * 1024;

/// A body that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The connection broke.
    Broken,
    /// It did not come in time.
    Slow,
    /// It is longer than the limit.
    TooLarge,
}

/// Reads a body. It may hold a resource, so that it is wiped.
pub(super) async fn read(incoming: Incoming) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    tokio::time::timeout(TIMEOUT, read_all(incoming)).await.unwrap_or(Err(BodyError::Slow))
}

async fn read_all(mut incoming: Incoming) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let stated = incoming.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    // A stated length up to the limit is reserved at once: growing would leave copies behind.
    let capacity = stated.map_or(FIRST_CAPACITY, |length| length.min(MAXIMUM_BODY_BYTES));
    let mut body = Zeroizing::new(Vec::with_capacity(capacity));
    let mut seen = 0usize;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_hyper| BodyError::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > MAXIMUM_DRAINED_BYTES {
            break;
        }
        if seen <= MAXIMUM_BODY_BYTES {
            body.extend_from_slice(data);
        }
    }
    // GUARD: broker-body-limit -> evil_client_sends_an_endless_body
    if seen > MAXIMUM_BODY_BYTES {
        return Err(BodyError::TooLarge);
    }
    Ok(body)
}
