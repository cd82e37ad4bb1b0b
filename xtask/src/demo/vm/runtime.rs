//! The runtime of the host: `test-runtime`, a process of its own that speaks ttrpc over vsock to the agent.

use crate::shell::Workspace;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use xtask::vm::Guest;

/// A connection to the agent.
pub struct Runtime {
    process: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the agent answered.
pub struct Answer {
    /// `OK`, or the name of a ttrpc status.
    pub status: String,
    /// What a refusal says.
    pub text: String,
    /// What a call returned.
    pub reply: Value,
}

impl Runtime {
    /// Starts one.
    pub fn start(workspace: &Workspace, guest: &Guest) -> anyhow::Result<Self> {
        let program = workspace.ci_bin_dir().join("test-runtime");
        ensure!(program.is_file(), "{} is not built", program.display());
        Self::start_at(&program, &guest.vsock_path())
    }

    fn start_at(program: &Path, socket: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let calls = process.stdin.take().context("the runtime's standard input")?;
        let answers = process.stdout.take().context("the runtime's standard output")?;
        Ok(Self { process, calls, answers: BufReader::new(answers) })
    }

    /// Makes a call.
    pub fn call(&mut self, call: &Value) -> anyhow::Result<Answer> {
        writeln!(self.calls, "{call}").context("tell the runtime")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("hear the runtime")?;
        let answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("what the runtime says to {}: {line:?}", call["call"]))?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Ok(Answer { status: text("status"), text: text("text"), reply: answer["reply"].clone() })
    }

    /// Makes a call that has to succeed.
    pub fn ok(&mut self, call: &Value) -> anyhow::Result<Value> {
        let answer = self.call(call)?;
        ensure!(answer.status == "OK", "{}: {}: {}", call["call"], answer.status, answer.text);
        Ok(answer.reply)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
