use super::*;

fn pack(files: &[(&str, &str)]) -> Packed {
    let mut package = Package::new(Algorithm::Sha384);
    for (name, text) in files {
        package.insert(name, text).unwrap();
    }
    package.pack().unwrap()
}

#[test]
fn texts_stay_readable_where_they_can() {
    let packed = pack(&[("policy.rego", "package agent_policy\n\tdefault x := \"\\n\"\n"), ("aa.toml", "")]);
    assert_eq!(
        packed.text(),
        "version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\n\"aa.toml\" = '''\n'''\n\"policy.rego\" = '''\npackage agent_policy\n\tdefault x := \"\\n\"\n'''\n"
    );
}

#[test]
fn every_text_reads_back() {
    for text in [
        "'",
        "''",
        "'''",
        "a'''b",
        "a\r\nb",
        "\u{0}\u{7f}\u{9b}",
        "\\u0041",
        "\n",
        "\nx",
        "\"",
        "ä",
        "\u{feff}",
    ] {
        let packed = pack(&[("a \"b\" \\", text)]);
        assert_eq!(packed.initdata().document().file("a \"b\" \\"), Some(text), "{text:?}");
    }
}

#[test]
fn equal_files_give_equal_bytes_in_any_order() {
    let one = pack(&[("a", "1"), ("b", "2")]);
    let other = pack(&[("b", "2"), ("a", "0"), ("a", "1")]);
    assert_eq!((one.annotation(), one.image()), (other.annotation(), other.image()));
    // No time, no name, nobody's system.
    assert_eq!(one.image()[16..26], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);
}

#[test]
fn an_exact_document_stays_as_it_is() {
    let text = "# mine\nalgorithm='sha512'\nversion = '0.1.0'\ndata = {}\n";
    let packed = Packed::exact(text.to_owned()).unwrap();
    assert_eq!((packed.text(), packed.digest().algorithm()), (text, Algorithm::Sha512));
    let mut package = Package::of(packed.initdata().document(), Algorithm::Sha256);
    package.insert("policy.rego", "p").unwrap();
    assert_eq!(package.pack().unwrap().initdata().document().policy(), Some("p"));
}

#[test]
fn what_a_guest_would_refuse_is_not_packed() {
    let mut package = Package::new(Algorithm::Sha256);
    package.insert("sealed.toml", "more = 1").unwrap();
    assert_eq!(package.pack().unwrap_err().code(), "INITDATA_FILE");
    assert_eq!(package.insert("a/b", "").unwrap_err().code(), "INITDATA_FILE");
    assert_eq!(Packed::exact("nothing".to_owned()).unwrap_err().code(), "INITDATA_DOCUMENT");
    let mut large = Package::new(Algorithm::Sha256);
    large.insert("a", &"x".repeat(9 * 1024 * 1024)).unwrap();
    assert_eq!(large.pack().unwrap_err().code(), "INITDATA_TOO_LARGE");
}
