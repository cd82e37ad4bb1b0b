//! Debian's `docker-registry` on loopback, and a network in front of it that breaks connections.

use crate::payload::Random;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A registry in plain http, with its blobs below a directory; dropped, it is killed.
#[derive(Debug)]
pub struct RegistryServer {
    /// `127.0.0.1:PORT`.
    pub authority: String,
    process: Child,
    directory: PathBuf,
}

impl RegistryServer {
    /// Starts it with its files in `directory`, which is made, and waits until it listens.
    #[track_caller]
    pub fn start(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("make the registry's directory");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let authority = listener.local_addr().expect("the port's address").to_string();
        drop(listener);
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: {authority}\n  secret: test\n",
            directory.join("data").display()
        );
        std::fs::write(directory.join("config.yml"), config).expect("write the registry's configuration");
        let log = std::fs::File::create(directory.join("log")).expect("make the registry's log");
        let mut command = Command::new("docker-registry");
        command.args(["serve", "config.yml"]).current_dir(directory).env_clear().stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle of the log")).stderr(log);
        let process = command.spawn().expect("start docker-registry (`cargo xtask setup` installs it)");
        let mut server = Self { authority, process, directory: directory.to_owned() };
        let start = Instant::now();
        while TcpStream::connect(&server.authority).is_err() {
            let running = matches!(server.process.try_wait(), Ok(None));
            assert!(running && start.elapsed() < Duration::from_secs(30), "no registry: {}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// A reference there.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.authority)
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Pushes a tag of an image layout by `skopeo`.
    #[track_caller]
    pub fn push(&self, layout: &Path, tag: &str, rest: &str) {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
        command.arg(format!("oci:{}:{tag}", layout.display())).arg(format!("docker://{}", self.name(rest)));
        let output = command.stdin(Stdio::null()).output().expect("start skopeo");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A network between a client and a server: each connection breaks after a random number of bytes of what the server sends.
#[derive(Debug)]
pub struct BreakingNetwork {
    /// `127.0.0.1:PORT`.
    pub authority: String,
    broken: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl BreakingNetwork {
    /// In front of `server`. A connection carries less than `most` bytes; half of them break by a reset, the others by an end that looks
    /// orderly.
    #[track_caller]
    pub fn start(server: &str, most: usize, seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let authority = listener.local_addr().expect("the port's address").to_string();
        let (broken, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end, to) = (Arc::clone(&broken), Arc::clone(&stop), server.to_owned());
        std::thread::spawn(move || {
            let mut random = Random::new(seed);
            for client in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let (to, count) = (to.clone(), Arc::clone(&count));
                let (allowance, abrupt) = (random.below(most), random.below(2) == 0);
                std::thread::spawn(move || {
                    if carry(&client, &to, allowance) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    if abrupt {
                        // A reset, as soon as the other direction has ended too.
                        let _ = rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO));
                        let _ = client.shutdown(Shutdown::Read);
                    } else {
                        let _ = client.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        Self { authority, broken, stop }
    }

    /// How many connections it broke before the server was done.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Drop for BreakingNetwork {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.authority);
    }
}

/// Whether the connection was broken, rather than ended by one of its ends.
fn carry(client: &TcpStream, to: &str, allowance: usize) -> bool {
    let Ok(server) = TcpStream::connect(to) else { return false };
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else {
        return false;
    };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut client, mut server) = (client, server);
    let (mut left, mut buffer) = (allowance, vec![0; 64 << 10]);
    loop {
        let count = match server.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(count) => count,
        };
        if client.write_all(&buffer[..count.min(left)]).is_err() {
            return false;
        }
        if count >= left {
            let _ = server.shutdown(Shutdown::Both);
            return true;
        }
        left -= count;
    }
}
