use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use super::channel::{Mark, job_file, pair, read_job, receive, send, send_now};
use super::*;
use crate::image::layer::confine::Job;
use crate::image::layer::Limits;

fn job() -> Job {
    Job { layers: Vec::new(), limits: Limits::default(), reserve: 7, transform: true }
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

#[test]
fn a_job_and_what_follows_arrive() {
    let (ours, theirs) = pair().unwrap();
    let (file, null) = (job_file(&job()).unwrap(), null());
    send(&ours, Mark::Job, &[file.as_fd(), null.as_fd(), null.as_fd()]).unwrap();
    send(&ours, Mark::Next, &[null.as_fd()]).unwrap();
    let found = receive(&theirs, Mark::Job).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(read_job::<Job>(found.into_iter().next().unwrap(), 1 << 20).unwrap(), job());
    assert_eq!(receive(&theirs, Mark::Next).unwrap().len(), 1);
    drop(ours);
    assert_eq!(receive(&theirs, Mark::Next).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn another_message_than_the_expected_one_is_refused() {
    let (ours, theirs) = pair().unwrap();
    let null = null();
    for (mark, count) in [(Mark::Next, 1), (Mark::Job, 2)] {
        send(&ours, mark, &vec![null.as_fd(); count]).unwrap();
        assert_eq!(receive(&theirs, Mark::Job).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    assert!(send(&ours, Mark::Job, &vec![null.as_fd(); 4]).is_err());
}

fn is_gone(pidfd: &OwnedFd) -> bool {
    let mut wait = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    let soon = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    rustix::event::poll(&mut wait, Some(&soon)).unwrap() == 1
}

/// A program that stays.
async fn started() -> (Child, OwnedFd) {
    let executed = Executed::of("/bin/sleep".into(), vec!["100".into()]);
    let (_, theirs) = pair().unwrap();
    let child = executed.spawn(Trade::Unpack, theirs).await.unwrap();
    let pidfd = child.pidfd.try_clone().unwrap();
    (child, pidfd)
}

#[tokio::test]
async fn a_child_that_stays_is_ended() {
    let (child, pidfd) = started().await;
    tokio::time::timeout(Duration::from_secs(10), Box::new(child).end()).await.unwrap().unwrap();
    assert!(is_gone(&pidfd));
    let (child, pidfd) = started().await;
    drop(child);
    assert!(is_gone(&pidfd));
}

#[tokio::test]
async fn without_a_program_there_is_no_child() {
    let executed = Executed::of("/no/such/program".into(), Vec::new());
    let (_, theirs) = pair().unwrap();
    assert!(executed.start(Trade::Fetch, theirs).await.is_err());
}

#[test]
fn whoever_has_too_much_to_do_holds_up_nobody() {
    let (ours, theirs) = pair().unwrap();
    let null = null();
    let sent = || send_now(&ours, Mark::Next, &[null.as_fd()]);
    let error = std::iter::repeat_with(sent).take(100_000).find_map(Result::err).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(theirs);
    assert_eq!(sent().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
