//! A process from start to end: time, processor, memory. Ours and others in the same way.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// How often the memory of a process is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// What one process took, or several after one another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Wall time.
    pub(crate) seconds: f64,
    /// Of all its threads and of children that it waited for.
    pub(crate) cpu_seconds: f64,
    /// The most anonymous memory, of it and its children together: heap and stacks. Landed plaintext and files, in the page cache or in tmpfs,
    /// are apart.
    pub(crate) anonymous: u64,
    /// The most resident memory as the kernel keeps it, with what is mapped of files.
    pub(crate) resident: u64,
    /// Standard output.
    pub(crate) stdout: String,
}

impl Measured {
    /// One after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            seconds: self.seconds + next.seconds,
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            anonymous: self.anonymous.max(next.anonymous),
            resident: self.resident.max(next.resident),
            stdout: next.stdout,
        }
    }
}

/// Has this much of the machine's memory written to once, and gives it back. Where the machine is a guest itself, whose free memory goes back to
/// its host, the first who writes to a page pays for it: that is nobody who is measured.
pub(crate) fn warm(bytes: u64) {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    std::hint::black_box(vec![1_u8; bytes]);
}

/// Runs a command to its end, which has to be a good one.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<Measured> {
    let shown = format!("{command:?}");
    let before = children_cpu()?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| shown.clone())?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = |stream: Box<dyn std::io::Read + Send>| {
        thread::spawn(move || {
            let mut text = String::new();
            let _ = { stream }.read_to_string(&mut text);
            text
        })
    };
    let stdout = read(Box::new(stdout.context("no standard output")?));
    let stderr = read(Box::new(stderr.context("no standard error")?));
    let (mut anonymous, mut resident) = (0, 0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let family = family(child.id());
        let sum = |name: &str| family.iter().map(|process| memory(*process, name)).sum::<u64>();
        anonymous = anonymous.max(sum("RssAnon:"));
        resident = resident.max(sum("VmHWM:"));
        thread::sleep(LOOK);
    };
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = children_cpu()? - before;
    let stderr = stderr.join().unwrap_or_default();
    ensure!(status.success(), "{shown}: {status}: {stderr}");
    Ok(Measured { seconds, cpu_seconds, anonymous, resident, stdout: stdout.join().unwrap_or_default() })
}

/// A process and its children.
fn family(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children = children.flat_map(|text| {
        text.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<_>>()
    });
    [process].into_iter().chain(children).collect()
}

/// One figure of a process, in bytes; none of one that is gone.
fn memory(process: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// Processor time of all children that were waited for.
fn children_cpu() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, after) = text.rsplit_once(") ").context("/proc/self/stat has another form")?;
    let ticks = |index: usize| after.split(' ').nth(index).and_then(|field| field.parse::<u64>().ok());
    // Fields 16 and 17 of the file.
    let (user, system) = ticks(13).zip(ticks(14)).context("/proc/self/stat has another form")?;
    Ok((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}
