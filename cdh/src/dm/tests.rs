use super::*;

fn device() -> BlockDevice {
    BlockDevice { name: "vda".to_owned(), major: 254, minor: 16, node: "/dev/vda".into() }
}

fn parameters() -> VerityParameters {
    VerityParameters { root_hash: [0xab; 32], salt: vec![1, 2], data_blocks: 8, hash_start_block: 9 }
}

#[test]
fn verity_tables_are_those_of_the_kernel() {
    let target = parameters().target(&device()).unwrap();
    let expected = format!("1 254:16 254:16 4096 4096 8 9 sha256 {} 0102", "ab".repeat(32));
    assert_eq!((target.parameters.as_str(), target.sectors, target.read_only), (expected.as_str(), 64, true));
    let unsalted = VerityParameters { salt: Vec::new(), ..parameters() }.target(&device()).unwrap();
    assert!(unsalted.parameters.ends_with(" -"));
}

#[test]
fn evil_host_verity_tree_inside_the_data() {
    for wrong in [
        VerityParameters { hash_start_block: 7, ..parameters() },
        VerityParameters { data_blocks: 0, ..parameters() },
        VerityParameters { data_blocks: u64::MAX, hash_start_block: u64::MAX, ..parameters() },
        VerityParameters { salt: vec![0; 257], ..parameters() },
    ] {
        let error = wrong.target(&device()).err().unwrap();
        assert_eq!(error.code(), "DM_PARAMETER");
    }
}

#[test]
fn keys_are_never_the_same() {
    let key = || {
        let target = crypt::target(&device(), 1 << 20).unwrap();
        assert_eq!((target.sectors, target.read_only), (2048, false));
        let words = target.parameters.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            (words[0].as_str(), &words[2..]),
            ("aes-xts-plain64", &["0", "254:16", "0"].map(str::to_owned)[..])
        );
        words[1].clone()
    };
    let (one, other) = (key(), key());
    assert_eq!(one.len(), 2 * crypt::KEY_BYTES);
    assert_ne!(one, other);
    assert!(one != "0".repeat(128));
    assert_eq!(crypt::target(&device(), 511).err().unwrap().code(), "DM_PARAMETER");
}

#[test]
fn messages_have_the_form_of_the_kernel() {
    let target = parameters().target(&device()).unwrap();
    let mut message = Message::load("innerkeep-x", Flags::READ_ONLY | Flags::SECURE_DATA, &target);
    assert_eq!(message.command(), 9);
    let bytes = message.bytes();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(16), word(20), word(28)), (4, 312, 1, 1 << 15 | 1));
    assert_eq!(&bytes[48..60], b"innerkeep-x\0");
    assert_eq!(u64::from_ne_bytes(bytes[320..328].try_into().unwrap()), 64);
    assert_eq!(&bytes[336..343], b"verity\0");
    assert!(
        bytes[352..].starts_with(b"1 254:16 ") && bytes.len().is_multiple_of(8) && bytes.last() == Some(&0)
    );
    bytes[40..44].copy_from_slice(&(253_u32 << 8 | 0x7 | 0x1 << 20).to_ne_bytes());
    assert_eq!(message.device(), (253, 0x107));
    let long = Message::new(Command::Create, &"x".repeat(300), Flags::NONE).bytes().to_vec();
    assert_eq!((long.len(), long[48 + 127]), (312, 0));
}

#[test]
fn a_kernel_without_it_is_told() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(Mapper::open(directory.path()).unwrap_err().code(), "DM_ABSENT");
}

#[test]
fn no_two_names_are_the_same() {
    let (one, other) = (name("crypt").unwrap(), name("crypt").unwrap());
    assert!(one.starts_with("innerkeep-crypt-") && one != other);
}

#[test]
fn authenticated_tables_are_those_of_cryptsetup() {
    let parameters = |mode| IntegrityParameters { start_sector: 2048, sectors: 64, mode };
    for (mode, read_only, expected) in [
        (IntegrityMode::Create, false, "254:16 2048 32 J 2 fix_padding block_size:4096"),
        (IntegrityMode::Journal, false, "254:16 2048 32 J 1 block_size:4096"),
        (IntegrityMode::ReadOnly, true, "254:16 2048 32 R 1 block_size:4096"),
    ] {
        let target = parameters(mode).target(&device()).unwrap();
        assert_eq!((target.parameters.as_str(), target.read_only, target.sectors), (expected, read_only, 64));
    }
    for sectors in [0, 1, 63] {
        let wrong = IntegrityParameters { sectors, ..parameters(IntegrityMode::Journal) };
        assert_eq!(wrong.target(&device()).err().unwrap().code(), "DM_PARAMETER");
    }
    let target = crypt::authenticated(&device(), 64, &[0xab; 96], true).unwrap();
    let expected = format!(
        "capi:authenc(hmac(sha256),xts(aes))-plain64 {} 0 254:16 0 2 integrity:32:aead sector_size:4096",
        "ab".repeat(96)
    );
    assert_eq!((target.parameters.as_str(), target.read_only), (expected.as_str(), true));
    assert_eq!(crypt::authenticated(&device(), 64, &[0; 64], false).err().unwrap().code(), "DM_PARAMETER");
}

#[test]
fn superblocks_of_another_kind_are_refused() {
    let mut superblock = [0; SUPERBLOCK_BYTES];
    superblock[..8].copy_from_slice(b"integrt\0");
    superblock[10] = 32;
    superblock[16..24].copy_from_slice(&1005_u64.to_le_bytes());
    superblock[28] = 3;
    assert_eq!(provided_sectors(&superblock).unwrap(), 1000);
    for (at, byte) in [(0, b'x'), (10, 4), (28, 0)] {
        let mut other = superblock;
        other[at] = byte;
        assert!(provided_sectors(&other).is_err());
    }
}
