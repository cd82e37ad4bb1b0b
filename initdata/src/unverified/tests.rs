use proptest::prelude::*;

use super::*;
use crate::pack::Package;
use crate::register::RegisterKind;

fn text(algorithm: &str) -> String {
    format!("version = \"0.1.0\"\nalgorithm = \"{algorithm}\"\n\n[data]\n\"policy.rego\" = \"p\"\n")
}

fn register(algorithm: Algorithm, text: &str, length: usize) -> Register {
    Register::new("REGISTER", &algorithm.digest(text.as_bytes()).fitted(length)).unwrap()
}

fn code(result: Result<Initdata, InitdataError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "OK")
}

fn unverified(text: &str) -> Unverified {
    Unverified::new(text.as_bytes().to_vec()).unwrap()
}

#[test]
fn evil_host_algorithm_confusion() {
    for named in Algorithm::ALL {
        let text = text(named.name());
        for launched in Algorithm::ALL {
            for kind in RegisterKind::ALL {
                let result = unverified(&text).bind(&register(launched, &text, kind.bytes()));
                let expected = if named == launched { "OK" } else { "INITDATA_ALGORITHM" };
                assert_eq!(code(result), expected, "{named} in the document, {launched} in {}", kind.name());
            }
        }
    }
}

#[test]
fn evil_host_bytes_changed_after_the_digest() {
    let good = text("sha256");
    let register = register(Algorithm::Sha256, &good, 32);
    assert_eq!(code(unverified(&good).bind(&register)), "OK");
    for index in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[index] ^= 1;
        let error = Unverified::new(bytes).unwrap().bind(&register).unwrap_err();
        assert_eq!(error.code(), "INITDATA_MISMATCH", "byte {index}");
    }
    for other in [format!("{good}\n"), format!("\u{feff}{good}"), good.replace('\n', "\r\n")] {
        assert_eq!(code(unverified(&other).bind(&register)), "INITDATA_MISMATCH");
    }
}

#[test]
fn evil_host_document_is_not_looked_into_before_it_is_bound() {
    let register = Register::new("REGISTER", &[7; 32]).unwrap();
    // Whatever is wrong with a document, nobody finds out while the register does not hold its digest.
    for bytes in [&b"\xff"[..], b"no = document = at all", text("md5").as_bytes(), b""] {
        let error = Unverified::new(bytes.to_vec()).unwrap().bind(&register).unwrap_err();
        assert_eq!(error.code(), "INITDATA_MISMATCH");
        assert!(!error.to_string().contains("document"), "{error}");
    }
}

#[test]
fn evil_host_oversize_text() {
    let error = Unverified::new(vec![b'#'; MAXIMUM_TEXT_BYTES + 1]).unwrap_err();
    assert_eq!(error.code(), "INITDATA_TOO_LARGE");
}

#[test]
fn what_vouches_is_said() {
    let good = text("sha384");
    let bound = unverified(&good).bind(&register(Algorithm::Sha384, &good, 48)).unwrap();
    assert_eq!(*bound.binding(), Binding::Register("REGISTER".to_owned()));
    let unbound = unverified(&good).insecure_unbound().unwrap();
    assert_eq!(*unbound.binding(), Binding::InsecureUnbound);
    assert_eq!(unbound.digest(), bound.digest());
    assert_eq!(bound.text(), good);
    assert!(!format!("{bound:?} {:?}", unverified(&good)).contains("\"p\""), "no contents in logs");
}

#[test]
fn guests_find_the_files_of_upstream() {
    let mut package = Package::new(Algorithm::Sha256);
    package.insert("aa.toml", "a = 1\n").unwrap();
    package.insert("policy.rego", "p").unwrap();
    let packed = package.pack().unwrap();
    let files: Vec<_> = packed.initdata().guest_files().collect();
    assert_eq!(files, [("initdata.toml", packed.text()), ("aa.toml", "a = 1\n")]);
}

proptest! {
    #[test]
    fn what_is_packed_is_what_is_read(
        files in proptest::collection::btree_map("[a-z \"'\\\\]{1,9}\\.x", "(?s).{0,80}", 0..5),
        algorithm in proptest::sample::select(Algorithm::ALL.to_vec()),
        kind in proptest::sample::select(RegisterKind::ALL.to_vec()),
    ) {
        let mut package = Package::new(algorithm);
        for (name, text) in &files {
            package.insert(name, text).unwrap();
        }
        let packed = package.pack().unwrap();
        prop_assert_eq!(&packed, &package.pack().unwrap());
        let register = Register::new("R", &packed.digest().fitted(kind.bytes())).unwrap();
        let by_annotation = Unverified::from_annotation(&packed.annotation()).unwrap().bind(&register).unwrap();
        let by_device = Unverified::from_device(&packed.image().as_slice()).unwrap().bind(&register).unwrap();
        prop_assert_eq!(&by_annotation, &by_device);
        prop_assert_eq!(by_device.text(), packed.text());
        let read: Vec<_> = by_device.document().files().collect();
        let given: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        prop_assert_eq!(read, given);
        prop_assert_eq!(packed.image().len() % 512, 0);
    }

    #[test]
    fn a_stream_with_a_changed_bit_gives_the_same_text_or_none(bit in 0_usize..8, at in any::<proptest::sample::Index>()) {
        let packed = Packed::exact(text("sha256")).unwrap();
        let mut image = packed.image();
        let index = at.index(image.len());
        image[index] ^= 1 << bit;
        // Name, time and padding are nobody's; the text is under a checksum.
        if let Ok(unverified) = Unverified::from_device(&image.as_slice()) {
            prop_assert_eq!(unverified.as_bytes(), packed.text().as_bytes());
        }
    }
}

use crate::pack::Packed;
