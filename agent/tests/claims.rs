//! Children whose number is known only after they began, in a process of its own: whoever expects one has its status.

#![expect(clippy::unwrap_used, clippy::zombie_processes, reason = "a test; the reaper waits")]

use std::process::Command;
use std::time::Duration;

use agent::log::Log;
use agent::reaper::{Ended, NotAChild, Reaper};
use rustix::process::{Pid, Signal};

fn begin(line: &str) -> Pid {
    let child = Command::new("/bin/sh").args(["-c", line]).spawn().unwrap();
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_claimed_before_or_after_its_end() {
    let reaper = Reaper::start(&Log::console()).unwrap();
    let expectation = reaper.expect();

    // It has ended, and was waited for, before anybody says whose it is.
    let quick = begin("exit 7");
    until(|| reaper.orphans() == 1).await;
    let claimed = expectation.claim(quick).unwrap();
    let handle = claimed.handle();
    assert_eq!(claimed.await, Some(Ended::Exited(7)));
    assert_eq!(handle.signal(Signal::KILL), Err(rustix::io::Errno::SRCH));
    assert_eq!(handle.signal_group(Signal::KILL), Err(rustix::io::Errno::SRCH));
    assert_eq!(reaper.orphans(), 0, "it is no orphan");
    assert_eq!(expectation.claim(quick).unwrap_err(), NotAChild(quick.as_raw_nonzero().get()), "once");

    // It lives.
    let slow = begin("exec sleep 100");
    let claimed = expectation.claim(slow).unwrap();
    assert!(expectation.claim(slow).is_err(), "it is somebody's already");
    let handle = claimed.handle();
    assert!(handle.pidfd().is_some());
    handle.signal(Signal::TERM).unwrap();
    assert_eq!(claimed.await, Some(Ended::Killed(15)));
    assert_eq!(handle.signal(Signal::TERM), Err(rustix::io::Errno::SRCH));

    // It ends meanwhile, many times.
    for status in 0..100 {
        let child = begin(&format!("exit {status}"));
        if status % 2 == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(expectation.claim(child).unwrap().await, Some(Ended::Exited(status)));
    }
    assert!(expectation.claim(Pid::INIT).is_err(), "not a child");
    assert!(expectation.claim(rustix::process::getpid()).is_err(), "not a child");

    // Nobody expects any: what ends is forgotten.
    drop(expectation);
    let before = reaper.orphans();
    let forgotten = begin("exit 1");
    until(|| reaper.orphans() == before + 1).await;
    assert!(reaper.expect().claim(forgotten).is_err());
}
