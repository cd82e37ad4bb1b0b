use super::settings::{InsecureMode, RestRoute};
use super::*;
use crate::document::container_identity::{ProcessRule, Root};
use crate::document::sealed::Origin;

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn document(files: &[(&str, &str)]) -> Result<Document, InitdataError> {
    let named = files.iter().map(|(name, text)| Ok((FileName::parse(name)?, (*text).to_owned())));
    Document::of(Algorithm::Sha256, named.collect::<Result<_, InitdataError>>()?)
}

fn code(files: &[(&str, &str)]) -> &'static str {
    document(files).map_or_else(|error| error.code(), |_| "OK")
}

fn sealed(artifacts: &str) -> String {
    format!("environment = \"production\"\n{artifacts}")
}

fn artifact(name: &str, path: &str, index: u32) -> String {
    format!(
        "[[artifact]]\nname = \"{name}\"\nreference = \"registry.example/acme/ranker:v1\"\n\
         sealer = {{ key = \"{DIGEST}\", family = \"acme/ranker\", min_counter = 3 }}\npath = \"{path}\"\n\
         container = {{ image = \"{DIGEST}\", policy_container = {index} }}\n"
    )
}

#[test]
fn a_whole_document_reads_as_it_says() {
    let digest = Sha256Digest::parse(DIGEST).unwrap();
    let settings = format!(
        "insecure = [\"tpm-only\"]\nset_policy = [\"{DIGEST}\"]\n[[rest]]\nroutes = [\"cdh-resource\"]\n\
         resources = [\"kbs:///default/key/1\"]\n\
         container = {{ verity = {{ root_hash = \"{DIGEST}\", salt = \"00ff\", data_blocks = 9 }}, process = \"{DIGEST}\" }}\n"
    );
    let audit = format!("suite = \"p-384\"\nkey = \"{}\"\n", "A".repeat(128) + "AA==");
    let document = document(&[
        ("policy.rego", "package agent_policy"),
        ("aa.toml", "aa"),
        ("cdh.toml", "cdh"),
        ("sealed.toml", &sealed(&artifact("ranker", "/models", 1))),
        ("audit.toml", &audit),
        ("innerkeep.toml", &settings),
        ("other", "text"),
    ]);
    let document = document.unwrap();
    assert_eq!(document.policy(), Some("package agent_policy"));
    assert_eq!((document.aa_config(), document.cdh_config()), (Some("aa"), Some("cdh")));
    assert_eq!(document.other_files().collect::<Vec<_>>(), [("other", "text")]);
    assert_eq!(document.files().count(), 7);
    assert_eq!(document.audit().unwrap().public_key, [0; 97]);

    let sealed = document.sealed().unwrap();
    assert_eq!((sealed.environment.as_str(), &sealed.chip_root), ("production", &None));
    let [artifact] = sealed.artifacts.as_slice() else { panic!("one artifact") };
    assert_eq!((artifact.name.as_str(), artifact.path.as_str()), ("ranker", "/models"));
    let Origin::Sealer { key, family, min_counter } = &artifact.origin else { panic!("a sealer") };
    assert_eq!((*key, family.as_str(), *min_counter), (digest, "acme/ranker", 3));
    assert_eq!(artifact.container.root, Root::Image(digest));
    assert_eq!(artifact.container.process, ProcessRule::PolicyContainer(1));

    let settings = document.settings();
    assert_eq!(settings.insecure.iter().copied().collect::<Vec<_>>(), [InsecureMode::TpmOnly]);
    assert_eq!(settings.set_policy.iter().copied().collect::<Vec<_>>(), [digest]);
    let [rule] = settings.rest.as_slice() else { panic!("one rule") };
    assert!(rule.routes.contains(&RestRoute::CdhResource) && rule.resources.contains("kbs:///default/key/1"));
    assert_eq!(rule.container.process, ProcessRule::Digest(digest));
    let verity = Root::Verity { root_hash: digest, salt: vec![0, 0xff], data_blocks: 9 };
    assert_eq!(rule.container.root, verity);
}

#[test]
fn names_of_insecure_modes_are_those_of_documents() {
    for mode in InsecureMode::ALL {
        let text = format!("insecure = [\"{mode}\"]");
        let document = document(&[("innerkeep.toml", &text)]).unwrap();
        assert!(document.settings().insecure.contains(&mode), "{mode}");
    }
    for name in ["no-tee", "sample-evidence", "TpmOnly", ""] {
        assert_eq!(code(&[("innerkeep.toml", &format!("insecure = [\"{name}\"]"))]), "INITDATA_FILE");
    }
}

#[test]
fn names_of_routes_are_those_of_documents() {
    use RestRoute::{AaAael, AaAdditionalEvidence, AaEvidence, AaToken, CdhResource};
    for route in [AaAael, AaAdditionalEvidence, AaEvidence, AaToken, CdhResource] {
        let resources = if route == CdhResource { "[\"kbs:///a/b/c\"]" } else { "[]" };
        let text = format!(
            "[[rest]]\ncontainer = {{ image = \"{DIGEST}\", policy_container = 0 }}\nroutes = [\"{}\"]\nresources = {resources}\n",
            route.name()
        );
        let document = document(&[("innerkeep.toml", &text)]).unwrap();
        assert!(document.settings().rest[0].routes.contains(&route), "{route:?}");
    }
}

#[test]
fn nothing_is_on_without_a_file() {
    let document = document(&[]).unwrap();
    assert_eq!(*document.settings(), Settings::default());
    assert_eq!((document.sealed(), document.audit(), document.policy()), (None, None, None));
}

#[test]
fn evil_operator_document_of_another_version() {
    let text = "version = \"0.2.0\"\nalgorithm = \"sha256\"\n[data]\n";
    assert_eq!(Document::parse(text).unwrap_err().code(), "INITDATA_VERSION");
    assert!(Document::parse(&text.replace("0.2", "0.1")).is_ok());
}

#[test]
fn names_of_files_are_one_component() {
    for name in ["", ".", "..", "a/b", "/a", "a\nb", "a\u{9b}", &"n".repeat(256)] {
        assert_eq!(FileName::parse(name).unwrap_err().code(), "INITDATA_FILE", "{name:?}");
    }
    for name in ["policy.rego", "...", "a b", "ä", &"n".repeat(255)] {
        assert_eq!(FileName::parse(name).unwrap().as_str(), name);
    }
}

#[test]
fn evil_operator_oversize_file() {
    let largest = "#".repeat(MAXIMUM_CONFIG_BYTES);
    let larger = "#".repeat(MAXIMUM_CONFIG_BYTES + 1);
    for name in ["aa.toml", "cdh.toml", "innerkeep.toml"] {
        assert_eq!(
            (code(&[(name, &largest)]), code(&[(name, &larger)])),
            ("OK", "INITDATA_TOO_LARGE"),
            "{name}"
        );
    }
    assert_eq!(code(&[("policy.rego", &larger)]), "OK", "bounded by the document");
}

#[test]
fn evil_operator_artifacts_in_one_place() {
    let two = |first: (&str, &str, u32), second: (&str, &str, u32)| {
        let both = artifact(first.0, first.1, first.2) + &artifact(second.0, second.1, second.2);
        code(&[("sealed.toml", &sealed(&both))])
    };
    assert_eq!(two(("a", "/models/a", 1), ("b", "/models/b", 1)), "OK");
    assert_eq!(two(("a", "/models", 1), ("b", "/models", 2)), "OK", "another container");
    assert_eq!(two(("a", "/models", 1), ("b", "/models", 1)), "INITDATA_FILE");
    assert_eq!(two(("a", "/models", 1), ("b", "/models/b", 1)), "INITDATA_FILE");
    assert_eq!(two(("a", "/models/a", 1), ("b", "/models", 1)), "INITDATA_FILE");
    assert_eq!(two(("a", "/models/a", 1), ("a", "/models/b", 1)), "INITDATA_FILE", "one name");
}

#[test]
fn containers_with_secrets_need_no_artifact() {
    let secret = |index: u32| {
        format!("[[secret]]\ncontainer = {{ image = \"{DIGEST}\", policy_container = {index} }}\n")
    };
    let parsed = document(&[("sealed.toml", &sealed(&secret(7)))]).unwrap();
    let found = parsed.sealed().unwrap();
    assert!(found.artifacts.is_empty());
    let [container] = found.secrets.as_slice() else { panic!("one container") };
    assert_eq!(container.root, Root::Image(Sha256Digest::parse(DIGEST).unwrap()));
    assert_eq!(container.process, ProcessRule::PolicyContainer(7));
    let many = |count| (0..count).map(secret).collect::<String>();
    assert_eq!(code(&[("sealed.toml", &sealed(&many(64)))]), "OK");
    assert_eq!(code(&[("sealed.toml", &sealed(&many(65)))]), "INITDATA_FILE");
    assert_eq!(code(&[("sealed.toml", &sealed(""))]), "INITDATA_FILE", "neither artifact nor secret");
    assert_eq!(code(&[("sealed.toml", &sealed("[[secret]]\n"))]), "INITDATA_FILE");
}

#[test]
fn a_container_that_may_read_resources_has_them_named() {
    let rule = |members: &str| {
        let text =
            format!("[[rest]]\ncontainer = {{ image = \"{DIGEST}\", policy_container = 0 }}\n{members}\n");
        code(&[("innerkeep.toml", &text)])
    };
    assert_eq!(rule("routes = [\"aa-token\"]"), "OK");
    assert_eq!(rule("routes = [\"cdh-resource\"]\nresources = [\"kbs:///a/b/c\"]"), "OK");
    assert_eq!(rule("routes = [\"cdh-resource\"]"), "INITDATA_FILE");
    assert_eq!(rule("routes = [\"aa-token\"]\nresources = [\"kbs:///a/b/c\"]"), "INITDATA_FILE");
    assert_eq!(rule("routes = []"), "INITDATA_FILE");
}

#[test]
fn errors_name_file_and_line() {
    let text = sealed("\n[[artifact]]\nname = 7\n");
    let error = document(&[("sealed.toml", &text)]).unwrap_err().to_string();
    assert!(error.contains("\"sealed.toml\"") && error.contains("line 4"), "{error}");
    let error = Document::parse("version = \"0.1.0\"\nversion = \"0.1.0\"\n").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

use super::values::Sha256Digest;
