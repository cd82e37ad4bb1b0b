//! What a caller is told: one error, and one place where it becomes a status of ttrpc.
//!
//! Runtimes match on codes and on some texts, so these are upstream's. Upstream prints with Rust's `Debug`: a text that is quoted
//! there is quoted here. Nothing else of a cause leaves the guest, and no text is longer than [`MAXIMUM_TEXT_BYTES`].

use ttrpc::Code;

use crate::ids::ValueError;
use crate::limits::LimitError;

/// The longest text that the host is given.
pub const MAXIMUM_TEXT_BYTES: usize = 512;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcError {
    /// The request is not within its limits.
    Limit(LimitError),
    /// An id, path or amount of the request.
    Value(ValueError),
    /// A message that has to be there is not: what upstream says, `empty update interface request`.
    Empty(&'static str),
    /// A process was looked for in a container that is not there.
    ProcessWithoutContainer,
    /// The container is there, its first process is gone.
    FirstProcessGone,
    /// No process of this exec id.
    NoProcess,
    /// The same three for WriteStdin, where upstream has another code.
    StdinWithoutProcess(MissingProcess),
    /// UpdateContainer, StatsContainer, PauseContainer, ResumeContainer: no such container.
    NoContainer,
    /// StartContainer, RemoveContainer, ExecProcess: no such container.
    NoContainerToRun,
    /// The process ended before the signal came.
    NoSuchProcess,
    /// ExecProcess without a process.
    NoProcessInRequest,
    /// An exec id that is taken.
    ExecIdTaken(String),
    /// A stream that is not there, to read.
    NoReader,
    /// A stream that is closed, to write.
    NoWriter,
    /// A terminal was meant, and there is none.
    NoTerminal,
    /// UpdateInterface: no link of this address or name. Runtimes try again.
    LinkNotFound,
    /// A wait for a device: seconds, and what was waited for.
    DeviceTimeout(u64, String),
    /// A storage driver that is not there.
    NoStorageDriver(String),
    /// A kind of device that is not there.
    NoDeviceDriver(String),
    /// UpdateEphemeralMounts with a storage of another driver.
    NotEphemeral(String),
    /// GetDiagnosticData of a log that is none.
    UnknownLog(String),
    /// ReseedRandomDev without data.
    NoEntropy,
    /// RemoveContainer took longer than it may.
    RemovalTimeout,
    /// DestroySandbox, the second time.
    SandboxGone,
    /// GetOOMEvent, when the sandbox ends.
    EventsEnded,
    /// ResizeVolume, which no agent has.
    ResizeVolume,
    /// The memory agent is not there.
    MemoryAgentDisabled,
    /// The policy says no: the rule, and what it says.
    Denied(&'static str, String),
    /// The policy could not be asked: the rule, and why.
    PolicyFailed(&'static str, String),
    /// SetPolicy: a text that is no policy.
    PolicyInvalid(String),
    /// The call's time was over before it had an effect.
    Deadline,
    /// More is waiting than may.
    Busy,
    /// Nobody has built it, or the kernel does not have it.
    Unimplemented(&'static str),
    /// Not in this state, or not on this machine: code and text.
    Precondition(&'static str, String),
    /// Anything else: a stable code, and a text that may leave the guest.
    Failed(&'static str, String),
}

/// What is missing where WriteStdin looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingProcess {
    /// The container.
    Container,
    /// Its first process.
    First,
    /// The process of this exec id.
    Exec,
}

impl From<LimitError> for RpcError {
    fn from(error: LimitError) -> Self {
        Self::Limit(error)
    }
}

impl From<ValueError> for RpcError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

impl RpcError {
    /// Code and text of the status.
    #[must_use]
    pub fn status(&self) -> (Code, String) {
        let (code, text) = self.parts();
        (code, cut(text))
    }

    fn parts(&self) -> (Code, String) {
        let bare = |code, text: &str| (code, text.to_owned());
        let quoted = |code, text: &str| (code, quote(text));
        match self {
            Self::Limit(error) => (Code::INVALID_ARGUMENT, format!("{}: {error}", error.code())),
            Self::Value(error @ ValueError::Shared) => (Code::INTERNAL, format!("{}: {error}", error.code())),
            Self::Value(error) => (Code::INVALID_ARGUMENT, format!("{}: {error}", error.code())),
            Self::Empty(what) => quoted(Code::INVALID_ARGUMENT, what),
            Self::ProcessWithoutContainer => bare(Code::INVALID_ARGUMENT, MissingProcess::Container.text()),
            Self::FirstProcessGone => bare(Code::NOT_FOUND, MissingProcess::First.text()),
            Self::NoProcess => bare(Code::NOT_FOUND, MissingProcess::Exec.text()),
            Self::StdinWithoutProcess(missing) => bare(Code::INTERNAL, missing.text()),
            Self::NoContainer => quoted(Code::INVALID_ARGUMENT, "invalid container id"),
            Self::NoContainerToRun => bare(Code::INTERNAL, "Invalid container id"),
            Self::NoSuchProcess => bare(Code::INTERNAL, "ESRCH: No such process"),
            Self::NoProcessInRequest => {
                bare(Code::INTERNAL, "Unable to parse process from ExecProcessRequest")
            }
            Self::ExecIdTaken(id) => (Code::INTERNAL, format!("exec_id '{}' already exists", plain(id))),
            Self::NoReader => bare(Code::INTERNAL, "cannot get stream reader"),
            Self::NoWriter => bare(Code::INTERNAL, "Cannot get writer"),
            Self::NoTerminal => quoted(Code::UNAVAILABLE, "no tty"),
            Self::LinkNotFound => bare(Code::INTERNAL, "Link not found"),
            Self::DeviceTimeout(seconds, what) => {
                (Code::INTERNAL, format!("Timeout after {seconds}s waiting for uevent {}", plain(what)))
            }
            Self::NoStorageDriver(driver) => {
                (Code::INTERNAL, format!("Failed to find the storage handler {}", plain(driver)))
            }
            Self::NoDeviceDriver(kind) => {
                (Code::INTERNAL, format!("Failed to find the device handler {}", plain(kind)))
            }
            Self::NotEphemeral(driver) => {
                (Code::INTERNAL, format!("Unsupported storage type for syncing mounts {}", plain(driver)))
            }
            Self::UnknownLog(log) => {
                (Code::INVALID_ARGUMENT, format!("unsupported diagnostic log_type: {}", plain(log)))
            }
            Self::NoEntropy => bare(Code::INTERNAL, "missing entropy data"),
            Self::RemovalTimeout => bare(Code::INTERNAL, "ETIME"),
            Self::SandboxGone => quoted(Code::INTERNAL, "failed to get sandbox sender channel"),
            Self::EventsEnded => quoted(Code::INTERNAL, ""),
            Self::ResizeVolume => {
                quoted(Code::UNIMPLEMENTED, "resize_volume is not implemented in kata-agent")
            }
            Self::MemoryAgentDisabled => bare(Code::INTERNAL, "mem-agent is disabled"),
            Self::Denied(rule, why) => {
                (Code::PERMISSION_DENIED, quote(&format!("{rule} is blocked by policy: {why}")))
            }
            Self::PolicyFailed(rule, why) => {
                (Code::INTERNAL, quote(&format!("{rule}: internal error {why}")))
            }
            Self::PolicyInvalid(why) => (Code::INVALID_ARGUMENT, quote(why)),
            Self::Deadline => bare(Code::DEADLINE_EXCEEDED, "timeout"),
            Self::Busy => bare(Code::RESOURCE_EXHAUSTED, "too many requests are waiting"),
            Self::Unimplemented(what) => bare(Code::UNIMPLEMENTED, what),
            Self::Precondition(code, text) => (Code::FAILED_PRECONDITION, format!("{code}: {}", plain(text))),
            Self::Failed(code, text) => (Code::INTERNAL, format!("{code}: {}", plain(text))),
        }
    }
}

impl MissingProcess {
    const fn text(self) -> &'static str {
        match self {
            Self::Container => "InvalidContainerId",
            Self::First => "InitProcessNotFound",
            Self::Exec => "InvalidExecId",
        }
    }
}

impl From<RpcError> for ttrpc::Error {
    fn from(error: RpcError) -> Self {
        let (code, text) = error.status();
        Self::RpcStatus(ttrpc::get_status(code, text))
    }
}

/// As `Debug` prints a text that is short enough to keep its closing mark.
fn quote(text: &str) -> String {
    let mut end = text.floor_char_boundary(MAXIMUM_TEXT_BYTES - 2);
    loop {
        let quoted = format!("{:?}", text.get(..end).unwrap_or_default());
        let excess = quoted.len().saturating_sub(MAXIMUM_TEXT_BYTES);
        if excess == 0 || end == 0 {
            return quoted;
        }
        // One byte at least, and not more than what is too long can come from.
        end = text.floor_char_boundary(end - excess.div_ceil(8).min(end));
    }
}

/// On one line, whatever a peer wrote.
fn plain(text: &str) -> String {
    text.chars()
        .take(MAXIMUM_TEXT_BYTES)
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAXIMUM_TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(error: RpcError) -> (Code, String) {
        let ttrpc::Error::RpcStatus(status) = ttrpc::Error::from(error) else { panic!("no status") };
        (status.code(), status.message().to_owned())
    }

    /// What runtimes and their tests look for.
    #[test]
    fn runtimes_find_what_they_match_on() {
        let has = |error, code, text: &str| {
            let (found, message) = status(error);
            assert_eq!(found, code, "{message}");
            assert!(message.contains(text), "{message}");
        };
        has(RpcError::LinkNotFound, Code::INTERNAL, "Link not found");
        has(RpcError::NoSuchProcess, Code::INTERNAL, "ESRCH: No such process");
        has(RpcError::NoProcess, Code::NOT_FOUND, "InvalidExecId");
        has(RpcError::FirstProcessGone, Code::NOT_FOUND, "InitProcessNotFound");
        has(RpcError::ProcessWithoutContainer, Code::INVALID_ARGUMENT, "InvalidContainerId");
        has(RpcError::StdinWithoutProcess(MissingProcess::Exec), Code::INTERNAL, "InvalidExecId");
        has(RpcError::NoContainer, Code::INVALID_ARGUMENT, "\"invalid container id\"");
        has(RpcError::NoContainerToRun, Code::INTERNAL, "Invalid container id");
        has(RpcError::NoTerminal, Code::UNAVAILABLE, "\"no tty\"");
        has(RpcError::EventsEnded, Code::INTERNAL, "\"\"");
        has(RpcError::Deadline, Code::DEADLINE_EXCEEDED, "timeout");
        has(RpcError::RemovalTimeout, Code::INTERNAL, "ETIME");
        has(RpcError::Value(ValueError::Shared), Code::INTERNAL, "prefix from");
        let denied = RpcError::Denied("ExecProcessRequest", "args \"sh\"".to_owned());
        let text = r#""ExecProcessRequest is blocked by policy: args \"sh\"""#;
        assert_eq!(status(denied), (Code::PERMISSION_DENIED, text.to_owned()));
    }

    #[test]
    fn evil_host_text_in_an_error() {
        for character in ["\u{7}", "\"", "é", "a"] {
            let long = character.repeat(4000);
            for error in [
                RpcError::Denied("SetPolicyRequest", long.clone()),
                RpcError::ExecIdTaken(long.clone()),
                RpcError::Failed("AGENT_X", long.clone()),
            ] {
                let (_, text) = status(error);
                assert!(text.len() <= MAXIMUM_TEXT_BYTES && text.len() > 256, "{}", text.len());
                assert!(!text.contains(char::is_control));
            }
            let (_, text) = status(RpcError::Denied("SetPolicyRequest", long));
            assert!(text.starts_with("\"SetPolicyRequest is blocked by policy: ") && text.ends_with('"'));
        }
    }
}
