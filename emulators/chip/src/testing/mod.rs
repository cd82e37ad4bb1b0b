//! A small client for the tests: rings in a memfd, an initiator, a sealer. Written from the specification, not from the driver.

mod artifact;
mod guest;
pub(crate) mod tee;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chip_client::abi::*;
use evidence::verify::roots::Roots;

use crate::controller::{Controller, Power};
use crate::dma::MapRequest;
use crate::faults::Faults;
use crate::firmware::Modes;
use crate::identity::issue::Maker;
use crate::identity::{Minimums, StateDirectory};
use crate::puf::noise::Probability;
use crate::sys::FileMapping;

pub(crate) use artifact::{Artifact, ArtifactOptions, policy};
pub(crate) use guest::{Guest, GuestOptions, NotAuthentic, nonce};

/// Where the client's memory begins in the device's space.
pub(crate) const BASE: u64 = 0x1_0000_0000;
/// Size of the client's memory.
pub(crate) const MEMORY: u64 = 64 << 20;
/// Entries of each ring.
pub(crate) const ENTRIES: u16 = 8;
/// Input of queue q at `INPUT + q · 4 MiB`, output 2 MiB behind.
const INPUT: u64 = BASE + (1 << 20);
/// Free for the tests.
pub(crate) const DATA: u64 = BASE + (16 << 20);

pub(crate) const INSECURE: Modes = Modes { no_evidence: true, emulated_dma: false };
pub(crate) const INSECURE_DMA: Modes = Modes { no_evidence: true, emulated_dma: true };

/// What a worker says that dies of a planned death.
pub(crate) const DEATH: &str = "the planned death";

#[derive(Default)]
struct Ring {
    tail: u32,
    head: u32,
    wrapped: bool,
    cid: u16,
}

/// A chip without a socket, and the memory of its client.
pub(crate) struct Bench {
    pub(crate) controller: Arc<Controller>,
    workers: Vec<JoinHandle<()>>,
    pub(crate) maker: Maker,
    roots: Arc<Roots>,
    memory: OwnedFd,
    view: FileMapping,
    rings: [Ring; 2],
    pub(crate) directory: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.controller.end();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Bench {
    /// Enabled and provisioned for "lab".
    pub(crate) fn new(modes: Modes) -> Self {
        Self::with_faults(modes, "")
    }

    pub(crate) fn with_faults(modes: Modes, plan: &str) -> Self {
        let mut bench = Self::unprovisioned(modes, plan);
        bench.enable();
        bench.provision();
        bench
    }

    pub(crate) fn unprovisioned(modes: Modes, plan: &str) -> Self {
        Self::unprovisioned_with(modes, plan, Roots::builtin().unwrap())
    }

    /// A chip that believes these roots, enabled and provisioned with these minimums.
    pub(crate) fn with_roots(modes: Modes, roots: Roots, minimums: Minimums) -> Self {
        let mut bench = Self::unprovisioned_with(modes, "", roots);
        bench.enable();
        assert_eq!(bench.provision_with("lab", minimums), Ok(Vec::new()));
        bench
    }

    fn unprovisioned_with(modes: Modes, plan: &str, roots: Roots) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let roots = Arc::new(roots);
        let (controller, workers) = power_on(directory.path(), modes, &roots, plan);
        let memory = rustix::fs::memfd_create("client", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, MEMORY).unwrap();
        let view = FileMapping::new(memory.as_fd(), usize::try_from(MEMORY).unwrap(), true).unwrap();
        let maker = Maker::new("acme").unwrap();
        let bench = Self {
            controller,
            workers,
            maker,
            roots,
            memory,
            view,
            rings: <[Ring; 2]>::default(),
            directory,
        };
        bench.map(BASE, 0, MEMORY);
        bench
    }

    /// Another process with the same state directory.
    pub(crate) fn power_cycle(&mut self, modes: Modes) {
        self.controller.end();
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
        // The lock of the state directory is released with the power of the former process.
        let (controller, workers) = power_on(self.directory.path(), modes, &self.roots, "");
        self.controller = controller;
        self.workers = workers;
        self.map(BASE, 0, MEMORY);
        self.enable();
    }

    /// The file of the client's memory.
    pub(crate) fn memory(&self) -> OwnedFd {
        self.memory.try_clone().unwrap()
    }

    pub(crate) fn map(&self, iova: u64, offset: u64, length: u64) {
        let file = Some(self.memory.try_clone().unwrap());
        let request = MapRequest { iova, length, readable: true, writable: true, offset, file };
        self.controller.memory.map(request).unwrap();
    }

    pub(crate) fn register(&self, offset: u32) -> u32 {
        let mut bytes = [0; 4];
        self.controller.read_registers(offset.into(), &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn set_register(&self, offset: u32, value: u32) {
        self.controller.write_registers(offset.into(), &value.to_le_bytes()).unwrap();
    }

    fn set_wide(&self, offset: u32, value: u64) {
        self.controller.write_registers(offset.into(), &value.to_le_bytes()).unwrap();
    }

    pub(crate) fn sq_base(queue: u16) -> u64 {
        BASE + 0x2000 * u64::from(queue)
    }

    pub(crate) fn cq_base(queue: u16) -> u64 {
        Self::sq_base(queue) + 0x1000
    }

    /// Sets rings up and enables the controller; returns STATUS.
    pub(crate) fn enable(&mut self) -> u32 {
        self.set_register(REG_CTRL, 0);
        self.zero(BASE, 0x4000);
        for queue in 0..QUEUES {
            let at = queue_register(queue);
            self.set_wide(at + QREG_SQ_BASE, Self::sq_base(queue));
            self.set_wide(at + QREG_CQ_BASE, Self::cq_base(queue));
            self.set_register(at + QREG_SQ_SIZE, ENTRIES.into());
            self.set_register(at + QREG_CQ_SIZE, ENTRIES.into());
        }
        self.rings = <[Ring; 2]>::default();
        self.set_register(REG_CTRL, CTRL_EN);
        self.register(REG_STATUS)
    }

    pub(crate) fn provision(&mut self) {
        let record = IdentityRecord::parse(&self.plain(Opcode::Identify, &[]).unwrap()).unwrap();
        assert_eq!(record.flags.0 & IdentityFlags::PROVISIONED, 0);
        assert_eq!(self.provision_as("lab"), Ok(Vec::new()));
    }

    pub(crate) fn provision_as(&mut self, environment: &str) -> Result<Vec<u8>, Status> {
        self.provision_with(environment, Minimums::default())
    }

    pub(crate) fn provision_with(
        &mut self,
        environment: &str,
        minimums: Minimums,
    ) -> Result<Vec<u8>, Status> {
        let chip = self.maker.certify(&self.keys(), environment).unwrap();
        let body = Provision {
            environment: environment.to_owned(),
            key_epoch: 1,
            certificates: CertificateList { model: self.maker.model().to_vec(), chip },
            root: self.maker.root().to_vec(),
            min_tcb_evaluation: minimums.tcb_evaluation,
            min_pck_crl: minimums.pck_crl,
            min_root_crl: minimums.root_crl,
            min_snp_crl: minimums.snp_crl,
        };
        self.plain(Opcode::Provision, &body.encode())
    }

    /// The chip's keys, derived beside it.
    pub(crate) fn keys(&self) -> crate::identity::Keys {
        self.controller.keys_for_tests()
    }

    pub(crate) fn write(&self, iova: u64, bytes: &[u8]) {
        self.view.write(usize::try_from(iova - BASE).unwrap(), bytes).unwrap();
    }

    pub(crate) fn read(&self, iova: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        if length == 0 {
            return bytes;
        }
        self.view.read(usize::try_from(iova - BASE).unwrap(), &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn zero(&self, iova: u64, length: usize) {
        self.view.zero(usize::try_from(iova - BASE).unwrap(), length).unwrap();
    }

    pub(crate) fn input_iova(queue: u16) -> u64 {
        INPUT + (u64::from(queue) << 22)
    }

    pub(crate) fn output_iova(queue: u16) -> u64 {
        Self::input_iova(queue) + (2 << 20)
    }

    /// An entry with the input in its usual place, not yet submitted.
    pub(crate) fn entry(
        &mut self,
        queue: u16,
        opcode: Opcode,
        session: u32,
        seq: u64,
        in_len: usize,
    ) -> Submission {
        let ring = &mut self.rings[usize::from(queue)];
        ring.cid = ring.cid.wrapping_add(1);
        Submission {
            opcode: opcode.as_u8(),
            flags: 0,
            cid: ring.cid,
            session,
            in_iova: Self::input_iova(queue),
            in_len: in_len.try_into().unwrap(),
            out_cap: MAX_TRANSFER,
            out_iova: Self::output_iova(queue),
            seq,
        }
    }

    pub(crate) fn submit(&mut self, queue: u16, entry: &[u8; SUBMISSION_LEN], input: &[u8]) {
        self.write(Self::input_iova(queue), input);
        self.submit_bare(queue, entry);
    }

    pub(crate) fn submit_bare(&mut self, queue: u16, entry: &[u8; SUBMISSION_LEN]) {
        let ring = &mut self.rings[usize::from(queue)];
        let at = Self::sq_base(queue) + u64::from(ring.tail) * SUBMISSION_LEN as u64;
        ring.tail = (ring.tail + 1) % u32::from(ENTRIES);
        let tail = ring.tail;
        self.write(at, entry);
        self.set_register(sq_tail_doorbell(queue), tail);
    }

    /// The next completion, if there is one within the time.
    pub(crate) fn completion_within(&mut self, queue: u16, time: Duration) -> Option<Completion> {
        let until = Instant::now() + time;
        let (head, wrapped) = (self.rings[usize::from(queue)].head, self.rings[usize::from(queue)].wrapped);
        let at = Self::cq_base(queue) + u64::from(head) * COMPLETION_LEN as u64;
        loop {
            let completion = Completion::parse(&self.read(at, COMPLETION_LEN).try_into().unwrap());
            if completion.phase_bit() != wrapped {
                let ring = &mut self.rings[usize::from(queue)];
                ring.head = (head + 1) % u32::from(ENTRIES);
                ring.wrapped = wrapped ^ (ring.head == 0);
                let head = ring.head;
                self.set_register(cq_head_doorbell(queue), head);
                return Some(completion);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(crate) fn completion(&mut self, queue: u16) -> Completion {
        self.completion_within(queue, Duration::from_secs(20)).expect("a completion")
    }

    /// Executes a command outside a session.
    pub(crate) fn plain(&mut self, opcode: Opcode, input: &[u8]) -> Result<Vec<u8>, Status> {
        self.plain_in(opcode, 0, input)
    }

    pub(crate) fn plain_in(&mut self, opcode: Opcode, session: u32, input: &[u8]) -> Result<Vec<u8>, Status> {
        let entry = self.entry(0, opcode, session, 0, input.len());
        self.raw(0, entry, input)
    }

    pub(crate) fn raw(&mut self, queue: u16, entry: Submission, input: &[u8]) -> Result<Vec<u8>, Status> {
        self.submit(queue, &entry.encode(), input);
        let done = self.completion(queue);
        assert_eq!((done.cid, done.tag), (entry.cid, [0; 16]));
        match Status::from_u16(done.status).unwrap() {
            Status::Ok => Ok(self.read(entry.out_iova, done.out_len as usize)),
            status => {
                assert_eq!(done.out_len, 0);
                Err(status)
            }
        }
    }
}

fn power_on(
    directory: &std::path::Path,
    modes: Modes,
    roots: &Arc<Roots>,
    plan: &str,
) -> (Arc<Controller>, Vec<JoinHandle<()>>) {
    let state = StateDirectory::open(directory).unwrap();
    if !state.has_chip() {
        state.manufacture().unwrap();
    }
    let noise = Probability::new(0.015).unwrap();
    let power = Power::new(
        state.silicon(noise).unwrap(),
        state.helper().unwrap(),
        state.nvm().unwrap(),
        modes,
        Arc::clone(roots),
    );
    let faults = Faults::parse(plan).unwrap().dying_by(|| panic!("{DEATH}"));
    Controller::start(power, Arc::new(faults))
}
