use std::fs;
use std::path::PathBuf;

use evidence::Octets;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::*;
use crate::attester::Options;
use crate::root::TeeRoot;
use crate::testing::FakeTdx;

const AA_TOML: &str = "[innerkeep]\nworkload_evidence = true\n";

/// A TDX guest and its files.
struct Guest {
    directory: tempfile::TempDir,
    tdx: FakeTdx,
}

impl Guest {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), tdx: FakeTdx::new() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn launched_with(&self, digest: &[u8]) {
        self.tdx.state.lock().unwrap().config_id = Octets::fitted(digest);
    }

    fn decide(&self, launch: &Launch<'_>) -> Result<Binding, AttestationError> {
        Binding::decide(&self.tdx.attester(self.directory.path()), launch)
    }
}

fn initdata(algorithm: &str, config: &str) -> String {
    format!("algorithm = \"{algorithm}\"\nversion = \"0.1.0\"\n\n[data]\n\"aa.toml\" = '''\n{config}'''\n")
}

fn code(result: Result<Binding, AttestationError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "OK")
}

#[test]
fn initdata_counts_when_the_register_holds_its_digest() {
    let guest = Guest::new();
    for algorithm in ["sha256", "sha384", "sha512"] {
        let text = initdata(algorithm, AA_TOML);
        guest.launched_with(&match algorithm {
            "sha256" => Sha256::digest(&text).to_vec(),
            "sha384" => Sha384::digest(&text).to_vec(),
            _ => Sha512::digest(&text).to_vec(),
        });
        let path = guest.file("initdata.toml", &text);
        let config = guest.file("aa.toml", AA_TOML);
        let launch = Launch { initdata_toml: Some(&path), config_file: Some(&config), ..Launch::default() };
        let binding = guest.decide(&launch).unwrap();
        assert!(binding.config.innerkeep.workload_evidence, "{algorithm}");
        assert_eq!(binding.initdata, Some(text));
    }
}

#[test]
fn evil_host_initdata_that_the_register_does_not_hold() {
    let guest = Guest::new();
    let text = initdata("sha384", AA_TOML);
    guest.launched_with(&Sha384::digest(initdata("sha384", "")));
    let path = guest.file("initdata.toml", &text);
    let launch = Launch { initdata_toml: Some(&path), ..Launch::default() };
    assert_eq!(code(guest.decide(&launch)), "ATTEST_INITDATA_MISMATCH");
    guest.launched_with(&[]);
    assert_eq!(code(guest.decide(&launch)), "ATTEST_INITDATA_MISMATCH", "a register of zeros");
    let cheat = Launch { insecure_unbound_config: true, ..launch };
    assert_eq!(
        code(guest.decide(&cheat)),
        "ATTEST_INITDATA_MISMATCH",
        "the flag is for machines without a TEE"
    );
    let digest = Sha384::digest(&text);
    let launch = Launch { initdata_digest: Some(&digest), ..launch };
    assert_eq!(code(guest.decide(&launch)), "ATTEST_INITDATA_MISMATCH", "a digest option is not trusted");
}

#[test]
fn evil_host_initdata_of_another_version_or_algorithm() {
    let guest = Guest::new();
    let good = initdata("sha384", "");
    let path = guest.file("initdata.toml", &good);
    let launch = Launch { initdata_toml: Some(&path), ..Launch::default() };
    for text in [
        initdata("sha256", ""),
        good.replace("0.1.0", "0.2.0"),
        good.replace("[data]", "[date]"),
        "not TOML".to_owned(),
        good.replace("'''\n'''", "1"),
    ] {
        fs::write(&path, &text).unwrap();
        guest.launched_with(&Sha384::digest(&text));
        assert_eq!(code(guest.decide(&launch)), "ATTEST_INITDATA_INVALID", "{text}");
    }
    fs::write(&path, &good).unwrap();
    guest.launched_with(&Sha384::digest(&good));
    assert_eq!(code(guest.decide(&launch)), "OK");
}

#[test]
fn evil_host_withholds_initdata() {
    let guest = Guest::new();
    assert_eq!(code(guest.decide(&Launch::default())), "OK", "launched without");
    guest.launched_with(&[7; 32]);
    assert_eq!(code(guest.decide(&Launch::default())), "ATTEST_INITDATA_WITHHELD");
    let launch = Launch { initdata_digest: Some(&[7; 32]), ..Launch::default() };
    assert_eq!(guest.decide(&launch).unwrap(), Binding::default(), "the digest alone configures nothing");
}

#[test]
fn evil_host_configuration_that_nothing_vouches_for() {
    let guest = Guest::new();
    let config = guest.file("aa.toml", AA_TOML);
    let alone = Launch { config_file: Some(&config), insecure_unbound_config: true, ..Launch::default() };
    assert_eq!(code(guest.decide(&alone)), "ATTEST_CONFIG_UNBOUND");
    let text = initdata("sha384", "");
    guest.launched_with(&Sha384::digest(&text));
    let path = guest.file("initdata.toml", &text);
    let beside = Launch { initdata_toml: Some(&path), ..alone };
    assert_eq!(code(guest.decide(&beside)), "ATTEST_CONFIG_UNBOUND", "another one than the bound one");
}

#[test]
fn evil_host_oversize_launch_files() {
    let guest = Guest::new();
    let text = "#".repeat(MAXIMUM_INITDATA_BYTES + 1);
    guest.launched_with(&Sha384::digest(&text));
    let path = guest.file("initdata.toml", &text);
    let launch = Launch { initdata_toml: Some(&path), ..Launch::default() };
    let error = guest.decide(&launch).unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
    guest.launched_with(&[]);
    let absent = guest.directory.path().join("absent");
    let launch = Launch { config_file: Some(&absent), ..Launch::default() };
    assert_eq!(code(guest.decide(&launch)), "ATTEST_CONFIG_IO");
}

#[test]
fn without_a_tee_an_unbound_configuration_needs_the_flag() {
    let guest = Guest::new();
    let root = TeeRoot::insecure(guest.directory.path());
    let attester = Attester::detect(&root, Options { insecure_sample: true }).unwrap();
    let config = guest.file("aa.toml", AA_TOML);
    let path = guest.file("initdata.toml", &initdata("sha256", AA_TOML));
    let launch = Launch { config_file: Some(&config), ..Launch::default() };
    assert_eq!(code(Binding::decide(&attester, &launch)), "ATTEST_CONFIG_UNBOUND");
    let with_initdata = Launch { initdata_toml: Some(&path), ..Launch::default() };
    assert_eq!(code(Binding::decide(&attester, &with_initdata)), "ATTEST_INITDATA_NO_REGISTER");
    for launch in [launch, with_initdata] {
        let launch = Launch { insecure_unbound_config: true, ..launch };
        let binding = Binding::decide(&attester, &launch).unwrap();
        assert!(binding.config.innerkeep.workload_evidence);
    }
}

#[test]
fn evil_host_initdata_is_parsed_only_after_the_register_vouched_for_it() {
    let guest = Guest::new();
    let attester = guest.tdx.attester(guest.directory.path());
    let result = |path: &PathBuf| bound_initdata(&attester, path).map_err(|error| error.code());
    let text = initdata("sha384", AA_TOML);
    guest.launched_with(&Sha384::digest(&text));
    let path = guest.file("initdata.toml", &text);
    assert_eq!(result(&path).as_deref(), Ok(text.as_str()));
    // Text that is no document at all is told to be another one: nobody looked into it.
    for other in ["no = document = at all", &initdata("sha256", AA_TOML)] {
        assert_eq!(result(&guest.file("other.toml", other)), Err("ATTEST_INITDATA_MISMATCH"));
    }
    // Its digest is in the register, but it names another algorithm.
    let lies = initdata("sha256", AA_TOML);
    guest.launched_with(&Sha384::digest(&lies));
    assert_eq!(result(&guest.file("lies.toml", &lies)), Err("ATTEST_INITDATA_INVALID"));
}
