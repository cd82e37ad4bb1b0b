//! Init data: the configuration that the host chose and hardware bound to the guest.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384, Sha512};

const VERSION: &str = "0.1.0";
const POLICY_DATA: &str = "policy_data := {";

/// Init data as a guest sends it.
#[derive(Debug, Deserialize)]
pub(crate) struct Sent {
    format: String,
    body: String,
}

/// Init data that was understood. It is true only when its digest is the one that hardware reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InitData {
    /// Digest over the whole text, in the algorithm that the text names.
    pub(crate) digest: Vec<u8>,
    /// The entries, for policies.
    pub(crate) claims: BTreeMap<String, Value>,
}

/// Init data that is not understood.
#[derive(Debug, thiserror::Error)]
#[error("init data: expected {expected}, found {found}")]
pub(crate) struct InitDataError {
    expected: &'static str,
    found: String,
}

#[derive(Deserialize)]
struct Document {
    version: String,
    algorithm: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

fn refused(expected: &'static str, found: &impl ToString) -> InitDataError {
    InitDataError { expected, found: crate::log::printable(&found.to_string(), 120) }
}

impl InitData {
    /// Parses what a guest sent.
    pub(crate) fn parse(sent: &Sent) -> Result<Self, InitDataError> {
        if sent.format != "toml" {
            return Err(refused("format toml", &sent.format));
        }
        let document: Document =
            toml::from_str(&sent.body).map_err(|error| refused("TOML of init data", &error.message()))?;
        if document.version != VERSION {
            return Err(refused("version 0.1.0", &document.version));
        }
        let body = sent.body.as_bytes();
        let digest = match document.algorithm.as_str() {
            "sha256" => Sha256::digest(body).to_vec(),
            "sha384" => Sha384::digest(body).to_vec(),
            "sha512" => Sha512::digest(body).to_vec(),
            other => return Err(refused("algorithm sha256, sha384 or sha512", &other)),
        };
        Ok(Self { digest, claims: document.data.into_iter().map(claim).collect() })
    }
}

/// Entries that are known to hold TOML or policy data are opened; all others stay text.
fn claim((name, text): (String, String)) -> (String, Value) {
    let opened = match name.as_str() {
        "aa.toml" | "cdh.toml" => toml::from_str::<Value>(&text).ok(),
        "policy.rego" => {
            if let Some(data) = policy_data(&text) {
                return ("agent_policy_claims".to_owned(), data);
            }
            None
        }
        _ => None,
    };
    (name, opened.unwrap_or(Value::String(text)))
}

/// The data at the end of a generated agent policy.
fn policy_data(text: &str) -> Option<Value> {
    let start = text.find(POLICY_DATA)? + POLICY_DATA.len() - 1;
    serde_json::from_str(text.get(start..)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\n\"aa.toml\" = '''\n[token_configs.kbs]\nurl = \"http://192.0.2.7:8080\"\n'''\n";

    fn parse(format: &str, body: &str) -> Result<InitData, InitDataError> {
        InitData::parse(&Sent { format: format.to_owned(), body: body.to_owned() })
    }

    #[test]
    fn the_digest_is_the_published_one_and_entries_are_opened() {
        let found = parse("toml", TEXT).unwrap();
        assert_eq!(
            hex::encode(&found.digest),
            "9c2e4cdc996cecfbb70f50e84856dfdb70e922a8a9ffd26167ddf4e400d5b0baf8731b118fe4e956b00a76da740d5f6a"
        );
        assert_eq!(found.claims["aa.toml"]["token_configs"]["kbs"]["url"], "http://192.0.2.7:8080");
        assert_eq!(parse("toml", &TEXT.replace("384", "256")).unwrap().digest.len(), 32);
        assert_eq!(parse("toml", &TEXT.replace("384", "512")).unwrap().digest.len(), 64);
        let policy = "version = '0.1.0'\nalgorithm = 'sha256'\n[data]\n'policy.rego' = '''package p\npolicy_data := {\"a\":1}\n'''\nother = 'x'\n";
        let found = parse("toml", policy).unwrap();
        assert_eq!(found.claims["agent_policy_claims"]["a"], 1);
        assert_eq!(found.claims["other"], "x");
        let broken = parse("toml", &policy.replace("{\"a\":1}", "{\"a\":")).unwrap();
        assert!(broken.claims["policy.rego"].is_string());
    }

    #[test]
    fn evil_init_data_of_another_form_is_refused() {
        for (format, body) in [
            ("json", TEXT.to_owned()),
            ("toml", TEXT.replace("sha384", "SHA384")),
            ("toml", TEXT.replace("sha384", "sm3")),
            ("toml", TEXT.replace("0.1.0", "0.2.0")),
            ("toml", TEXT.replace("version", "versions")),
            ("toml", "=".to_owned()),
            ("toml", format!("{TEXT}\n'aa.toml' = 1\n")),
        ] {
            assert!(parse(format, &body).is_err(), "{body}");
        }
    }
}
