use proptest::prelude::*;

use super::*;

const CONFIG: &str = r#"---
# Where signatures are.
default-docker:
    sigstore: file:///var/lib/signatures   # the older name
    sigstore-staging: file:///tmp/staging
docker:
    registry.example/team:
        lookaside: "file:///etc/team signatures"
        use-sigstore-attachments: true
    'registry.example:5000':
        lookaside: 'file:///etc/port'
    registry.example/none: 
"#;

fn parsed(text: &str) -> LookasideConfig {
    LookasideConfig::parse(text.as_bytes()).unwrap()
}

fn base_of(config: &LookasideConfig, name: &str) -> Option<String> {
    config.base(&ImageName::parse(name).unwrap()).map(|path| path.display().to_string())
}

#[test]
fn a_configuration_as_tools_write_it() {
    let config = parsed(CONFIG);
    assert_eq!(base_of(&config, "registry.example/team/app:v1").unwrap(), "/etc/team signatures");
    assert_eq!(base_of(&config, "registry.example:5000/app:v1").unwrap(), "/etc/port");
    assert_eq!(base_of(&config, "registry.example/other:v1").unwrap(), "/var/lib/signatures");
    // The most precise scope counts, even without a directory.
    assert_eq!(base_of(&config, "registry.example/none/app:v1"), None);
    assert_eq!(parsed(&CONFIG.replace('\n', "\r\n")), config);
    assert_eq!(parsed(""), LookasideConfig::default());
}

#[test]
fn evil_configurations_of_signatures() {
    let long = format!("#{}", "x".repeat(LOOKASIDE_CONFIG_MAX));
    for text in [
        "other:\n  sigstore: file:///a\n",
        "default-docker: file:///a\n",
        "default-docker:\n  sigstore: https://signatures.example\n",
        "default-docker:\n  sigstore: file://host/a\n",
        "default-docker:\n  sigstore: file:///a/../b\n",
        "default-docker:\n  sigstore: file:///a%2f\n",
        "default-docker:\n  sigstore: /a\n",
        "default-docker:\n  sigstore: file:///a\n  lookaside: file:///b\n",
        "default-docker:\n  sigstore: file:///a\n  sigstore: file:///b\n",
        "default-docker:\n  sigstore: file:///a\ndefault-docker:\n  sigstore: file:///b\n",
        "default-docker:\n  unknown: file:///a\n",
        "default-docker:\n  sigstore:\n    deeper: file:///a\n",
        "docker:\n  Registry.example:\n    sigstore: file:///a\n",
        "docker:\n  registry.example:\n    sigstore: file:///a\n   lookaside: file:///b\n",
        "docker:\n\tregistry.example:\n",
        "docker: {registry.example: {sigstore: file:///a}}\n",
        "docker: &anchor\n",
        "docker: *anchor\n",
        "docker: !!map\n",
        "docker: |\n",
        "docker:\n- registry.example\n",
        "? docker\n: x\n",
        "docker:\n  registry.example:\n    sigstore: \"file:///\\x61\"\n",
        "docker:\n  registry.example:\n    sigstore: 'file:///a''b'\n",
        "docker:\n  registry.example:\n    sigstore: file:///a b\n",
        "docker:\n...\n",
        "docker:\n---\ndocker:\n",
        "  docker:\n",
        &long,
    ] {
        let found = LookasideConfig::parse(text.as_bytes()).map_err(|error| error.code());
        assert_eq!(found.err(), Some("IMAGE_POLICY_MALFORMED"), "{text}");
    }
    assert!(LookasideConfig::parse(b"docker:\xff").is_err());
}

fn directory(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, LookasideConfig, ImageName, Digest) {
    let base = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(b"manifest");
    let below = base.path().join(format!("team/app@sha256={}", digest.hex()));
    std::fs::create_dir_all(&below).unwrap();
    for (name, bytes) in files {
        std::fs::write(below.join(name), bytes).unwrap();
    }
    let config = parsed(&format!("default-docker:\n  lookaside: \"file://{}\"\n", base.path().display()));
    (base, config, ImageName::parse("registry.example/team/app:v1").unwrap(), digest)
}

#[test]
fn signatures_are_read_until_one_is_missing() {
    let files =
        [("signature-1", b"a".to_vec()), ("signature-2", b"b".to_vec()), ("signature-4", b"d".to_vec())];
    let (_base, config, name, digest) = directory(&files);
    assert_eq!(config.read(&name, &digest).unwrap(), [b"a", b"b"]);
    assert!(config.read(&name, &Digest::sha256(b"other")).unwrap().is_empty());
    assert!(LookasideConfig::default().read(&name, &digest).unwrap().is_empty());
}

#[test]
fn evil_directory_of_signatures() {
    let (_base, config, name, digest) = directory(&[("signature-1", vec![0; MESSAGE_MAX + 1])]);
    assert!(config.read(&name, &digest).unwrap_err().to_string().starts_with("a signature of more than"));
    let names: Vec<_> = (1..=SIGNATURES_MAX + 1).map(|number| format!("signature-{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), b"x".to_vec())).collect();
    let (_base, config, name, digest) = directory(&files);
    assert!(config.read(&name, &digest).unwrap_err().to_string().starts_with("more than 64"));
    let (_base, config, name, digest) = directory(&files[..SIGNATURES_MAX]);
    assert_eq!(config.read(&name, &digest).unwrap().len(), SIGNATURES_MAX);
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "(docker|default-docker|sigstore|[ :#'\"\\n\\-a/.]){0,24}") {
        let _ = LookasideConfig::parse(text.as_bytes());
    }
}
