//! Seeds of the targets for evidence, key brokers, TPMs and the agent's configuration.

use evidence::Octets;
use evidence::abi::event_log::{EventLog, LogEntry};
use evidence::abi::json::{SnpCertificate, SnpCertificateKind, SnpEvidence, TdxEvidence};
use evidence::abi::snp::{SnpReport, Tcb};
use evidence::abi::td_report::TdReport;
use evidence::abi::tdx::{QuoteHeader, QuoteVersion, Td15, TdBody, TdExtension, TdxQuote};
use fuzz::platform::PLATFORMS;
use fuzz::tpm::{QUOTE, sized};
use serde_json::Value;

use super::{put, words};

pub fn write() {
    quotes();
    reports();
    logs();
    texts();
    presentations();
    brokers();
    tpm();
    configuration();
}

fn quotes() {
    let quote = &PLATFORMS.quote;
    let of = |extension| TdxQuote {
        header: QuoteHeader { version: QuoteVersion::V5, ..quote.header },
        body: TdBody { extension, ..quote.body.clone() },
        ..quote.clone()
    };
    put("evidence_tdx", "quote-4", &quote.encode());
    put("evidence_tdx", "quote-4-padded", &[quote.encode(), vec![0; 64]].concat());
    put("evidence_tdx", "quote-5", &of(TdExtension::Td10).encode());
    put("evidence_tdx", "quote-5-td15", &of(TdExtension::Td15(Td15::default())).encode());
    let extended = TdExtension::Td15Extended(Td15::default(), Octets([1; 237]));
    put("evidence_tdx", "quote-5-extended", &of(extended).encode());
    put("evidence_tdx", "td-report", &TdReport::default().encode());
}

fn reports() {
    let milan = PLATFORMS.report.clone();
    put("evidence_snp", "version-3", &milan.encode());
    put("evidence_snp", "version-2", &SnpReport { version: 2, cpuid: None, ..milan.clone() }.encode());
    let genoa = SnpReport { version: 4, cpuid: Some([0x19, 0x11, 1]), ..milan.clone() };
    put("evidence_snp", "version-4-genoa", &genoa.encode());
    let tcb = Tcb { fmc: Some(1), ..milan.reported_tcb };
    let turin = SnpReport {
        version: 5,
        cpuid: Some([0x1a, 0x02, 1]),
        mitigations: Some([1, 2]),
        current_tcb: tcb,
        reported_tcb: tcb,
        committed_tcb: tcb,
        launch_tcb: tcb,
        ..milan
    };
    put("evidence_snp", "version-5-turin", &turin.encode());
}

fn logs() {
    let log = &PLATFORMS.log;
    let entries: Vec<u8> = log.entries.iter().flat_map(LogEntry::encode).collect();
    let table = EventLog { terminated: false, ..log.clone() }.encode();
    put("evidence_log", "log", &log.encode());
    put("evidence_log", "ccel", &[table.as_slice(), &[0; 40]].concat());
    put("evidence_log", "entries", &entries);
    let length = u16::try_from(table.len()).expect("a small table").to_le_bytes();
    put("evidence_log", "assembled", &[&length, table.as_slice(), &entries].concat());
    put("evidence_log", "event", &log.entries[3].data);
    words(
        "evidence_log",
        &["Spec ID Event03", "LEAA", "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff", "\\x0c\\x00\\x30\\x00"],
    );
}

fn texts() {
    let platforms = &*PLATFORMS;
    let tdx = TdxEvidence { event_log: Some(platforms.log.encode()), quote: platforms.quote.encode() };
    put("evidence_json", "tdx", tdx.encode().as_bytes());
    let bare = TdxEvidence { event_log: None, quote: vec![1, 2, 3] };
    put("evidence_json", "tdx-bare", bare.encode().as_bytes());
    let one = |kind, data: &[u8]| SnpCertificate { kind, data: data.to_vec() };
    let certificates = vec![
        one(SnpCertificateKind::Vcek, b"VCEK"),
        one(SnpCertificateKind::Other("00000000-0000-0000-0000-000000000001".to_owned()), &[]),
    ];
    let report = platforms.report.clone();
    let snp = SnpEvidence { report: report.clone(), certificates: Some(certificates) };
    put("evidence_json", "snp", snp.encode().as_bytes());
    put("evidence_json", "snp-bare", SnpEvidence { report, certificates: None }.encode().as_bytes());
    put("evidence_json", "collateral", platforms.tdx.encode().as_bytes());
    put("evidence_json", "roots", platforms.bundle.encode().as_bytes());
    words(
        "evidence_json",
        &[
            "\"cc_eventlog\":",
            "\"quote\":",
            "\"attestation_report\":",
            "\"cert_chain\":[",
            "{\"cert_type\":\"VLEK\",\"data\":[1]}",
            "{\"OTHER\":\"\"}",
            "\"cpuid_fam_id\":",
            "\"launch_mit_vector\":",
            "\"fmc\":null",
            "\"pck_certificate_chain\":\"\"",
            "\"generation\":\"turin\"",
            "18446744073709551615",
            "null",
            "[]",
        ],
    );
}

fn presentations() {
    let presented =
        [("tdx", PLATFORMS.tdx_presentation().encode()), ("snp", PLATFORMS.snp_presentation().encode())];
    for (name, bytes) in presented {
        put("evidence_presentation", name, &bytes.expect("a presentation"));
    }
    put("evidence_presentation", "edit-tdx", &[0, 40, 0, 3, 1]);
    put("evidence_presentation", "edit-snp", &[1, 40, 0, 2, 1]);
    put("evidence_presentation", "good-tdx", &[0]);
    put("evidence_presentation", "good-snp", &[1]);
    for which in 0..16 {
        put("evidence_verify_certificates", &format!("edit-{which:02}"), &[which, 40, 0, 3, 1]);
    }
    let (tdx, snp) = (&PLATFORMS.tdx, &PLATFORMS.snp);
    let whole = |name, which: u8, part: &[u8]| {
        put("evidence_verify_certificates", name, &[&[0x80 | which], part].concat());
    };
    whole("pck-list", 0, &tdx.pck_crl);
    whole("root-list", 1, &tdx.root_ca_crl);
    whole("tcb-info", 2, tdx.tcb_info.as_bytes());
    whole("qe-identity", 3, tdx.qe_identity.as_bytes());
    whole("vcek", 8, &snp.vek);
    whole("snp-list", 10, snp.crl.as_ref().expect("a list"));
}

fn brokers() {
    put(
        "kbs_answers",
        "challenge",
        b"\0abcdef\0{\"nonce\":\"AAECAw==\",\"extra-params\":{\"selected-hash-algorithm\":\"sha384\"}}",
    );
    put("kbs_answers", "token", b"\0abcdef\0{\"token\":\"e30.eyJleHAiOjk5fQ.AA\"}");
    let refusal = br#"{"type":"https://github.com/confidential-containers/kbs/errors/AttestationFailure","detail":"no"}"#;
    put("kbs_answers", "refusal", &[b"\x02\0".as_slice(), refusal].concat());
    words(
        "kbs_answers",
        &[
            "\"nonce\":",
            "\"extra-params\":",
            "\"selected-hash-algorithm\":",
            "\"sha384\"",
            "\"token\":",
            "https://github.com/confidential-containers/kbs/errors/",
            "PolicyDeny",
            "TokenVerifierError",
            "\"detail\":",
            "\\x0d\\x0a",
        ],
    );
    let vectors = include_str!("../../../attestation-agent/tests/kbs/vectors.json");
    let vectors: Value = serde_json::from_str(vectors).expect("vectors");
    for (name, vector) in vectors.as_object().expect("an object") {
        put("kbs_jwe", &name.to_lowercase(), vector["response"].to_string().as_bytes());
    }
    for which in 0..32 {
        put("kbs_jwe", &format!("edit-{which:02}"), &[which, 3, 0, 3, 1]);
    }
    words(
        "kbs_jwe",
        &[
            "\"aad\":",
            "\"header\":",
            "\"alg\":",
            "\"enc\":",
            "\"epk\":",
            "\"crit\":",
            "A256GCM",
            "RSA-OAEP-256",
        ],
    );
    put("kbs_token", "claims", br#"{"exp":4102444800,"nbf":1,"iss":"broker"}"#);
    put("kbs_token", "token", b"e30.eyJleHAiOjk5fQ.AA");
    words("kbs_token", &["\"exp\":", "\"nbf\":", "18446744073709551615", "1e9", "null", "eyJleHAiOj"]);
    let names = [
        "kbs:///models/key/ranker",
        "kbs://broker.example:8080/a/b/c",
        "kbs+plugin-1:///path/to/it?query=1&other=%41",
        "https://kbs.example:8080/prefix",
        "http://127.0.0.1:8080",
        "https://[::1]:444/a/b/",
        "http://localhost",
    ];
    for (number, name) in names.iter().enumerate() {
        put("kbs_uri", &format!("name-{number}"), name.as_bytes());
    }
    words(
        "kbs_uri",
        &[
            "kbs+",
            "kbs:///",
            "https://",
            "http://",
            "[::",
            "%2e",
            "..",
            "//",
            "@",
            "localhost",
            "127.1",
            ":0",
        ],
    );
}

fn tpm() {
    let hash = [0, 0x0b];
    let ecc = [
        [0, 0x23, 0, 0x0b, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10].as_slice(),
        &sized(&[1; 32]),
        &sized(&[2; 32]),
    ]
    .concat();
    let rsa = [
        [0, 1, 0, 0x0b, 0, 3, 0, 0x72, 0, 0, 0, 6, 0, 0x80, 0, 0x43, 0, 0x14, 0, 0x0b, 8, 0, 0, 0, 0, 0]
            .as_slice(),
        &sized(&[0xff; 256]),
    ]
    .concat();
    let of_policy = |attributes: [u8; 4], policy: &[u8]| {
        let head = [0, 8, 0, 0x0b].iter().chain(&attributes).copied().collect::<Vec<u8>>();
        [head, sized(policy), vec![0, 0x10], sized(&[4; 32])].concat()
    };
    let data = of_policy([0, 0, 0, 0x92], &[3; 32]);
    let name = |public: &[u8]| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public);
        sized(&[&hash, digest.as_ref()].concat())
    };
    let creation =
        [sized(&[5; 40]), sized(&[6; 32]), vec![0x80, 0x21, 0x40, 0, 0, 1], sized(&[7; 32])].concat();
    let seed = |which: u8, title: &str, bytes: &[u8]| put("tpm_wire", title, &[&[which], bytes].concat());
    seed(0, "response", &[0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 1, 2]);
    let session = [0x80, 2, 0, 0, 0, 0x15, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9, 0, 0, 1, 0, 0];
    seed(0, "response-session", &session);
    seed(0, "response-refused", &[0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1]);
    seed(1, "public-ecc", &ecc);
    seed(1, "public-rsa", &rsa);
    seed(1, "public-data", &data);
    seed(2, "read-public", &[sized(&ecc), name(&ecc), name(&ecc)].concat());
    seed(3, "create-primary", &[sized(&ecc), creation.clone(), name(&ecc)].concat());
    seed(4, "create", &[sized(&[8; 100]), sized(&data), creation].concat());
    seed(5, "attest", &QUOTE.message);
    seed(6, "signature-ecdsa", &QUOTE.signature);
    seed(6, "signature-rsa", &[[0, 0x14, 0, 0x0b].as_slice(), &sized(&[1; 256])].concat());
    let selection = [0, 0, 0, 1, 0, 0x0b, 3, 1, 1, 0];
    let read =
        [[0, 0, 0, 9].as_slice(), &selection, &[0, 0, 0, 2], &sized(&[1; 32]), &sized(&[2; 32])].concat();
    seed(7, "pcr-read", &read);
    seed(8, "banks", &[0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 4, 3, 0, 0, 0, 0, 0x0b, 3, 0xff, 0xff, 0xff]);
    seed(9, "handles", &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0x81, 1, 0, 2]);
    seed(10, "properties", &[1, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 1, 5, 0x49, 0x42, 0x4d, 0]);
    seed(11, "name", &name(&ecc)[2..]);
    seed(12, "evidence", QUOTE.to_json().to_string().as_bytes());
    let mut parts = (1_u32 << 8).to_le_bytes().to_vec();
    parts.extend([3; 32]);
    let public = sized(&data);
    parts.extend(u16::try_from(public.len()).expect("a length").to_le_bytes());
    parts.extend([public, sized(&[8; 100])].concat());
    seed(13, "sealed", &parts);
    for which in 0..4 {
        put("tpm_wire", &format!("altered-{which}"), &[15, which, 40, 0, 3, 1]);
    }
    words(
        "tpm_wire",
        &["\\xff\\x54\\x43\\x47\\x80\\x18", "\\x00\\x0b", "\\x80\\x21", "\"tpm_quote\":", "\"pcrs\":["],
    );
}

fn configuration() {
    let full = r#"[token_configs.kbs]
url = "https://kbs.example:8080"
cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
tee_key_algorithm = "ECDH-ES+A256KW-P521"

[eventlog_config]
enable_eventlog = true
init_pcr = 17

[log]
level = "info"

[innerkeep]
raw_report_data_peers = [{ socket = "/run/peer.sock", uid = 0 }]
workload_evidence = true
kbs_spki_sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"]
kbs_verifier_evidence = false
collateral = "/etc/collateral.json"
"#;
    put("aa_config", "full", full.as_bytes());
    put("aa_config", "empty", b"");
    let small =
        b"[token_configs]\nkbs = { url = \"http://127.0.0.1:8080\" }\n[eventlog_config]\ninit_pcr = 8\n";
    put("aa_config", "small", small);
    words(
        "aa_config",
        &[
            "[token_configs.kbs]",
            "[eventlog_config]",
            "[innerkeep]",
            "[log]",
            "url = ",
            "cert = ",
            "init_pcr = ",
            "level = \"off\"",
            "token_key_export = [",
            "{ socket = \"/a\", uid = 1 }",
            "kbs_spki_sha256 = [",
            "tee_key_algorithm = \"RSA-OAEP-256\"",
            "ML-KEM-768+A192KW",
            "kbs_verifier_evidence = true",
            "'''",
            "\"\"\"",
        ],
    );
}
