//! A key broker that fails at each step of its protocol while an artifact is to be landed: each failure has its code, nothing is landed, and the
//! same guest lands it when the broker is well again.

use std::ffi::OsString;
use std::path::PathBuf;

use tests::broker::KeyBroker;
use tests::keyed::Keyed;
use tests::payload::Payload;
use tests::scene::Artifact;
use tests::tee::Kind;
use tests::{CHIP_FAULT, REFUSED, args};

/// The time for attempts.
const SECONDS: &str = "2";
/// Exit status of what may work when it is tried again.
const AGAIN: i32 = 75;

/// What the broker does at which step, and what is said of it.
const FAULTS: [(&str, &str, &str, i32, &str); 29] = [
    ("auth", "reset", "", AGAIN, "KBS_HTTP_BROKEN"),
    ("auth", "truncated-body", "", AGAIN, "KBS_HTTP_BROKEN"),
    ("auth", "status", "value = 503", AGAIN, "KBS_BROKER_UNAVAILABLE"),
    ("auth", "status", "value = 404", CHIP_FAULT, "KBS_ERROR_BODY_INVALID"),
    ("auth", "slow", "milliseconds = 5000", CHIP_FAULT, "KBS_DEADLINE"),
    ("auth", "redirect", "location = \"http://127.0.0.1:9/\"", CHIP_FAULT, "KBS_REDIRECT_REFUSED"),
    ("auth", "oversized-body", "", CHIP_FAULT, "KBS_BODY_TOO_LARGE"),
    ("auth", "endless-body", "", CHIP_FAULT, "KBS_BODY_TOO_LARGE"),
    ("auth", "not-json", "", CHIP_FAULT, "KBS_JSON_INVALID"),
    ("auth", "cookie-omitted", "", CHIP_FAULT, "KBS_COOKIE_MISSING"),
    ("auth", "wrong-nonce", "", REFUSED, "KBS_REFUSED_ATTESTATION"),
    ("attest", "reset", "", AGAIN, "KBS_HTTP_BROKEN"),
    ("attest", "truncated-body", "", AGAIN, "KBS_HTTP_BROKEN"),
    ("attest", "status", "value = 503", AGAIN, "KBS_BROKER_UNAVAILABLE"),
    ("attest", "redirect", "location = \"http://127.0.0.1:9/\"", CHIP_FAULT, "KBS_REDIRECT_REFUSED"),
    ("attest", "endless-body", "", CHIP_FAULT, "KBS_BODY_TOO_LARGE"),
    ("attest", "not-json", "", CHIP_FAULT, "KBS_JSON_INVALID"),
    ("attest", "expired-token", "", CHIP_FAULT, "KBS_TOKEN_EXPIRED"),
    ("resource", "reset", "", AGAIN, "KBS_HTTP_BROKEN"),
    ("resource", "truncated-body", "", AGAIN, "KBS_HTTP_BROKEN"),
    ("resource", "status", "value = 503", AGAIN, "KBS_BROKER_UNAVAILABLE"),
    ("resource", "redirect", "location = \"http://127.0.0.1:9/\"", CHIP_FAULT, "KBS_REDIRECT_REFUSED"),
    ("resource", "endless-body", "", CHIP_FAULT, "KBS_BODY_TOO_LARGE"),
    ("resource", "not-json", "", CHIP_FAULT, "KBS_JWE_MALFORMED"),
    ("resource", "malformed-member", "member = \"iv\"", CHIP_FAULT, "KBS_JWE_MALFORMED"),
    ("resource", "wrong-curve-epk", "", CHIP_FAULT, "KBS_JWE_CURVE"),
    ("resource", "off-curve-epk", "", CHIP_FAULT, "KBS_JWE_POINT_INVALID"),
    ("resource", "bad-wrapped-key", "", CHIP_FAULT, "KBS_JWE_KEY_UNWRAP"),
    ("resource", "bad-tag", "", CHIP_FAULT, "KBS_JWE_AUTHENTICATION"),
];

struct Scene {
    keyed: Keyed,
    payload: Payload,
    artifact: Artifact,
    rego: PathBuf,
    resource: String,
    kek: Vec<u8>,
}

impl Scene {
    fn start(kind: Kind) -> Self {
        let keyed = Keyed::start(kind);
        let payload = Payload::random(1, 200_000);
        let artifact = keyed.seal("model", &payload);
        let policy = keyed.policy("policy.toml", 5);
        let (report, kek, rego) = keyed.grant_to_broker(&artifact, &policy, "model");
        let resource = report["resource"].as_str().expect("the resource of the grant").to_owned();
        Self { keyed, payload, artifact, rego, resource, kek }
    }

    /// The broker, with a plan of faults; an empty one is none.
    fn broker(&self, name: &str, plan: &str) -> KeyBroker {
        let plan = self.keyed.work.write(format!("{name}.faults"), plan);
        let arguments = args![
            "--insecure-trust-roots",
            self.keyed.platform.trust_roots(),
            "--collateral",
            &self.keyed.guest.collateral,
            "--policy",
            &self.rego,
            "--fault-plan",
            &plan
        ];
        let broker = KeyBroker::start(&self.keyed.programs, &self.keyed.work, name, &arguments);
        broker.store(&self.resource, &self.kek);
        broker
    }

    fn source(&self, broker: &KeyBroker) -> Vec<OsString> {
        let mut source = self.keyed.from_broker(broker, &self.keyed.guest);
        source.extend(args!["--kbs-timeout", SECONDS]);
        source
    }

    #[track_caller]
    fn assert_lands(&self, broker: &KeyBroker) {
        let mut source = self.keyed.from_broker(broker, &self.keyed.guest);
        source.extend(args!["--kbs-timeout", "60"]);
        self.keyed.assert_lands(&self.artifact, &self.keyed.guest, &source, &self.payload);
    }
}

#[test]
fn evil_broker_fails_at_each_step() {
    let kinds = if tests::long_run() { Kind::ALL.to_vec() } else { vec![Kind::Tdx] };
    for kind in kinds {
        let scene = Scene::start(kind);
        let guest = &scene.keyed.guest;
        for (index, (at, fault, more, status, code)) in FAULTS.into_iter().enumerate() {
            let name = format!("broker-{index}");
            let plan = format!("[[fault]]\nkind = \"{fault}\"\nat = \"{at}\"\ntimes = 0\n{more}\n");
            let broker = scene.broker(&name, &plan);
            println!("{at}: {fault} {more}: {code}");
            let source = scene.source(&broker);
            let plans = scene.keyed.work.join(format!("{name}.faults"));
            let apart = [broker.paths().as_slice(), &[plans.as_path()]].concat();
            scene.keyed.assert_refused(&scene.artifact, Some(guest), &source, &apart, (status, code));
            let log = broker.log();
            assert!(log.contains("FAULT "), "the fault did not happen: {log}");
            assert_eq!(log.contains("at Resource"), at == "resource", "{log}");
        }
        scene.assert_lands(&scene.broker("well", ""));
    }
}

/// Failures of the way, once at each step: the guest asks again, and lands.
#[test]
fn a_broker_that_fails_once_at_each_step_is_asked_again() {
    let scene = Scene::start(Kind::Snp);
    let plan: String = ["auth", "attest", "resource"]
        .iter()
        .flat_map(|at| ["reset", "truncated-body", "status"].map(|kind| (at, kind)))
        .map(|(at, kind)| format!("[[fault]]\nkind = \"{kind}\"\nat = \"{at}\"\n"))
        .collect();
    let broker = scene.broker("broker", &plan);
    scene.assert_lands(&broker);
    assert!(broker.log().matches("FAULT ").count() >= 6, "{}", broker.log());
}
