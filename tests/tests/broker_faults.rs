//! A key broker that fails at each step of its protocol while an artifact is to be landed: each failure has its code, nothing is landed, and the
//! same guest lands it when the broker is well again. And a broker whose policy demands evidence of a device.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::kbs::{
    DeviceDigest, DeviceEvidence, EvidenceSource, KbsClient, KbsOptions, KbsUrl, ResourceUri,
};
use attestation_agent::report_data::{Claim, KbsDigest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::broker::KeyBroker;
use tests::keyed::Keyed;
use tests::payload::Payload;
use tests::programs::{Programs, User};
use tests::scene::Artifact;
use tests::tee::Kind;
use tests::work::Work;
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

/// A guest that gives sample evidence, and that of a device: about what it was asked, about something else, or none.
struct WithDevice(Device);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    None,
    Right,
    OfAnotherHandshake,
    /// Of a class that this broker cannot verify.
    Gpu,
    Broken,
}

impl EvidenceSource for WithDevice {
    fn tee(&self) -> &str {
        "sample"
    }

    fn evidence(&self, digest: KbsDigest) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let digest = Claim::Kbs(digest).report_data();
        Ok(json!({"svn": "1", "report_data": STANDARD.encode(&digest.as_bytes()[..48])}))
    }

    fn devices(&self, digest: DeviceDigest) -> Result<DeviceEvidence, Box<dyn Error + Send + Sync>> {
        let mut devices = DeviceEvidence::default();
        let about = if self.0 == Device::OfAnotherHandshake { [7; 48] } else { *digest.as_bytes() };
        let evidence = json!({"svn": "2", "report_data": STANDARD.encode(about)}).to_string();
        match self.0 {
            Device::None => {}
            Device::Right | Device::OfAnotherHandshake => devices.insert("sampledevice", &evidence)?,
            Device::Gpu => devices.insert("nvidia", r#"{"device_evidence_list":[]}"#)?,
            Device::Broken => devices.insert("sampledevice", "[]")?,
        }
        Ok(devices)
    }

    fn initdata(&self) -> Option<String> {
        None
    }
}

/// A broker's policy that gives a key to guests with a device that it verified.
const DEVICE: &str = "package policy\nimport rego.v1\ndefault allow := false\n\
    allow if { input[\"submods\"][\"gpu0\"][\"ear.veraison.annotated-evidence\"][\"sampledevice\"] }\n";

#[test]
fn evil_guest_without_the_device_that_a_policy_demands() {
    let (work, programs) = (Work::create(User::Same), Programs::built());
    let policy = work.write("device.rego", DEVICE);
    let arguments = args!["--insecure-allow-sample", "--policy", &policy];
    let broker = KeyBroker::start(&programs, &work, "broker", &arguments);
    broker.store("kbs:///a/b/c", b"for a guest with a device");
    let uri = ResourceUri::parse("kbs:///a/b/c").expect("a resource");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = |device| {
        let url = KbsUrl::parse(&broker.url).expect("the broker's URL");
        let options = KbsOptions::new(url, None);
        let client = KbsClient::background_check(&options, Arc::new(WithDevice(device))).expect("a client");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let found = runtime.block_on(client.get(&uri, deadline));
        found.map(|secret| secret.expose().to_vec()).map_err(|error| error.code())
    };
    assert_eq!(ask(Device::None), Err("KBS_REFUSED_POLICY"));
    assert_eq!(ask(Device::OfAnotherHandshake), Err("KBS_REFUSED_ATTESTATION"));
    assert_eq!(ask(Device::Gpu), Err("KBS_REFUSED_ATTESTATION"), "this broker verifies no GPU");
    assert_eq!(ask(Device::Broken), Err("KBS_EVIDENCE_FAILED"), "nothing is sent without it");
    assert_eq!(ask(Device::Right), Ok(b"for a guest with a device".to_vec()));
}
