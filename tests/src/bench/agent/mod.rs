//! The guest agent over a Unix socket, as it ships, beside two references in the same run: a bare server of the same protocol, and
//! the policy evaluator that upstream's agent pins, as it configures it. Upstream's own agent is not run: the figures that were
//! recorded of it are the targets.
//!
//! No container is made, since a developer's machine is not a guest: a request that the policy permits is refused by its handler.

mod client;
mod report;
mod served;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use client::{Call, Client};
use report::{Report, Row};
use serde_json::json;
use served::Served;
use tests::programs::Programs;
use workload::Workload;

use crate::statistics::Samples;

/// Time the guest agent over its socket.
#[derive(Debug, Parser)]
#[command(name = "bench-agent")]
pub(crate) struct Arguments {
    /// Directory for results.
    #[arg(long)]
    out: PathBuf,
    /// Rounds in which ours and the references take turns.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Starts that are timed, of each kind.
    #[arg(long, default_value_t = 15)]
    starts: usize,
    /// Serves only `grpc.Health/Check`, at this socket, and nothing else: the reference.
    #[arg(long, hide = true)]
    bare: Option<PathBuf>,
}

/// Status codes of ttrpc.
const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;
/// Calls of one round.
const CHECKS: usize = 2_000;
const EXECS: usize = 300;
const CREATES: usize = 15;
/// Calls before memory is looked at again.
const WORK: usize = 2_000;
/// What an agent does by itself after its start is over by then.
const IDLE: Duration = Duration::from_millis(500);

/// Runs everything, prints the table and writes `agent.json`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(socket) = &arguments.bare {
        return served::serve_bare(socket);
    }
    let programs = Programs::built();
    let mut workload = Workload::start(&programs.path("examples/policy-workload"))?;
    let scratch = tempfile::tempdir()?;
    let policy = scratch.path().join("policy.rego");
    fs::write(&policy, workload.policy())?;
    println!("policy of {} bytes for two containers, regorus 0.9.1 beside\n", workload.policy().len());
    let bench = Bench { program: programs.path("innerkeep-agent"), scratch: scratch.path(), policy: &policy };
    let mut report = Report::new();
    bench.health(arguments, &mut report)?;
    bench.decisions(arguments, &mut workload, &mut report)?;
    bench.first_create(arguments, &mut workload, &mut report)?;
    bench.starts(arguments, &workload, &mut report)?;
    bench.memory(&workload, &mut report)?;
    sizes(&programs, scratch.path(), &mut report)?;
    report
        .absent("start to attested audit", "not run: the audit is attested inside a guest with a TEE alone");
    report.write(&arguments.out, workload.policy().len())
}

struct Bench<'a> {
    program: PathBuf,
    scratch: &'a Path,
    policy: &'a Path,
}

impl Bench<'_> {
    fn agent(&self, policy: bool) -> anyhow::Result<Served> {
        Served::agent(&self.program, self.scratch, policy.then_some(self.policy))
    }

    /// `grpc.Health/Check`, by the same client in turns from the agent and from a bare server.
    fn health(&self, arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
        let (agent, bare) = (self.agent(true)?, Served::bare(self.scratch)?);
        let mut clients = [Client::connect(&agent.socket)?, Client::connect(&bare.socket)?];
        let mut samples = [Samples::default(), Samples::default()];
        let mut check = Call::check()?;
        for client in &mut clients {
            for _ in 0..CHECKS {
                client.timed(&mut check, OK)?;
            }
        }
        for _ in 0..arguments.rounds {
            for (client, samples) in clients.iter_mut().zip(&mut samples) {
                for _ in 0..CHECKS {
                    samples.0.push(client.timed(&mut check, OK)?);
                }
            }
        }
        let [ours, bare] = samples;
        let row = Row::micros("Health.Check", 42.0, "42 µs").against("a bare ttrpc server", &bare);
        report.row(row, &ours);
        Ok(())
    }

    /// The same request again and again: its limits, the policy, the audit, the answer, and the way there and back.
    fn decisions(
        &self,
        arguments: &Arguments,
        workload: &mut Workload,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let agent = self.agent(true)?;
        let mut client = Client::connect(&agent.socket)?;
        for (name, what, calls, theirs, promise, upstream) in [
            ("exec-denied", "exec denied", EXECS, 100, 100.0, "287 µs"),
            ("exec-allowed", "exec allowed, policy part", EXECS, 100, 300.0, "2,987 µs"),
            ("create-denied", "CreateContainer denied, again", CREATES, 3, 10_000.0, "65–90 ms"),
            ("create-allowed", "CreateContainer allowed (pause), again", CREATES, 3, 10_000.0, "65–90 ms"),
        ] {
            let mut call = workload.call(name)?;
            let code = expected(&mut client, &mut call, workload.reference(name, 1)?.1)?;
            let (mut ours, mut reference) = (Samples::default(), Samples::default());
            for _ in 0..arguments.rounds {
                for _ in 0..calls {
                    ours.0.push(client.timed(&mut call, code)?);
                }
                reference.0.push(workload.reference(name, theirs)?.0);
            }
            let row =
                Row::micros(what, promise, upstream).against("regorus 0.9.1's decision alone", &reference);
            report.row(row, &ours);
        }
        Ok(())
    }

    /// The first request of an agent that has decided nothing before.
    fn first_create(
        &self,
        arguments: &Arguments,
        workload: &mut Workload,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (mut ours, mut reference) = (Samples::default(), Samples::default());
        let mut call = workload.call("create-allowed")?;
        let mut check = Call::check()?;
        for _ in 0..arguments.starts {
            let agent = self.agent(true)?;
            let mut client = Client::connect(&agent.socket)?;
            client.timed(&mut check, OK)?;
            let start = std::time::Instant::now();
            client.call(&mut call)?;
            ours.0.push(start.elapsed().as_secs_f64());
            reference.0.push(workload.reference("create-allowed", 1)?.0);
        }
        let row = Row::micros("first CreateContainer decision (pause)", 10_000.0, "65–90 ms");
        report.row(row.against("regorus 0.9.1's decision alone", &reference), &ours);
        Ok(())
    }

    /// From before the process is made to an answer.
    fn starts(&self, arguments: &Arguments, workload: &Workload, report: &mut Report) -> anyhow::Result<()> {
        let (mut health, mut with_policy, mut decided) =
            (Samples::default(), Samples::default(), Samples::default());
        let mut check = Call::check()?;
        let mut exec = workload.call("exec-denied")?;
        for _ in 0..arguments.starts {
            for (policy, samples) in [(false, &mut health), (true, &mut with_policy)] {
                let agent = self.agent(policy)?;
                Client::connect(&agent.socket)?.timed(&mut check, OK)?;
                samples.0.push(agent.since.elapsed().as_secs_f64());
            }
            let agent = self.agent(true)?;
            Client::connect(&agent.socket)?.timed(&mut exec, PERMISSION_DENIED)?;
            decided.0.push(agent.since.elapsed().as_secs_f64());
        }
        report.row(
            Row::micros(
                "start to first Health.Check, without a policy",
                6_000.0,
                "6,400 µs, the agent alone",
            ),
            &health,
        );
        report.row(Row::micros("start to first Health.Check, with the policy", f64::NAN, ""), &with_policy);
        report.row(
            Row::micros("start to first policy-checked call", 20_000.0, "34,000 µs, the agent alone"),
            &decided,
        );
        Ok(())
    }

    /// Idle, and after work of every kind.
    fn memory(&self, workload: &Workload, report: &mut Report) -> anyhow::Result<()> {
        let agent = self.agent(true)?;
        let mut client = Client::connect(&agent.socket)?;
        let mut check = Call::check()?;
        client.timed(&mut check, OK)?;
        std::thread::sleep(IDLE);
        let (idle, processes) = agent.memory()?;
        let kinds = [("exec-denied", 10), ("exec-allowed", 7), ("create-denied", 1), ("create-allowed", 1)];
        let mut mixed = vec![check];
        for (name, often) in kinds {
            mixed.extend(std::iter::repeat_n(workload.call(name)?, often));
        }
        let length = mixed.len();
        for index in 0..WORK {
            let call = mixed.get_mut(index % length).context("no call")?;
            client.call(call)?;
        }
        std::thread::sleep(IDLE);
        let (worked, _) = agent.memory()?;
        let more = json!({ "processes": processes, "calls": WORK });
        report.bytes(
            "PSS sum, idle, with the policy",
            idle,
            16 << 20,
            "38 MiB in three processes",
            more.clone(),
        );
        report.bytes("PSS sum, after 2,000 calls", worked, 24 << 20, "59 MiB, the agent alone", more);
        Ok(())
    }
}

/// The status of a call, which the reference has to agree with.
fn expected(client: &mut Client, call: &mut Call, allowed: bool) -> anyhow::Result<i32> {
    let answer = client.call(call)?;
    let denied = answer.code == PERMISSION_DENIED;
    ensure!(denied != allowed, "the reference says {allowed}, the agent {}: {}", answer.code, answer.text);
    ensure!(answer.code != OK, "a container was made");
    Ok(answer.code)
}

/// What an image holds: one program, whose roles are all four services.
fn sizes(programs: &Programs, scratch: &Path, report: &mut Report) -> anyhow::Result<()> {
    let stripped = scratch.join("stripped");
    let status =
        Command::new("strip").arg("-o").arg(&stripped).arg(programs.path("innerkeep-agent")).status();
    ensure!(status.context("start strip (package binutils)")?.success(), "strip innerkeep-agent");
    let bytes = fs::metadata(&stripped)?.len();
    report.bytes(
        "stripped size of the guest's program",
        bytes,
        20 << 20,
        "64.5 MB in three binaries",
        json!({ "roles": ["kata-agent", "attestation-agent", "confidential-data-hub", "api-server-rest"] }),
    );
    Ok(())
}
