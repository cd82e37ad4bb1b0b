//! One measurement, in a process of its own.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use protected_memory::PageClass;
use protected_memory::confine::{PrivateNamespaces, enter_private_namespaces};
use protected_memory::landing::{
    Complete, FileName, Filling, Landing, LandingPlan, LandingPolicy, SwapPolicy, TeePolicy, TeeState, Window,
};
use protected_memory::source::MappedSource;
use rustix::time::{ClockId, clock_gettime};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::names::PayloadIndex;
use sealed_artifact::parallel::open_slices;
use sealed_artifact::signature::{Floors, Pin, verify_origin};
use serde::{Deserialize, Serialize};

use super::store::{self, Stored};
use crate::counting;

/// Bytes that a thread of the reference takes at a time: a huge page, as the product does.
const PIECE: usize = 2 << 20;
const LABEL: &str = "model";

/// What to do with each piece of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Copy: the reference.
    Copy,
    /// AES-256-GCM by the same library without format, in the direction of sealing: the ceiling of any AEAD.
    RawAead,
    /// What the product does.
    KeyRelease,
    /// Nothing: room and source are made warm for a process that follows.
    Warm,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) store: PathBuf,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) threads: NonZeroUsize,
    /// Watch the memory instead of the clock.
    pub(crate) watch_memory: bool,
}

/// Seconds that each step took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Steps {
    /// Index, manifest, core, origin, commitments, tag table.
    pub(crate) open: f64,
    /// The landing file, with its room taken.
    pub(crate) create: f64,
    /// Source mapped, all bytes through.
    pub(crate) fill: f64,
    /// No writer left, superblock read-only.
    pub(crate) complete: f64,
    /// Visible.
    pub(crate) attach: f64,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Wall time of all steps.
    pub(crate) seconds: f64,
    /// Processor time of all threads meanwhile.
    pub(crate) cpu_seconds: f64,
    pub(crate) steps: Steps,
    /// The kernel gave huge pages.
    pub(crate) huge_pages: bool,
    /// Calls of the allocator while the bytes went through, and by how much the heap grew at most.
    pub(crate) fill_allocations: u64,
    pub(crate) fill_heap_bytes: u64,
    /// By how much the heap grew at most during all steps.
    pub(crate) heap_bytes: u64,
    /// By how much the anonymous resident memory grew at most; page tables apart. Zero unless it was watched.
    pub(crate) extra_resident_bytes: u64,
    pub(crate) page_table_bytes: u64,
}

/// Does the job; to be called first thing in `main`.
pub(crate) fn run(job: &Job) -> anyhow::Result<Measured> {
    let mut namespaces = enter_private_namespaces()?;
    let key = ContentKey::from_bytes(&hex::decode(&job.key)?)?;
    let policy = LandingPolicy { tee: TeePolicy::InsecureNoTee, swap: SwapPolicy::InsecureSwap };
    warm_room(job.size, policy)?;
    store::read_through(&Stored::open(&job.store)?.ciphertext()?.0)?;
    if job.work == Work::Warm {
        return Ok(Measured::default());
    }
    if job.watch_memory {
        let stop = AtomicBool::new(false);
        let watch = Watch::default();
        let base = watch.sample();
        let mut measured = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    watch.sample();
                    thread::sleep(Duration::from_micros(500));
                }
            });
            let measured = land(job, &mut namespaces, &key, policy);
            watch.sample();
            stop.store(true, Ordering::Relaxed);
            measured
        })?;
        measured.extra_resident_bytes = watch.anonymous.load(Ordering::Relaxed).saturating_sub(base.0);
        measured.page_table_bytes = watch.tables.load(Ordering::Relaxed).saturating_sub(base.1);
        return Ok(measured);
    }
    land(job, &mut namespaces, &key, policy)
}

/// A virtual machine may have given freed pages back to its host: the room is touched once and freed, for every case alike.
fn warm_room(size: u64, policy: LandingPolicy) -> anyhow::Result<()> {
    let plan = LandingPlan::new([(FileName::parse(store::NAME)?, size)])?;
    let mut landing = Landing::create(&plan, policy, TeeState::None)?;
    landing.file_mut(0)?.window()?.bytes_mut().fill(1);
    Ok(())
}

fn land(
    job: &Job,
    namespaces: &mut PrivateNamespaces,
    key: &ContentKey,
    policy: LandingPolicy,
) -> anyhow::Result<Measured> {
    let mut steps = Steps::default();
    let heap = counting::begin();
    let cpu = cpu_seconds();
    let start = Instant::now();

    let stored = Stored::open(&job.store)?;
    verify_origin(&stored.core, None, &[Pin::Core(stored.core.digest())], &Floors::new())?;
    let opener = stored.core.unlock(key)?.opener(PayloadIndex::new(0), &stored.tag_table()?)?;
    steps.open = start.elapsed().as_secs_f64();

    let files = stored
        .core
        .parameters()
        .payloads()
        .iter()
        .map(|payload| Ok((FileName::parse(payload.name.as_str())?, payload.layout.size())));
    let plan = LandingPlan::new(files.collect::<anyhow::Result<Vec<_>>>()?)?;
    let mut landing: Landing<Filling> = Landing::create(&plan, policy, TeeState::None)?;
    let huge_pages = landing.report().page_class == PageClass::Huge2M;
    let so_far = start.elapsed().as_secs_f64();
    steps.create = so_far - steps.open;

    let fill_heap = counting::begin();
    {
        let (file, length) = stored.ciphertext()?;
        let mut window = landing.file_mut(0)?.window()?;
        let source =
            MappedSource::open(&file, 0, length)?.context("the store is not on a local file system")?;
        match job.work {
            Work::Copy => {
                in_pieces(job.threads, source.bytes(), window, &|from, to| to.copy_from_slice(from))
            }
            Work::RawAead => {
                let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).ok().context("a key")?);
                in_pieces(job.threads, source.bytes(), window, &|from, to| {
                    let nonce = Nonce::assume_unique_for_key([0; 12]);
                    let mut tag = [0; 16];
                    let done =
                        aead.seal_out_of_place_scatter(nonce, Aad::from([0; 32]), from, to, &[], &mut tag);
                    debug_assert!(done.is_ok(), "raw AEAD");
                });
            }
            Work::Warm => {}
            Work::KeyRelease => open_slices(&opener, job.threads, source.bytes(), window.bytes_mut(), &())?,
        }
    }
    let (fill_allocations, fill_heap_bytes) = counting::since(fill_heap);
    let before = so_far;
    let so_far = start.elapsed().as_secs_f64();
    steps.fill = so_far - before;

    let landed = landing.complete()?;
    let before = so_far;
    let so_far = start.elapsed().as_secs_f64();
    steps.complete = so_far - before;

    let mount = namespaces.attach(&landed, &FileName::parse(LABEL)?)?;
    let seconds = start.elapsed().as_secs_f64();
    steps.attach = seconds - so_far;
    let cpu_seconds = cpu_seconds() - cpu;
    let (_, heap_bytes) = counting::since(heap);

    anyhow::ensure!(mount.file(&FileName::parse(store::NAME)?).is_file(), "the file is not visible");
    if job.work == Work::KeyRelease {
        verify_contents(&landed, job.size)?;
    }
    Ok(Measured {
        seconds,
        cpu_seconds,
        steps,
        huge_pages,
        fill_allocations,
        fill_heap_bytes,
        heap_bytes,
        extra_resident_bytes: 0,
        page_table_bytes: 0,
    })
}

/// The landed bytes at 257 places are the payload's.
fn verify_contents(landed: &Landing<Complete>, size: u64) -> anyhow::Result<()> {
    let mapped = landed.map(0)?;
    let mut expected = [0; 4096];
    let length = expected.len() as u64;
    for step in 0..=256_u64 {
        let offset = (size.saturating_sub(length) / 256 * step) & !7;
        let found = usize::try_from(offset).ok().and_then(|at| mapped.bytes().get(at..)?.get(..4096));
        store::plaintext(offset, &mut expected);
        anyhow::ensure!(found == Some(&expected[..]), "the landed bytes at {offset} are not the payload's");
    }
    Ok(())
}

/// The reference's threads: each takes the next piece, as the product's do.
fn in_pieces(
    threads: NonZeroUsize,
    source: &[u8],
    window: Window<'_>,
    work: &(impl Fn(&[u8], &mut [u8]) + Sync),
) {
    let rest = Mutex::new((source, window));
    let next = || {
        let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
        let length = rest.0.len().min(PIECE);
        let (from, after) = rest.0.split_at(length);
        let to = rest.1.split_front(length).filter(|_| length > 0)?;
        rest.0 = after;
        Some((from, to))
    };
    let worker = || {
        while let Some((from, mut to)) = next() {
            work(from, to.bytes_mut());
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            scope.spawn(worker);
        }
        worker();
    });
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The most that `/proc/self/status` said.
#[derive(Debug, Default)]
struct Watch {
    anonymous: AtomicU64,
    tables: AtomicU64,
}

impl Watch {
    /// Anonymous resident bytes and bytes of page tables.
    fn sample(&self) -> (u64, u64) {
        let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0)
                * 1024
        };
        let (anonymous, tables) = (kib("RssAnon:"), kib("VmPTE:"));
        self.anonymous.fetch_max(anonymous, Ordering::Relaxed);
        self.tables.fetch_max(tables, Ordering::Relaxed);
        (anonymous, tables)
    }
}
