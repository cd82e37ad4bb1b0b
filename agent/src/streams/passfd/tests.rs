use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::*;

fn connection() -> (UnixStream, OwnedFd) {
    let (host, guest) = UnixStream::pair().unwrap();
    (host, guest.into())
}

fn host(port: u32) -> VsockAddr {
    VsockAddr::new(VMADDR_CID_HOST, port)
}

fn is_closed(mut host: UnixStream) -> bool {
    host.read_to_end(&mut Vec::new()).is_ok()
}

#[tokio::test]
async fn a_connection_is_found_by_the_port_of_its_peer() {
    let waiting = Waiting::default();
    let (mut ours, socket) = connection();
    waiting.admit(host(77), socket).unwrap();
    let until = Instant::now();
    assert!(waiting.take(0, until).await.is_none());
    assert!(waiting.take(78, until).await.is_none());
    let found = waiting.take(77, until).await.unwrap();
    ours.write_all(b"x").unwrap();
    let mut byte = [0];
    UnixStream::from(found).read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    // It is one process's.
    assert!(waiting.take(77, until).await.is_none());
}

#[tokio::test]
async fn a_request_waits_for_its_connection() {
    let waiting = Arc::new(Waiting::default());
    let (_ours, socket) = connection();
    let taker = Arc::clone(&waiting);
    let taken =
        tokio::spawn(async move { taker.take(5, Instant::now() + Duration::from_secs(60)).await.is_some() });
    tokio::task::yield_now().await;
    waiting.admit(host(5), socket).unwrap();
    assert!(taken.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_asks_for_is_closed() {
    let waiting = Waiting::default();
    let (ours, socket) = connection();
    waiting.admit(host(5), socket).unwrap();
    tokio::time::advance(WAITING).await;
    waiting.expire();
    assert!(waiting.take(5, Instant::now()).await.is_none());
    assert!(is_closed(ours));
}

#[tokio::test]
async fn evil_peer_connects_passfd_port_from_another_cid() {
    let waiting = Waiting::default();
    // The guest's own CIDs, the hypervisor's, another guest's.
    for cid in [1, 3, 0, 4, u32::MAX] {
        let (ours, socket) = connection();
        let error = waiting.admit(VsockAddr::new(cid, 5), socket).unwrap_err();
        assert_eq!(error, "a stream of a peer that is not the host was refused");
        assert!(waiting.take(5, Instant::now()).await.is_none());
        assert!(is_closed(ours));
    }
}

#[tokio::test]
async fn evil_host_opens_streams_that_nobody_names() {
    let waiting = Waiting::default();
    let mut kept = Vec::new();
    for port in 0..1000 {
        let (ours, socket) = connection();
        if waiting.admit(host(port), socket).is_ok() {
            kept.push(ours);
        } else {
            assert!(is_closed(ours));
        }
    }
    assert_eq!(kept.len(), MAXIMUM_WAITING);
    assert_eq!(waiting.table.lock().unwrap().len(), MAXIMUM_WAITING);
}
