//! A broker inside the test: it answers right, and a hook may answer instead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::jose;

pub const SECRET: &[u8] = b"the secret of the test";
pub const ERRORS: &str = "https://github.com/confidential-containers/kbs/errors/";

/// A request as the broker saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// `auth`, `attest` or a plugin.
    pub endpoint: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    /// How many of this endpoint came before.
    pub before: usize,
    /// Which connection.
    pub connection: usize,
}

/// What goes back.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Status, further headers, body.
    Answer(u16, Vec<String>, Vec<u8>),
    /// These bytes, then the connection closes.
    Bytes(Vec<u8>),
    /// These bytes, then chunks of spaces, 32 MiB of them.
    Endless(Vec<u8>),
    /// These bytes, and then nothing for ever.
    Stall(Vec<u8>),
}

impl Reply {
    pub fn json(value: &Value) -> Self {
        Self::Answer(200, Vec::new(), value.to_string().into_bytes())
    }

    pub fn error(variant: &str) -> Self {
        let body = json!({"type": format!("{ERRORS}{variant}"), "detail": "scripted"});
        Self::Answer(401, Vec::new(), body.to_string().into_bytes())
    }

    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), b"scripted".to_vec())
    }
}

/// When its tokens were made.
pub const ISSUED: u64 = 1_700_000_000;

/// A running broker.
pub struct Broker {
    pub port: u16,
    state: Arc<State>,
}

type Hook = Box<dyn Fn(&Request, Reply) -> Reply + Send + Sync>;

struct State {
    hook: Hook,
    seen: Mutex<Vec<Request>>,
    sessions: Mutex<BTreeMap<String, (String, Option<Value>)>>,
    tokens: Mutex<BTreeMap<String, Value>>,
    connections: Mutex<usize>,
    token_seconds: u64,
}

impl Broker {
    /// A broker whose right answers go through `hook`.
    pub async fn start(hook: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(Box::new(hook), None, 300).await
    }

    /// A broker that always answers right.
    pub async fn right() -> Self {
        Self::start(|_, right| right).await
    }

    /// One whose tokens live that long.
    pub async fn with_tokens_of(seconds: u64) -> Self {
        Self::serve(Box::new(|_, right| right), None, seconds).await
    }

    /// One that speaks TLS.
    pub async fn tls(config: rustls::ServerConfig) -> Self {
        Self::serve(Box::new(|_, right| right), Some(TlsAcceptor::from(Arc::new(config))), 300).await
    }

    async fn serve(hook: Hook, tls: Option<TlsAcceptor>, token_seconds: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            hook,
            seen: Mutex::default(),
            sessions: Mutex::default(),
            tokens: Mutex::default(),
            connections: Mutex::default(),
            token_seconds,
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => state.connection(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                state.connection(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many requests an endpoint got.
    pub fn count(&self, endpoint: &str) -> usize {
        self.seen().iter().filter(|request| request.endpoint == endpoint).count()
    }
}

impl State {
    async fn connection<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let connection = {
            let mut connections = self.connections.lock().unwrap();
            *connections += 1;
            *connections
        };
        let mut buffer = Vec::new();
        while let Some(request) = self.read(&mut stream, &mut buffer, connection).await {
            let reply = (self.hook)(&request, self.right(&request));
            self.seen.lock().unwrap().push(request);
            let (bytes, then) = match reply {
                Reply::Answer(status, headers, body) => {
                    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                    headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
                    ([head.as_bytes(), b"\r\n", &body].concat(), None)
                }
                Reply::Bytes(bytes) => (bytes, Some(false)),
                Reply::Stall(bytes) => (bytes, Some(true)),
                Reply::Endless(bytes) => {
                    let spaces = [b"1000\r\n".to_vec(), vec![b' '; 0x1000], b"\r\n".to_vec()].concat();
                    if stream.write_all(&bytes).await.is_ok() {
                        // Far above every cap, and yet an end: a client without one must not eat the machine.
                        for _ in 0..8_192 {
                            if stream.write_all(&spaces).await.is_err() {
                                return;
                            }
                        }
                        let _ = stream.write_all(b"0\r\n\r\n").await;
                    }
                    return;
                }
            };
            if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            match then {
                None => {}
                Some(true) => std::future::pending().await,
                Some(false) => {
                    let _ = stream.shutdown().await;
                    return;
                }
            }
        }
    }

    async fn read<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        buffer: &mut Vec<u8>,
        connection: usize,
    ) -> Option<Request> {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        while buffer.len() < length {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        let body: Vec<u8> = buffer.drain(..length).collect();
        let endpoint = path.rsplit("/kbs/v0/").next().unwrap().split(['/', '?']).next().unwrap().to_owned();
        let before = self.seen.lock().unwrap().iter().filter(|request| request.endpoint == endpoint).count();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some(Request { endpoint, path, headers, body, before, connection })
    }

    /// What a right broker answers.
    fn right(&self, request: &Request) -> Reply {
        match request.endpoint.as_str() {
            "auth" => self.auth(request),
            "attest" => self.attest(request),
            _ => self.resource(request),
        }
    }

    fn auth(&self, request: &Request) -> Reply {
        if request.body["version"] != "0.4.0" {
            return Reply::error("AttestationError");
        }
        let mut sessions = self.sessions.lock().unwrap();
        let id = format!("{:032x}", sessions.len() + 1);
        let nonce = format!("nonce {}", sessions.len());
        sessions.insert(id.clone(), (nonce.clone(), None));
        let body = json!({"nonce": nonce, "extra-params": ""}).to_string();
        let cookie = format!("Set-Cookie: kbs-session-id={id}; Expires=Thu, 01 Jan 2099 00:00:00 GMT");
        Reply::Answer(200, vec![cookie], body.into_bytes())
    }

    fn attest(&self, request: &Request) -> Reply {
        let mut sessions = self.sessions.lock().unwrap();
        let Some((nonce, key)) = cookie(request).and_then(|id| sessions.get_mut(id)) else {
            return Reply::error("AttestationError");
        };
        let data = &request.body["runtime-data"];
        // `serde_json` may or may not keep the order of members: the canonical form is written out.
        let sorted: BTreeMap<String, Value> = serde_json::from_value(data["tee-pubkey"].clone()).unwrap();
        let key_text = serde_json::to_string(&sorted).unwrap();
        let text =
            format!("{{\"additional-evidence\":\"\",\"nonce\":{},\"tee-pubkey\":{key_text}}}", json!(nonce));
        let expected = STANDARD.encode(sha2::Sha384::digest(text));
        let found = &request.body["tee-evidence"]["primary_evidence"]["report_data"];
        if data["nonce"] != **nonce || *found != expected {
            return Reply::error("AttestationError");
        }
        *key = Some(data["tee-pubkey"].clone());
        let claims = json!({"iat": ISSUED, "exp": now() + self.token_seconds, "n": nonce}).to_string();
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        self.tokens.lock().unwrap().insert(token.clone(), data["tee-pubkey"].clone());
        Reply::json(&json!({"token": token}))
    }

    fn resource(&self, request: &Request) -> Reply {
        let sessions = self.sessions.lock().unwrap();
        let tokens = self.tokens.lock().unwrap();
        let session = cookie(request).and_then(|id| sessions.get(id)).and_then(|(_, key)| key.as_ref());
        let bearer = request.headers.get("authorization").and_then(|text| text.strip_prefix("Bearer "));
        match session.or_else(|| tokens.get(bearer?)) {
            Some(key) => Reply::json(&jose::encrypt(key, SECRET)),
            None => Reply::error("TokenNotFound"),
        }
    }
}

fn cookie(request: &Request) -> Option<&str> {
    request.headers.get("cookie")?.strip_prefix("kbs-session-id=")
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
