//! Commands and their responses over one open device: resending, and contexts that do not stay behind.

use std::thread::sleep;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::TpmError;
use super::device::{Device, TpmLocation};
use super::wire::{
    Accepted, CommandCode, HANDLE_PASSWORD, Refusal, Response, ResponseCode, Shape, TAG_NO_SESSIONS,
    TAG_SESSIONS, WireError, Writer,
};

/// How often a command is sent while the TPM answers RETRY, TESTING, YIELDED or NV_RATE.
const ATTEMPTS_MAX: u32 = 10;
/// The first pause between two attempts; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// What there is to flush contexts after an operation that ran out of time.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// One command. At most one handle needs authorisation, and it is the first.
pub(super) struct Command<'a> {
    pub(super) code: CommandCode,
    pub(super) handles: &'a [u32],
    /// The authorisation area.
    pub(super) auth: Option<&'a [u8]>,
    pub(super) parameters: &'a [u8],
    /// The kind of handle that comes back.
    pub(super) returns: Option<HandleKind>,
}

/// The most significant byte of a handle that this crate gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HandleKind {
    HmacSession = 0x02,
    PolicySession = 0x03,
    Transient = 0x80,
}

/// An open TPM and the contexts that we have in it.
pub(super) struct Channel {
    device: Device,
    deadline: Instant,
    open: Vec<u32>,
    swept: bool,
}

impl Channel {
    /// Opens the TPM, does `work`, and flushes every context that it left, however it ended.
    pub(super) fn with<T>(
        location: &TpmLocation,
        deadline: Instant,
        work: impl FnOnce(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let device = location.open(deadline)?;
        let mut channel = Self { device, deadline, open: Vec::new(), swept: false };
        let done = work(&mut channel);
        channel.deadline = deadline.max(Instant::now() + FLUSH_TIME);
        let flushed = channel.flush_all();
        let done = done?;
        flushed?;
        Ok(done)
    }

    /// Sends a command and gives an accepted response to `read`.
    pub(super) fn call<T>(
        &mut self,
        command: &Command<'_>,
        read: impl FnOnce(Accepted<'_>) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let shape = Shape { handle: command.returns.is_some(), session: command.auth.is_some() };
        let bytes = command.marshal();
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        let response = loop {
            let response = self.device.exchange(&bytes, self.deadline)?;
            attempts += 1;
            let Response::Refused(code) = Response::parse(&response, shape)? else { break response };
            match code.refusal() {
                Refusal::Retry => {
                    // GUARD: tpm-retries -> evil_host_tpm_asks_to_retry_for_ever
                    if attempts >= ATTEMPTS_MAX {
                        return Err(TpmError::Busy { command: command.code.name(), attempts, code });
                    }
                    sleep(pause.min(self.deadline.saturating_duration_since(Instant::now())));
                    pause *= 2;
                }
                Refusal::NoSlots if !self.swept => self.sweep()?,
                _ => return Err(refused(command.code, code)),
            }
        };
        let Response::Accepted(accepted) = Response::parse(&response, shape)? else {
            return Err(WireError::unexpected("response", "an accepted command", 0_u8).into());
        };
        if let (Some(handle), Some(kind)) = (accepted.handle, command.returns) {
            // GUARD: tpm-handle-kind -> evil_host_tpm_handle_of_another_kind, evil_host_tpm_gives_a_handle_twice
            if handle >> 24 != kind as u32 || self.open.contains(&handle) {
                return Err(WireError::unexpected("handle", "a new one of the kind asked for", handle).into());
            }
            self.open.push(handle);
        }
        read(accepted)
    }

    /// Gives one context back.
    pub(super) fn flush(&mut self, handle: u32) -> Result<(), TpmError> {
        self.open.retain(|open| *open != handle);
        let parameters = handle.to_be_bytes();
        let code = CommandCode::FlushContext;
        self.call(&Command { code, handles: &[], auth: None, parameters: &parameters, returns: None }, empty)
    }

    fn flush_all(&mut self) -> Result<(), TpmError> {
        let mut first = Ok(());
        while let Some(handle) = self.open.last().copied() {
            let flushed = self.flush(handle);
            if first.is_ok() {
                first = flushed;
            }
        }
        first
    }

    /// Gives back what a process left that was killed: nobody else has the device open.
    fn sweep(&mut self) -> Result<(), TpmError> {
        self.swept = true;
        for kind in [HandleKind::Transient, HandleKind::HmacSession] {
            for handle in self.handles((kind as u32) << 24)? {
                if !self.open.contains(&handle) {
                    self.flush(handle)?;
                }
            }
        }
        Ok(())
    }
}

impl Command<'_> {
    fn marshal(&self) -> Zeroizing<Vec<u8>> {
        let auth = self.auth.map_or(0, |auth| 4 + auth.len());
        let size = 10 + 4 * self.handles.len() + auth + self.parameters.len();
        let tag = if self.auth.is_some() { TAG_SESSIONS } else { TAG_NO_SESSIONS };
        let mut writer = Writer::new().u16(tag).u32(length(size)).u32(self.code.value());
        for handle in self.handles {
            writer = writer.u32(*handle);
        }
        if let Some(auth) = self.auth {
            writer = writer.u32(length(auth.len())).raw(auth);
        }
        writer.raw(self.parameters).done()
    }
}

/// The authorisation area of an empty password.
pub(super) fn password() -> Zeroizing<Vec<u8>> {
    Writer::new().u32(HANDLE_PASSWORD).sized(&[]).u8(0).sized(&[]).done()
}

/// The reader of a response without parameters.
pub(super) fn empty(accepted: Accepted<'_>) -> Result<(), TpmError> {
    if !accepted.parameters.is_empty() {
        return Err(WireError::Trailing { what: "response", found: accepted.parameters.len() }.into());
    }
    Ok(())
}

pub(super) fn refused(command: CommandCode, code: ResponseCode) -> TpmError {
    TpmError::Refused { command: command.name(), code }
}

/// Commands are far shorter than 2^32 bytes.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
