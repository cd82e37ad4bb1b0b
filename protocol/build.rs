//! Messages, clients and server traits from `proto/`, without `protoc`.

use std::path::PathBuf;

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

/// Files of our own, and whether there is a service in them.
const PROTOS: [(&str, bool); 10] = [
    ("agent", true),
    ("api", true),
    ("artifact", true),
    ("attestation_agent", true),
    ("csi", false),
    ("health", true),
    ("innerkeep", true),
    ("keyprovider", true),
    ("oci", false),
    ("types", false),
];

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from);
    let out = out.ok_or_else(|| std::io::Error::other("OUT_DIR is not set"))?;
    Codegen::new()
        .out_dir(&out)
        .inputs(PROTOS.map(|(name, _)| format!("proto/{name}.proto")))
        .include("proto")
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Customize::default() })
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .run()?;
    let modules = PROTOS.map(|(name, service)| {
        let service = if service { format!("pub mod {name}_ttrpc;\n") } else { String::new() };
        format!("pub mod {name};\n{service}")
    });
    std::fs::write(out.join("generated.rs"), modules.concat())
}
