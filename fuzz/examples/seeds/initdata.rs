//! Seeds of the targets for initdata.

use initdata::{Algorithm, Package, Packed};

use super::{put, words};

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

pub fn write() {
    let packed = package();
    let image = packed.image();
    let stream = &image[16..];
    let length = usize::from(u16::from_le_bytes([image[8], image[9]]));
    put("initdata_container", "device", &[&[0], image.as_slice()].concat());
    put("initdata_container", "stream", &[&[1], &stream[..length]].concat());
    put("initdata_container", "two-members", &[&[1], &stream[..length], &stream[..length]].concat());
    let mut named = b"\x1f\x8b\x08\x08\0\0\0\0\x02\x03initdata.toml\0".to_vec();
    named.extend(&stream[10..length]);
    put("initdata_container", "with-name", &[&[1], named.as_slice()].concat());
    put("initdata_container", "annotation", &[b"\x02", packed.annotation().as_bytes()].concat());
    put("initdata_container", "altered", &[3, 19, 0, 8, 30, 0, 1]);

    put("initdata_document", "whole", &[b"\0", packed.text().as_bytes()].concat());
    for (mode, name, text) in [(1_u8, "sealed", sealed()), (2, "settings", settings()), (3, "audit", audit())]
    {
        put("initdata_document", name, &[&[mode], text.as_bytes()].concat());
    }
    put("initdata_document", "policy", b"\x04package agent_policy\n'''\r\n\\");
    words(
        "initdata_document",
        &[
            "[data]",
            "[[artifact]]",
            "[[rest]]",
            "algorithm = ",
            "audit.toml",
            "chip_root = ",
            "composefs = ",
            "container = {",
            "core = ",
            "data_blocks = 1",
            "environment = ",
            "innerkeep.toml",
            "insecure = [",
            "policy_container = 1",
            "process = ",
            "resources = [",
            "routes = [",
            "sealed.toml",
            "sealer = {",
            "set_policy = [",
            "verity = {",
            DIGEST,
            "'''",
            "version = ",
        ],
    );
    words("initdata_container", &["initdata", "\\x1f\\x8b\\x08\\x00"]);
}

fn package() -> Packed {
    let mut package = Package::new(Algorithm::Sha384);
    for (name, text) in [
        ("policy.rego", "package agent_policy\n".to_owned()),
        ("aa.toml", "[innerkeep]\n".to_owned()),
        ("sealed.toml", sealed()),
        ("innerkeep.toml", settings()),
    ] {
        package.insert(name, &text).expect("a name");
    }
    package.pack().expect("a document")
}

fn sealed() -> String {
    format!(
        "environment = \"test\"\n\n[[artifact]]\nname = \"a\"\nreference = \"r.example/a:v1\"\n\
         sealer = {{ key = \"{DIGEST}\", family = \"f\", min_counter = 3 }}\npath = \"/models/a\"\n\
         container = {{ image = \"{DIGEST}\", policy_container = 1 }}\n\n[[artifact]]\nname = \"b\"\nreference = \"r.example/b\"\n\
         core = \"{DIGEST}\"\npath = \"/models/b\"\n\
         container = {{ verity = {{ root_hash = \"{DIGEST}\", salt = \"00\", data_blocks = 1 }}, process = \"{DIGEST}\" }}\n"
    )
}

fn settings() -> String {
    format!(
        "insecure = [\"swap\", \"tpm-only\"]\nset_policy = [\"{DIGEST}\"]\n\n[[rest]]\nroutes = [\"aa-token\", \"cdh-resource\"]\n\
         resources = [\"kbs:///a/b/c\"]\ncontainer = {{ composefs = \"{DIGEST}\", policy_container = 0 }}\n"
    )
}

fn audit() -> String {
    format!("suite = \"p-384\"\nkey = \"{}AA==\"\n", "A".repeat(128))
}
