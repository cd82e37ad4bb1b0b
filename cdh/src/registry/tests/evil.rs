//! A registry that does what a closure says, byte for byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// First byte of the range that is asked for.
    pub(super) fn start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// What is sent back.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) manner: Manner,
}

#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// With its length.
    Plain,
    /// These bytes of the body, then the connection ends.
    Cut(usize),
    /// These bytes of the body, and then nothing.
    Hung(usize),
    /// With this length in the header.
    Announced(u64),
    /// Chunks of the body for ever.
    Endless,
    /// A byte, then a pause.
    Drip(Duration),
    /// The head, and then nothing.
    Silent,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), manner: Manner::Plain }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }
}

type Behaviour = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The server; it ends when dropped.
#[derive(Debug)]
pub(super) struct Evil {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Evil {
    pub(super) async fn start(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (behaviour, log) = (Arc::clone(&behaviour), Arc::clone(&log));
                // The client may leave whenever it likes.
                tokio::spawn(async move { drop(serve(stream, &*behaviour, &log).await) });
            }
        });
        Self { address, seen, task }
    }

    pub(super) fn authority(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests had this in their path.
    pub(super) fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path.contains(part)).count()
    }
}

async fn serve(mut stream: TcpStream, behaviour: &Behaviour, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    loop {
        let Some(seen) = read(&mut stream).await? else { return Ok(()) };
        log.lock().unwrap().push(seen.clone());
        let reply = behaviour(&seen);
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = reply.body.len() as u64;
        match reply.manner {
            Manner::Endless => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
            Manner::Announced(length) => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
            _ => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
        }
        stream.write_all(head.as_bytes()).await?;
        match reply.manner {
            Manner::Plain if seen.method == "HEAD" => {}
            Manner::Plain => stream.write_all(&reply.body).await?,
            Manner::Announced(_) => {
                stream.write_all(&reply.body).await?;
                return Ok(());
            }
            Manner::Cut(count) => {
                stream.write_all(&reply.body[..count.min(reply.body.len())]).await?;
                return Ok(());
            }
            Manner::Hung(count) => {
                stream.write_all(&reply.body[..count]).await?;
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Manner::Endless => loop {
                let chunk = format!("{:x}\r\n", reply.body.len());
                stream.write_all(chunk.as_bytes()).await?;
                stream.write_all(&reply.body).await?;
                stream.write_all(b"\r\n").await?;
            },
            Manner::Drip(pause) => {
                for byte in &reply.body {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Manner::Silent => tokio::time::sleep(Duration::from_secs(60)).await,
        }
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Seen>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) =
        (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Seen { method, path, headers, body }))
}
