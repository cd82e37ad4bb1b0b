use std::error::Error as _;
use std::time::Duration;

use super::*;
use crate::kbs::refusal::Refusal;

fn cause() -> Cause {
    Cause::new("below")
}

fn faults() -> Vec<Fault> {
    let refusal = |name: &str| {
        let body = format!(
            "{{\"type\":\"https://github.com/confidential-containers/kbs/errors/{name}\",\"detail\":\"d\"}}"
        );
        Fault::from(Refusal::parse(401, body.as_bytes()).unwrap())
    };
    let answer = [
        AnswerFault::Challenge { expected: "x" },
        AnswerFault::CookieCount { found: 0 },
        AnswerFault::CookieText { max: 1 },
        AnswerFault::ErrorBody { status: 401, source: cause() },
        AnswerFault::Hash,
        AnswerFault::Json { what: "x", source: cause() },
        AnswerFault::Status { found: 413 },
        AnswerFault::TokenExpired { now: 2, not_before: 0, expires: 1 },
        AnswerFault::TokenForm { expected: "x" },
    ];
    let config = [
        ConfigFault::KeyKind,
        ConfigFault::PlainHttp,
        ConfigFault::ResourceUri { expected: "x" },
        ConfigFault::Tee,
        ConfigFault::TrustInvalid { expected: "x" },
        ConfigFault::TrustMissing,
        ConfigFault::Url { expected: "x" },
        ConfigFault::VerifierEvidence,
    ];
    let jwe = [
        JweFault::Algorithm { member: "alg", expected: "x" },
        JweFault::Authentication,
        JweFault::Curve { expected: "P-256" },
        JweFault::KeyUnwrap,
        JweFault::Member { member: "iv", expected: "x" },
        JweFault::NotJwe { source: cause() },
        JweFault::Point { curve: "P-256" },
    ];
    let local = [
        LocalFault::Crypto { operation: "x" },
        LocalFault::Evidence { source: cause() },
        LocalFault::Interrupted { work: "x" },
        LocalFault::Memory { source: cause() },
        LocalFault::DeviceEvidence { expected: "x" },
        LocalFault::RequestSize { max: 1, found: 2 },
    ];
    let transport = [
        TransportFault::BodySize { max: 1 },
        TransportFault::Connect { to: "x".to_owned(), source: cause() },
        TransportFault::Deadline { last: None },
        TransportFault::Http { source: cause() },
        TransportFault::Late { limit: Duration::from_secs(1) },
        TransportFault::Redirect { status: 302 },
        TransportFault::Tls { source: cause() },
        TransportFault::TlsPin { found: "x".to_owned() },
        TransportFault::TlsUntrusted { source: cause() },
        TransportFault::Unavailable { status: 503 },
    ];
    let names = [
        "AttestationError",
        "JweError",
        "TokenNotFound",
        "Unheard",
        "PluginNotFound",
        "PolicyDeny",
        "PluginInternalError",
        "TokenVerifierError",
    ];
    let mut all: Vec<Fault> = names.into_iter().map(refusal).collect();
    all.extend(answer.map(Fault::from));
    all.extend(config.map(Fault::from));
    all.extend(jwe.map(Fault::from));
    all.extend(local.map(Fault::from));
    all.extend(transport.map(Fault::from));
    all
}

/// Code, layer and what follows, as the table of the module says them.
fn table() -> Vec<(String, String, String)> {
    include_str!("../../kbs.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `KBS_"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (format!("KBS_{}", cells[0].trim_matches('`')), cells[1].to_owned(), cells[3].to_owned())
        })
        .collect()
}

#[test]
fn every_code_is_in_the_table_and_nothing_else() {
    let table = table();
    let mut seen = std::collections::BTreeSet::new();
    for fault in faults() {
        let error = KbsError::new(Hop::Resource, fault.clone());
        let row = table
            .iter()
            .find(|(code, _, _)| code == error.code())
            .unwrap_or_else(|| panic!("{} is not listed", error.code()));
        assert_eq!(row.1, fault.layer(), "{}", error.code());
        let again = match error.class() {
            Class::Transient => "again",
            Class::Reattest => "attest",
            _ => "",
        };
        assert_eq!(row.2, again, "{}", error.code());
        seen.insert(error.code().to_owned());
    }
    let listed: std::collections::BTreeSet<String> = table.into_iter().map(|row| row.0).collect();
    assert_eq!(listed, seen);
}

#[test]
fn messages_name_hop_layer_and_cause() {
    let error = KbsError::new(Hop::Auth, TransportFault::Connect { to: "kbs:1".to_owned(), source: cause() });
    assert_eq!(error.to_string(), "key broker: auth: connect: no connection to kbs:1");
    assert_eq!(error.source().unwrap().to_string(), "below");
    for fault in faults() {
        let text = fault.to_string();
        assert!(!text.ends_with('.') && !text.contains('\n'), "{text}");
    }
}
