use super::*;

const ALL: &str = r#"
    socket = "unix:///run/confidential-containers/cdh.sock"
    skip_sealed_secret_verification = true
    [kbc]
    name = "cc_kbc"
    url = "http://127.0.0.1:8080"
    kbs_cert = ""
    [aa]
    aa_socket = "unix:///run/confidential-containers/attestation-agent/attestation-agent.sock"
    [[credentials]]
    resource_uri = "kbs:///default/aliyun/ecs_ram_role"
    path = "/run/confidential-containers/cdh/kbs/kms-credential/aliyun/ecsRamRole.json"
    [[credentials]]
    resource_uri = "kbs:///default/test/file"
    path = "/run/confidential-containers/cdh/kbs/test.file"
    [log]
    level = "debug"
    [image]
    max_concurrent_layer_downloads_per_image = 5
    work_dir = "/run/image-rs"
    image_security_policy_uri = "kbs:///default/security-policy/test"
    image_security_policy = "{}"
    sigstore_config_uri = "kbs:///default/sigstore-config/test"
    sigstore_config = ""
    authenticated_registry_credentials_uri = "kbs:///default/credential/test"
    registry_configuration_uri = "kbs:///default/registry-configuration/test"
    registry_config = "unqualified-search-registries = []"
    extra_root_certificates = ["x"]
    [image.image_pull_proxy]
    https_proxy = "http://127.0.0.1:5432"
    http_proxy = "http://127.0.0.1:5432"
    no_proxy = "192.168.0.1,localhost"
    [innerkeep]
    images = { memory_bytes = 1073741824, keep_layers = true }
    secret_lifetime_seconds = 60
    credential_refresh_seconds = 30
    peers = [{ socket = "/run/confidential-containers/cdh.sock", uid = 7 }]
"#;

fn code(text: &str) -> &'static str {
    HubConfig::parse(text).map_or_else(|error| error.code(), |_| "OK")
}

#[test]
fn every_key_of_upstream_and_ours_is_read() {
    let config = HubConfig::parse(ALL).unwrap();
    assert_eq!(config.socket(), "/run/confidential-containers/cdh.sock");
    assert_eq!(config.kbc.as_ref().unwrap().name, KbcName::CcKbc);
    assert_eq!(config.credentials[0].path.relative().to_str(), Some("kms-credential/aliyun/ecsRamRole.json"));
    assert_eq!(config.image.work_dir.to_str(), Some("/run/image-rs"));
    assert_eq!(config.image.image_pull_proxy.unwrap().no_proxy.as_deref(), Some("192.168.0.1,localhost"));
    assert_eq!(config.innerkeep.credential_refresh_seconds, 30);
    assert_eq!(config.innerkeep.images, ImagesConfig { memory_bytes: Some(1 << 30), keep_layers: true });
    assert_eq!(code("[innerkeep.images]\nmemory_bytes = 1048575"), "CDH_CONFIG_INVALID");
    assert_eq!(code("[innerkeep.images]\nmemory_bytes = 1048576"), "OK");
}

#[test]
fn an_empty_configuration_is_upstreams_defaults_without_a_source_of_secrets() {
    let config = HubConfig::parse("").unwrap();
    assert_eq!(config, HubConfig::default());
    assert_eq!(config.socket(), "/run/confidential-containers/cdh.sock");
    assert_eq!(config.image.work_dir.to_str(), Some("/run/kata-containers/image/"));
    assert_eq!(config.image.max_concurrent_layer_downloads_per_image, 3);
    assert!(config.kbs_options(&Modes::none()).unwrap().is_none());
    assert!(config.require_modes(&Modes::none()).is_ok());
}

#[test]
fn unknown_keys_are_refused() {
    for text in [
        "colour = 1",
        "[kbc]\nurl = \"http://127.0.0.1\"",
        "[kbc]\nname = \"sample_kbc\"",
        "[kbc]\nname = \"cc_kbc\"\ncertificate = \"\"",
        "[image]\nimage_policy_file = \"x\"",
        "[image]\nwork_dir = \"relative\"",
        "[image]\nmax_concurrent_layer_downloads_per_image = 0",
        "[innerkeep]\nverify = false",
        "[innerkeep]\nsecret_lifetime_seconds = 3601",
        "[innerkeep]\ncredential_refresh_seconds = 9",
        "socket = \"127.0.0.1:50000\"",
        "[[credentials]]\nresource_uri = \"kbs:///a/b/c\"",
    ] {
        assert_eq!(code(text), "CDH_CONFIG_INVALID", "{text}");
    }
}

#[test]
fn evil_host_oversize_hub_configuration() {
    assert_eq!(code(&"#".repeat(MAXIMUM_CONFIG_BYTES + 1)), "CDH_CONFIG_INVALID");
    assert_eq!(code(&"#".repeat(MAXIMUM_CONFIG_BYTES)), "OK");
}

#[test]
fn evil_configuration_writes_credentials_elsewhere() {
    for path in [
        "/etc/passwd",
        "run/confidential-containers/cdh/kbs/x",
        "/run/confidential-containers/cdh/kbs",
        "/run/confidential-containers/cdh/kbs/",
        "/run/confidential-containers/cdh/kbsx",
        "/run/confidential-containers/cdh/kbs/../x",
        "/run/confidential-containers/cdh/kbs/a/./b",
        "/run/confidential-containers/cdh/kbs//x",
        "/run/confidential-containers/cdh/kbs/a\nb",
        "/run/confidential-containers/cdh/kbs/.partial-x",
        "/run/confidential-containers/cdh/kbs/..",
    ] {
        let error = CredentialPath::parse(path).unwrap_err();
        assert_eq!(error.code(), "CDH_CREDENTIAL_PATH", "{path}");
        let text = format!("[[credentials]]\nresource_uri = \"kbs:///a/b/c\"\npath = {path:?}");
        assert_ne!(code(&text), "OK", "{path}");
    }
    let one = |path: &str| {
        format!("[[credentials]]\nresource_uri = \"kbs:///a/b/c\"\npath = \"{CREDENTIALS}/{path}\"\n")
    };
    assert_eq!(code(&(one("a") + &one("b"))), "OK");
    assert_eq!(code(&(one("a") + &one("a"))), "CDH_CREDENTIAL_PATH");
    assert_eq!(code(&(one("a/b") + &one("a"))), "CDH_CREDENTIAL_PATH");
}

#[test]
fn evil_configuration_skips_verification() {
    let config = HubConfig::parse("skip_sealed_secret_verification = true").unwrap();
    assert_eq!(config.require_modes(&Modes::none()).unwrap_err().code(), "CDH_INSECURE_UNBOUND");
    let other = Modes::of(&[InsecureMode::OfflineKbc]);
    assert_eq!(config.require_modes(&other).unwrap_err().code(), "CDH_INSECURE_UNBOUND");
    assert!(config.require_modes(&Modes::of(&[InsecureMode::UnverifiedSecrets])).is_ok());
}

#[test]
fn evil_configuration_takes_secrets_from_files() {
    let config = HubConfig::parse("[kbc]\nname = \"offline_fs_kbc\"").unwrap();
    assert_eq!(config.require_modes(&Modes::none()).unwrap_err().code(), "CDH_INSECURE_UNBOUND");
    assert!(config.require_modes(&Modes::of(&[InsecureMode::OfflineKbc])).is_ok());
}

#[test]
fn plain_http_leaves_the_machine_only_where_that_is_bound() {
    let config = HubConfig::parse("[kbc]\nname = \"cc_kbc\"\nurl = \"http://kbs.example\"").unwrap();
    let plain = |modes: &Modes| config.kbs_options(modes).unwrap().unwrap().plain_http;
    assert_eq!(plain(&Modes::none()), PlainHttp::LoopbackOnly);
    assert_eq!(plain(&Modes::of(&[InsecureMode::PlainHttp])), PlainHttp::Insecure);
}

#[test]
fn the_broker_of_grants_is_the_one_that_is_configured() {
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let found = |url: &str, cert: &str, own: &str| {
        let text = format!("[kbc]\nname = \"cc_kbc\"\nurl = \"{url}\"\n{cert}\n[innerkeep]\n{own}\n");
        let recipient = HubConfig::parse(&text).unwrap().kbs_recipient();
        recipient.map(|found| found.map(|found| (found.name.to_string(), found.key.to_string())))
    };
    let (http, https) = ("http://127.0.0.1:9", "https://kbs.example");
    let refused = |result: Result<_, HubError>| assert_eq!(result.unwrap_err().code(), "CDH_CONFIG_INVALID");
    assert_eq!(found(https, "", &format!("kbs_spki_sha256 = [\"{one}\"]")).unwrap(), None);
    let (name, _) = found(http, "", "broker = \"prod\"").unwrap().unwrap();
    assert_eq!(name, "prod");
    refused(found(http, "", &format!("broker = \"prod\"\nbroker_key = \"{one}\"")));
    refused(found(http, "", &format!("broker_key = \"{one}\"")));
    refused(found(http, "", "broker = \"-\""));
    let pins = format!("kbs_spki_sha256 = [\"{one}\"]\nbroker = \"prod\"");
    let (_, key) = found(https, "", &pins).unwrap().unwrap();
    assert!(key.contains(&one), "{key}");
    // Of several keys, and below a CA, it is said which one.
    refused(found(https, "", &format!("kbs_spki_sha256 = [\"{one}\", \"{two}\"]\nbroker = \"prod\"")));
    refused(found(https, "kbs_cert = \"x\"", &pins));
    let (_, key) =
        found(https, "kbs_cert = \"x\"", &format!("{pins}\nbroker_key = \"{two}\"")).unwrap().unwrap();
    assert!(key.contains(&two), "{key}");
    refused(found(https, "", &format!("{pins}\nbroker_key = \"{two}\"")));
}
