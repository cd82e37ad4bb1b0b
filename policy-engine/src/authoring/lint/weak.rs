//! The findings.

use crate::policy::Path;

use super::{Always, Finding, Severity, Subject};

/// Rules that must not allow everything: name, code, weight, weight where the guest has secrets, what it means.
const OPEN: &[(&str, &str, Severity, Severity, &str)] = &[
    (
        "SetPolicyRequest",
        "SET_POLICY_OPEN",
        Severity::Error,
        Severity::Error,
        "any text may replace this policy (inside a TEE only those that bound initdata lists)",
    ),
    (
        "ExecProcessRequest",
        "EXEC_OPEN",
        Severity::Error,
        Severity::Error,
        "any command may be run in a container",
    ),
    (
        "CreateContainerRequest",
        "CREATE_OPEN",
        Severity::Error,
        Severity::Error,
        "any container may be started, with any mount, capability and hook",
    ),
    ("CopyFileRequest", "COPY_OPEN", Severity::Error, Severity::Error, "any file may be written at any path"),
    (
        "ReadStreamRequest",
        "READ_STREAM_OPEN",
        Severity::Warning,
        Severity::Error,
        "the host reads what every process writes",
    ),
    (
        "WriteStreamRequest",
        "WRITE_STREAM_OPEN",
        Severity::Warning,
        Severity::Warning,
        "the host writes into the standard input of every process",
    ),
    (
        "GetDiagnosticDataRequest",
        "DIAGNOSTICS_OPEN",
        Severity::Warning,
        Severity::Error,
        "the host reads files out of the guest",
    ),
    (
        "SetIPTablesRequest",
        "IPTABLES_OPEN",
        Severity::Warning,
        Severity::Error,
        "the host may redirect connections between parts of the guest to itself",
    ),
    (
        "UpdateInterfaceRequest",
        "NETWORK_OPEN",
        Severity::Warning,
        Severity::Warning,
        "any interface may be changed, the loopback too",
    ),
    (
        "UpdateRoutesRequest",
        "NETWORK_OPEN",
        Severity::Warning,
        Severity::Warning,
        "any route may be set, those of the loopback too",
    ),
    (
        "AddARPNeighborsRequest",
        "NETWORK_OPEN",
        Severity::Warning,
        Severity::Warning,
        "any neighbour may be named",
    ),
    (
        "AddSwapRequest",
        "SWAP_OPEN",
        Severity::Warning,
        Severity::Warning,
        "memory may be swapped to a device of the host",
    ),
    (
        "AddSwapPathRequest",
        "SWAP_OPEN",
        Severity::Warning,
        Severity::Warning,
        "memory may be swapped to a device of the host",
    ),
    (
        "UpdateEphemeralMountsRequest",
        "MOUNTS_OPEN",
        Severity::Warning,
        Severity::Warning,
        "any storage may be mounted again",
    ),
    ("SetGuestDateTimeRequest", "CLOCK_OPEN", Severity::Note, Severity::Warning, "the host sets the clock"),
];

/// What generated policies always allow, and what has no effect on what runs.
const HARMLESS: &[&str] = &[
    "AuditAcknowledgeRequest",
    "AuditHeadRequest",
    "AuditReadRequest",
    "CloseStdinRequest",
    "CreateSandboxRequest",
    "DestroySandboxRequest",
    "GetIPTablesRequest",
    "GetMetricsRequest",
    "GetOOMEventRequest",
    "GuestDetailsRequest",
    "ListInterfacesRequest",
    "ListRoutesRequest",
    "OnlineCPUMemRequest",
    "PauseContainerRequest",
    "RemoveContainerRequest",
    "RemoveStaleVirtiofsShareMountsRequest",
    "ResumeContainerRequest",
    "SignalProcessRequest",
    "StartContainerRequest",
    "StatsContainerRequest",
    "TtyWinResizeRequest",
    "VolumeStatsRequest",
    "WaitProcessRequest",
];

/// Without these no runtime brings a pod up, or takes it down.
const NEEDED: &[&str] = &[
    "CreateContainerRequest",
    "CreateSandboxRequest",
    "DestroySandboxRequest",
    "GuestDetailsRequest",
    "RemoveContainerRequest",
    "StartContainerRequest",
    "WaitProcessRequest",
];

/// What a rule that allows a container has to look at.
const OF_A_CONTAINER: &[&str] =
    &["Args", "Capabilities", "Env", "Hooks", "Mounts", "User", "devices", "storages"];

pub(super) fn findings(subject: &Subject) -> Vec<Finding> {
    let mut found = Findings { subject, found: Vec::new() };
    found.open();
    found.unread();
    found.streams();
    found.unusable();
    found.found
}

struct Findings<'a> {
    subject: &'a Subject,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, code: &'static str, severity: Severity, rule: &str, sentence: &str) {
        let line = self.subject.line(rule);
        self.add_at(code, severity, rule, line, sentence);
    }

    fn add_at(&mut self, code: &'static str, severity: Severity, rule: &str, line: u32, sentence: &str) {
        self.found.push(Finding {
            code,
            severity,
            rule: rule.to_owned(),
            line,
            sentence: sentence.to_owned(),
        });
    }

    /// Whether every request is allowed, as far as it can be seen.
    fn is_open(&self, rule: &str) -> bool {
        self.subject.probes.is_open(rule)
            || self.subject.rule(rule).is_some_and(|rule| rule.always == Some(Always::Allowed))
    }

    /// Rules that allow what nobody can mean.
    fn open(&mut self) {
        for (rule, code, plain, secret, sentence) in OPEN {
            if self.is_open(rule) {
                let severity = if self.subject.guest.has_secrets { *secret } else { *plain };
                self.add(code, severity, rule, sentence);
            }
        }
        for rule in &self.subject.rules {
            let (name, line) = (rule.name.as_str(), rule.default_line.unwrap_or(rule.line));
            let sensitive = rule.asked && name != "AllowRequestsFailingPolicy" && !HARMLESS.contains(&name);
            if name == "AllowRequestsFailingPolicy" && rule.always != Some(Always::Denied) {
                self.add(
                    "ALLOWS_FAILING",
                    Severity::Error,
                    name,
                    "the policy asks that what it denies be allowed",
                );
            } else if sensitive && rule.default == Some(true) {
                let sentence = "a request that no definition decides, or that one errs about, is allowed";
                self.add_at("DEFAULT_TRUE", Severity::Warning, name, line, sentence);
            } else if sensitive && self.is_open(name) && !OPEN.iter().any(|(open, ..)| *open == name) {
                self.add("ALWAYS_ALLOWED", Severity::Warning, name, "every request is allowed");
            }
        }
    }

    /// Rules that allow without looking.
    fn unread(&mut self) {
        let may = |rule: &str| !self.subject.is_denied(rule) && !self.is_open(rule);
        let unread = |rule: &str, fields| {
            if may(rule) { self.subject.reading.unread(rule, fields) } else { Vec::new() }
        };
        let container = unread("CreateContainerRequest", OF_A_CONTAINER);
        let exec = unread("ExecProcessRequest", &["Args"]);
        let copy = unread("CopyFileRequest", &["path"]);
        if !container.is_empty() {
            let sentence = format!("a container is allowed whatever these are: {}", container.join(", "));
            self.add("CREATE_FIELDS_UNCHECKED", Severity::Warning, "CreateContainerRequest", &sentence);
        }
        if !exec.is_empty() {
            let sentence = "a command is allowed whatever it is: no definition looks at `Args`";
            self.add("EXEC_COMMAND_UNCHECKED", Severity::Error, "ExecProcessRequest", sentence);
        }
        if !copy.is_empty() {
            let sentence = "a file is allowed wherever it goes: no definition looks at `path`";
            self.add("COPY_PATH_UNCHECKED", Severity::Error, "CopyFileRequest", sentence);
        }
    }

    /// Terminals and streams that do not fit together.
    fn streams(&mut self) {
        let subject = self.subject;
        let exec = !subject.is_denied("ExecProcessRequest")
            && (subject.probes.terminal || subject.reading.asks_for_terminal("ExecProcessRequest"));
        let container = !subject.is_denied("CreateContainerRequest")
            && (subject.reading.wants_terminal
                || subject.reading.asks_for_terminal("CreateContainerRequest"));
        for (rule, terminal) in [("ExecProcessRequest", exec), ("CreateContainerRequest", container)] {
            if !terminal {
                continue;
            }
            if subject.is_denied("WriteStreamRequest") {
                let sentence =
                    "it may have a terminal, and nobody may type: WriteStreamRequest is always denied";
                self.add("TTY_WITHOUT_STDIN", Severity::Warning, rule, sentence);
            }
            if subject.is_denied("TtyWinResizeRequest") {
                let sentence =
                    "it may have a terminal whose size cannot be set: TtyWinResizeRequest is always denied";
                self.add("TTY_WITHOUT_SIZE", Severity::Note, rule, sentence);
            }
        }
        if !subject.is_denied("WriteStreamRequest") && subject.is_denied("CloseStdinRequest") {
            let sentence = "standard input may be written and never ended: CloseStdinRequest is always denied, and what reads to the end waits for ever";
            self.add("STDIN_NEVER_ENDS", Severity::Warning, "WriteStreamRequest", sentence);
        }
        if !subject.is_denied("ExecProcessRequest") && subject.is_denied("ReadStreamRequest") {
            let sentence =
                "a command may be run, and nobody reads what it says: ReadStreamRequest is always denied";
            self.add("EXEC_OUTPUT_UNREAD", Severity::Note, "ExecProcessRequest", sentence);
        }
    }

    /// What cannot work, and what is not as it seems.
    fn unusable(&mut self) {
        for rule in NEEDED {
            if self.subject.is_denied(rule) {
                let sentence = "it is always denied, and no pod can live without it";
                self.add("ENDPOINT_NEEDED", Severity::Warning, rule, sentence);
            }
        }
        for rule in ["AuditHeadRequest", "AuditReadRequest"] {
            if self.subject.is_denied(rule) {
                let sentence = "it is always denied: nobody reads in the audit what was denied";
                self.add("AUDIT_UNREADABLE", Severity::Note, rule, sentence);
            }
        }
        for rule in &self.subject.rules {
            if !rule.asked {
                let sentence = "there is no request of this name: the rule decides nothing";
                self.add_at("RULE_NEVER_ASKED", Severity::Note, &rule.name, rule.line, sentence);
            }
            if let Path::Interpreted { reason } = &rule.path {
                let sentence = format!("it is interpreted, which takes longer: {reason}");
                self.add_at("INTERPRETED", Severity::Note, &rule.name, rule.line, &sentence);
            }
        }
    }
}
