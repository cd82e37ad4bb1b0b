//! `innerkeep initdata` from files to a launched guest: what is packed is what the guest's register and evidence vouch for.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tests::innerkeep::Said;
use tests::keyed::Keyed;
use tests::tee::Kind;
use tests::{DAMAGED, REFUSED, USAGE, args};

const POLICY: &str = "package agent_policy\n\ndefault CreateContainerRequest := false\n";

/// What a build pipeline has: files in a directory.
fn files(keyed: &Keyed) -> PathBuf {
    let directory = keyed.work.directory("files");
    std::fs::write(directory.join("policy.rego"), POLICY).unwrap();
    std::fs::write(directory.join("aa.toml"), "[innerkeep]\nworkload_evidence = true\n").unwrap();
    directory
}

/// The register of this kind of guest in the facts of `pack` and `digest`, hex.
fn register(digest: &Value, kind: Kind) -> String {
    let name = match kind {
        Kind::Tdx => "MRCONFIGID",
        Kind::Snp => "HOST_DATA",
    };
    let registers = digest["registers"].as_array().unwrap();
    let found = registers.iter().find(|register| register["name"] == name).unwrap();
    found["hex"].as_str().unwrap().to_owned()
}

fn verify(keyed: &Keyed, input: &Path, against: &[OsString]) -> Said {
    keyed.innerkeep.attempt(&[args!["initdata", "verify", input], against.to_vec()].concat())
}

/// Evidence of a guest that was launched with this register, and how to believe it.
fn evidence(keyed: &Keyed, name: &str, register: &str) -> Vec<OsString> {
    let launch = format!("initdata_digest = \"{register}\"");
    let guest = keyed.platform.guest(&keyed.work, name, &launch, None);
    let evidence = keyed.presentation(&guest, &format!("{name}.evidence"));
    args!["--evidence", evidence, "--insecure-trust-roots", keyed.platform.trust_roots()]
}

#[test]
fn what_is_packed_is_what_evidence_vouches_for() {
    for kind in Kind::ALL {
        let keyed = Keyed::start(kind);
        let directory = files(&keyed);
        let (annotation, image, toml) =
            (keyed.work.join("annotation"), keyed.work.join("image"), keyed.work.join("packed.toml"));
        let packed = keyed.innerkeep.run(&args![
            "initdata",
            "pack",
            &directory,
            "--algorithm",
            "sha384",
            "-o",
            &annotation,
            "--image",
            &image,
            "--toml",
            &toml
        ]);
        assert_eq!(packed["warnings"], json!([]), "{packed}");
        let value = register(&packed["digest"], kind);
        let launched = evidence(&keyed, "launched", &value);
        for carrier in [&annotation, &image, &toml] {
            let said = verify(&keyed, carrier, &launched);
            assert_eq!(said.status, Some(0), "{said:?}");
            let facts: Value = serde_json::from_str(&said.stdout).unwrap();
            assert_eq!((&facts["value"], &facts["signature_verified"]), (&json!(value), &json!(true)));
            assert_eq!(facts["algorithm"], "sha384", "{facts}");
            // The register alone says the same, and says that nobody signed it.
            let said = verify(&keyed, carrier, &args!["--register", &value]);
            assert!(said.stdout.contains("\"signature_verified\":false"), "{said:?}");
            let shown = keyed.innerkeep.run(&args!["initdata", "show", carrier]);
            assert_eq!(shown["digest"], packed["digest"], "{shown}");
        }
        // A guest takes the text as it was packed.
        let register_of_guest = format!("initdata_digest = \"{value}\"");
        let guest = keyed.platform.guest(&keyed.work, "taker", &register_of_guest, None);
        let agent = keyed.innerkeep_in(
            &guest,
            &args![
                "kbs",
                "get",
                "kbs:///a/b/c",
                "--kbs",
                "http://127.0.0.1:1",
                "--kbs-timeout",
                "1",
                "--initdata",
                &toml,
                "--insecure-tee-root",
                &guest.root
            ],
        );
        assert!(!agent.code().contains("INITDATA"), "it fails later, at the broker: {agent:?}");
        let other = keyed.work.write("other.toml", std::fs::read_to_string(&toml).unwrap() + "\n");
        let agent = keyed.innerkeep_in(
            &guest,
            &args![
                "kbs",
                "get",
                "kbs:///a/b/c",
                "--kbs",
                "http://127.0.0.1:1",
                "--kbs-timeout",
                "1",
                "--initdata",
                &other,
                "--insecure-tee-root",
                &guest.root
            ],
        );
        assert_eq!(agent.code(), "ATTEST_INITDATA_MISMATCH", "{agent:?}");
    }
}

#[test]
fn evil_host_launches_with_other_initdata() {
    for kind in Kind::ALL {
        let keyed = Keyed::start(kind);
        let directory = files(&keyed);
        let pack = |name: &str| {
            let file = keyed.work.join(name);
            let packed = keyed.innerkeep.run(&args!["initdata", "pack", &directory, "-o", &file]);
            (file, register(&packed["digest"], kind))
        };
        let (meant, value) = pack("meant");
        std::fs::write(directory.join("policy.rego"), POLICY.replace("false", "true")).unwrap();
        let (other, other_value) = pack("other");
        assert_ne!(value, other_value);
        let launched = evidence(&keyed, "with-other", &other_value);
        verify(&keyed, &meant, &launched).assert_refused(REFUSED, "INITDATA_MISMATCH");
        assert_eq!(verify(&keyed, &other, &launched).status, Some(0));
        // Without any, and with an all-zero register that nobody launched anything into.
        let zero = evidence(&keyed, "without", &"00".repeat(value.len() / 2));
        verify(&keyed, &meant, &zero).assert_refused(REFUSED, "INITDATA_MISMATCH");
    }
}

#[test]
fn what_a_guest_would_refuse_is_not_packed() {
    let keyed = Keyed::start(Kind::Snp);
    let file = |name: &str, text: &str| {
        let path = keyed.work.write(name, text);
        keyed.innerkeep.attempt(&args!["initdata", "pack", path, "-o", keyed.work.join("never")])
    };
    file("sealed.toml", "artifact = []\n").assert_refused(DAMAGED, "INITDATA_FILE");
    file("innerkeep.toml", "insecure = [\"no-tee\"]\n").assert_refused(DAMAGED, "INITDATA_FILE");
    file("audit.toml", "suite = \"x-wing\"\nkey = \"\"\n").assert_refused(DAMAGED, "INITDATA_FILE");
    assert!(!keyed.work.join("never").exists());
    let twice = args!["initdata", "pack", keyed.work.join("sealed.toml"), "--file", "sealed.toml=x"];
    keyed.innerkeep.attempt(&twice).assert_refused(USAGE, "USAGE");
    // What is taken, with a word about it.
    let path = keyed.work.write("innerkeep.toml", "insecure = [\"swap\"]\n");
    let packed = keyed.innerkeep.run(&args!["initdata", "pack", path]);
    let warnings = packed["warnings"].to_string();
    assert!(warnings.contains("INSECURE: swap") && warnings.contains("policy.rego"), "{warnings}");
    assert!(packed["annotation"].is_string(), "{packed}");
}

#[test]
fn an_annotation_that_kubernetes_refuses_is_named() {
    let keyed = Keyed::start(Kind::Snp);
    // Hex of a hash chain: text that a compressor can do little with.
    let policy = |bytes: usize| {
        let mut text = String::new();
        let mut state = 1_u64;
        while text.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("{:08x}", state >> 32));
        }
        let path = keyed.work.write("policy.rego", text);
        keyed.innerkeep.run(&args!["initdata", "pack", path])["warnings"].to_string()
    };
    assert_eq!(policy(100_000), "[]");
    assert!(policy(300_000).contains("kubectl apply"));
    assert!(policy(600_000).contains("Kubernetes takes 262144"));
}

#[test]
fn initdata_of_others_keeps_its_bytes() {
    let keyed = Keyed::start(Kind::Tdx);
    let text = "# by hand\ndata = { \"policy.rego\" = \"package agent_policy\" }\nalgorithm='sha512'\nversion='0.1.0'";
    let theirs = keyed.work.write("theirs.toml", text);
    let again = keyed.work.join("again");
    let packed = keyed.innerkeep.run(&args!["initdata", "pack", "--from", &theirs, "-o", &again]);
    assert_eq!(packed["digest"]["algorithm"], "sha512", "{packed}");
    let shown = keyed.innerkeep.run(&args!["initdata", "show", "--text", &again]);
    assert_eq!(shown["text"], text);
    // As text: to the byte, without a line break that was not there.
    let mut command = keyed.programs.command("innerkeep", &keyed.work.join("tmp"));
    let said = tests::innerkeep::run_to_end(command.args(args!["initdata", "show", "--text", &again]));
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), text));
    // With a file more it is another document of the same algorithm.
    let aa = keyed.work.write("aa.toml", "[innerkeep]\n");
    let more = keyed.innerkeep.run(&args!["initdata", "pack", "--from", &again, aa]);
    assert_ne!(more["digest"], packed["digest"]);
    assert_eq!(more["digest"]["algorithm"], "sha512");
    assert_eq!(more["files"].as_array().unwrap().len(), 2, "{more}");
}

#[test]
fn evil_host_carriers_are_refused_by_name() {
    let keyed = Keyed::start(Kind::Snp);
    let image = keyed.work.join("image");
    let directory = files(&keyed);
    keyed.innerkeep.run(&args!["initdata", "pack", directory, "--image", &image]);
    let good = std::fs::read(&image).unwrap();
    let refused = |name: &str, bytes: Vec<u8>, code: &str| {
        let file = keyed.work.write(name, bytes);
        keyed.innerkeep.attempt(&args!["initdata", "show", file]).assert_refused(DAMAGED, code);
    };
    let mut longer = good.clone();
    longer[8] = longer[8].wrapping_add(1);
    refused("longer", longer, "INITDATA_CONTAINER");
    let mut huge = good.clone();
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    refused("huge", huge, "INITDATA_TOO_LARGE");
    refused("cut", good[..good.len() / 4].to_vec(), "INITDATA_CONTAINER");
    refused("base64", b"bm8gZ3ppcA==".to_vec(), "INITDATA_CONTAINER");
    refused("text", b"neither = this\n".to_vec(), "INITDATA_DOCUMENT");
}
