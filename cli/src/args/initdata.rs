//! Arguments of `innerkeep initdata`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

/// `innerkeep initdata`.
#[derive(Debug, Subcommand)]
pub(crate) enum InitdataCommand {
    /// Make initdata of files: the pod annotation, and on demand the text and the device image.
    Pack(PackArgs),
    /// Show what initdata says (nothing vouches for it).
    Show {
        #[command(flatten)]
        input: InputArgs,
        /// Print this file's text and nothing else.
        #[arg(long, value_name = "NAME", conflicts_with = "text")]
        file: Option<String>,
        /// Print the exact text that is measured and nothing else.
        #[arg(long)]
        text: bool,
    },
    /// Print the digest and what each platform's register holds of it.
    Digest {
        #[command(flatten)]
        input: InputArgs,
    },
    /// Compare initdata with a register, a report or verified evidence, as a guest does; exit status 77 if it is another.
    Verify(Box<VerifyArgs>),
}

/// Initdata that exists.
#[derive(Args, Debug)]
pub(crate) struct InputArgs {
    /// The annotation's value, a device or its image, the gzip stream, or the text (TOML); `-` for standard input.
    pub(crate) input: PathBuf,
}

/// Digest algorithms of initdata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlgorithmArg {
    /// Fills the register of SEV-SNP.
    Sha256,
    /// Fills the register of TDX.
    Sha384,
    /// Fills the register of Arm CCA.
    Sha512,
}

/// `innerkeep initdata pack`.
#[derive(Args, Debug)]
pub(crate) struct PackArgs {
    /// Files, each under its own name; a directory stands for the files in it.
    #[arg(required_unless_present_any = ["file", "from"])]
    pub(crate) inputs: Vec<PathBuf>,
    /// A file under another name, for example policy.rego=out/policy.
    #[arg(long, value_name = "NAME=PATH")]
    pub(crate) file: Vec<String>,
    /// Begin with this initdata, for example what genpolicy made. Its text stays as it is, to the byte, if nothing is added.
    #[arg(long, value_name = "INPUT")]
    pub(crate) from: Option<PathBuf>,
    /// Digest algorithm [default: that of --from, else sha256].
    #[arg(long, value_enum)]
    pub(crate) algorithm: Option<AlgorithmArg>,
    /// Write the annotation's value here instead of to standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also write the exact text that is measured.
    #[arg(long, value_name = "FILE")]
    pub(crate) toml: Option<PathBuf>,
    /// Also write the image of the block device that a runtime attaches.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
}

/// `innerkeep initdata verify`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("against").args(["register", "report", "evidence"]).required(true)))]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Against a register's value or a digest: 32 to 64 bytes in hex or base64.
    #[arg(long, value_name = "VALUE")]
    pub(crate) register: Option<String>,
    /// Against a SEV-SNP report, a TD report or a TDX quote as bytes, WITHOUT verifying its signature.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Against evidence, whose signatures are verified: JSON of an attestation agent, or a presentation. Its other contents are not judged (`attest
    /// explain`).
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
    /// Collateral for evidence in JSON: TCB info, identities, revocation lists.
    #[arg(long, value_name = "FILE", requires = "evidence")]
    pub(crate) collateral: Option<PathBuf>,
    /// Judge at the latest issue date in the collateral, as a chip without a clock does, instead of now.
    #[arg(long, requires = "evidence")]
    pub(crate) no_clock: bool,
    /// INSECURE: believe the emulated roots in this file instead of those of Intel and AMD.
    #[arg(long, value_name = "FILE", requires = "evidence")]
    pub(crate) insecure_trust_roots: Option<PathBuf>,
}
