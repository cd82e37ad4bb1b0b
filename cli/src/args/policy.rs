//! Arguments of `innerkeep policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::attest;

/// `innerkeep policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Document: print a commented one to start from (TOML).
    New {
        /// Environment to write in.
        #[arg(long, default_value = "production")]
        environment: String,
        /// Family to write in.
        #[arg(long, default_value = "acme/ranker")]
        family: String,
    },
    /// Document: print its digest (SHA3-512 of the canonical preimage).
    Digest {
        /// TOML or canonical JSON.
        file: PathBuf,
    },
    /// Document: print one that accepts guests like the one whose evidence this is (TOML); the evidence is verified first.
    FromEvidence(Box<attest::FromEvidenceArgs>),
    /// Document: print its canonical preimage.
    Show {
        /// TOML or canonical JSON.
        file: PathBuf,
    },
    /// Both: name what makes a policy weak, and of an agent policy what cannot work under it.
    ///
    /// Which of the two a file is, is seen by its first line: a Rego text begins with its package. Findings have a stable code, and of an agent
    /// policy a severity, a rule and its line. Exit status 77 if a document has any, or an agent policy one that is more than a note.
    Lint {
        /// A policy document (TOML or canonical JSON), or an agent policy (Rego).
        file: PathBuf,
        /// The guest of the agent policy receives secrets or sealed artifacts: what gives them to the host weighs more.
        #[arg(long)]
        secrets: bool,
    },
    /// Agent policy: load it as the agent does, and say which requests it decides, and how.
    ///
    /// Requests without a rule are denied. `compiled` rules are bytecode; the others are interpreted and say why. `reads` and `changes` are about the
    /// policy's state; requests that may change it are decided one after the other. Exit status 65 if the agent would not take the policy.
    Check {
        /// The agent policy (Rego).
        file: PathBuf,
    },
    /// Agent policy: decide one request, and say why it is denied and what it takes to be allowed.
    ///
    /// The request is one JSON object, `{"endpoint": "ExecProcess", "input": {…}}`, or a line of upstream's /tmp/policy.jsonl, `{"kind": …,
    /// "request": {…}}`; fields that are left out have their defaults. Exit status 77 if it is denied.
    Explain {
        /// The agent policy (Rego).
        file: PathBuf,
        /// The request (JSON); `-` is standard input.
        request: PathBuf,
        /// Requests that come before it and have their effect on the policy's state, one JSON object a line.
        #[arg(long, value_name = "FILE")]
        after: Option<PathBuf>,
    },
    /// Agent policy: run cases, which are requests in order with the decision that each has to get; exit status 77 if one fails.
    ///
    /// `{"cases": [{"name": "…", "steps": [{"endpoint": "CreateContainer", "input": {…}, "expect": "allowed"}, …]}]}`. A case begins with the
    /// state of a new policy. A step may also demand the `code`, a `rule` and a `field` of a denial, and the `state` afterwards; with
    /// `"effect": false` an allowed request changes no state.
    Test {
        /// The agent policy (Rego).
        file: PathBuf,
        /// Cases (JSON).
        cases: PathBuf,
    },
    /// Agent policy: propose one that allows requests which were seen, and denies everything else.
    ///
    /// The requests are one JSON object a line, as for `explain`. Identifiers of containers and of the sandbox are not compared but bound: taken
    /// when they are created, demanded afterwards, wherever they stand. The policy is asked about every request before it is given out.
    Record(RecordArgs),
}

/// `innerkeep policy record`.
#[derive(Args, Debug)]
pub(crate) struct RecordArgs {
    /// Requests, one JSON object a line; `-` is standard input.
    #[arg(required_unless_present = "audit")]
    pub(crate) requests: Option<PathBuf>,
    /// A file of saved audit records (`audit follow`). An audit has no content of requests: requests without fields are taken from it, of the others
    /// it is said which were seen and are not in REQUESTS.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// The operator's secret key (`key audit`), which opens the audit.
    #[arg(long, value_name = "FILE", requires = "audit")]
    pub(crate) key: Option<PathBuf>,
    /// Compare identifiers too: a policy for one start of one pod.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Where to write the policy [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
