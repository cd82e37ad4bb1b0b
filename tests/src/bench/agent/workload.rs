//! The generated policy, its requests, and the reference that decides the same: `policy-engine/examples/policy-workload.rs`, in a
//! process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::agent::client::Call;

#[derive(Debug, Deserialize)]
struct Said {
    policy: String,
    requests: Vec<Request>,
}

#[derive(Debug, Deserialize)]
struct Request {
    name: String,
    method: String,
    payload: String,
}

#[derive(Debug, Deserialize)]
struct Decided {
    seconds: f64,
    allowed: bool,
}

/// The program that knows the policy; dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Workload {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    said: Said,
}

impl Workload {
    pub(crate) fn start(program: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let (ask, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(ask), Some(answers)) = (ask, answers) else { bail!("a child without streams") };
        let mut answers = BufReader::new(answers);
        let said = serde_json::from_str(&line(&mut answers)?)?;
        Ok(Self { child, ask, answers, said })
    }

    pub(crate) fn policy(&self) -> &str {
        &self.said.policy
    }

    /// The request of this name, to be sent.
    pub(crate) fn call(&self, name: &str) -> anyhow::Result<Call> {
        let request = self.said.requests.iter().find(|request| request.name == name);
        let request = request.with_context(|| format!("no request {name}"))?;
        Call::new("grpc.AgentService", &request.method, &hex::decode(&request.payload)?)
    }

    /// Seconds of one decision by the reference, of so many, and whether it allows.
    pub(crate) fn reference(&mut self, name: &str, calls: u32) -> anyhow::Result<(f64, bool)> {
        writeln!(self.ask, "{name} {calls}")?;
        self.ask.flush()?;
        let decided: Decided = serde_json::from_str(&line(&mut self.answers)?)?;
        Ok((decided.seconds, decided.allowed))
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        bail!("the workload ended");
    }
    Ok(line)
}
