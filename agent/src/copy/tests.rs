//! Files as runtimes send them, and as they should not be sent.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use protocol::ids::SHARED_DIRECTORY;
use tempfile::TempDir;

use super::uploads::{MAXIMUM_FILES, PATIENCE};
use super::*;

struct Room {
    directory: TempDir,
    copies: Copies,
}

impl Room {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let copies = Copies::into_directory(directory.path().join("shared"));
        Self { directory, copies }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join("shared").join(path)
    }

    async fn send(&self, request: CopyFileRequest) -> Result<(), CopyError> {
        self.copies.take(request).await
    }

    /// Names below the shared directory, sorted.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut todo = vec![self.at("")];
        while let Some(directory) = todo.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten() {
                let entry = entry.unwrap();
                names.push(entry.path().strip_prefix(self.at("")).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                }
            }
        }
        names.sort();
        names
    }
}

fn file(path: &str, size: i64, offset: i64, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: format!("{SHARED_DIRECTORY}{path}"),
        file_size: size,
        file_mode: 0o10_0640,
        dir_mode: 0o4_0750,
        offset,
        data: data.to_vec(),
        ..CopyFileRequest::default()
    }
}

fn of_mode(mode: u32, path: &str, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest { file_mode: mode, ..file(path, 0, 0, data) }
}

fn code(result: Result<(), CopyError>) -> &'static str {
    result.unwrap_err().code()
}

// COMPAT: CopyFile better: a file appears when it is whole, and each has a temporary place of its own
#[tokio::test]
async fn files_come_in_pieces_and_appear_when_they_are_complete() {
    let room = Room::new();
    room.send(file("c/one.txt", 6, 0, b"abc")).await.unwrap();
    // Same name but for its end: nothing of one is in the other.
    room.send(file("c/one.cfg", 2, 0, b"x")).await.unwrap();
    assert_eq!(room.names(), ["c"], "nobody sees a part");
    room.send(file("c/one.txt", 6, 3, b"def")).await.unwrap();
    assert_eq!(fs::read(room.at("c/one.txt")).unwrap(), b"abcdef");
    room.send(file("c/one.cfg", 2, 1, b"y")).await.unwrap();
    assert_eq!(fs::read(room.at("c/one.cfg")).unwrap(), b"xy");
    assert_eq!(fs::metadata(room.at("c/one.txt")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(room.at("c")).unwrap().mode() & 0o7777, 0o750);
    room.send(file("empty", 0, 0, b"")).await.unwrap();
    assert_eq!(fs::read(room.at("empty")).unwrap(), b"");
    assert_eq!(room.names(), ["c", "c/one.cfg", "c/one.txt", "empty"]);
}

// COMPAT: CopyFile same: modes, owners, directories, links
#[tokio::test]
async fn owners_modes_and_kinds_are_those_of_the_host() {
    let room = Room::new();
    let mut request = of_mode(0o4_1755, "dir/below", b"");
    (request.uid, request.gid) = (12, 34);
    room.send(request.clone()).await.unwrap();
    let found = fs::metadata(room.at("dir/below")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12, 34, 0o1755));
    let parent = fs::metadata(room.at("dir")).unwrap();
    assert_eq!((parent.uid(), parent.gid()), (12, 34));
    // A directory that is there stays.
    fs::write(room.at("dir/below/file"), "x").unwrap();
    room.send(request).await.unwrap();
    assert!(room.at("dir/below/file").exists());
    // Bytes of a link are taken as they are.
    let mut request = of_mode(0o12_0777, "dir/link", b"../outside/\xff");
    (request.uid, request.gid) = (5, 6);
    room.send(request).await.unwrap();
    let found = fs::symlink_metadata(room.at("dir/link")).unwrap();
    assert_eq!((found.is_symlink(), found.uid(), found.gid()), (true, 5, 6));
    use std::os::unix::ffi::OsStrExt as _;
    assert_eq!(fs::read_link(room.at("dir/link")).unwrap().as_os_str().as_bytes(), b"../outside/\xff");
    let mut request = CopyFileRequest { file_mode: 0o10_4755, ..file("setuid", 1, 0, b"x") };
    (request.uid, request.gid) = (7, 8);
    room.send(request).await.unwrap();
    let found = fs::metadata(room.at("setuid")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (7, 8, 0o4755));
}

#[tokio::test]
async fn what_is_there_is_replaced() {
    let room = Room::new();
    fs::create_dir_all(room.at("place/full")).unwrap();
    fs::write(room.at("place/full/file"), "old").unwrap();
    room.send(file("place", 1, 0, b"f")).await.unwrap();
    assert_eq!(fs::read(room.at("place")).unwrap(), b"f");
    room.send(of_mode(0o12_0777, "place", b"target")).await.unwrap();
    assert!(room.at("place").is_symlink());
    room.send(of_mode(0o4_0755, "place", b"")).await.unwrap();
    assert!(fs::symlink_metadata(room.at("place")).unwrap().is_dir());
    assert_eq!(room.names(), ["place"]);
}

// COMPAT: CopyFile stricter: `..` is refused, not resolved inside of the directory
#[tokio::test]
async fn evil_host_copies_by_dotdot() {
    let room = Room::new();
    for path in ["../x", "a/../../x", "..", "a/.."] {
        assert_eq!(code(room.send(file(path, 1, 0, b"x")).await), "REQUEST_OUTSIDE_SHARED", "{path}");
    }
    let elsewhere = CopyFileRequest { path: "/etc/passwd".to_owned(), ..file("x", 1, 0, b"x") };
    assert_eq!(code(room.send(elsewhere).await), "REQUEST_OUTSIDE_SHARED");
    assert_eq!(fs::read_dir(room.directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn evil_host_copies_through_a_symlink() {
    let room = Room::new();
    let outside = room.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    room.send(of_mode(0o12_0777, "link", b"../outside")).await.unwrap();
    room.send(of_mode(0o12_0777, "absolute", outside.to_str().unwrap().as_bytes())).await.unwrap();
    for path in ["link/file", "absolute/file", "link/new/file"] {
        for (mode, data) in [(0o10_0644, &b""[..]), (0o4_0755, b""), (0o12_0777, b"target")] {
            assert_eq!(code(room.send(of_mode(mode, path, data)).await), "COPY_IO", "{path} {mode:o}");
        }
    }
    // The last name, too: the link is replaced, what it leads to is not.
    symlink(outside.join("file"), room.at("direct")).unwrap();
    room.send(file("direct", 4, 0, b"evil")).await.unwrap();
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(!room.at("direct").is_symlink());
    // Nor is anything removed through a link.
    fs::create_dir(room.at("tree")).unwrap();
    symlink(&outside, room.at("tree/way-out")).unwrap();
    room.send(file("tree", 0, 0, b"")).await.unwrap();
    assert!(outside.join("file").exists());
}

// COMPAT: CopyFile stricter: pieces lie within the length, in order, and a file has at most 2 GiB
#[tokio::test]
async fn evil_host_lies_about_the_length() {
    let room = Room::new();
    for (size, offset, data) in [
        (1, 0, &b"ab"[..]),
        (-1, 0, b""),
        (1, -1, b""),
        (2, 1, b"ab"),
        (i64::MAX, 0, b"a"),
        (3, i64::MAX, b"a"),
    ] {
        assert_eq!(code(room.send(file("x", size, offset, data)).await), "COPY_LENGTH", "{size} {offset}");
    }
    let most = i64::try_from(MAXIMUM_FILE_BYTES).unwrap();
    assert_eq!(code(room.send(file("x", most + 1, 0, b"")).await), "COPY_LENGTH");
    assert!(room.names().is_empty());
}

#[tokio::test]
async fn evil_host_overlapping_pieces() {
    let room = Room::new();
    for offset in [1, 4] {
        room.send(file("x", 8, 0, b"ab")).await.unwrap();
        assert_eq!(code(room.send(file("x", 8, offset, b"cd")).await), "COPY_OFFSET");
        // What was begun is gone with the error: its rest begins nothing.
        assert_eq!(code(room.send(file("x", 8, 2, b"cdefgh")).await), "COPY_OFFSET");
    }
    assert_eq!(code(room.send(file("y", 8, 2, b"ab")).await), "COPY_OFFSET");
    assert!(room.names().is_empty());
}

#[tokio::test]
async fn evil_host_changes_the_file_on_the_way() {
    let room = Room::new();
    let second = file("x", 4, 2, b"cd");
    for changed in [
        CopyFileRequest { file_mode: 0o10_4777, ..second.clone() },
        CopyFileRequest { uid: 1, ..second.clone() },
        CopyFileRequest { file_size: 5, ..second },
    ] {
        room.send(file("x", 4, 0, b"ab")).await.unwrap();
        assert_eq!(code(room.send(changed).await), "COPY_LENGTH");
    }
    assert!(room.names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn evil_host_races_the_copy() {
    let room = Room::new();
    let outside = room.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir_all(room.at("a")).unwrap();
    let (swapped, own) = (room.at("a"), outside.clone());
    let aside = room.at("aside");
    let racer = std::thread::spawn(move || {
        for _ in 0..200 {
            let _ = fs::rename(&swapped, &aside);
            let _ = symlink(&own, &swapped);
            let _ = fs::remove_file(&swapped);
            let _ = fs::rename(&aside, &swapped);
        }
    });
    let mut tasks = Vec::new();
    for number in 0..100_u8 {
        let copies = room.copies.clone();
        tasks.push(tokio::spawn(async move {
            let _ = copies.take(file("a/file", 2, 0, &[number])).await;
            let _ = copies.take(file("a/file", 2, 1, &[number])).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    racer.join().unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing left the directory");
    // Whoever was last: one of the files, or none; never half of one.
    for place in ["a/file", "aside/file"] {
        if let Ok(bytes) = fs::read(room.at(place)) {
            assert_eq!(bytes.len(), 2);
        }
    }
    assert!(room.names().iter().all(|name| !name.contains("innerkeep-copy")), "{:?}", room.names());
}

#[tokio::test]
async fn evil_host_files_that_are_never_complete() {
    let room = Room::new();
    for number in 0..MAXIMUM_FILES {
        room.send(file(&format!("{number}"), 2, 0, b"a")).await.unwrap();
    }
    assert_eq!(code(room.send(file("one-more", 2, 0, b"a")).await), "COPY_MANY");
    // Time goes by.
    let later = Instant::now() + PATIENCE;
    room.copies.inner.uploads.lock().unwrap().forget_old(later);
    let most = i64::try_from(MAXIMUM_FILE_BYTES).unwrap();
    room.send(file("big", most, 0, b"a")).await.unwrap();
    room.send(file("bigger", most, 0, b"a")).await.unwrap();
    assert_eq!(code(room.send(file("one-more", 2, 0, b"a")).await), "COPY_MANY");
    assert!(room.names().is_empty());
}

// COMPAT: CopyFile stricter: files, directories and links alone
#[tokio::test]
async fn evil_host_copies_a_device() {
    let room = Room::new();
    for mode in [0o2_0666, 0o6_0666, 0o1_0666, 0o14_0666] {
        assert_eq!(code(room.send(of_mode(mode, "x", b"")).await), "COPY_KIND", "{mode:o}");
    }
    let owner = CopyFileRequest { uid: -1, ..file("x", 0, 0, b"") };
    assert_eq!(code(room.send(owner).await), "COPY_OWNER");
    for target in [&b""[..], b"a\0b", &[b'x'; 4096]] {
        assert_eq!(code(room.send(of_mode(0o12_0777, "x", target)).await), "COPY_LINK");
    }
    assert!(room.names().is_empty());
}

#[tokio::test]
async fn evil_host_deep_directories() {
    let room = Room::new();
    let deep = ["d"; 200].join("/");
    assert_eq!(code(room.send(file(&deep, 0, 0, b"")).await), "COPY_IO");
    assert!(!Path::new(&room.at(&deep)).exists());
}

/// In a mount namespace of its own, which a process of its own has.
#[test]
fn evil_host_copies_into_a_mount() {
    const ISOLATED: &str = "INNERKEEP_TEST_ISOLATED";
    if std::env::var_os(ISOLATED).is_none() {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "copy::tests::evil_host_copies_into_a_mount"]);
        let output = command.env(ISOLATED, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let room = Room::new();
        fs::create_dir_all(room.at("root/etc")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("x", room.at("root"), "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
        for path in ["root/passwd", "root/etc/passwd"] {
            assert_eq!(code(room.send(file(path, 1, 0, b"x")).await), "COPY_IO");
        }
        assert_eq!(fs::read_dir(room.at("root")).unwrap().count(), 0);
    });
}
