//! A process that unpacks an image, and does what one would do that the image has taken over: `test-unpacker TASK [MARK]`, with the hub's
//! socket as standard input. It is confined by the product's own code; MARK is for whoever looks for it in `/proc`.

#![expect(clippy::expect_used, reason = "a test program")]

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;

use cdh::image::layer::{Limits, codec, confine};
use cdh::image::tree::{Content, Kind, Metadata, Tree};
use cdh::image::unpacking::Confined;
use cdh::worker::executed;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, Signal};

/// In front of a tree in an answer.
const TREE: u8 = 0;

fn main() {
    let task = std::env::args().nth(1).expect("test-unpacker TASK");
    std::process::exit(executed(|socket| unpack(&task, socket)));
}

fn unpack(task: &str, socket: OwnedFd) -> i32 {
    let Ok(mut child) = Confined::begin(socket) else { return 1 };
    match task {
        "as-it-should" => child.run(),
        "attack" => refuse(&mut child.answer, &attack()),
        "die" => std::process::abort(),
        "hang" => forever(),
        "other-object" => {
            let limits = child.job.limits;
            let (tree, mut answer) = tree(child);
            // After it was hashed.
            alter(&object(&tree, &limits)).expect("alter an object");
            answer.write_all(&tree).map_or(1, |()| 0)
        }
        "other-tree" => {
            let (mut tree, mut answer) = tree(child);
            let small = tree.windows(12).position(|bytes| bytes == b"a small file").expect("the file");
            *tree.get_mut(small).expect("a byte") = b'A';
            answer.write_all(&tree).map_or(1, |()| 0)
        }
        "own-tree" => {
            drop(child.layers);
            empty(&mut child.answer)
        }
        "own-tree-of-all" => {
            for layer in child.layers.by_ref().take(child.job.layers.len()) {
                io::copy(&mut layer.expect("a layer"), &mut io::sink()).expect("read a layer");
            }
            empty(&mut child.answer)
        }
        "stay" => {
            let limits = child.job.limits;
            let (tree, mut answer) = tree(child);
            let object = object(&tree, &limits);
            answer.write_all(&tree).expect("answer");
            drop(answer);
            // An even number of changes leaves it as it was.
            let _ = alter(&object).and_then(|()| alter(&object));
            forever()
        }
        other => refuse(&mut child.answer, other),
    }
}

/// What the image is, as an answer says it, and where that is said.
fn tree(child: Confined) -> (Vec<u8>, File) {
    let Confined { job, layers, objects, answer } = child;
    let mut tree = Vec::new();
    confine::run(&job, layers, objects, &mut tree).expect("unpack");
    (tree, answer)
}

fn empty(answer: &mut File) -> i32 {
    let tree = codec::encode(&Tree::new(Metadata::default(), 1)).expect("a tree");
    answer.write_all(&[&[TREE], tree.as_slice()].concat()).map_or(1, |()| 0)
}

/// Answers with words.
fn refuse(answer: &mut File, words: &str) -> i32 {
    let code = b"LAYER_NAME";
    answer.write_all(&[&[1, 10], code.as_slice(), words.as_bytes()].concat()).map_or(1, |()| 0)
}

fn forever() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Changes the last byte of an object.
fn alter(path: &str) -> io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::RDWR, Mode::empty())?;
    let mut file = File::from(file);
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::End(-1))?;
    file.write_all(&byte.map(|byte| byte ^ 1))
}

/// Where the longest object of an answer is.
fn object(answer: &[u8], limits: &Limits) -> String {
    let tree = codec::decode(answer.get(1..).expect("a tree"), limits).expect("a tree");
    let (mut longest, mut directories) = (None, vec![Tree::ROOT]);
    while let Some(directory) = directories.pop() {
        for id in tree.entries(directory).expect("a directory").values() {
            match tree.get(*id).map(|inode| &inode.kind) {
                Some(Kind::Directory(_)) => directories.push(*id),
                Some(Kind::Regular(Content::Object { id, size })) => {
                    longest = longest.max(Some((*size, id.0)));
                }
                _ => {}
            }
        }
    }
    let digits = hex::encode(longest.expect("an object").1);
    let (directory, name) = digits.split_at(2);
    format!("/{directory}/{name}")
}

/// Each thing that is tried, and the system's answer.
fn attack() -> String {
    let told = |name: &str, result: io::Result<()>| {
        format!("{name}={},", result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1)))
    };
    [
        told("tcp", TcpStream::connect(("127.0.0.1", 1)).map(drop)),
        told("udp", UdpSocket::bind("127.0.0.1:0").map(drop)),
        told("file", File::open("/etc/hostname").map(drop)),
        told("above", File::open("../../etc/hostname").map(drop)),
        told("processes", File::open("/proc/1/status").map(drop)),
        told("kill", rustix::process::kill_process(Pid::INIT, Signal::KILL).map_err(io::Error::from)),
        told("program", Command::new("/bin/true").spawn().map(drop)),
        told("root", rustix::process::chroot("/").map_err(io::Error::from)),
    ]
    .concat()
}
