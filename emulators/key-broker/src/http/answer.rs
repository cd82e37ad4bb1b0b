//! Answers, and the ways in which a fault plan delivers them.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE};
use hyper::{Response, StatusCode};
use tokio::time::Sleep;

use crate::error::Refusal;

/// How long the half of a cut body is left to be sent.
const CUT_AFTER: Duration = Duration::from_millis(50);
const CHUNK_BYTES: usize = 64 * 1024;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) cookie: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) delivery: Delivery,
}

/// How the body is sent.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// As it is.
    Whole,
    /// Half of it, then the connection ends.
    Cut,
    /// One byte at a time.
    Drip(Duration),
    /// Followed by so many blanks, or by blanks without end.
    Padded(Option<u64>),
}

impl Answer {
    /// A status without a body.
    pub(crate) const fn empty(status: StatusCode) -> Self {
        Self {
            status,
            content_type: None,
            cookie: None,
            location: None,
            body: Vec::new(),
            delivery: Delivery::Whole,
        }
    }

    /// 200 with JSON.
    pub(crate) fn json(body: Vec<u8>) -> Self {
        Self::text("application/json", body)
    }

    /// 200 with another content type.
    pub(crate) fn text(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { content_type: Some(content_type), body, ..Self::empty(StatusCode::OK) }
    }

    /// The answer to a refusal: no content type, as upstream.
    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        Self { body: refusal.body(), ..Self::empty(refusal.variant().status()) }
    }

    /// The answer as hyper sends it.
    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::Whole(None));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in [(SET_COOKIE, self.cookie), (LOCATION, self.location)] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        let length = u64::try_from(self.body.len()).unwrap_or(u64::MAX);
        let body = Bytes::from(self.body);
        let (stated, body) = match self.delivery {
            Delivery::Whole => (None, AnswerBody::Whole(Some(body))),
            Delivery::Cut => {
                let half = body.slice(..body.len() / 2);
                (Some(length), AnswerBody::Cut { half: Some(half), timer: None })
            }
            Delivery::Drip(pause) => (Some(length), AnswerBody::Drip { rest: body, pause, timer: None }),
            Delivery::Padded(left) => {
                let stated = left.map(|left| left.saturating_add(length));
                (stated, AnswerBody::Padded { head: Some(body), left })
            }
        };
        if let Some(length) = stated {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = body;
        response
    }
}

/// A body on its way.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// All at once.
    Whole(Option<Bytes>),
    /// Something, then an end that is none.
    Cut { half: Option<Bytes>, timer: Option<Pin<Box<Sleep>>> },
    /// One byte after each pause.
    Drip { rest: Bytes, pause: Duration, timer: Option<Pin<Box<Sleep>>> },
    /// A beginning, then blanks.
    Padded { head: Option<Bytes>, left: Option<u64> },
}

/// The body ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("cut by a fault plan")]
pub(super) struct CutShort;

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let data = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match self.get_mut() {
            Self::Whole(bytes) => match bytes.take().filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => data(bytes),
                None => Poll::Ready(None),
            },
            Self::Cut { half, timer } => {
                if let Some(half) = half.take().filter(|half| !half.is_empty()) {
                    return data(half);
                }
                // The half has to be on its way before the connection breaks.
                let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(CUT_AFTER)));
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(CutShort)))
            }
            Self::Drip { rest, pause, timer } => {
                if rest.is_empty() {
                    return Poll::Ready(None);
                }
                let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(*pause)));
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                *timer = None;
                data(rest.split_to(1))
            }
            Self::Padded { head, left } => {
                if let Some(head) = head.take() {
                    return data(head);
                }
                let chunk = left.map_or(CHUNK_BYTES, |left| {
                    usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
                });
                if chunk == 0 {
                    return Poll::Ready(None);
                }
                *left = left.map(|left| left.saturating_sub(u64::try_from(chunk).unwrap_or(left)));
                data(Bytes::from(vec![b' '; chunk]))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            // The header says it, truly or not.
            _ => SizeHint::default(),
        }
    }
}
