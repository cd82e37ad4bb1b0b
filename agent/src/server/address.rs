//! Addresses in the form of upstream.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::AgentError;

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerAddress {
    /// `unix:///PATH`.
    Unix(PathBuf),
    /// `vsock://-1:PORT`: every CID of this machine.
    Vsock {
        /// The port.
        port: u32,
    },
}

impl FromStr for ServerAddress {
    type Err = AgentError;

    fn from_str(text: &str) -> Result<Self, AgentError> {
        let unix = text.strip_prefix("unix://").filter(|path| path.starts_with('/'));
        let unix = unix.map(|path| Self::Unix(PathBuf::from(path)));
        let port =
            text.strip_prefix("vsock://-1:").filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let vsock = port.and_then(|port| port.parse().ok()).map(|port| Self::Vsock { port });
        unix.or(vsock).ok_or_else(|| AgentError::Address { found: text.to_owned() })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Vsock { port } => write!(f, "vsock://-1:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_upstream_are_read() {
        for text in ["vsock://-1:1024", "vsock://-1:4294967295", "unix:///run/agent.sock"] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "vsock://-1",
            "vsock://-1:",
            "vsock://-1:+5",
            "vsock://-1:4294967296",
            "vsock://3:1024",
            "unix://",
            "unix://relative",
            "unix://@/abstract",
            "tcp://127.0.0.1:1024",
            "/run/agent.sock",
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap_err().code(), "AGENT_ADDRESS", "{text}");
        }
    }
}
