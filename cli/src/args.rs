//! The command line: what can be asked, in the words of the help text. The help texts are snapshot tests.

pub(crate) mod attest;
pub(crate) mod audit;
pub(crate) mod initdata;
pub(crate) mod policy;
pub(crate) mod registry;

use std::path::PathBuf;

use chip_client::address::DeviceAddress;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

/// Seal models for chips inside confidential VMs, and unseal them into protected memory.
///
/// Exit status: 0 done · 2 usage · 65 artifact damaged, forged or malformed · 69 chip or TEE unreachable or misbehaving · 70 internal error ·
/// 74 input/output · 75 try again · 77 refused (origin, policy, chip) · 78 configuration or environment unfit. `unseal` passes its
/// command's own status on.
#[derive(Debug, Parser)]
#[command(name = "innerkeep", version, max_term_width = 110, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON object per result on standard output instead of text; errors too.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress bars, even on a terminal.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// Where a chip is; a path need not be UTF-8.
fn device_address() -> impl TypedValueParser<Value = DeviceAddress> {
    OsStringValueParser::new().try_map(|text| DeviceAddress::parse(&text))
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Encrypt files into a sealed artifact.
    Seal(Box<SealArgs>),
    /// Wrap an artifact's content key for recipients, list and remove such grants.
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Push an image layout, a sealed artifact with its grants among them, to a registry; digests stay as they are.
    Push(registry::PushArgs),
    /// Pull a reference from a registry into an image layout, with all that refers to it; every blob is compared with its digest.
    Pull(registry::PullArgs),
    /// Copy a reference between registries, image layouts and `.sealed` files.
    Copy(registry::CopyArgs),
    /// Show what an artifact says of itself (nothing is verified but the form).
    Inspect(InspectArgs),
    /// Verify an artifact's origin and that all its ciphertext and tags are there.
    Verify(VerifyArgs),
    /// Unseal an artifact into protected memory, by a chip, a key broker or a key of this guest, and run a command on it.
    Unseal(Box<UnsealArgs>),
    /// Make and judge policies: documents, by which keys are released (TOML), and agent policies, by which requests are allowed (Rego).
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Look at a chip, or provision a new one.
    #[command(subcommand)]
    Chip(ChipCommand),
    /// Make sealer keys and operators' keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Read and verify what a guest's agent decided: signed, chained, sealed to the operator.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Make evidence of this guest, look at what attestation needs, hold evidence against a policy.
    Attest(Box<attest::AttestArgs>),
    /// Print a sealed artifact of one small file as a sealed secret: a text for an environment variable or a file of a container. Its guest opens
    /// it by a grant, of an origin that `[[innerkeep.sealed_secrets]]` of bound cdh.toml names.
    Secret(SecretArgs),
    /// Read resources of a key broker, released after attestation.
    #[command(subcommand)]
    Kbs(attest::KbsCommand),
    /// Make, look at and verify initdata: the configuration that a guest is launched with.
    #[command(subcommand)]
    Initdata(initdata::InitdataCommand),
}

/// `innerkeep secret`.
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// The artifact, with its grants: DIR, DIR:TAG or FILE.sealed. A grant that is added later is not in the text.
    pub(crate) reference: String,
}

/// `innerkeep seal`.
#[derive(Debug, Args)]
pub(crate) struct SealArgs {
    /// Files to seal; each becomes a payload named like the file.
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    pub(crate) inputs: Vec<PathBuf>,
    /// Seal the layers of an image instead: of the layout `DIR` or `DIR:TAG`, or of a registry. The output is an image layout.
    #[arg(long, value_name = "IMAGE", conflicts_with = "media_type")]
    pub(crate) image: Option<String>,
    /// Which image of an index, as `os/architecture` [default: this machine's].
    #[arg(long, value_name = "PLATFORM", requires = "image")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) registry: registry::RegistryArgs,
    /// Where to: an OCI image layout directory, `DIR:TAG`, or a file ending in `.sealed`.
    #[arg(long, short)]
    pub(crate) output: String,
    /// Where to write the content key (mode 0600, never overwritten): it is what `grant add` needs.
    #[arg(long)]
    pub(crate) key_out: PathBuf,
    /// Rollback family, for example acme/ranker.
    #[arg(long)]
    pub(crate) family: String,
    /// Rollback counter of this version inside its family.
    #[arg(long)]
    pub(crate) counter: u64,
    /// Environment tag, for example production.
    #[arg(long)]
    pub(crate) environment: String,
    /// Sealer's private key (PEM, `key new`): signs the core. Without it the artifact can only be landed by its pinned digest.
    #[arg(long)]
    pub(crate) sealer_key: Option<PathBuf>,
    /// Media type of the payloads [default: by file name].
    #[arg(long)]
    pub(crate) media_type: Option<String>,
    /// Segment size in bytes: a power of two from 65536 to 4194304.
    #[arg(long, default_value_t = 1_048_576)]
    pub(crate) segment_size: u32,
    /// Leave the payload digest out: faster landing, but a former key holder can forge.
    #[arg(long)]
    pub(crate) no_payload_digest: bool,
    /// Threads [default: all cores].
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// `innerkeep grant`.
#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Wrap the content key for a recipient under a policy; payload, core and signature stay as they are.
    Add(Box<GrantAddArgs>),
    /// List the grants beside an artifact.
    List {
        /// The artifact: layout directory, `DIR:TAG` or `.sealed` file.
        reference: String,
    },
    /// Remove a grant.
    Remove {
        /// The artifact: layout directory, `DIR:TAG` or `.sealed` file.
        reference: String,
        /// Digest of the grant, as `grant list` shows it.
        grant: String,
    },
}

/// `innerkeep grant add`.
#[derive(Debug, Args)]
pub(crate) struct GrantAddArgs {
    /// The artifact: layout directory, `DIR:TAG` or `.sealed` file.
    pub(crate) reference: String,
    /// The content key file that `seal` wrote.
    #[arg(long)]
    pub(crate) key: PathBuf,
    /// The recipient: `chip:FILE` with the chip's certificate chain (PEM, `chip info --chain-out`); `kbs:NAME`, a key broker; `snp`, `tpm`: this
    /// very guest, by a key that its processor derives or its TPM seals.
    #[arg(long)]
    pub(crate) to: String,
    /// Root certificate that the chip's chain must end at (PEM); for `chip:` alone.
    #[arg(long)]
    pub(crate) chip_root: Option<PathBuf>,
    /// Policy document: TOML, or the canonical JSON preimage.
    #[arg(long)]
    pub(crate) policy: PathBuf,
    /// Cryptographic suite of the grant; for `chip:` alone.
    #[arg(long, value_enum, default_value_t = SuiteArg::Hybrid)]
    pub(crate) suite: SuiteArg,
    #[command(flatten)]
    pub(crate) broker: attest::GrantBrokerArgs,
    /// Registers that a `tpm` grant is bound to; 8, which holds the initdata digest, is always among them.
    #[arg(long, value_name = "PCR", value_delimiter = ',', default_values_t = [0, 2, 4, 7, 8])]
    pub(crate) pcrs: Vec<u8>,
    /// SHA-256 of the public area of the storage key that a `tpm` grant may be sealed to, hex, as an earlier grant printed it. Without it the key
    /// that answers is believed: whoever sits between here and the TPM could offer its own and read the secret.
    #[arg(long, value_name = "HEX")]
    pub(crate) tpm_storage_key: Option<String>,
    #[command(flatten)]
    pub(crate) platform: attest::PlatformArgs,
    /// Grant even though `policy lint` calls the policy weak.
    #[arg(long)]
    pub(crate) allow_weak_policy: bool,
    /// Allow a second recipient, or a key broker, on an artifact without payload digests: any recipient could then forge for the others.
    #[arg(long)]
    pub(crate) allow_forgeable: bool,
}

/// Suites of a grant.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SuiteArg {
    /// P-384 alone.
    Classical,
    /// X-Wing: ML-KEM-768 and X25519.
    Hybrid,
}

/// `innerkeep inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The artifact: layout directory, `DIR:TAG` or `.sealed` file.
    pub(crate) reference: String,
}

/// Which cores are acceptable.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Pin: this core digest (sha256:…), nothing else.
    #[arg(long, conflicts_with_all = ["sealer_key", "family", "min_counter"])]
    pub(crate) core: Option<String>,
    /// Pin: signed by this sealer (public key, PEM), with --family and --min-counter.
    #[arg(long, requires = "family", requires = "min_counter")]
    pub(crate) sealer_key: Option<PathBuf>,
    /// Family that a signed core must have.
    #[arg(long, requires = "sealer_key")]
    pub(crate) family: Option<String>,
    /// Smallest counter that a signed core may have.
    #[arg(long, requires = "sealer_key")]
    pub(crate) min_counter: Option<u64>,
}

/// `innerkeep verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The artifact: layout directory, `DIR:TAG` or `.sealed` file.
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) pin: PinArgs,
    /// Read every ciphertext blob and compare its SHA-256 with the manifest's descriptor.
    #[arg(long)]
    pub(crate) verify_blob_digests: bool,
}

/// Data paths of the chip.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum PathArg {
    /// The chip releases the content key to the session; the CPU decrypts.
    KeyRelease,
    /// The chip decrypts and re-seals to the session through shared memory.
    DmaSealed,
    /// The chip writes plaintext into the landing memory.
    DmaDirect,
}

/// `innerkeep unseal`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").args(["chip", "url", "snp", "tpm"]).required(true)))]
pub(crate) struct UnsealArgs {
    /// The artifact: layout directory, `DIR:TAG` or `.sealed` file.
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) pin: PinArgs,
    /// The content key comes from a chip: `pci:0000:01:00.0`, bound to vfio-pci, or a vfio-user socket.
    #[arg(long, value_name = "CHIP", requires = "chip_root", value_parser = device_address())]
    pub(crate) chip: Option<DeviceAddress>,
    /// Root certificate that the chip's chain must end at (PEM).
    #[arg(long, value_name = "FILE", requires = "chip")]
    pub(crate) chip_root: Option<PathBuf>,
    /// The content key comes from this guest itself: from a key that its SEV-SNP processor derives.
    #[arg(long)]
    pub(crate) snp: bool,
    /// The content key comes from this guest itself: from a secret that its TPM unseals. A TPM is no TEE: one has to be active beside it.
    #[arg(long)]
    pub(crate) tpm: bool,
    #[command(flatten)]
    pub(crate) recipient: attest::BrokerRecipientArgs,
    #[command(flatten)]
    pub(crate) broker: attest::BrokerArgs,
    /// Data path; only a chip has another than key-release.
    #[arg(long, value_enum, default_value_t = PathArg::KeyRelease)]
    pub(crate) path: PathArg,
    /// Accept a session without post-quantum key exchange.
    #[arg(long, requires = "chip")]
    pub(crate) allow_classical: bool,
    /// Also compare the SHA-256 of each ciphertext blob with the manifest's descriptor (slow, adds no security).
    #[arg(long)]
    pub(crate) verify_blob_digests: bool,
    /// Threads that decrypt [default: all cores].
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Collateral for evidence that a chip gets: what a chip without a network needs to verify it. A TDX quote is not presented without; an SNP report may come
    /// with its certificates.
    #[arg(long, value_name = "FILE", requires = "chip", conflicts_with = "insecure_no_evidence")]
    pub(crate) collateral: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) platform: attest::PlatformArgs,
    /// INSECURE: land although no TEE is active.
    #[arg(long, conflicts_with = "insecure_tee_root")]
    pub(crate) insecure_no_tee: bool,
    /// INSECURE: let a TPM alone release the key and land although no TEE is active.
    #[arg(long, requires = "tpm")]
    pub(crate) insecure_tpm_only: bool,
    /// INSECURE: land although swap is on and the landing memory cannot be kept out of it.
    #[arg(long)]
    pub(crate) insecure_swap: bool,
    /// INSECURE: open a session without evidence; the chip must allow it too.
    #[arg(long, requires = "chip")]
    pub(crate) insecure_no_evidence: bool,
    /// INSECURE: let an emulated chip write plaintext into memory that is not private.
    #[arg(long, requires = "chip")]
    pub(crate) insecure_emulated_dma: bool,
    /// INSECURE: write the plaintext to this file on disk instead of running a command.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) insecure_to_disk: Option<PathBuf>,
    /// Command to run; `{}` in an argument becomes the path of the (first) landed file, which is also in INNERKEEP_FILE; the directory is in
    /// INNERKEEP_DIR. Without `{}` the path is appended as the last argument.
    #[arg(last = true, required_unless_present = "insecure_to_disk")]
    pub(crate) command: Vec<String>,
}

/// `innerkeep chip`.
#[derive(Debug, Subcommand)]
pub(crate) enum ChipCommand {
    /// Give a chip that no driver has to the kernel's vfio-pci, so that it can be named `pci:…`.
    Bind {
        /// The chip, for example `pci:0000:01:00.0`.
        #[arg(long, value_parser = device_address())]
        chip: DeviceAddress,
    },
    /// Show a chip's identity, verified against a root if one is given.
    Info {
        /// The chip: `pci:0000:01:00.0`, bound to vfio-pci, or a vfio-user socket.
        #[arg(long, value_parser = device_address())]
        chip: DeviceAddress,
        /// Root certificate to verify the chain against (PEM).
        #[arg(long)]
        chip_root: Option<PathBuf>,
        /// Write the chip's certificate chain here (PEM), for `grant add --to chip:FILE`.
        #[arg(long)]
        chain_out: Option<PathBuf>,
    },
    /// Certify a new chip under a model CA and set its environment; made once, in a controlled place.
    Provision {
        /// The chip: `pci:0000:01:00.0`, bound to vfio-pci, or a vfio-user socket.
        #[arg(long, value_parser = device_address())]
        chip: DeviceAddress,
        /// Directory with the certificate authorities' keys (created with a new root and model CA if it is empty).
        #[arg(long)]
        ca: PathBuf,
        /// Environment tier of the chip, for example production.
        #[arg(long)]
        environment: String,
        /// Model name in the certificates.
        #[arg(long, default_value = "innerkeep-emulated-1")]
        model: String,
        #[command(flatten)]
        minimums: ProvisionMinimums,
    },
}

/// What the chip refuses from its first day on, beside what it will have seen.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ProvisionMinimums {
    /// Lowest TCB-evaluation number of TDX collateral.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) min_tcb_evaluation: u64,
    /// Lowest number of a PCK revocation list.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) min_pck_crl: u64,
    /// Lowest number of the revocation list of Intel's root.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) min_root_crl: u64,
    /// Lowest number of an SNP revocation list; above 0, guests have to present one.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) min_snp_crl: u64,
}

/// `innerkeep key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a sealer key pair (ECDSA P-384, PEM).
    New {
        /// Private key file (mode 0600, never overwritten); the public key goes to the same name with `.pub`.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Make an operator's key, to which a guest's audit is sealed.
    Audit {
        /// Secret key file (mode 0600, never overwritten); `audit.toml` for initdata goes to the same name with `.toml`.
        #[arg(long, short)]
        output: PathBuf,
        /// Cryptographic suite.
        #[arg(long, value_enum, default_value_t = SuiteArg::Hybrid)]
        suite: SuiteArg,
    },
    /// Show a key's digest, as it stands in cores that it signs.
    Show {
        /// Public or private key (PEM).
        file: PathBuf,
    },
}
