use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use protocol::ids::{MAXIMUM_READ_BYTES, read_length};
use protocol::status::RpcError;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetwinsize;

use super::*;
use crate::streams::port::CHUNK_BYTES;

const BOTH: Permits = Permits { write: true, read: true };

fn pipes() -> (ChildEnds, Streams) {
    Streams::pipes(PipeSize::default()).unwrap()
}

/// A terminal and its other side.
fn terminal() -> (std::fs::File, Streams) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (slave, Streams::terminal(master).unwrap())
}

/// Everything until the end.
async fn all(streams: &Streams) -> Vec<u8> {
    let mut found = Vec::new();
    loop {
        let part = streams.read_stdout(CHUNK_BYTES).await.unwrap();
        if part.is_empty() {
            return found;
        }
        found.extend(part);
    }
}

/// Runs it beside, from now on, where it may block.
fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    let running = tokio::task::spawn_blocking(work);
    async { running.await.unwrap() }
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let (child, streams) = pipes();
    let mut stdin = std::fs::File::from(child.stdin);
    streams.write_stdin(b"in").await.unwrap();
    streams.close_stdin();
    let mut found = String::new();
    stdin.read_to_string(&mut found).unwrap();
    assert_eq!(found, "in");
    std::fs::File::from(child.stdout).write_all(b"out").unwrap();
    std::fs::File::from(child.stderr).write_all(b"error").unwrap();
    assert_eq!(streams.read_stdout(2).await.unwrap(), b"ou");
    assert_eq!(streams.read_stdout(200).await.unwrap(), b"t");
    assert_eq!(streams.read_stderr(200).await.unwrap(), b"error");
    // Everybody who could write has closed it.
    assert!(streams.read_stdout(200).await.unwrap().is_empty());
    assert!(streams.read_stderr(200).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_megabyte_comes_whole_through_a_pipe_that_is_smaller() {
    let (child, streams) = pipes();
    let (streams, data) = (Arc::new(streams), vec![7_u8; 1 << 20]);
    let echo = beside(move || {
        let (mut stdin, mut stdout) = (std::fs::File::from(child.stdin), std::fs::File::from(child.stdout));
        std::io::copy(&mut stdin, &mut stdout).unwrap();
    });
    let (writer, sent) = (Arc::clone(&streams), data.clone());
    let write = tokio::spawn(async move {
        writer.write_stdin(&sent).await.unwrap();
        writer.close_stdin();
    });
    let reader = tokio::spawn(async move { all(&streams).await });
    echo.await;
    write.await.unwrap();
    assert_eq!(reader.await.unwrap(), data);
}

#[tokio::test]
async fn the_size_of_pipes_is_what_was_asked_for() {
    let (child, _streams) = Streams::pipes(PipeSize::bytes(1 << 18).unwrap()).unwrap();
    assert_eq!(rustix::pipe::fcntl_getpipe_size(&child.stdout).unwrap(), 1 << 18);
    assert_eq!(rustix::pipe::fcntl_getpipe_size(&child.stdin).unwrap(), 1 << 18);
    assert_eq!(PipeSize::bytes(PipeSize::MAXIMUM + 1).unwrap_err().code(), "STREAM_PIPE_SIZE");
}

#[tokio::test]
async fn the_ends_of_the_process_block_and_are_its_users() {
    use std::os::unix::fs::MetadataExt as _;
    let (child, _streams) = pipes();
    child.give_to(1234).unwrap();
    for end in [child.stdin, child.stdout, child.stderr] {
        assert!(!rustix::fs::fcntl_getfl(&end).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        assert!(rustix::io::fcntl_getfd(&end).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(std::fs::File::from(end).metadata().unwrap().uid(), 1234);
    }
}

// COMPAT: ReadStdout, ReadStderr better: a read that is given up has taken nothing
#[tokio::test]
async fn a_read_that_is_dropped_has_taken_nothing() {
    let (child, streams) = pipes();
    let streams = Arc::new(streams);
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let streams = Arc::clone(&streams);
        waiting.push(tokio::spawn(async move { streams.read_stdout(100).await.unwrap() }));
    }
    tokio::task::yield_now().await;
    for read in &waiting {
        read.abort();
    }
    for read in waiting {
        assert!(read.await.unwrap_err().is_cancelled());
    }
    std::fs::File::from(child.stdout).write_all(b"all of it").unwrap();
    assert_eq!(all(&streams).await, b"all of it");
}

#[tokio::test]
async fn what_a_process_left_is_read_before_the_end() {
    let (child, streams) = pipes();
    // Somebody else still has the pipe, and writes nothing.
    let other = child.stdout.try_clone().unwrap();
    std::fs::File::from(child.stdout).write_all(b"last words").unwrap();
    streams.process_ended();
    assert_eq!(all(&streams).await, b"last words");
    // What comes later is not lost for who asks again.
    std::fs::File::from(other).write_all(b"more").unwrap();
    assert_eq!(streams.read_stdout(10).await.unwrap(), b"more");
}

#[tokio::test]
async fn a_read_that_waits_ends_with_the_process() {
    let (child, streams) = pipes();
    let (data, error, ()) =
        tokio::join!(streams.read_stdout(10), streams.read_stderr(10), async { streams.process_ended() });
    assert!(data.unwrap().is_empty() && error.unwrap().is_empty());
    drop(child);
}

#[tokio::test]
async fn a_closed_input_takes_nothing() {
    let (child, streams) = pipes();
    streams.close_stdin();
    streams.close_stdin();
    assert_eq!(streams.write_stdin(b"x").await.unwrap_err().code(), "STREAM_NO_WRITER");
    drop(child);
    let (child, streams) = pipes();
    drop(child.stdin);
    assert_eq!(streams.write_stdin(b"x").await.unwrap_err().code(), "STREAM_NO_WRITER");
}

// COMPAT: WriteStdin, CloseStdin same: what was written comes before the end
#[tokio::test]
async fn writes_come_in_order_and_before_the_close() {
    let (child, streams) = pipes();
    let streams = Arc::new(streams);
    let (first, second) = (vec![1_u8; 200_000], vec![2_u8; 10]);
    let mut writes = Vec::new();
    for data in [first.clone(), second.clone()] {
        let streams = Arc::clone(&streams);
        writes.push(tokio::spawn(async move { streams.write_stdin(&data).await }));
        tokio::task::yield_now().await;
    }
    streams.close_stdin();
    let found = beside(move || {
        let mut found = Vec::new();
        std::fs::File::from(child.stdin).read_to_end(&mut found).unwrap();
        found
    });
    assert_eq!(found.await, [first, second].concat());
    for write in writes {
        write.await.unwrap().unwrap();
    }
}

// COMPAT: TtyWinResize same
#[tokio::test]
async fn a_terminal_is_read_written_and_resized() {
    let (mut slave, streams) = terminal();
    assert!(streams.is_terminal());
    streams.resize(TerminalSize { rows: 33, columns: 111 }).unwrap();
    let size = tcgetwinsize(slave.as_fd()).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (33, 111));
    slave.write_all(b"prompt\n").unwrap();
    assert_eq!(streams.read_stdout(100).await.unwrap(), b"prompt\r\n");
    slave.write_all(b"again\n").unwrap();
    assert_eq!(streams.read_stderr(100).await.unwrap(), b"again\r\n");
    streams.write_stdin(b"typed\n").await.unwrap();
    let typed = beside(move || {
        let mut typed = [0; 6];
        slave.read_exact(&mut typed).unwrap();
        typed
    });
    assert_eq!(&typed.await, b"typed\n");
    // It is closed on the other side now; the echo is what is left.
    assert_eq!(all(&streams).await, b"typed\r\n");
}

// COMPAT: CloseStdin same: of a terminal it closes both ways
#[tokio::test]
async fn closing_the_input_of_a_terminal_ends_its_output() {
    let (slave, streams) = terminal();
    let (data, ()) = tokio::join!(streams.read_stdout(100), async { streams.close_stdin() });
    assert!(data.unwrap().is_empty());
    assert_eq!(streams.write_stdin(b"x").await.unwrap_err().code(), "STREAM_NO_WRITER");
    let size = TerminalSize { rows: 1, columns: 1 };
    assert_eq!(streams.resize(size).unwrap_err().code(), "STREAM_NO_TERMINAL");
    // The master is really closed: the terminal is hung up.
    let hung_up = beside(move || (&slave).read(&mut [0; 1]).unwrap());
    assert_eq!(hung_up.await, 0);
}

// COMPAT: TtyWinResize same: code and text where there is no terminal
#[tokio::test]
async fn pipes_have_no_size() {
    let (_child, streams) = pipes();
    let error = streams.resize(TerminalSize { rows: 1, columns: 1 }).unwrap_err();
    assert_eq!(error.code(), "STREAM_NO_TERMINAL");
    assert_eq!(RpcError::from(error), RpcError::NoTerminal);
}

// COMPAT: ReadStdout, ReadStderr better: nothing is allocated before there is something to read, and at most 64 KiB at a time
#[tokio::test]
async fn evil_host_read_length_of_4_gib() {
    let (child, streams) = pipes();
    std::fs::File::from(child.stdout).write_all(&[1; 100]).unwrap();
    let asked = read_length(u32::MAX);
    assert_eq!(asked, MAXIMUM_READ_BYTES);
    let data = streams.read_stdout(asked).await.unwrap();
    assert_eq!(data, [1; 100]);
    assert!(data.capacity() <= CHUNK_BYTES, "{}", data.capacity());
    // Nor does one that was not cut before.
    let data = streams.read_stderr(usize::MAX);
    drop(child.stderr);
    assert!(data.await.unwrap().capacity() <= CHUNK_BYTES);
}

// COMPAT: WriteStdin better: a write that nobody reads ends with the process: `Cannot get writer`
#[tokio::test]
async fn evil_container_never_reads_stdin() {
    let (child, streams) = pipes();
    let streams = Arc::new(streams);
    let data = vec![1; 1 << 20];
    let writer = Arc::clone(&streams);
    let write = tokio::spawn(async move { writer.write_stdin(&data).await });
    // Others are served meanwhile.
    std::fs::File::from(child.stdout).write_all(b"out").unwrap();
    assert_eq!(streams.read_stdout(10).await.unwrap(), b"out");
    assert!(!write.is_finished());
    // It ends, and somebody whom it left behind has the pipe: nobody waits for ever.
    streams.process_ended();
    assert_eq!(write.await.unwrap().unwrap_err().code(), "STREAM_NO_WRITER");
    drop(child.stdin);
}

#[tokio::test]
async fn evil_container_floods_stdout_nobody_reads() {
    let (child, streams) = pipes();
    streams.drain();
    streams.drain();
    // A hundred times what the pipe holds: without somebody who reads, this never ends.
    let flood = beside(move || {
        let (mut stdout, mut stderr) = (std::fs::File::from(child.stdout), std::fs::File::from(child.stderr));
        let data = vec![0; CHUNK_BYTES];
        for _ in 0..100 {
            stdout.write_all(&data).unwrap();
            stderr.write_all(&data).unwrap();
        }
    });
    flood.await;
    // Nothing of it is kept for anybody.
    assert!(streams.read_stdout(10).await.unwrap().is_empty());
    assert!(streams.read_stderr(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_drained_terminal_is_still_written() {
    let (mut slave, streams) = terminal();
    streams.drain();
    streams.write_stdin(b"typed\n").await.unwrap();
    let typed = beside(move || {
        slave.write_all(&[b'x'; 1 << 17]).unwrap();
        let mut typed = [0; 6];
        slave.read_exact(&mut typed).unwrap();
        typed
    });
    assert_eq!(&typed.await, b"typed\n");
}

/// A socket of the host, and its other side in the guest.
fn socket() -> (UnixStream, OwnedFd) {
    let (host, guest) = UnixStream::pair().unwrap();
    (host, guest.into())
}

#[tokio::test]
async fn sockets_get_all_output_before_it_counts_as_copied() {
    let (child, streams) = pipes();
    let streams = Arc::new(streams);
    let (mut host_in, stdin) = socket();
    let (mut host_out, stdout) = socket();
    streams.attach(HostSockets::new(Some(stdin), Some(stdout), None).unwrap(), BOTH);
    let copied = tokio::spawn({
        let streams = Arc::clone(&streams);
        async move { streams.output_copied().await }
    });
    let size = 3 << 20;
    let process = beside(move || {
        let (mut stdin, mut stdout) = (std::fs::File::from(child.stdin), std::fs::File::from(child.stdout));
        assert_eq!(std::io::copy(&mut stdin, &mut stdout).unwrap(), size);
        // Nobody has a socket for it: it is thrown away, and does not block.
        std::fs::File::from(child.stderr).write_all(&vec![1; 1 << 20]).unwrap();
    });
    let host = beside(move || {
        let writer = std::thread::spawn(move || {
            std::io::copy(&mut std::io::repeat(9).take(size), &mut host_in).unwrap();
        });
        let count = std::io::copy(&mut host_out, &mut std::io::sink()).unwrap();
        writer.join().unwrap();
        count
    });
    process.await;
    streams.process_ended();
    assert_eq!(host.await, size);
    copied.await.unwrap();
    // Requests have no part in it.
    assert_eq!(streams.read_stdout(1).await.unwrap_err().code(), "STREAM_NO_READER");
    assert_eq!(streams.write_stdin(b"x").await.unwrap_err().code(), "STREAM_NO_WRITER");
}

#[tokio::test]
async fn a_terminal_goes_by_two_sockets() {
    let (mut slave, streams) = terminal();
    let (mut host_in, stdin) = socket();
    let (mut host_out, stdout) = socket();
    streams.attach(HostSockets::new(Some(stdin), Some(stdout), None).unwrap(), BOTH);
    host_in.write_all(b"typed\n").unwrap();
    let (typed, host_out) = beside(move || {
        let mut typed = [0; 6];
        slave.read_exact(&mut typed).unwrap();
        slave.write_all(b"done\n").unwrap();
        // The host stops typing: output goes on.
        drop(host_in);
        slave.write_all(b"and more\n").unwrap();
        drop(slave);
        let mut output = String::new();
        host_out.read_to_string(&mut output).unwrap();
        (typed, output)
    })
    .await;
    assert_eq!(&typed, b"typed\n");
    assert_eq!(host_out, "typed\r\ndone\r\nand more\r\n");
    streams.process_ended();
    streams.output_copied().await;
}

#[tokio::test]
async fn a_host_that_hangs_up_does_not_stop_the_process() {
    let (child, streams) = pipes();
    let (host, stdout) = socket();
    streams.attach(HostSockets::new(None, Some(stdout), None).unwrap(), BOTH);
    drop(host);
    let flood = beside(move || {
        std::fs::File::from(child.stdout).write_all(&vec![1; 1 << 20]).unwrap();
        // No socket for it: it is closed.
        std::fs::File::from(child.stdin).read_to_end(&mut Vec::new()).unwrap()
    });
    assert_eq!(flood.await, 0);
    streams.process_ended();
    streams.output_copied().await;
}

#[tokio::test]
async fn evil_host_passfd_around_the_policy() {
    let (child, streams) = pipes();
    let (mut host_in, stdin) = socket();
    let (mut host_out, stdout) = socket();
    let (mut host_err, stderr) = socket();
    let sockets = HostSockets::new(Some(stdin), Some(stdout), Some(stderr)).unwrap();
    streams.attach(sockets, Permits { write: false, read: false });
    // The sockets are closed without a byte.
    let heard = beside(move || {
        let mut heard = Vec::new();
        host_out.read_to_end(&mut heard).unwrap();
        host_err.read_to_end(&mut heard).unwrap();
        let sent = host_in.write_all(b"evil");
        (heard, sent.is_err())
    });
    let process = beside(move || {
        std::fs::File::from(child.stdout).write_all(b"secret").unwrap();
        std::fs::File::from(child.stderr).write_all(b"secret").unwrap();
        std::fs::File::from(child.stdin).read_to_end(&mut Vec::new()).unwrap()
    });
    assert_eq!(process.await, 0);
    assert_eq!(heard.await, (Vec::new(), true));
}

#[tokio::test]
async fn nothing_of_a_stream_is_shown() {
    let (_child, streams) = pipes();
    assert_eq!(format!("{streams:?}"), "Streams { kind: \"pipes\", .. }");
    let texts = [StreamError::NoReader, StreamError::NoWriter, StreamError::NoTerminal].map(RpcError::from);
    assert_eq!(texts, [RpcError::NoReader, RpcError::NoWriter, RpcError::NoTerminal]);
}
