//! QEMU's machine protocol: one JSON object a line.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const ANSWER: Duration = Duration::from_secs(30);

/// A connection. Events are kept.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    answers: Receiver<Value>,
    events: Arc<(Mutex<Vec<Value>>, Condvar)>,
}

impl Qmp {
    pub(super) fn new(stream: UnixStream) -> anyhow::Result<Self> {
        let (send, answers) = channel();
        let events: Arc<(Mutex<Vec<Value>>, Condvar)> = Arc::default();
        let (from, kept) = (stream.try_clone().context("QMP")?, Arc::clone(&events));
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                if value.get("event").is_some() {
                    kept.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
                    kept.1.notify_all();
                } else if send.send(value).is_err() {
                    break;
                }
            }
        });
        let mut qmp = Self { stream, answers, events };
        qmp.answer().context("QMP's greeting")?;
        qmp.call("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns what it returns.
    pub(super) fn call(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{request}").with_context(|| format!("QMP {command}"))?;
        let mut answer = self.answer().with_context(|| format!("QMP {command}"))?;
        if let Some(error) = answer.get("error") {
            bail!("QMP {command}: {error}");
        }
        Ok(answer.get_mut("return").map(Value::take).unwrap_or_default())
    }

    fn answer(&self) -> anyhow::Result<Value> {
        match self.answers.recv_timeout(ANSWER) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => bail!("no answer within {} s", ANSWER.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("QEMU is gone"),
        }
    }

    /// Waits for an event of that name.
    pub(super) fn wait_event(&self, name: &str, timeout: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + timeout;
        let mut events = self.events.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = events.iter().find(|event| named(event, name)) {
                return Ok(found.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no event {name} within {} s", timeout.as_secs());
            }
            events = self.events.1.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Why the machine stopped, if it said so: `guest-shutdown`, `guest-reset`, `guest-panic`, …
    pub(super) fn shutdown_reason(&self) -> Option<String> {
        let events = self.events.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = events.iter().find(|event| named(event, "SHUTDOWN"))?;
        event.pointer("/data/reason").and_then(Value::as_str).map(ToOwned::to_owned)
    }
}

fn named(event: &Value, name: &str) -> bool {
    event.get("event").and_then(Value::as_str) == Some(name)
}
