//! HTTP: one connection, its requests with their limits, answers with their faults.

mod answer;
mod body;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::broker::Broker;
use crate::error::Refusal;
use crate::faults::{Fault, Kind, Place};
use crate::log::note;
use crate::router::{self, Head};

pub(crate) use answer::Answer;
pub(crate) use stream::Resettable;

use answer::{AnswerBody, Delivery};
use body::BodyError;

/// Longest time to wait for the head of a request, idle connections included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest head: bearer tokens with event logs are long.
const MAXIMUM_HEAD_BYTES: usize = 1 << 20;
const OVERSIZED_BYTES: u64 = 64 << 20;

/// The connection is to be dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped")]
struct Dropped;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(broker: Arc<Broker>, stream: S, reset: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| respond(Arc::clone(&broker), request, Arc::clone(&reset)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAXIMUM_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // What a peer does to its connection is its own affair; requests are logged where they are answered.
    let _ = connection.await;
}

async fn respond(
    broker: Arc<Broker>,
    request: Request<Incoming>,
    reset: Arc<AtomicBool>,
) -> Result<Response<AnswerBody>, Dropped> {
    let (parts, incoming) = request.into_parts();
    if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&parts.method) {
        return Ok(Answer::empty(StatusCode::METHOD_NOT_ALLOWED).into_response());
    }
    let head = Head::new(&parts.method, &parts.uri, &parts.headers);
    let body = match body::read(incoming).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => {
            note(&format!("refused {}: the body is too large", head.shown()));
            let mut answer =
                Answer::text("text/plain; charset=utf-8", b"payload reached size limit".to_vec());
            answer.status = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(answer.into_response());
        }
        Err(BodyError::Slow) => return Ok(Answer::empty(StatusCode::REQUEST_TIMEOUT).into_response()),
        Err(BodyError::Broken) => return Err(Dropped),
    };
    if let Some(answer) = misbehave(&broker, &head, &reset).await? {
        return Ok(answer.into_response());
    }
    let shown = head.shown();
    let place = head.place();
    let worker = Arc::clone(&broker);
    let answered = tokio::task::spawn_blocking(move || router::answer(&worker, &head, &body)).await;
    let mut answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(refusal)) => {
            note(&format!("refused {shown}: {}: {}", refusal.variant().name(), refusal.why()));
            Answer::refusal(&refusal)
        }
        Err(_panic) => {
            note(&format!("failed {shown}: a bug in this program"));
            Answer::empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    if let (StatusCode::OK, Some(place)) = (answer.status, place) {
        spoil(&broker, &mut answer, place);
    }
    Ok(answer.into_response())
}

/// Faults that come before a request is looked at.
async fn misbehave(broker: &Broker, head: &Head, reset: &AtomicBool) -> Result<Option<Answer>, Dropped> {
    let Some(place) = head.place() else { return Ok(None) };
    let fault = |kind| broker.faults.take(kind, place);
    if let Some(Fault { delay, .. }) = fault(Kind::Slow) {
        tokio::time::sleep(delay.unwrap_or(Duration::from_secs(1))).await;
    }
    if fault(Kind::Reset).is_some() {
        reset.store(true, Ordering::Release);
        return Err(Dropped);
    }
    if let Some(Fault { value, .. }) = fault(Kind::Status) {
        return Ok(Some(Answer::empty(status(value, StatusCode::SERVICE_UNAVAILABLE))));
    }
    if let Some(Fault { error: Some(variant), .. }) = fault(Kind::Error) {
        return Ok(Some(Answer::refusal(&Refusal::new(variant, "a fault plan"))));
    }
    if let Some(Fault { value, location, .. }) = fault(Kind::Redirect) {
        let mut answer = Answer::empty(status(value, StatusCode::TEMPORARY_REDIRECT));
        answer.location = location;
        return Ok(Some(answer));
    }
    if let Some(Fault { value, .. }) = fault(Kind::OversizedBody) {
        let mut answer = Answer::json(br#"{"nonce":""#.to_vec());
        answer.delivery = Delivery::Padded(Some(value.unwrap_or(OVERSIZED_BYTES)));
        return Ok(Some(answer));
    }
    if fault(Kind::EndlessBody).is_some() {
        let mut answer = Answer::json(br#"{"nonce":""#.to_vec());
        answer.delivery = Delivery::Padded(None);
        return Ok(Some(answer));
    }
    Ok(None)
}

/// Faults of an answer that would have been good.
fn spoil(broker: &Broker, answer: &mut Answer, place: Place) {
    if broker.faults.take(Kind::NotJson, place).is_some() {
        answer.body = b"{\"nonce\": nothing}".to_vec();
    }
    if broker.faults.take(Kind::TruncatedBody, place).is_some() {
        answer.delivery = Delivery::Cut;
    }
    if let Some(Fault { delay, .. }) = broker.faults.take(Kind::DripBody, place) {
        answer.delivery = Delivery::Drip(delay.unwrap_or(Duration::from_millis(100)));
    }
}

fn status(value: Option<u64>, default: StatusCode) -> StatusCode {
    let value = value.and_then(|value| u16::try_from(value).ok());
    value.and_then(|value| StatusCode::from_u16(value).ok()).unwrap_or(default)
}
