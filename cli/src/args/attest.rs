//! Arguments of `innerkeep attest`, `innerkeep kbs` and `innerkeep policy from-evidence`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Where the platform is looked for.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlatformArgs {
    /// INSECURE: look for the TEE below DIR instead of `/`: an emulated one.
    #[arg(long, value_name = "DIR")]
    pub(crate) insecure_tee_root: Option<PathBuf>,
}

/// `innerkeep attest`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct AttestArgs {
    /// What to do instead of making evidence.
    #[command(subcommand)]
    pub(crate) command: Option<AttestCommand>,
    #[command(flatten)]
    pub(crate) make: MakeArgs,
}

/// Evidence of this guest.
#[derive(Args, Debug)]
pub(crate) struct MakeArgs {
    #[command(flatten)]
    pub(crate) platform: PlatformArgs,
    /// What to have attested, hex: the verifier's challenge. It is hashed under a label and the identity of this process; raw report data
    /// is never taken.
    #[arg(
        long,
        value_name = "HEX",
        conflicts_with = "runtime_data",
        required_unless_present = "runtime_data"
    )]
    pub(crate) nonce: Option<String>,
    /// What to have attested: a file of at most 1 MiB.
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime_data: Option<PathBuf>,
    /// Write the evidence here (JSON as the attestation agent gives it) instead of to standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also write it as it is presented to a chip, with its collateral.
    #[arg(long, value_name = "FILE")]
    pub(crate) presentation: Option<PathBuf>,
    /// Collateral for --presentation: TCB info, identities, revocation lists (JSON). SNP reports can come with their own certificates.
    #[arg(long, value_name = "FILE", requires = "presentation")]
    pub(crate) collateral: Option<PathBuf>,
}

/// Subcommands of `innerkeep attest`.
#[derive(Debug, Subcommand)]
pub(crate) enum AttestCommand {
    /// Look at everything that attestation and protected memory need; say what is wrong and what to do.
    Doctor(PlatformArgs),
    /// Hold evidence against a policy, rule by rule; exit status 77 if one denies.
    Explain(ExplainArgs),
}

/// Evidence that somebody else made, and how to judge it.
#[derive(Args, Debug)]
pub(crate) struct EvidenceArgs {
    /// Evidence: JSON of an attestation agent, or a presentation (`attest --presentation`).
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: PathBuf,
    /// Collateral for evidence in JSON: TCB info, identities, revocation lists.
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// Judge at the latest issue date in the collateral, as a chip without a clock does, instead of now.
    #[arg(long)]
    pub(crate) no_clock: bool,
    /// INSECURE: believe the emulated roots in this file instead of those of Intel and AMD.
    #[arg(long, value_name = "FILE")]
    pub(crate) insecure_trust_roots: Option<PathBuf>,
}

/// `innerkeep attest explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) evidence: EvidenceArgs,
    /// Policy document: TOML, or the canonical JSON preimage.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// Report data that the evidence has to carry, 128 hex digits [default: whatever it carries].
    #[arg(long, value_name = "HEX")]
    pub(crate) report_data: Option<String>,
}

/// `innerkeep policy from-evidence`.
#[derive(Args, Debug)]
pub(crate) struct FromEvidenceArgs {
    #[command(flatten)]
    pub(crate) evidence: EvidenceArgs,
    /// Environment to write in.
    #[arg(long, default_value = "production")]
    pub(crate) environment: String,
    /// Family to write in.
    #[arg(long)]
    pub(crate) family: String,
    /// Lowest counter to write in.
    #[arg(long, default_value_t = 1)]
    pub(crate) min_counter: u64,
}

/// `innerkeep kbs`.
#[derive(Debug, Subcommand)]
pub(crate) enum KbsCommand {
    /// Attest to a key broker and read one resource; nothing is printed but the resource.
    Get(KbsGetArgs),
}

/// Keys that answers of a broker are encrypted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TeeKeyArg {
    /// ECDH-ES+A256KW on P-256.
    P256,
    /// ECDH-ES+A256KW on P-521.
    P521,
    /// RSA-OAEP-256, 2048 bits.
    Rsa,
    /// ML-KEM-768+A192KW; experimental in Trustee.
    MlKem768,
}

/// Which broker, and how it is known.
#[derive(Args, Clone, Debug)]
pub(crate) struct BrokerArgs {
    /// Base URL of the key broker.
    #[arg(long = "kbs", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// CA that the broker's certificate must chain to (PEM).
    #[arg(long = "kbs-ca", value_name = "FILE", requires = "url")]
    pub(crate) ca: Option<PathBuf>,
    /// SHA-256 of the broker's SubjectPublicKeyInfo, hex; may be given more than once.
    #[arg(long = "kbs-spki", value_name = "HEX", requires = "url")]
    pub(crate) spki: Vec<String>,
    /// Key that answers are encrypted to.
    #[arg(long = "kbs-key", value_name = "KIND", value_enum, default_value_t = TeeKeyArg::P256)]
    pub(crate) key: TeeKeyArg,
    /// Seconds for everything that is asked of the broker.
    #[arg(long = "kbs-timeout", value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// The initdata that this guest was launched with (TOML). Found in the register, it permits insecure modes, and is sent to the broker byte for
    /// byte.
    #[arg(long, value_name = "FILE")]
    pub(crate) initdata: Option<PathBuf>,
    /// INSECURE: plain http to another machine.
    #[arg(long)]
    pub(crate) insecure_plain_http: bool,
}

/// By what a guest knows that a `kbs` grant is for its broker.
#[derive(Args, Debug)]
pub(crate) struct BrokerRecipientArgs {
    /// What the sealer called the broker (`grant add --to kbs:NAME`).
    #[arg(long, value_name = "NAME", requires = "url")]
    pub(crate) broker: Option<String>,
    /// SHA-256 of the SubjectPublicKeyInfo that grants for the broker name, hex: of its certificate or of its CA [default: --kbs-spki, if there is
    /// one; a broker without TLS has none].
    #[arg(long, value_name = "HEX", requires = "broker")]
    pub(crate) broker_key: Option<String>,
}

/// `innerkeep kbs get`.
#[derive(Args, Debug)]
pub(crate) struct KbsGetArgs {
    /// The resource: kbs:///repository/type/tag.
    pub(crate) resource: String,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    #[command(flatten)]
    pub(crate) platform: PlatformArgs,
    /// INSECURE: evidence that proves nothing, for brokers that accept it.
    #[arg(long)]
    pub(crate) insecure_sample: bool,
    /// Write it here (mode 0600, never overwritten) instead of to standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Of `grant add --to kbs:NAME`.
#[derive(Args, Debug)]
pub(crate) struct GrantBrokerArgs {
    /// SHA-256 of the SubjectPublicKeyInfo that guests pin for the broker, hex [default: a broker without TLS, on loopback].
    #[arg(long, value_name = "HEX")]
    pub(crate) broker_key: Option<String>,
    /// Where to write the key-encryption key (mode 0600, never overwritten): the resource to store at the broker, at the path that is printed.
    #[arg(long, value_name = "FILE")]
    pub(crate) kek_out: Option<PathBuf>,
    /// The broker's resource policy (Rego): the rules of this grant are written into it, between markers of their own; made if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) resource_policy: Option<PathBuf>,
}
