//! Images are unpacked in a process that they may take over: what it can do then, and what is believed of it. The process is a real one, confined by
//! the product's own code: the one of the program that ships, or one that does what an attacker would (`test-unpacker`). Needs root.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[expect(dead_code, reason = "all of it is for pulls")]
#[path = "cdh_pull/fixture.rs"]
mod fixture;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cdh::composefs::pin::Pin;
use cdh::image::policy::Cause;
use cdh::image::pull::PullerOptions;
use cdh::worker::{Executed, Process, Trade, Workers};
use serde_json::{Value, json};
use tests::programs::{Programs, as_root};

use fixture::{Guest, Image, Server, pins, workers};

const IMAGE: &str = "acme/ranker";

fn anything() -> Value {
    json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {}})
}

fn content() -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// A server with an image, and its name there.
fn served(content: &[u8]) -> (Server, String) {
    let (server, image) = (Server::start(), Image::new(content));
    server.skopeo(&image.layout(), &format!("{IMAGE}:v1"));
    let name = server.name(&format!("{IMAGE}:v1"));
    (server, name)
}

fn guest(server: &Server, workers: Arc<dyn Workers>, options: PullerOptions) -> Guest {
    Guest::unpacked_by(server, &anything(), ("", false), options, workers, |puller| puller)
}

/// A mark that no other process has among its words.
fn mark() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}

/// An image's own process, with this task. Registries are spoken to as ever.
fn taken_over(task: &str, mark: &str) -> Arc<dyn Workers> {
    let words = [task, mark].map(OsString::from).into();
    let evil = Executed::of(Programs::built().path("test-unpacker"), words);
    Arc::new(TakenOver(evil, workers()))
}

struct TakenOver(Executed, Arc<dyn Workers>);

#[async_trait]
impl Workers for TakenOver {
    async fn start(&self, trade: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause> {
        match trade {
            Trade::Unpack => self.0.start(trade, socket).await,
            Trade::Fetch => self.1.start(trade, socket).await,
        }
    }
}

/// Whether a process has this mark.
fn lives(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes.flatten().any(|process| {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    })
}

/// Until it is gone; a process that was killed may take a moment.
fn assert_gone(mark: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    while lives(mark) {
        assert!(Instant::now() < end, "the process lives");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn evil_layer_takes_over_the_process_that_unpacks() {
    as_root(async {
        let content = content();
        let (server, name) = served(&content);
        let options = PullerOptions::default;
        for (task, code) in [
            ("own-tree", "LAYER_CHILD"),
            ("other-object", "COMPOSEFS_MISMATCH"),
            ("die", "LAYER_CHILD"),
            ("nothing-that-there-is", "LAYER_NAME"),
        ] {
            let mark = mark();
            let guest = guest(&server, taken_over(task, &mark), options());
            assert_eq!(guest.refused(&name).await, code, "{task}");
            assert_gone(&mark);
        }
        // What it says it could do.
        let found = guest(&server, taken_over("attack", "x"), options()).pull(&name).await.unwrap_err();
        let expected = "tcp=1,udp=1,file=2,above=2,processes=2,kill=1,program=1,root=1,";
        assert!(found.to_string().ends_with(expected), "{found}");

        // One that stays, and writes when it has answered: it is gone before anybody looks at what it made.
        let mark = mark();
        let pulling = guest(&server, taken_over("stay", &mark), options());
        match pulling.pull(&name).await {
            Ok(pulled) => {
                assert!(!lives(&mark));
                let bundle = pulled.mount(&pulling.bundle()).unwrap();
                assert!(std::fs::read(bundle.root().join("usr/second")).unwrap() == content);
            }
            // It was killed between its two changes.
            Err(error) => assert_eq!(error.code(), "COMPOSEFS_MISMATCH"),
        }
        assert_gone(&mark);
    });
}

#[test]
fn evil_layer_has_a_tree_of_its_choice() {
    as_root(async {
        let (server, name) = served(&content());
        // For this image it can; who knows the digest of the tree finds it out.
        let found = guest(&server, workers(), PullerOptions::default()).pull(&name).await.unwrap();
        let wrong = Pin::parse(&"0".repeat(64)).unwrap();
        let error = guest(&server, workers(), pins(&[(&name, wrong)])).pull(&name).await.unwrap_err();
        let text = error.to_string();
        let at = text.rfind("v1-sha256-12:").unwrap();
        let right = Pin::parse(text[at..].split_whitespace().next().unwrap()).unwrap();
        let options = pins(&[(&name, right)]);
        let as_it_should = guest(&server, taken_over("as-it-should", "x"), options.clone());
        assert_eq!(as_it_should.pull(&name).await.unwrap().image_digest(), right);
        let guest = guest(&server, taken_over("other-tree", "x"), options);
        assert_eq!(guest.refused(&name).await, "COMPOSEFS_MISMATCH");
        drop(found);
    });
}

/// Alters the blobs of a guest when they were verified and are about to be unpacked.
struct Altering {
    work: OnceLock<PathBuf>,
    inner: Arc<dyn Workers>,
}

#[async_trait]
impl Workers for Altering {
    async fn start(&self, trade: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause> {
        if trade == Trade::Fetch {
            return self.inner.start(trade, socket).await;
        }
        for blob in std::fs::read_dir(self.work.get().ok_or("a place")?.join("blobs/sha256"))? {
            let path = blob?.path();
            let mut bytes = std::fs::read(&path)?;
            let last = bytes.last_mut().ok_or("an empty blob")?;
            *last ^= 1;
            // The file that is open, not another one in its place.
            std::os::unix::fs::FileExt::write_all_at(
                &std::fs::OpenOptions::new().write(true).open(&path)?,
                &bytes,
                0,
            )?;
        }
        self.inner.start(trade, socket).await
    }
}

#[test]
fn evil_host_alters_a_blob_while_it_is_unpacked() {
    as_root(async {
        let (server, name) = served(&content());
        for inner in [taken_over("own-tree-of-all", "x"), workers()] {
            let altering = Arc::new(Altering { work: OnceLock::new(), inner });
            let guest = guest(&server, Arc::clone(&altering) as _, PullerOptions::default());
            altering.work.set(guest.directory.path().join("work")).unwrap();
            assert_eq!(guest.refused(&name).await, "LAYER_READ");
        }
        // It is the alteration that is refused.
        let guest = guest(&server, taken_over("own-tree-of-all", "x"), PullerOptions::default());
        guest.pull(&name).await.unwrap();
    });
}

/// One that may live on when it was ended.
struct Undead(Arc<dyn Workers>);

struct Ghost(Box<dyn Process>);

#[async_trait]
impl Workers for Undead {
    async fn start(&self, trade: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause> {
        Ok(Box::new(Ghost(self.0.start(trade, socket).await?)))
    }
}

#[async_trait]
impl Process for Ghost {
    async fn end(self: Box<Self>) -> Result<(), Cause> {
        self.0.end().await?;
        Err("nobody knows".into())
    }
}

#[test]
fn evil_process_whose_end_nobody_knows() {
    as_root(async {
        let (server, name) = served(b"short");
        let guest = guest(&server, Arc::new(Undead(workers())), PullerOptions::default());
        assert_eq!(guest.refused(&name).await, "PULL_UNPACKER");
    });
}

#[test]
fn evil_machine_that_cannot_confine() {
    as_root(async {
        let (server, name) = served(b"short");
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let program = Programs::built().path("test-unpacker").to_str().unwrap().to_owned();
        let without = words(&["--bounding-set=-all", "--inh-caps=-all", &program, "as-it-should"]);
        let of = |program: &str, words| {
            let unpacker = Arc::new(TakenOver(Executed::of(program.into(), words), workers()));
            guest(&server, unpacker, PullerOptions::default())
        };
        assert_eq!(of("/usr/bin/setpriv", without).refused(&name).await, "LAYER_CONFINEMENT");
        assert_eq!(of("/no/such/program", Vec::new()).refused(&name).await, "PULL_UNPACKER");
        // A program that is no unpacker.
        assert!(of("/bin/true", Vec::new()).pull(&name).await.is_err());
    });
}

#[test]
fn a_pull_that_is_given_up_takes_its_process_with_it() {
    as_root(async {
        let (server, name) = served(b"short");
        let mark = mark();
        let guest = guest(&server, taken_over("hang", &mark), PullerOptions::default());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(3);
        let error = guest.puller.pull(&name, deadline, &()).await.unwrap_err();
        assert_eq!(error.code(), "PULL_DEADLINE");
        assert_gone(&mark);
        guest.assert_clean();
    });
}

#[test]
fn two_images_are_unpacked_at_once() {
    as_root(async {
        let (first, second) = (content(), content());
        let (server, name) = served(&first);
        let other = Image::new(&second);
        server.skopeo(&other.layout(), "acme/other:v1");
        let guest = guest(&server, workers(), PullerOptions::default());
        let other = server.name("acme/other:v1");
        let (one, two) = tokio::join!(guest.pull(&name), guest.pull(&other));
        for (pulled, content) in [(one.unwrap(), first), (two.unwrap(), second)] {
            let bundle = pulled.mount(&guest.bundle()).unwrap();
            assert!(std::fs::read(bundle.root().join("usr/second")).unwrap() == content);
        }
        guest.assert_clean();
    });
}
