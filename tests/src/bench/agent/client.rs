//! A client of ttrpc that does nothing but write a frame and read one: what is left is the server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use protocol::Message as _;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of a frame's header.
const HEADER: usize = 10;

/// A request, encoded but for the number of the call.
#[derive(Clone, Debug)]
pub(crate) struct Call(Vec<u8>);

impl Call {
    pub(crate) fn new(service: &str, method: &str, payload: &[u8]) -> anyhow::Result<Self> {
        let mut envelope = ttrpc::Request::new();
        (envelope.service, envelope.method) = (service.to_owned(), method.to_owned());
        envelope.payload = payload.to_vec();
        let body = envelope.write_to_bytes()?;
        let length = u32::try_from(body.len())?;
        Ok(Self([&length.to_be_bytes()[..], &[0; 4], &[1, 0], &body].concat()))
    }

    /// `grpc.Health/Check`.
    pub(crate) fn check() -> anyhow::Result<Self> {
        Self::new("grpc.Health", "Check", &[])
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 0 is OK.
    pub(crate) code: i32,
    pub(crate) text: String,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    call: u32,
    body: Vec<u8>,
}

impl Client {
    /// Connects as soon as somebody listens.
    pub(crate) fn connect(path: &Path) -> anyhow::Result<Self> {
        let until = Instant::now() + ANSWER;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > until => {
                    return Err(error).with_context(|| format!("connect to {}", path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_micros(100)),
            }
        };
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self { stream, call: 1, body: Vec::new() })
    }

    /// One call, to its answer.
    pub(crate) fn call(&mut self, call: &mut Call) -> anyhow::Result<Answer> {
        self.exchange(call)?;
        let response = ttrpc::Response::parse_from_bytes(&self.body)?;
        let (code, text) = response
            .status
            .into_option()
            .map_or((0, String::new()), |status| (status.code.value(), status.message));
        Ok(Answer { code, text })
    }

    /// Seconds of one call, to the last byte of its answer, which has to have this code.
    pub(crate) fn timed(&mut self, call: &mut Call, code: i32) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.exchange(call)?;
        let seconds = start.elapsed().as_secs_f64();
        let response = ttrpc::Response::parse_from_bytes(&self.body)?;
        let found = response.status.as_ref().map_or(0, |status| status.code.value());
        ensure!(found == code, "status {found}, expected {code}: {response:?}");
        Ok(seconds)
    }

    fn exchange(&mut self, call: &mut Call) -> anyhow::Result<()> {
        let number = self.call;
        self.call = number.checked_add(2).context("too many calls for one connection")?;
        let Some(place) = call.0.get_mut(4..8) else { bail!("a frame without a header") };
        place.copy_from_slice(&number.to_be_bytes());
        self.stream.write_all(&call.0)?;
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).context("an answer")?;
        let [a, b, c, d, e, f, g, h, kind, _] = header;
        ensure!(kind == 2 && u32::from_be_bytes([e, f, g, h]) == number, "not the answer to this call");
        self.body.clear();
        self.body.resize(u32::from_be_bytes([a, b, c, d]) as usize, 0);
        self.stream.read_exact(&mut self.body).context("an answer's body")
    }
}
