//! The programs of these tests are scripts in an image of a test's own; the real ones need a kernel that has tables.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::log::{Level, Log};

/// An image with scripts as programs, and a reaper.
struct Image(tempfile::TempDir);

impl Image {
    fn new(programs: &[(&str, &str)]) -> Self {
        let image = Self(tempfile::tempdir().unwrap());
        for (path, script) in programs {
            let path = image.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\nD={}\n{script}\n", image.0.path().display())).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        image
    }

    fn programs(&self) -> Programs {
        Programs::of(self.0.path())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap_or_default()
    }
}

fn reaper() -> Reaper {
    let log = Log::console();
    log.set_level(Level::Critical);
    Reaper::start(&log).unwrap()
}

const IPV4: Filters = Filters { is_ipv6: false };
const IPV6: Filters = Filters { is_ipv6: true };
const SAVE: &str = "cat $D/tables 2>/dev/null || true";
const RESTORE: &str = "echo \"$@\" >> $D/arguments; env > $D/environment; cat > $D/tables; echo >> $D/runs; grep -q bad $D/tables && exit 2; echo done";

// COMPAT: GetIPTables, SetIPTables better: IPv4 and IPv6 by their own programs, whose status counts
#[tokio::test]
async fn filters_are_what_the_programs_of_the_image_say() {
    let image = Image::new(&[
        ("usr/sbin/iptables-save", SAVE),
        ("usr/sbin/iptables-restore", RESTORE),
        ("sbin/ip6tables-save", "echo six"),
        ("sbin/iptables-save", "echo the second place"),
    ]);
    let (programs, reaper) = (image.programs(), reaper());
    assert_eq!(programs.save(&reaper, IPV4).await.unwrap(), b"");
    assert_eq!(programs.save(&reaper, IPV6).await.unwrap(), b"six\n");
    // More than a pipe takes at once.
    let text = format!("*nat\n{}COMMIT\n", "-A PREROUTING\n".repeat(20_000));
    let (said, before) = programs.restore(&reaper, IPV4, text.as_bytes()).await.unwrap();
    assert_eq!((said, image.read("tables")), (b"done\n".to_vec(), text));
    assert_eq!(image.read("arguments"), "--wait 5\n");
    // What a shell sets by itself.
    assert!(
        image
            .read("environment")
            .lines()
            .all(|line| line.starts_with("PWD=") || line.starts_with("_=") || line.starts_with("SHLVL="))
    );
    programs.put_back(&reaper, &before).await.unwrap();
    assert_eq!(image.read("tables").trim(), "*nat\n-F\n-X\nCOMMIT");
}

// COMPAT: SetIPTables better: a text that fails leaves the filters as before
#[tokio::test]
async fn filters_that_cannot_be_set_are_as_before() {
    let image = Image::new(&[("sbin/iptables-save", SAVE), ("sbin/iptables-restore", RESTORE)]);
    fs::write(image.0.path().join("tables"), "*filter\nold\nCOMMIT\n").unwrap();
    let (programs, reaper) = (image.programs(), reaper());
    let error = programs.restore(&reaper, IPV4, b"*nat\n-A bad\nCOMMIT\n").await.unwrap_err();
    assert!(
        matches!(error, NetworkError::ProgramFailed { status: 2, program: "iptables-restore" }),
        "{error}"
    );
    assert_eq!(image.read("tables"), "*filter\nold\nCOMMIT\n\n*nat\n-F\n-X\nCOMMIT\n");
    assert_eq!(image.read("runs").len(), 2);
}

#[tokio::test]
async fn evil_host_filters_between_workload_and_guest_components() {
    let image = Image::new(&[("sbin/iptables-save", SAVE), ("sbin/iptables-restore", RESTORE)]);
    let (programs, reaper) = (image.programs(), reaper());
    let text = b"*nat\n-A OUTPUT -p tcp --dport 8006 -j DNAT --to-destination 192.0.2.1:80\nCOMMIT\n";
    let error = programs.restore(&reaper, IPV4, text).await.unwrap_err();
    assert_eq!(error.code(), "IPTABLES_LOOPBACK");
    assert_eq!(image.read("runs"), "", "nobody was asked");
}

// COMPAT: GetIPTables, SetIPTables stricter: a clear error where the image has no program for it
#[tokio::test]
async fn without_the_program_there_is_a_clear_error_and_no_effect() {
    let image = Image::new(&[("sbin/iptables-save", SAVE)]);
    let (programs, reaper) = (image.programs(), reaper());
    for error in [
        programs.save(&reaper, IPV6).await.unwrap_err(),
        programs.restore(&reaper, IPV4, b"*nat\nCOMMIT\n").await.unwrap_err(),
    ] {
        assert_eq!(error.code(), "IPTABLES_MISSING");
        assert!(error.to_string().contains("not in /usr/sbin or /sbin of the image"));
    }
}

#[tokio::test]
async fn evil_host_filter_program_on_another_file_system() {
    let image = Image::new(&[("sbin/iptables-save", "touch $D/ran")]);
    let (programs, reaper) = (image.programs(), reaper());
    let program = image.0.path().join("sbin/iptables-save");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(programs.save(&reaper, IPV4).await.unwrap_err().code(), "IPTABLES_MISSING");
    fs::remove_file(&program).unwrap();
    // What a link leads to counts: here another file system.
    std::os::unix::fs::symlink("/proc/version", &program).unwrap();
    assert_eq!(programs.save(&reaper, IPV4).await.unwrap_err().code(), "IPTABLES_MISSING");
    assert!(!image.0.path().join("ran").exists());
}

#[tokio::test]
async fn evil_guest_program_never_stops_to_speak() {
    let image = Image::new(&[("sbin/iptables-save", "echo $$ > $D/pid; exec yes")]);
    let (programs, reaper) = (image.programs(), reaper());
    assert_eq!(programs.save(&reaper, IPV4).await.unwrap_err().code(), "NETWORK_TOO_MANY");
    gone(&image).await;
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_its_children() {
    let image = Image::new(&[("sbin/iptables-save", "sleep 1000 & echo $! > $D/pid; wait")]);
    let programs = Programs { limit: Duration::from_millis(300), ..image.programs() };
    let reaper = reaper();
    assert_eq!(programs.save(&reaper, IPV4).await.unwrap_err().code(), "IPTABLES_TIMEOUT");
    gone(&image).await;
}

/// Waits until the process whose number a script wrote is no more.
async fn gone(image: &Image) {
    let process = image.read("pid");
    assert!(!process.trim().is_empty());
    // Who has lost its parent is nobody's to wait for here.
    let is_there = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.trim()));
        stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
    };
    while is_there() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
