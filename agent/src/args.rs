//! The command line of the program where it is not process 1: what runtimes and image builders call.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use crate::server::ServerAddress;

/// The guest agent: stands between the host's runtime and the workload of a confidential guest.
#[derive(Debug, Parser)]
#[command(name = "innerkeep-agent", disable_version_flag = true)]
pub struct Args {
    /// Where to listen: vsock://-1:PORT or unix:///PATH.
    #[arg(long, value_name = "URI", default_value = "vsock://-1:1024")]
    pub server_addr: ServerAddress,
    /// The policy that requests are held against, a Rego text; without one every request is denied. Outside a TEE only.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Prints the version in the form that runtimes expect.
    #[arg(short, long)]
    pub version: bool,
}

impl Args {
    /// Reads arguments, the program's name first.
    ///
    /// # Errors
    /// Those of `clap`, which include the help text.
    pub fn parse_from_words(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(words)
    }
}

/// The version in upstream's form.
#[must_use]
pub fn version_line() -> String {
    let (interface, api, own) = (crate::INTERFACE_VERSION, crate::API_VERSION, crate::VERSION);
    let features = crate::EXTRA_FEATURES;
    format!(
        "kata-agent version {interface} (api version: {api}, commit version: innerkeep-{own}, type: rust, extra-features: {features:?})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::parse_from_words(words.iter().map(OsString::from))
    }

    #[test]
    fn addresses_and_version_are_read() {
        let args = parse(&["innerkeep-agent"]).unwrap();
        assert_eq!(args.server_addr, ServerAddress::Vsock { port: 1024 });
        let args = parse(&["innerkeep-agent", "--server-addr", "unix:///run/a.sock", "-v"]).unwrap();
        assert!(args.version);
        assert_eq!(args.server_addr.to_string(), "unix:///run/a.sock");
        assert!(parse(&["innerkeep-agent", "--server-addr", "tcp://1.2.3.4:5"]).is_err());
        assert!(parse(&["innerkeep-agent", "--config", "/etc/agent.toml"]).is_err());
    }

    #[test]
    fn the_version_has_the_form_of_upstream() {
        let line = version_line();
        assert!(line.starts_with("kata-agent version 4.1.0 (api version: 0.0.1, commit version: "), "{line}");
        assert!(line.ends_with(", type: rust, extra-features: [\"agent-policy\", \"seccomp\"])"), "{line}");
    }

    /// Nothing but its path: what else the unit said would be decided by whoever writes units.
    #[test]
    fn the_unit_starts_the_program_as_it_is() {
        let unit = include_str!("../../packaging/innerkeep-agent.service");
        let value = |key: &str| {
            let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(value("ExecStart"), ["/usr/bin/innerkeep-agent"]);
        // What containers would inherit, and programs in them would not survive.
        for inherited in
            ["NoNewPrivileges", "SystemCallFilter", "MemoryDenyWriteExecute", "LimitNOFILE", "PrivateMounts"]
        {
            assert_eq!(value(inherited), Vec::<&str>::new(), "{inherited}");
        }
        assert!(value("Environment").is_empty() && value("EnvironmentFile").is_empty());
    }
}
