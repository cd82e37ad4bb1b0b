//! Both sides of the socket in one process: a child that does what it should, and others. Whatever makes a root for a child needs root.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderValue};
use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;

use super::*;
use crate::image::policy::Cause;
use crate::registry::RegistryClass;
use crate::registry::connection::Reach;
use crate::registry::http::Ask;
use crate::registry::proxy::Proxies;
use crate::registry::url::{Origin, Url};
use crate::registry::wire::Wire;
use crate::worker::channel::{Mark, read_job, receive};
use crate::worker::{Process, Trade, Workers};

/// A child that is a thread: all that it does but its confinement.
pub(in crate::registry) struct Honest;

#[async_trait]
impl Workers for Honest {
    async fn start(&self, trade: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause> {
        assert_eq!(trade, Trade::Fetch);
        std::thread::spawn(move || {
            let job = begun(&socket, &[READY]);
            rustix::io::ioctl_fionbio(&socket, true).unwrap();
            let wire = Arc::new(Wire::new(job.trust().unwrap(), job.patience()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(child::serve(socket, wire, Duration::from_secs(60)))
        });
        Ok(Box::new(Thread))
    }
}

/// It ends when its socket does.
struct Thread;

#[async_trait]
impl Process for Thread {
    async fn end(self: Box<Self>) -> Result<(), Cause> {
        Ok(())
    }
}

/// Gets a job, and says this.
fn begun(socket: &OwnedFd, word: &[u8]) -> Job {
    let mut found = receive(socket, Mark::Job).unwrap().into_iter();
    let job = read_job(found.next().unwrap(), JOB_BYTES_MAX).unwrap();
    let root = found.next().unwrap();
    let names = rustix::fs::openat(&root, "etc/nsswitch.conf", OFlags::RDONLY, Mode::empty());
    assert!(names.is_ok(), "a child finds how names are looked up");
    // Nobody waits who has no use for it.
    let _ = File::from(found.next().unwrap()).write_all(word);
    job
}

/// A child that says this at its beginning, and to each request these bytes; or it does not answer at all.
#[derive(Clone)]
struct Liar {
    word: &'static [u8],
    says: Option<Vec<u8>>,
    started: Arc<AtomicUsize>,
    /// So many requests; then it is gone.
    lives: usize,
}

impl Liar {
    fn saying(says: Vec<u8>) -> Self {
        Self { word: &[READY], says: Some(says), started: Arc::default(), lives: usize::MAX }
    }
}

#[async_trait]
impl Workers for Liar {
    async fn start(&self, _: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause> {
        self.started.fetch_add(1, Ordering::Relaxed);
        let liar = self.clone();
        std::thread::spawn(move || {
            begun(&socket, liar.word);
            let mut held = Vec::new();
            for _ in 0..liar.lives {
                let Ok(found) = receive(&socket, Mark::Next) else { return };
                let mut request = Socket::from(found.into_iter().next().unwrap());
                request.set_nonblocking(false).unwrap();
                let mut length = [0; 4];
                request.read_exact(&mut length).unwrap();
                let mut text = vec![0; u32::from_be_bytes(length) as usize];
                request.read_exact(&mut text).unwrap();
                match &liar.says {
                    Some(says) => drop(request.write_all(says)),
                    None => held.push(request),
                }
            }
        });
        Ok(Box::new(Thread))
    }
}

fn patience() -> Patience {
    let moment = Duration::from_millis(200);
    Patience { connect: moment, answer: moment, ..Patience::default() }
}

fn fetcher(workers: impl Workers + 'static) -> Fetcher {
    Fetcher::new(Arc::new(workers), None, patience())
}

fn ask(authority: &str) -> Ask {
    let url = Url::new(Origin::parse(authority, false).unwrap(), "/v2/".to_owned());
    let authorization = HeaderValue::from_static("Basic c2VjcmV0");
    let headers = vec![(AUTHORIZATION, authorization)];
    Ask { method: Method::GET, url, reach: Reach::Any, headers, body: None }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// All of a body.
async fn read(mut pieces: Pieces) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next("r.example").await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn fetched(fetcher: &Fetcher, authority: &str) -> Result<(u16, Vec<u8>), RegistryError> {
    let (head, pieces) = fetcher.send(ask(authority), None, soon()).await?;
    Ok((head.status, read(pieces).await?))
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root");
    }
    is_root
}

/// A server of one answer for each connection; what it was asked.
fn server(answer: &'static [u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (authority, seen) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.extend(byte);
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            let _ = stream.write_all(answer);
        }
    });
    (authority, seen)
}

fn framed(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

const HEAD: &str = r#"{"Head":{"status":200,"headers":[]}}"#;

#[tokio::test]
async fn a_request_goes_out_and_its_answer_comes_back() {
    if !is_root() {
        return;
    }
    let answer = b"HTTP/1.1 206 X\r\nContent-Length: 5\r\nX-Other: 1\r\nDocker-Content-Digest: a\r\nLocation: \xff\r\n\r\nhello";
    let (authority, seen) = server(answer);
    let fetcher = fetcher(Honest);
    let (head, pieces) = fetcher.send(ask(&authority), None, soon()).await.unwrap();
    assert_eq!(head.status, 206);
    // What nobody looks at is not passed on.
    assert_eq!(head.headers.len(), 3);
    assert_eq!(head.headers["docker-content-digest"], "a");
    assert_eq!(head.headers["location"].as_bytes(), b"\xff");
    assert_eq!(read(pieces).await.unwrap(), b"hello");
    let asked = seen.lock().unwrap().concat().to_ascii_lowercase();
    assert!(
        asked.starts_with("get /v2/ http/1.1\r\n") && asked.contains("authorization: basic c2vjcmv0"),
        "{asked}"
    );
    // By a proxy that has to be told who asks.
    let proxies = Proxies::new(None, Some(&format!("http://u:p@{authority}")), None).unwrap();
    let asked = ask("r.example");
    let proxy = proxies.of(&asked.url.origin);
    fetcher.send(asked, proxy, soon()).await.unwrap();
    let asked = seen.lock().unwrap().last().unwrap().to_ascii_lowercase();
    assert!(
        asked.starts_with("get http://r.example/v2/ ") && asked.contains("proxy-authorization: basic dtpw"),
        "{asked}"
    );
}

#[tokio::test]
async fn failures_keep_their_codes() {
    if !is_root() {
        return;
    }
    let fetcher = fetcher(Honest);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(fetched(&fetcher, &closed).await.unwrap_err().code(), "REGISTRY_CONNECT");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = silent.local_addr().unwrap().to_string();
    assert_eq!(fetched(&fetcher, &to).await.unwrap_err().code(), "REGISTRY_STALLED");
    let stranger = Ask { reach: Reach::Strangers, ..ask(&to) };
    assert_eq!(fetcher.send(stranger, None, soon()).await.unwrap_err().code(), "REGISTRY_ADDRESS");
    assert_eq!(fetched(&fetcher, &server(b"\0").0).await.unwrap_err().code(), "REGISTRY_HTTP");
    let (cut, _) = server(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\ncut");
    assert_eq!(fetched(&fetcher, &cut).await.unwrap_err().code(), "REGISTRY_HTTP");
    let post = Ask { method: Method::POST, ..ask(&cut) };
    assert_eq!(fetcher.send(post, None, soon()).await.unwrap_err().code(), "REGISTRY_CONFIG");
    let late = fetcher.send(ask(&to), None, Instant::now() + Duration::from_millis(20)).await;
    assert_eq!(late.unwrap_err().code(), "REGISTRY_DEADLINE");
    // A proxy that refuses.
    let proxy = server(b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n").0;
    let proxies = Proxies::new(Some(&format!("http://{proxy}")), None, None).unwrap();
    let asked = ask("r.example");
    let asked = Ask { url: Url::new(Origin::parse("r.example", true).unwrap(), "/".to_owned()), ..asked };
    let refused = fetcher.send(asked, proxies.of(&Origin::parse("r.example", true).unwrap()), soon()).await;
    assert_eq!(refused.unwrap_err().code(), "REGISTRY_DENIED");
}

#[tokio::test]
async fn evil_fetcher_answers_something_else() {
    if !is_root() {
        return;
    }
    let head = framed(HEAD);
    let body = |bytes: &[u8]| [head.as_slice(), bytes].concat();
    let piece = |length: u32| [&length.to_be_bytes(), vec![7; length as usize].as_slice(), &[0; 4]].concat();
    let told = |status: u16, headers: &str| {
        framed(&format!("{{\"Head\":{{\"status\":{status},\"headers\":[{headers}]}}}}"))
    };
    let ended = |head: Vec<u8>| [head, vec![0; 4]].concat();
    let padded = |text: &str, length: usize| framed(&format!("{text}{}", " ".repeat(length)));
    let unknown = framed("\"Nothing\"");
    let failing = |frame: &[u8]| body(&[&[0xff; 4], frame].concat());
    // What it may say.
    for (says, expected) in [
        (body(&[0; 4]), Ok(0)),
        (body(&piece(1 << 20)), Ok(1 << 20)),
        ([padded(HEAD, 1000), vec![0; 4]].concat(), Ok(0)),
        (failing(&framed("\"NoAnswer\"")), Err("REGISTRY_STALLED")),
        (framed(r#"{"Fault":{"Tls":{"text":"x"}}}"#), Err("REGISTRY_TLS")),
        // What it may not.
        (Vec::new(), Err("REGISTRY_HTTP")),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Err("REGISTRY_HTTP")),
        (framed("{}"), Err("REGISTRY_HTTP")),
        ([padded(HEAD, 1 << 20), vec![0; 4]].concat(), Err("REGISTRY_HTTP")),
        (ended(told(100, "")), Err("REGISTRY_HTTP")),
        (ended(told(1000, "")), Err("REGISTRY_HTTP")),
        (ended(told(200, "[7,\"x\"]")), Err("REGISTRY_HTTP")),
        (ended(told(200, "[1,\"\u{100}\"]")), Err("REGISTRY_HTTP")),
        (ended(told(200, "[5,\"a\\nb\"]")), Err("REGISTRY_HTTP")),
        ([told(200, &vec!["[1,\"1\"]"; 65].join(",")), vec![0; 4]].concat(), Err("REGISTRY_HTTP")),
        (body(&piece((1 << 20) + 1)), Err("REGISTRY_HTTP")),
        (body(&[0, 0, 0, 9, 1, 2, 3]), Err("REGISTRY_HTTP")),
        (failing(&unknown), Err("REGISTRY_HTTP")),
        (failing(&padded("\"NoAnswer\"", 1 << 20)), Err("REGISTRY_HTTP")),
    ] {
        let understood = understood(&says).await;
        let found = fetched(&fetcher(Liar::saying(says.clone())), "r.example").await;
        let found = found.map(|(_, bytes)| bytes.len()).map_err(|error| error.code());
        let start: Vec<u8> = says.iter().copied().take(80).collect();
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(&start));
        assert_eq!(understood.map(|(_, _, length)| length), found.ok().map(|length| length as u64));
    }
    // Its words are shown without what could move a cursor, and not at any length.
    let text = format!("{{\"Fault\":{{\"Connect\":{{\"text\":\"\\u001b[31m{}\"}}}}}}", "x".repeat(10_000));
    let error = fetched(&fetcher(Liar::saying(framed(&text))), "r.example").await.unwrap_err().to_string();
    assert!(!error.contains('\u{1b}') && error.len() < 400, "{error}");
}

#[tokio::test]
async fn evil_fetcher_that_is_not_confined() {
    if !is_root() {
        return;
    }
    let words: [(&'static [u8], &str); 4] = [
        (b"", "it ended"),
        (b"\0filter: no", "filter: no"),
        (b"\x01\x01", "it ended"),
        (&[7; 5000], "it ended"),
    ];
    for (word, expected) in words {
        let liar = Liar { word, ..Liar::saying(framed(HEAD)) };
        let error = fetched(&fetcher(liar), "r.example").await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("REGISTRY_FETCHER", RegistryClass::Local));
        assert!(error.to_string().ends_with(expected), "{error}");
    }
    struct Nobody;
    #[async_trait]
    impl Workers for Nobody {
        async fn start(&self, _: Trade, _: OwnedFd) -> Result<Box<dyn Process>, Cause> {
            Err("nobody works here".into())
        }
    }
    assert_eq!(fetched(&fetcher(Nobody), "r.example").await.unwrap_err().code(), "REGISTRY_FETCHER");
}

#[tokio::test]
async fn evil_fetcher_that_answers_to_nobody_is_given_up() {
    if !is_root() {
        return;
    }
    let liar = Liar { says: None, ..Liar::saying(Vec::new()) };
    let fetcher = fetcher(liar.clone());
    assert_eq!(fetched(&fetcher, "r.example").await.unwrap_err().code(), "REGISTRY_STALLED");
    assert!(fetcher.is_idle().await, "it was kept");
    assert_eq!(liar.started.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_child_that_is_gone_is_replaced() {
    if !is_root() {
        return;
    }
    let body = [framed(HEAD), vec![0; 4]].concat();
    let liar = Liar { lives: 1, ..Liar::saying(body) };
    let fetcher = fetcher(liar.clone());
    for count in 1..4 {
        // It may be gone only after a request was handed over.
        while let Err(error) = fetched(&fetcher, "r.example").await {
            assert_eq!(error.code(), "REGISTRY_HTTP");
        }
        assert!(liar.started.load(Ordering::Relaxed) >= count);
    }
    assert_eq!(format!("{fetcher:?}"), "Fetcher(..)");
}
