//! The reaper, in a process of its own: it takes the status of whoever ends.

use std::process::Command;
use std::time::Duration;

use agent::log::Log;
use agent::reaper::{Ended, Reaper};

fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    command
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Zombies whose parent is this process.
fn zombies() -> usize {
    let marks = [" Z ".to_owned(), std::process::id().to_string()].concat();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let states = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    // Behind the name: state, parent.
    states
        .filter(|text| text.rsplit(')').next().is_some_and(|rest| rest.starts_with(&format!("{marks} "))))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_reaches_whoever_waits_and_no_zombie_stays() {
    let reaper = Reaper::start(&Log::console()).unwrap();
    // Children that end at once, beside orphans that do: no status goes to the wrong place.
    let mut children = Vec::new();
    for status in 0..60 {
        let orphan = "(sh -c 'exit 77' &) ; (sh -c 'kill -9 $$' &) ; ";
        let child = reaper.spawn(&mut shell(&format!("{orphan} exit {status}"))).unwrap();
        children.push((status, child));
    }
    for (status, child) in children {
        assert_eq!(child.await, Some(Ended::Exited(status)));
    }
    let killed = reaper.spawn(&mut shell("kill -TERM $$")).unwrap().await.unwrap();
    assert_eq!(killed, Ended::Killed(15));
    assert_eq!(killed.code(), 143);
    until(|| reaper.orphans() == 120).await;
    assert_eq!(zombies(), 0);

    // Who stops waiting leaves no zombie either.
    drop(reaper.spawn(&mut shell("exit 3")).unwrap());
    until(|| zombies() == 0).await;
    assert_eq!(reaper.orphans(), 120, "a child is not an orphan");

    let missing = reaper.spawn(&mut Command::new("/nonexistent")).unwrap_err();
    assert_eq!(missing.code(), "AGENT_SYSTEM");
    // A child from elsewhere, whose number is known only later.
    let admitted = reaper.admit(|| {
        let child = shell("exit 5").spawn()?;
        std::thread::sleep(Duration::from_millis(50));
        let number = i32::try_from(child.id()).unwrap();
        Ok::<_, std::io::Error>(rustix::process::Pid::from_raw(number).unwrap())
    });
    assert_eq!(admitted.unwrap().await, Some(Ended::Exited(5)));
}
