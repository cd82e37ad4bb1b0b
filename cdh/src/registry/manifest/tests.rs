use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(extra: &str) -> String {
    format!(r#"{{"mediaType":"application/octet-stream","digest":"{DIGEST}","size":7{extra}}}"#)
}

fn manifest(layers: &str, extra: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{layers}]{extra}}}"#,
        descriptor("")
    )
}

fn code(text: &str, media_type: &str) -> &'static str {
    Document::parse(text.as_bytes(), media_type).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn manifests_and_indexes_are_read() {
    let layer = descriptor(r#","annotations":{"a":"b"},"urls":["http://evil.example/"]"#);
    let text = manifest(&layer, r#","artifactType":"x/y","annotations":{"c":"d"},"other":{"x":[1]}"#);
    let Document::Manifest(read) =
        Document::parse(text.as_bytes(), &format!("{OCI_MANIFEST}; charset=utf-8")).unwrap()
    else {
        panic!("an index")
    };
    assert_eq!((read.layers.len(), read.layers[0].size), (1, 7));
    assert_eq!(read.layers[0].annotations["a"], "b");
    assert_eq!((read.artifact_type.as_deref(), read.annotations["c"].as_str()), (Some("x/y"), "d"));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
        descriptor(""),
        descriptor(r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#),
        descriptor(r#","platform":{"os":"unknown","architecture":"unknown"}"#),
    );
    let Document::Index(images) = Document::parse(index.as_bytes(), OCI_INDEX).unwrap() else {
        panic!("a manifest")
    };
    let chosen = choose(&images, &Platform::parse("linux/arm64").unwrap()).unwrap();
    assert_eq!(chosen, &images[1]);
    let error = choose(&images, &Platform::parse("linux/amd64").unwrap()).unwrap_err();
    assert_eq!(error.code(), "REGISTRY_PLATFORM");
    assert!(error.to_string().contains("linux/arm64/v8"), "{error}");
}

#[test]
fn evil_manifest_of_two_kinds() {
    let both = manifest("", r#","manifests":[]"#);
    let plain = manifest("", "");
    for (text, media_type) in [
        (both.as_str(), OCI_MANIFEST),
        (both.as_str(), OCI_INDEX),
        (plain.as_str(), OCI_INDEX),
        (plain.as_str(), DOCKER_MANIFEST),
        (plain.as_str(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (plain.as_str(), "application/json"),
        (plain.as_str(), ""),
        (r#"{"schemaVersion":1}"#, OCI_MANIFEST),
        (r#"{"schemaVersion":2}"#, OCI_MANIFEST),
        (r#"{"schemaVersion":2,"schemaVersion":2}"#, OCI_MANIFEST),
        ("[]", OCI_MANIFEST),
        ("", OCI_MANIFEST),
    ] {
        assert_eq!(code(text, media_type), "REGISTRY_MANIFEST", "{text} {media_type}");
    }
    assert_eq!(code(&plain, OCI_MANIFEST), "accepted");
}

#[test]
fn evil_manifest_of_a_million_layers() {
    let layer = descriptor("");
    let exactly = vec![layer.clone(); LAYERS_MAX].join(",");
    assert_eq!(code(&manifest(&exactly, ""), OCI_MANIFEST), "accepted");
    assert_eq!(code(&manifest(&format!("{exactly},{layer}"), ""), OCI_MANIFEST), "REGISTRY_MANIFEST");
    let million = vec![layer; 1_000_000].join(",");
    assert_eq!(code(&manifest(&million, ""), OCI_MANIFEST), "REGISTRY_TOO_LARGE");
    let many: Vec<String> = (0..=ANNOTATIONS_MAX).map(|i| format!(r#""{i}":"""#)).collect();
    let annotated = manifest("", &format!(r#","annotations":{{{}}}"#, many.join(",")));
    assert_eq!(code(&annotated, OCI_MANIFEST), "REGISTRY_MANIFEST");
    assert_eq!(code(&manifest("", r#","annotations":{"a":"1","a":"2"}"#), OCI_MANIFEST), "REGISTRY_MANIFEST");
    let deep = manifest("", &format!(r#","x":{}"#, "[".repeat(100_000)));
    assert_eq!(code(&deep, OCI_MANIFEST), "REGISTRY_MANIFEST");
}

#[test]
fn evil_descriptors_are_refused() {
    for (refused, expected) in [
        (descriptor("").replace("sha256:e3", "sha256:../"), "REGISTRY_MANIFEST"),
        (descriptor("").replace("sha256", "md5"), "REGISTRY_MANIFEST"),
        (descriptor("").replace(":7", ":-1"), "REGISTRY_MANIFEST"),
        (descriptor("").replace(":7", ":1e300"), "REGISTRY_MANIFEST"),
        (descriptor("").replace("octet-stream", "\\n"), "REGISTRY_MANIFEST"),
        (descriptor("").replace("octet-stream", &"x".repeat(300)), "REGISTRY_MANIFEST"),
    ] {
        assert_eq!(code(&manifest(&refused, ""), OCI_MANIFEST), expected, "{refused:.200}");
    }
}

#[test]
fn evil_configuration_names_fewer_layers() {
    let config = |kind: &str| {
        format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"{kind}","diff_ids":["{DIGEST}"]}},"config":{{}}}}"#
        )
    };
    let read = ImageConfig::parse(config("layers").as_bytes(), 1).unwrap();
    assert_eq!((read.platform.to_string().as_str(), read.diff_ids.len()), ("linux/amd64", 1));
    for (text, layers) in
        [(config("layers"), 0), (config("layers"), 2), (config("other"), 1), ("{}".to_owned(), 0)]
    {
        assert_eq!(ImageConfig::parse(text.as_bytes(), layers).unwrap_err().code(), "REGISTRY_MANIFEST");
    }
}

proptest! {
    #[test]
    fn evil_documents_never_panic(text in "[\\[\\]{}:,\"a-z0-9 ]{0,80}", kind in 0..2_usize) {
        let _ = Document::parse(text.as_bytes(), [OCI_MANIFEST, OCI_INDEX][kind]);
        let _ = ImageConfig::parse(text.as_bytes(), 0);
    }
}
