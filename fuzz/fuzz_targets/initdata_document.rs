//! Documents of initdata and their files. What is taken binds to its own digest and to nothing else, and says the same when
//! it is packed anew.

#![no_main]

use fuzz::bounded;
use initdata::{Algorithm, Initdata, Package, Register, RegisterKind, Unverified};
use libfuzzer_sys::fuzz_target;

fn read(text: &str) -> Option<Initdata> {
    let bytes = text.as_bytes().to_vec();
    bounded(text.len(), || Unverified::new(bytes).and_then(Unverified::insecure_unbound)).ok()
}

fn bind(text: &str, register: &[u8]) -> Result<Initdata, &'static str> {
    let register = Register::new("REGISTER", register).expect("a register's length");
    let text = Unverified::new(text.as_bytes().to_vec()).expect("below the cap");
    text.bind(&register).map_err(|error| error.code())
}

/// What has to hold for a document that was taken.
fn taken(found: &Initdata) {
    let text = found.text();
    let document = found.document();
    for kind in RegisterKind::ALL {
        for algorithm in Algorithm::ALL {
            let register = algorithm.digest(text.as_bytes()).fitted(kind.bytes());
            match bind(text, &register) {
                Ok(bound) => {
                    assert_eq!(algorithm, document.algorithm());
                    assert_eq!(bound.document(), document);
                }
                Err(code) => {
                    assert_ne!(algorithm, document.algorithm());
                    assert_eq!(code, "INITDATA_ALGORITHM");
                }
            }
            let mut other = register;
            other[31] ^= 1;
            assert_eq!(bind(text, &other).err(), Some("INITDATA_MISMATCH"));
        }
    }
    for artifact in document.sealed().into_iter().flat_map(|sealed| &sealed.artifacts) {
        let path = artifact.path.as_str();
        assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
        assert!(!path.starts_with("/proc/") && !path.starts_with("/run/innerkeep/"), "{path}");
    }
    if let Ok(packed) = Package::of(document, document.algorithm()).pack() {
        assert_eq!(packed.initdata().document(), document);
        let carried = Unverified::from_annotation(&packed.annotation()).expect("what was packed");
        assert_eq!(carried.as_bytes(), packed.text().as_bytes());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = match mode % 5 {
        0 => {
            read(text).iter().for_each(taken);
            return;
        }
        1 => "sealed.toml",
        2 => "innerkeep.toml",
        3 => "audit.toml",
        _ => "policy.rego",
    };
    let mut package = Package::new(Algorithm::Sha384);
    package.insert(file, text).expect("a good name");
    if let Ok(packed) = bounded(4 * text.len(), || package.pack()) {
        assert_eq!(packed.initdata().document().file(file), Some(text));
        taken(packed.initdata());
    }
});
