use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::pread;
use rustix::process::{Resource, Rlimit, geteuid, setrlimit};
use subtle::ConstantTimeEq;

use super::{Backing, SECRET_MAX_BYTES, SecretBytes, SecretKey};
use crate::sys::secret_pages::SecretPages;
use crate::testing::{fork, isolated, vm_flags, wait};

/// One secret of each backing that this machine has.
fn both(len: usize) -> [SecretBytes; 2] {
    [SecretBytes::zeroed(len).unwrap(), SecretBytes::locked(len).unwrap()]
}

/// How a child ends that touches an address.
fn signal_of(touch: impl FnOnce() -> u8) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    wait(fork(|| i32::from(touch()))).signal()
}

#[test]
fn secrets_keep_what_they_are_given() {
    for mut secret in both(33) {
        assert_eq!(secret.expose(), [0; 33]);
        secret.expose_mut().fill(5);
        assert_eq!((secret.expose(), secret.len()), (&[5; 33][..], 33));
    }
    assert_eq!(SecretBytes::locked(1).unwrap().backing(), Backing::LockedPages);
    let mut source = [1, 2, 3, 4];
    let key = SecretKey::<4>::take_from(&mut source).unwrap();
    assert_eq!(key.expose(), &[1, 2, 3, 4]);
}

#[test]
fn source_of_a_secret_is_wiped() {
    let mut source = *b"the key!";
    let _key = SecretKey::take_from(&mut source).unwrap();
    assert_eq!(source, [0; 8]);
    let mut too_long = vec![1; SECRET_MAX_BYTES + 1];
    SecretBytes::take_from(&mut too_long).unwrap_err();
    assert!(too_long.iter().all(|byte| *byte == 0));
}

#[test]
fn evil_secret_length_is_refused() {
    for len in [0, SECRET_MAX_BYTES + 1, usize::MAX] {
        assert_eq!(SecretBytes::zeroed(len).unwrap_err().code(), "MEM-020");
    }
    assert_eq!(SecretBytes::zeroed(SECRET_MAX_BYTES).unwrap().len(), SECRET_MAX_BYTES);
}

#[test]
fn random_keys_differ() {
    let keys = [SecretKey::<32>::random().unwrap(), SecretKey::<32>::random().unwrap()];
    assert!(!bool::from(keys[0].ct_eq(&keys[1])));
    assert!(bool::from(keys[0].ct_eq(&keys[0])));
    assert_ne!(keys[0].expose(), &[0; 32]);
    assert!(SecretBytes::random(SECRET_MAX_BYTES).unwrap().expose().ends_with(&[0; 0]));
}

#[test]
fn secrets_print_nothing() {
    let key = SecretKey::<4>::take_from(&mut [65; 4]).unwrap();
    assert_eq!(format!("{key:?}"), "SecretKey(..)");
    assert_eq!(format!("{:?}", SecretBytes::zeroed(4).unwrap()), "SecretBytes(..)");
}

#[test]
fn secret_pages_are_not_dumped() {
    for secret in both(32) {
        let flags = vm_flags(secret.expose().as_ptr().addr());
        for flag in ["dd", "lo"] {
            assert!(flags.iter().any(|found| found == flag), "{flag} in {flags:?}");
        }
    }
}

#[test]
fn forked_child_does_not_have_the_secret() {
    isolated(|| {
        for secret in both(32) {
            assert_eq!(signal_of(|| secret.expose()[0]), Some(libc::SIGSEGV), "{}", secret.backing());
        }
    });
}

#[test]
fn evil_read_over_either_end_of_a_secret_is_a_fault() {
    isolated(|| {
        let page = rustix::param::page_size();
        let secret = SecretBytes::locked(page).unwrap();
        // `DONTFORK` would hide what is to be seen here, so that the same address is touched by this very process.
        let start = secret.expose().as_ptr();
        for address in [start.wrapping_sub(1), start.wrapping_add(page)] {
            assert_eq!(signal_of_exec(address), Some(libc::SIGSEGV));
        }
    });

    /// A forked child sees the inaccessible pages: only the secret's own pages are missing in it.
    fn signal_of_exec(address: *const u8) -> Option<i32> {
        signal_of(|| {
            let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
            let guard = mapped.lines().filter_map(|line| line.split_once(' ')).any(|(range, rest)| {
                let (from, to) = range.split_once('-').unwrap();
                let number = |text| usize::from_str_radix(text, 16).unwrap();
                (number(from)..number(to)).contains(&address.addr()) && rest.starts_with("---p")
            });
            assert!(guard, "no inaccessible page at the secret's end");
            // SAFETY: not sound, and meant: the page is mapped without any right, so that this is a fault.
            #[expect(unsafe_code, reason = "the fault is what is tested")]
            unsafe {
                std::ptr::read_volatile(address)
            }
        })
    }
}

#[test]
fn dropped_secret_is_wiped() {
    let file = memfd_create("secret-test", MemfdFlags::CLOEXEC).unwrap();
    let mut pages = SecretPages::in_file(&file, 32).unwrap();
    pages.bytes_mut().fill(0xAB);
    let seen = || {
        let mut bytes = vec![0xEE; rustix::param::page_size()];
        assert_eq!(pread(&file, &mut bytes, 0).unwrap(), bytes.len());
        bytes
    };
    assert!(seen().ends_with(&[0xAB; 32]));
    drop(pages);
    assert!(seen().iter().all(|byte| *byte == 0));
}

#[test]
fn without_lockable_memory_there_is_an_error_and_no_key() {
    isolated(|| {
        setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
        let secret = SecretBytes::zeroed(32);
        if geteuid().is_root() {
            secret.unwrap();
        } else {
            assert_eq!(secret.unwrap_err().code(), "MEM-021");
        }
    });
}
