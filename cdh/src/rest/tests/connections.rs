//! Connections that are slow, long, many, or change hands.

use super::*;

const APP: &str = "/cdh/resource/default/app/token";

fn request(running: &Running, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", running.address)
}

fn answers(bytes: &[u8]) -> usize {
    bytes.windows(9).filter(|part| *part == b"HTTP/1.1 ").count()
}

#[tokio::test]
async fn evil_container_connection_changes_hands() {
    for second in [None, Some("db"), Some("stranger")] {
        let peers = Told::new(&[Some("app"), second]);
        let running = Running::with(Choices { peers, ..Choices::of("app") }).await;
        assert_eq!(running.get(APP).await.refusal(), refused(403, "REST_PEER_UNKNOWN"), "{second:?}");
        assert!(running.reached().is_empty());
    }
    let peers = Told::new(&[None, Some("app")]);
    let running = Running::with(Choices { peers, ..Choices::of("app") }).await;
    assert_eq!(running.get(APP).await.refusal(), refused(403, "REST_PEER_UNKNOWN"));
}

#[tokio::test]
async fn evil_container_pipelines_requests() {
    let running = Running::new("app").await;
    let two = request(&running, APP) + &request(&running, "/aa/evidence?runtime_data=x");
    let bytes = running.raw(two.as_bytes()).await;
    assert_eq!(answers(&bytes), 1);
    assert!(bytes.ends_with(b"app's own"));
    assert_eq!(running.reached(), ["kbs:///default/app/token"]);
    let body = r#"{"domain":"a","operation":"b","content":"c"}"#;
    let smuggled = format!(
        "POST /aa/aael HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{}",
        running.address,
        body.len(),
        body.len(),
        request(&running, APP)
    );
    assert!(answers(&running.raw(smuggled.as_bytes()).await) <= 1);
    assert_eq!(running.reached().iter().filter(|reached| reached.starts_with("kbs")).count(), 1);
}

#[tokio::test]
async fn evil_container_sends_its_head_slowly() {
    let head = Duration::from_millis(400);
    let running = Running::with(Choices { head, ..Choices::of("app") }).await;
    for drip in [false, true] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /info HTTP/1.1\r\nX: ").await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let dripping = tokio::spawn(async move {
            while drip && write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if !drip {
                std::future::pending::<()>().await;
            }
        });
        let mut bytes = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), read.read_to_end(&mut bytes)).await;
        assert!(ended.is_ok(), "the connection ends, drip: {drip}");
        assert!(begun.elapsed() >= head / 2 && answers(&bytes) <= 1 && !bytes.starts_with(b"HTTP/1.1 200"));
        dripping.abort();
    }
    assert_eq!(running.get(APP).await.status, 200);
}

#[tokio::test]
async fn evil_container_oversize_head() {
    let running = Running::new("app").await;
    let address = running.address;
    let field = format!("X-Long: {}\r\n", "x".repeat(3 * MAXIMUM_HEAD_BYTES));
    let many = "X: y\r\n".repeat(MAXIMUM_FIELDS + 1);
    let target = format!("/aa/evidence?runtime_data={}", "x".repeat(3 * MAXIMUM_HEAD_BYTES));
    for text in [
        format!("GET {APP} HTTP/1.1\r\nHost: {address}\r\n{field}\r\n"),
        format!("GET {APP} HTTP/1.1\r\nHost: {address}\r\n{many}\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
        "x".repeat(4 * MAXIMUM_HEAD_BYTES),
    ] {
        let bytes = running.raw(text.as_bytes()).await;
        let status = Answer::parse(&bytes).map(|answer| answer.status);
        assert!(matches!(status, None | Some(400 | 414 | 431)), "{status:?}");
    }
    assert!(running.reached().is_empty());
    let longest = format!("/aa/evidence?runtime_data={}", "x".repeat(query::MAXIMUM_QUERY_BYTES - 13));
    assert_eq!(running.get(&longest).await.status, 200);
    let longer = format!("{longest}x");
    assert_eq!(running.get(&longer).await.refusal(), refused(400, "REST_QUERY"));
}

#[tokio::test]
async fn evil_container_takes_every_connection() {
    let peers = Told::new(&[Some("app")]);
    let running = Running::with(Choices { peers: Arc::clone(&peers) as _, ..Choices::of("app") }).await;
    let mut held = Vec::new();
    for index in 0..LIMITS.connections {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET ").await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(silent.is_err(), "connection {index} within the bound stays open");
        held.push(stream);
    }
    let bytes = running.raw(request(&running, APP).as_bytes()).await;
    assert_eq!(answers(&bytes), 0, "one more is closed");
    assert!(running.reached().is_empty());
    peers.now("db");
    assert_eq!(running.get("/cdh/resource/default/db/password").await.body, b"hunter2");
    peers.now("app");
    held.clear();
    let mut answer = Vec::new();
    for _ in 0..100 {
        answer = running.raw(request(&running, APP).as_bytes()).await;
        if !answer.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(answer.ends_with(b"app's own"), "its places are free again");
}

#[tokio::test]
async fn a_socket_speaks_for_its_container_alone() {
    let running = Running::with(Choices { peers: Told::new(&[None]), ..Choices::of("app") }).await;
    let mut tasks = Vec::new();
    for name in ["app", "db"] {
        let path = running.directory.path().join(name);
        let listener = Front::socket(&path).unwrap();
        let front = Arc::clone(&running.front);
        tasks.push(tokio::spawn(front.serve_socket(listener, container(name), std::future::pending())));
    }
    let ask = |socket: &str, target: &str, host: &str| {
        let (path, text) =
            (running.directory.path().join(socket), format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        async move {
            let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
            Answer::parse(&exchange(&mut stream, text.as_bytes()).await).unwrap()
        }
    };
    let db = "/cdh/resource/default/db/password";
    assert_eq!(ask("app", APP, "localhost").await.body, b"app's own");
    assert_eq!(ask("db", db, "127.0.0.1:8006").await.body, b"hunter2");
    assert_eq!(ask("app", db, "localhost").await.refusal(), refused(403, "REST_NOT_LISTED"));
    assert_eq!(ask("db", APP, "localhost").await.refusal(), refused(403, "REST_NOT_LISTED"));
    assert_eq!(ask("db", db, "evil.example").await.refusal(), refused(403, "REST_HOST"));
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Reads somewhere else, and may say something else: that this path was asked for.
struct Elsewhere(Option<&'static str>);

#[async_trait]
impl Reader for Elsewhere {
    async fn read(&self, connection: std::os::fd::OwnedFd) -> Option<Asked> {
        let stream = TcpStream::from_std(connection.into()).unwrap();
        let read = read_one(stream, HEAD_DEADLINE).await;
        read.map(|asked| match self.0 {
            Some(path) => Asked { path: path.to_owned(), query: None, ..asked },
            None => asked,
        })
    }
}

fn elsewhere(says: Option<&'static str>) -> Choices {
    Choices { reader: Some(Arc::new(Elsewhere(says))), ..Choices::of("app") }
}

#[tokio::test]
async fn requests_are_read_elsewhere_and_answered_here() {
    let running = Running::with(elsewhere(None)).await;
    assert_eq!(running.get(APP).await.body, b"app's own");
    assert_eq!(
        running.get("/cdh/resource/default/db/password").await.refusal(),
        refused(403, "REST_NOT_LISTED")
    );
    let bytes = running.raw(b"GARBAGE\r\n\r\n").await;
    assert_eq!(Answer::parse(&bytes).map(|answer| answer.status), Some(400));
}

/// Whatever it says was asked, the answer is for whom the kernel names, and for nobody else.
#[tokio::test]
async fn evil_reader_asks_for_the_secret_of_another() {
    for (says, code) in
        [("/cdh/resource/default/db/password", "REST_NOT_LISTED"), ("/aa/token", "REST_TOKEN_KEY")]
    {
        let running = Running::with(elsewhere(Some(says))).await;
        assert_eq!(running.get("/info").await.refusal(), refused(403, code));
        assert!(running.reached().is_empty());
    }
}
