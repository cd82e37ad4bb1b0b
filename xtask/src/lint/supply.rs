//! Licences, bans and sources by cargo-deny; advisories where their database can be had.

use crate::shell::{self, Workspace};

/// How long fetching the advisory database may take before it counts as out of reach.
const FETCH_SECONDS: &str = "60";

/// The rule. Without cargo-deny it is not run, and says so.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    if !shell::has_cargo_subcommand("deny") {
        println!("bans, licenses, sources: not run (cargo-deny is not installed)");
        println!("advisories: not run (cargo-deny is not installed)");
        return Ok(());
    }
    let mut deny = workspace.cargo("deny");
    deny.args(["--locked", "--log-level", "error", "check", "--hide-inclusion-graph"]);
    shell::run(deny.args(["bans", "licenses", "sources"]))?;
    let mut fetch = workspace.command("timeout");
    fetch.args([FETCH_SECONDS, "cargo", "deny", "fetch", "db"]).stderr(std::process::Stdio::null());
    if shell::run(&mut fetch).is_err() {
        println!("advisories: not run (the database cannot be reached)");
        return Ok(());
    }
    shell::run(workspace.cargo("deny").args(["--locked", "check", "advisories"]))
}
