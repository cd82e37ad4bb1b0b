//! Arguments of `innerkeep audit`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

/// `innerkeep audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the records of a guest's audit. Chain and signatures are verified; whether it is a guest's is what `verify` says.
    Show(SourceArgs),
    /// Write records to a file and show new ones as they come; ends at the first that is not as it has to be.
    Follow(FollowArgs),
    /// Verify an audit: evidence that its key is in a guest, the chain, a fresh head. Exit status 65 or 77 with a code if anything is wrong.
    Verify(Box<VerifyArgs>),
    /// Say what was denied and why, each kind once, with how often and when.
    Explain {
        #[command(flatten)]
        source: SourceArgs,
        /// Only decisions with this trace id, as it stands in the error that the runtime got.
        #[arg(long, value_name = "ID")]
        trace: Option<String>,
    },
}

/// Where records are.
#[derive(Args, Debug)]
pub(crate) struct SourceArgs {
    /// The agent (`unix:///PATH`, `vsock://CID:PORT`, or a hypervisor's socket `hvsock:///PATH:PORT`), or a file of saved records.
    pub(crate) source: String,
    /// The operator's secret key (`key audit`). Without it records stay sealed.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Saved records that go before those of the agent.
    #[arg(long, value_name = "FILE")]
    pub(crate) saved: Option<PathBuf>,
    /// Seconds for each answer of the agent.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u16,
}

/// `innerkeep audit follow`.
#[derive(Args, Debug)]
pub(crate) struct FollowArgs {
    /// The agent: `unix:///PATH`, `vsock://CID:PORT`, or a hypervisor's socket `hvsock:///PATH:PORT`.
    pub(crate) source: String,
    /// The operator's secret key (`key audit`). Without it records stay sealed.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Where records are saved; a file that exists is gone on with.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Tell the agent that records which are saved are not needed any more.
    #[arg(long)]
    pub(crate) acknowledge: bool,
    /// Seconds between questions.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub(crate) interval: u16,
    /// End when there are no more records, and save a head and the evidence behind them, for `verify FILE --nonce`.
    #[arg(long)]
    pub(crate) once: bool,
    /// What that head is asked with, 16 to 64 bytes in hex: whoever verifies chooses it, and sees that the head is no older [default: random].
    #[arg(long, value_name = "HEX", requires = "once")]
    pub(crate) nonce: Option<String>,
    /// Seconds for each answer of the agent.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u16,
}

/// `innerkeep audit verify`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("expected").args(["initdata", "no_initdata"]).required(true)))]
#[command(group(ArgGroup::new("judged").args(["policy", "insecure_unattested"]).required(true)))]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// What the head has to answer, 16 to 64 bytes in hex [default: random; for a file, the one that its head was asked with].
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// The initdata that the guest was launched with: annotation, device, or text.
    #[arg(long, value_name = "FILE")]
    pub(crate) initdata: Option<PathBuf>,
    /// The guest was launched without initdata.
    #[arg(long)]
    pub(crate) no_initdata: bool,
    /// Policy document that the evidence is judged by: TOML, or the canonical JSON preimage.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Collateral for the evidence: TCB info, identities, revocation lists.
    #[arg(long, value_name = "FILE", requires = "policy")]
    pub(crate) collateral: Option<PathBuf>,
    /// Judge at the latest issue date in the collateral, as a chip without a clock does, instead of now.
    #[arg(long, requires = "policy")]
    pub(crate) no_clock: bool,
    /// INSECURE: believe the emulated roots in this file instead of those of Intel and AMD.
    #[arg(long, value_name = "FILE", requires = "policy")]
    pub(crate) insecure_trust_roots: Option<PathBuf>,
    /// INSECURE: without evidence. Anybody, the host first of all, can have made such an audit.
    #[arg(long)]
    pub(crate) insecure_unattested: bool,
}
