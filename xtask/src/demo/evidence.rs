//! Attacks on evidence: guests that the policy does not name, collateral that is too old, evidence of something else.

use super::actors::{Chip, Said, attempt};
use super::guest::{Guest, Launch, Platform, Tee};
use super::refusals::{Expected, Judge, REFUSED, Stage};
use crate::shell::Workspace;
use anyhow::ensure;
use std::path::Path;

/// Exit status of a TEE or host that misbehaves.
const UNAVAILABLE: i32 = 69;
/// Code of a chip that refuses evidence.
const CODE: &str = "CHIP_EVIDENCE_REFUSED";

/// A guest or platform that differs in one thing, and the rule that names it.
struct Other {
    attack: &'static str,
    name: &'static str,
    launch: Launch,
    rule: &'static str,
}

/// Plays them all.
pub fn play(
    workspace: &Workspace,
    stage: &Stage<'_>,
    platform: &Platform,
    launch: &Launch,
    chip: &Chip,
    judge: &mut Judge<'_>,
) -> anyhow::Result<()> {
    for Other { attack, name, launch, rule } in others(platform.tee, launch) {
        let guest = platform.guest(name, &launch, None)?;
        let said = stage.scene.unseal(stage.innerkeep, &guest, chip, stage.store)?;
        judge.refusal(attack, &said, &Expected { status: REFUSED, code: CODE, reason: rule })?;
    }
    old_collateral(stage, platform, launch, chip, judge)?;

    // The host replaces what the guest asked for: the shipped program drops it before any chip sees it.
    let plan = "[[fault]]\nkind = \"other-report-data\"\n";
    let guest = platform.guest("swapped", launch, Some(plan))?;
    let said = stage.scene.unseal(stage.innerkeep, &guest, chip, stage.store)?;
    let code = "ATTEST_REPORT_DATA_MISMATCH";
    let expected = Expected { status: UNAVAILABLE, code, reason: "report data" };
    judge.refusal("a host that hands over evidence of something else", &said, &expected)?;
    if platform.tee == Tee::Tdx {
        let plan = "[[fault]]\nkind = \"ccel-tampered\"\ntimes = 0\nvalue = 200\n";
        let guest = platform.guest("ccel", launch, Some(plan))?;
        let said = stage.scene.unseal(stage.innerkeep, &guest, chip, stage.store)?;
        let expected = Expected { status: UNAVAILABLE, code: "ATTEST_LOG_INVALID", reason: "log" };
        judge.refusal("a host that tampers with the event log", &said, &expected)?;
    }
    lies(workspace, stage, chip, judge)
}

/// Guests and platforms that the policy does not allow. All are honest about themselves.
fn others(tee: Tee, launch: &Launch) -> Vec<Other> {
    let launch = || launch.clone();
    let other = |attack, name, launch, rule| Other { attack, name, launch, rule };
    let initdata = "ee".repeat(32);
    let mut others = vec![
        other("another initdata", "initdata", launch().with("", "initdata_digest", &initdata), "initdata"),
        other("a guest that the host can debug", "debug", launch().with_bare("", "debug", "true"), "debug"),
    ];
    let measurement = "22".repeat(48);
    others.extend(match tee {
        Tee::Tdx => [
            other("another measurement", "measured", launch().with("tdx", "mrtd", &measurement), "mrtd"),
            other(
                "another kernel command line",
                "command",
                launch().with("tdx", "command_line", "console=hvc0 init=/bin/sh"),
                "rtmr2",
            ),
            other(
                "an old TCB: a TDX module of an earlier version",
                "tcb",
                launch().with("tdx", "tee_tcb_svn", "04000700000000000000000000000000"),
                "min_tee_tcb_svn",
            ),
            other(
                "a platform whose TCB is out of date",
                "outdated",
                launch().with("tdx", "tcb_status", "OutOfDate"),
                "tcb_refused",
            ),
        ]
        .into_iter()
        .collect::<Vec<_>>(),
        Tee::Snp => vec![
            other(
                "another measurement",
                "measured",
                launch().with("snp", "measurement", &measurement),
                "measurement",
            ),
            other(
                "an old TCB: SNP firmware of an earlier version",
                "tcb",
                launch().with_bare("snp.tcb", "snp", "19"),
                "min_tcb",
            ),
        ],
    });
    others
}

/// Collateral that somebody signed once, and that is too old for this chip or for this policy.
fn old_collateral(
    stage: &Stage<'_>,
    platform: &Platform,
    launch: &Launch,
    chip: &Chip,
    judge: &mut Judge<'_>,
) -> anyhow::Result<()> {
    // The landing before raised the chip's floors to the reference platform's numbers: TDX evaluation 17, SNP list 5.
    let (section, member, older, rule, lower, higher) = match platform.tee {
        Tee::Tdx => ("tdx", "tcb_evaluation", "16", "min_tcb_evaluation", "10", "18"),
        Tee::Snp => ("snp", "crl", "4", "min_crl_number", "2", "6"),
    };
    let expected = Expected { status: REFUSED, code: CODE, reason: rule };
    let generous = stage.policy.with(rule, lower)?;
    let store = stage.scene.regranted(stage.innerkeep, stage.store, "generous", &generous)?;
    let guest = platform.guest("older", &launch.clone().with_bare(section, member, older), None)?;
    let said = stage.scene.unseal(stage.innerkeep, &guest, chip, &store)?;
    judge.refusal("collateral below the chip's floor, though the policy would take it", &said, &expected)?;

    let strict = stage.policy.with(rule, higher)?;
    let store = stage.scene.regranted(stage.innerkeep, stage.store, "strict", &strict)?;
    let said = stage.scene.unseal(stage.innerkeep, stage.guest, chip, &store)?;
    judge.refusal("collateral below the policy's minimum, though the chip would take it", &said, &expected)
}

/// What only a guest does that is not ours: the chip has to see through it alone.
fn lies(workspace: &Workspace, stage: &Stage<'_>, chip: &Chip, judge: &mut Judge<'_>) -> anyhow::Result<()> {
    let program = workspace.ci_bin_dir().join("test-guest");
    ensure!(program.is_file(), "{} is not built", program.display());
    // First honestly: what is refused afterwards is refused for the lie alone.
    let honest = lie(&program, stage, stage.guest, chip, "honest")?;
    ensure!(honest.status == Some(0), "the lying guest fails when it is honest: {}", honest.stderr);
    let (log, reason) = if stage.guest.is_tdx() {
        ("a tampered event log", "log_mismatch")
    } else {
        ("an event log beside a report, which has no registers that it could lead to", "unsupported")
    };
    for (task, attack, reason) in [
        ("replayed", "replayed evidence: of an earlier session of the same guest", "report_data"),
        ("workload", "a quote that a workload fetched for the chip's transcript", "report_data"),
        ("forged", "one flipped bit in quote or report", "signature_invalid"),
        ("tampered-log", log, reason),
    ] {
        let said = lie(&program, stage, stage.guest, chip, task)?;
        judge.refusal_of("test-guest", attack, &said, &Expected { status: REFUSED, code: CODE, reason })?;
    }
    Ok(())
}

fn lie(program: &Path, stage: &Stage<'_>, guest: &Guest, chip: &Chip, task: &str) -> anyhow::Result<Said> {
    let mut command = guest.command(program);
    command.arg(task).arg("--store").arg(stage.store).arg("--chip").arg(&chip.socket);
    command.arg("--chip-root").arg(stage.scene.root).args(["--path", stage.scene.path]).args(guest.flags());
    attempt(command)
}
