//! One order, from the agent's side: a helper is started for it, answers once, and is gone at the end, whatever happened.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use cdh::rest::Asked;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::EngineError;
use super::pen::Pen;
use super::wire::{Answer, MAXIMUM_ANSWER_BYTES, MAXIMUM_ASKED_BYTES, ORDER, Order, printable};
use crate::reaper::{Admitted, Expectation, Handle, Reaper};
use crate::sys::readiness::watch as register;
use crate::zygote::{Nursery, pair, receive_any, send};

/// How long a process that failed has to say why, when the helper knows only that it did.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long a helper that was killed may take to be gone: its memory may be large.
const LAST_BREATH: Duration = Duration::from_secs(30);
/// How long a helper that answered has to go by itself.
const GOODBYE: Duration = Duration::from_secs(1);

/// An operation under way. Dropped, its helper is killed.
#[derive(Debug)]
pub(super) struct Operation {
    action: &'static str,
    expectation: Expectation,
    socket: AsyncFd<OwnedFd>,
    helper: Admitted,
    handle: Handle,
    /// Dropped last: everybody in it is killed then.
    pen: Pen,
}

impl Operation {
    /// Starts a helper and sends it an order. `descriptors` are closed here when it has them.
    pub(super) async fn begin(
        nursery: &Nursery,
        reaper: &Reaper,
        pen: Pen,
        action: &'static str,
        order: &Order,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, EngineError> {
        let expectation = reaper.expect();
        let (ours, theirs) = pair().map_err(EngineError::system("make a helper's socket"))?;
        let file = order.to_file().map_err(EngineError::system("write an order"))?;
        let copied =
            nursery.copy(theirs).await.map_err(|_| EngineError::Unavailable { why: "it does not answer" })?;
        let helper = expectation.claim(copied.pid).map_err(|_| {
            // Whoever it is, it was made for this.
            let _ = pidfd_send_signal(&copied.pidfd, Signal::KILL);
            EngineError::Unavailable { why: "its copy is not a child of this process" }
        })?;
        let handle = helper.handle();
        let socket = register(ours).map_err(EngineError::system("make a helper's socket"))?;
        let operation = Self { action, expectation, socket, helper, handle, pen };
        // It waits for its order: nobody was started yet who would stay outside.
        // GUARD: helper-in-its-pen -> vm_engine
        operation
            .pen
            .put(operation.handle.process())
            .map_err(EngineError::system("put a helper into its group"))?;
        let mut sent = vec![file.as_fd()];
        sent.extend(descriptors.iter().map(AsFd::as_fd));
        send(operation.socket.get_ref().as_fd(), ORDER, &sent)
            .map_err(EngineError::system("send an order"))?;
        Ok(operation)
    }

    /// Waits for a process.
    pub(super) async fn made(&self, terminal: bool) -> Result<(Pid, Option<OwnedFd>), EngineError> {
        let (answer, mut descriptors) = self.answer().await?;
        let descriptors = (descriptors.pop(), descriptors.is_empty());
        match (answer, descriptors) {
            (Answer::Made(number), (master, true)) if master.is_some() == terminal && number > 1 => {
                Ok((Pid::from_raw(number).ok_or(self.broken())?, master))
            }
            _ => Err(self.broken()),
        }
    }

    /// Waits for something that makes no process.
    pub(super) async fn done(&self) -> Result<(), EngineError> {
        match self.answer().await? {
            (Answer::Done, descriptors) if descriptors.is_empty() => Ok(()),
            _ => Err(self.broken()),
        }
    }

    /// Waits for a request. It is the peer's word, by way of a helper that the peer may have taken over.
    pub(super) async fn asked(&self) -> Result<Asked, EngineError> {
        match self.answer_of(MAXIMUM_ASKED_BYTES).await? {
            (Answer::Asked(asked), descriptors) if descriptors.is_empty() => Ok(*asked),
            _ => Err(self.broken()),
        }
    }

    async fn answer(&self) -> Result<(Answer, Vec<OwnedFd>), EngineError> {
        self.answer_of(MAXIMUM_ANSWER_BYTES).await
    }

    async fn answer_of(&self, most: usize) -> Result<(Answer, Vec<OwnedFd>), EngineError> {
        let receive = |socket: &OwnedFd| receive_any(socket.as_fd(), most).map_err(std::io::Error::from);
        let frame = match self.socket.async_io(Interest::READABLE, receive).await {
            Ok(frame) => frame,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(EngineError::Helper { action: self.action, what: "died" });
            }
            Err(_) => return Err(self.broken()),
        };
        parse(self.action, &frame.bytes).map(|answer| (answer, frame.descriptors))
    }

    const fn broken(&self) -> EngineError {
        EngineError::Helper { action: self.action, what: "answered something else" }
    }

    /// Waits for a process that the helper made.
    pub(super) fn claim(&self, process: Pid) -> Result<Admitted, EngineError> {
        let what = "named a process that is no child of the agent";
        self.expectation.claim(process).map_err(|_| EngineError::Helper { action: self.action, what })
    }

    /// Ends the helper, and waits until nothing of it is left.
    pub(super) async fn ended(mut self) -> Result<(), EngineError> {
        let _ = self.handle.signal(Signal::KILL);
        // One that was killed and is not reaped holds nothing any more, but who says so is the reaper.
        let reaped = timeout(LAST_BREATH, &mut self.helper).await;
        reaped.map_err(|_| EngineError::Helper { action: self.action, what: "does not end" })?;
        self.pen.empty().await.map_err(EngineError::system("empty a helper's group"))
    }

    /// Lets the helper go.
    pub(super) async fn end(mut self) {
        // One that does not is killed when this is dropped.
        let _ = timeout(GOODBYE, &mut self.helper).await;
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // What it started and is not a process of the container, hooks for example, goes with its pen.
        let _ = self.handle.signal(Signal::KILL);
    }
}

fn parse(action: &'static str, bytes: &[u8]) -> Result<Answer, EngineError> {
    match serde_json::from_slice(bytes) {
        Ok(Answer::Refused(reason)) => Err(EngineError::Refused { action, reason: printable(&reason) }),
        Ok(answer) => Ok(answer),
        Err(_) => Err(EngineError::Helper { action, what: "answered something else" }),
    }
}

/// Waits for the helper's answer and for the process to run its program. Of two errors the one that says more.
pub(super) async fn both<A>(
    answer: impl Future<Output = Result<A, EngineError>>,
    program: impl Future<Output = Result<(), EngineError>>,
) -> Result<A, EngineError> {
    tokio::pin!(answer, program);
    tokio::select! {
        biased;
        ran = &mut program => match ran {
            Ok(()) => answer.await,
            Err(EngineError::Ended) => answer.await.and(Err(EngineError::Ended)),
            Err(error) => Err(error),
        },
        answered = &mut answer => match answered {
            Ok(answered) => program.await.map(|()| answered),
            Err(refused) => match timeout(LAST_WORDS, program).await {
                Ok(Err(error)) if !matches!(error, EngineError::Ended) => Err(error),
                _ => Err(refused),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        for answer in [Answer::Made(7), Answer::Done] {
            let bytes = serde_json::to_vec(&answer).unwrap();
            assert_eq!(parse("create", &bytes).unwrap(), answer);
        }
        let refused = serde_json::to_vec(&Answer::refused("no\n\u{1b}[31m caf\u{e9}")).unwrap();
        let error = parse("create", &refused).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), ("ENGINE_REFUSED", "create: no??[31m caf?"));
    }

    #[test]
    fn evil_helper_answers_garbage() {
        for bytes in [
            &b""[..],
            b"{}",
            b"\"Made\"",
            b"{\"Made\":\"1\"}",
            b"{\"Made\":99999999999}",
            b"{\"Made\":1,\"Done\":1}",
            &[0xff; 64],
        ] {
            assert_eq!(parse("create", bytes).unwrap_err().code(), "ENGINE_HELPER", "{bytes:?}");
        }
        let long = serde_json::to_vec(&Answer::Refused("x\n".repeat(2000))).unwrap();
        let text = parse("create", &long).unwrap_err().to_string();
        assert!(text.len() < 600 && !text.contains('\n'), "{text}");
    }

    #[tokio::test]
    async fn of_two_errors_the_one_that_says_more() {
        let program = || EngineError::Program { source: std::io::ErrorKind::NotFound.into() };
        let refused = || EngineError::Refused { action: "exec", reason: String::new() };
        let code = |result: Result<(), EngineError>| result.map_or_else(|error| error.code(), |()| "ok");
        let both = |answer, ran| async { code(both(async { answer }, async { ran }).await) };
        assert_eq!(both(Ok(()), Ok(())).await, "ok");
        assert_eq!(both(Err(refused()), Err(program())).await, "ENGINE_PROGRAM");
        assert_eq!(both(Err(refused()), Err(EngineError::Ended)).await, "ENGINE_REFUSED");
        assert_eq!(both(Ok(()), Err(EngineError::Ended)).await, "ENGINE_ENDED");
        assert_eq!(both(Err(refused()), Ok(())).await, "ENGINE_REFUSED");
    }
}
