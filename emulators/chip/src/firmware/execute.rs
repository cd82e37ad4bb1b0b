//! One submission: strict form, protection, dispatch, protected completion (interface spec §3, §5, §7.4).

use std::sync::atomic::{AtomicBool, Ordering};

use chip_client::abi::limits::{CONTENT_KEY, POLICY_DIGEST};
use chip_client::abi::{
    DataPath, MAX_TRANSFER, Opcode, SUBMISSION_LEN, SessionStatus, Sgl, SglEntry, Status, Submission,
};
use zeroize::Zeroizing;

use super::{Failure, Firmware, Output};
use crate::dma::{Bus, Direction};
use crate::faults::Kind;
use crate::session::{CompletionHead, LiveSession, Protected};

/// Says that a running command is to end early.
#[derive(Debug, Default)]
pub(crate) struct Cancel(AtomicBool);

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What the completion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) detail: u32,
    pub(crate) out_len: u32,
    pub(crate) tag: [u8; 16],
}

impl Reply {
    pub(crate) fn failed(status: Status) -> Self {
        Self { status, detail: 0, out_len: 0, tag: [0; 16] }
    }
}

/// Why there is no completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupted {
    /// The controller was reset.
    Stopped,
    /// The controller is to do this now.
    Planned(Kind),
}

/// Everything that a handler sees of its command.
pub(crate) struct Context<'a> {
    pub(crate) bus: Bus<'a>,
    pub(crate) queue: u16,
    pub(crate) entry: &'a Submission,
    pub(crate) cancel: &'a Cancel,
}

impl Firmware {
    /// Executes one submission. `entry` was copied out of the ring once.
    pub(crate) fn execute(
        &self,
        bus: Bus<'_>,
        queue: u16,
        entry: &[u8; SUBMISSION_LEN],
        cancel: &Cancel,
    ) -> Result<Reply, Interrupted> {
        let reply = self.try_execute(bus, queue, entry, cancel);
        match reply {
            Ok(reply) => Ok(reply),
            Err(Failure::Status(status, detail)) => Ok(Reply { detail, ..Reply::failed(status) }),
            Err(Failure::Stopped) => Err(Interrupted::Stopped),
            Err(Failure::Planned(kind)) => Err(Interrupted::Planned(kind)),
        }
    }

    fn try_execute(
        &self,
        bus: Bus<'_>,
        queue: u16,
        bytes: &[u8; SUBMISSION_LEN],
        cancel: &Cancel,
    ) -> Result<Reply, Failure> {
        let entry = Submission::parse(bytes)?;
        let opcode = Opcode::from_u8(entry.opcode).ok_or(Status::BadOpcode)?;
        if !opcode.on_queue(queue) {
            return Err(Status::BadOpcode.into());
        }
        if entry.in_len > MAX_TRANSFER || entry.out_cap > MAX_TRANSFER {
            return Err(Status::BadLength.into());
        }
        let mut input = vec![0; entry.in_len as usize];
        bus.read(entry.in_iova, &mut input)?;
        let context = Context { bus, queue, entry: &entry, cancel };
        if opcode.in_session() {
            return self.execute_protected(&context, opcode, bytes, input);
        }
        let belongs = opcode == Opcode::Finish;
        if (entry.session != 0) != belongs || entry.seq != 0 {
            return Err(Status::BadField.into());
        }
        if cancel.is_cancelled() {
            return Err(Status::Aborted.into());
        }
        let output = self.execute_plain(&context, opcode, &input)?;
        if output.len() > entry.out_cap as usize {
            return Err(Status::BadLength.into());
        }
        bus.write(entry.out_iova, &output)?;
        Ok(Reply { out_len: u32::try_from(output.len()).unwrap_or(0), ..Reply::failed(Status::Ok) })
    }

    fn execute_plain(&self, context: &Context<'_>, opcode: Opcode, input: &[u8]) -> Output {
        let empty = || if input.is_empty() { Ok(()) } else { Err(Failure::from(Status::BadLength)) };
        match opcode {
            Opcode::Identify => empty().and_then(|()| self.identify()),
            Opcode::Chain => empty().and_then(|()| self.chain()),
            Opcode::Provision => self.provision(input),
            Opcode::Open => self.open_session(context, input),
            Opcode::Finish => self.finish_session(context, input),
            Opcode::Zeroize => {
                empty()?;
                self.sessions.end_all();
                Ok(Zeroizing::default())
            }
            // ABORT is the controller's; everything else is protected.
            _ => Err(Status::BadOpcode.into()),
        }
    }

    fn execute_protected(
        &self,
        context: &Context<'_>,
        opcode: Opcode,
        bytes: &[u8; SUBMISSION_LEN],
        input: Vec<u8>,
    ) -> Result<Reply, Failure> {
        let entry = context.entry;
        let session = self.sessions.live(entry.session).ok_or(Status::NoSession)?;
        let opened = session.admit(context.queue, entry.seq, bytes, input);
        let (plaintext, protected) = match opened {
            Ok(opened) => opened,
            Err(status) => {
                self.sessions.end(entry.session);
                return Err(status.into());
            }
        };
        let result = not_aborted(context)
            .and_then(|()| output_ready(context, opcode, session.path()))
            .and_then(|()| self.dispatch(context, opcode, &session, &protected, &plaintext))
            .and_then(|output| {
                if output.len() > entry.out_cap as usize { Err(Status::BadLength.into()) } else { Ok(output) }
            });
        let (status, detail, mut output) = match result {
            Ok(output) => (Status::Ok, 0, output),
            Err(Failure::Status(status, detail)) => (status, detail, Zeroizing::default()),
            Err(failure @ (Failure::Stopped | Failure::Planned(_))) => return Err(failure),
        };
        let head = CompletionHead { status, cid: entry.cid, detail };
        let tag = protected.seal(&head, &mut output).ok_or(Status::Internal)?;
        if let Err(error) = context.bus.write(entry.out_iova, &output) {
            // The nonce is spent: this completion cannot be authenticated any more.
            self.sessions.end(entry.session);
            return Err(error.into());
        }
        Ok(Reply { status, detail, out_len: u32::try_from(output.len()).unwrap_or(0), tag })
    }

    fn dispatch(
        &self,
        context: &Context<'_>,
        opcode: Opcode,
        session: &LiveSession,
        protected: &Protected,
        input: &[u8],
    ) -> Output {
        let empty = || if input.is_empty() { Ok(()) } else { Err(Failure::from(Status::BadLength)) };
        match opcode {
            Opcode::Present => self.present(session, input),
            Opcode::Unwrap => self.unwrap_key(session, input),
            Opcode::LoadTags => self.load_tags(context, session, input),
            Opcode::Register => self.register(session, input),
            Opcode::Unseal => self.unseal(context, session, protected, input),
            Opcode::Status => empty().map(|()| {
                let left = session.left();
                let status = SessionStatus {
                    bytes_left: left.bytes,
                    submissions_left: left.submissions,
                    key_epoch: self.keys.epoch(),
                    handles: left.handles,
                };
                Zeroizing::new(status.encode())
            }),
            Opcode::Floors => empty().map(|()| self.floors()),
            Opcode::Close => {
                empty()?;
                self.sessions.end(context.entry.session);
                Ok(Zeroizing::default())
            }
            _ => Err(Status::BadOpcode.into()),
        }
    }
}

fn not_aborted(context: &Context<'_>) -> Result<(), Failure> {
    if context.cancel.is_cancelled() { Err(Status::Aborted.into()) } else { Ok(()) }
}

/// Refuses before any effect when the output would not fit or cannot be written.
fn output_ready(context: &Context<'_>, opcode: Opcode, path: DataPath) -> Result<(), Failure> {
    let entry = context.entry;
    let needed = match opcode {
        Opcode::Present => POLICY_DIGEST,
        Opcode::Unwrap if path == DataPath::KeyRelease => CONTENT_KEY,
        Opcode::Unwrap => 4,
        Opcode::Status => 32,
        _ => 0,
    };
    if needed > entry.out_cap as usize {
        return Err(Status::BadLength.into());
    }
    if entry.out_cap == 0 {
        return Ok(());
    }
    let range = SglEntry { iova: entry.out_iova, length: entry.out_cap.into() };
    Ok(context.bus.covers(&Sgl { entries: vec![range] }, Direction::Write)?)
}
