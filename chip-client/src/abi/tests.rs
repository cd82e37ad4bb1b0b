//! Parse and encode are inverse; everything else is refused by name.

use super::identity_const::{P384_PUBLIC_LEN, X_WING_PUBLIC_LEN};
use super::*;

#[test]
fn registers_lie_where_the_specification_says() {
    assert_eq!(queue_register(1) + QREG_CQ_SIZE, 0x154);
    assert_eq!(sq_tail_doorbell(1), 0x1008);
    assert_eq!(cq_head_doorbell(1), 0x100C);
    let cap = Cap { max_entries: 256, queues: 2, paths: 7, ready_units: 20, window_pages: 0x1234_5678 };
    assert_eq!(cap.to_bits(), 0x1234_5678_1472_0100);
    assert_eq!(Cap::from_bits(cap.to_bits()), cap);
    assert_eq!(MAGIC.to_le_bytes(), *b"IKIP");
    assert_eq!(TdispState::from_status(0x0000_0205), Some(TdispState::Run));
    assert_eq!(TdispState::from_status(0xFFFF_FFFF), None);
}

#[test]
fn submission_round_trip_and_layout() {
    let entry = Submission {
        opcode: 0x21,
        flags: 0,
        cid: 0x0302,
        session: 0x0706_0504,
        in_iova: 0x0F0E_0D0C_0B0A_0908,
        in_len: 0x1312_1110,
        out_cap: 0x1716_1514,
        out_iova: 0x1F1E_1D1C_1B1A_1918,
        seq: 0x2726_2524_2322_2120,
    };
    let bytes = entry.encode();
    let (head, tail) = bytes.split_at(40);
    assert_eq!(head[2..], (2..40).collect::<Vec<u8>>()[..]);
    assert_eq!(tail, [0; 24]);
    assert_eq!(Submission::parse(&bytes), Ok(entry));
    for index in (40..64).chain([1]) {
        let mut bad = bytes;
        bad[index] = 1;
        assert!(matches!(Submission::parse(&bad), Err(WireError::Field { .. })), "byte {index}");
    }
}

#[test]
fn completion_round_trip_and_layout() {
    let bytes: [u8; COMPLETION_LEN] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let entry = Completion::parse(&bytes);
    assert_eq!((entry.status, entry.cid, entry.sq_head, entry.phase), (0x0100, 0x0302, 0x0504, 0x0706));
    assert_eq!((entry.out_len, entry.detail), (0x0B0A_0908, 0x0F0E_0D0C));
    assert_eq!(entry.tag, bytes[16..]);
    assert_eq!(entry.encode(), bytes);
}

#[test]
fn opcodes_and_statuses_are_unique() {
    for opcode in Opcode::ALL {
        assert_eq!(Opcode::from_u8(opcode.as_u8()), Some(opcode));
    }
    assert_eq!(Opcode::from_u8(0x7F), None);
    assert_eq!(Status::ALL.len(), 34);
    for status in Status::ALL {
        assert_eq!(Status::from_u16(status.as_u16()), Some(*status));
    }
    assert_eq!(Status::from_u16(0x0A), None);
}

#[test]
fn details_of_refused_evidence_are_the_specification_s() {
    let specification = include_str!("../../../docs/spec/chip-interface-v1.md");
    let table = specification.split("### 9.1").nth(1).unwrap().split("\n## ").next().unwrap();
    for detail in EvidenceDetail::ALL {
        assert_eq!(EvidenceDetail::from_u32(detail.as_u32()), Some(*detail));
        assert_eq!(EvidenceDetail::of_name(detail.name()), Some(*detail));
        let cell = format!("| 0x{:03x} | `{}` |", detail.as_u32(), detail.name());
        assert!(table.contains(&cell), "{cell}");
    }
    assert_eq!(table.matches("| 0x").count(), EvidenceDetail::ALL.len());
    assert_eq!((EvidenceDetail::from_u32(0), EvidenceDetail::from_u32(0x100)), (None, None));
}

#[test]
fn scatter_lists() {
    let sgl = Sgl { entries: vec![SglEntry { iova: 0x1000, length: 5 }, SglEntry { iova: 0, length: 1 }] };
    let mut bytes = Vec::new();
    sgl.put(&mut bytes);
    assert_eq!(parse_register(&bytes), Ok(sgl));
    for (iova, length) in [(0u64, 0u64), (u64::MAX, 1), (1, u64::MAX)] {
        let mut bad = 1u32.to_le_bytes().to_vec();
        bad.extend(iova.to_le_bytes());
        bad.extend(length.to_le_bytes());
        assert!(matches!(parse_register(&bad), Err(WireError::Field { .. })), "{iova} {length}");
    }
    let many = (MAX_SGL_ENTRIES + 1).to_le_bytes();
    assert!(matches!(parse_register(&many), Err(WireError::Field { .. })));
    let short = MAX_SGL_ENTRIES.to_le_bytes();
    assert!(matches!(parse_register(&short), Err(WireError::Length { .. })));
}

#[test]
fn identity_and_provisioning_round_trip() {
    let record = IdentityRecord {
        flags: IdentityFlags(3),
        id: [7; 32],
        key_epoch: 1,
        environment: "production".into(),
        signing_spki: vec![1, 2, 3],
        noise: [8; 32],
        p384: [9; P384_PUBLIC_LEN],
        x_wing: Box::new([10; X_WING_PUBLIC_LEN]),
        suites: 3,
        paths: 7,
    };
    every_truncation_refused(&record.encode(), |b| IdentityRecord::parse(b).ok(), &record);
    let body = Provision {
        environment: "lab".into(),
        key_epoch: 2,
        certificates: CertificateList { model: vec![1], chip: vec![2, 2] },
        root: vec![3; 9],
        min_tcb_evaluation: 4,
        min_pck_crl: 5,
        min_root_crl: 6,
        min_snp_crl: 7,
    };
    every_truncation_refused(&body.encode(), |b| Provision::parse(b).ok(), &body);
}

#[test]
fn handshake_round_trip() {
    let offer = Offer {
        suites: SessionSuites(3),
        path: DataPath::DmaSealed,
        insecure: InsecureFlags::NO_TEE.union(InsecureFlags::SWAP),
        nonce: [5; 32],
    };
    assert_eq!(offer.encode().len(), OFFER_LEN);
    every_truncation_refused(&offer.encode(), |b| Offer::parse(b).ok(), &offer);
    let accept = Accept {
        suite: SessionSuite::Hybrid,
        path: DataPath::DmaSealed,
        tdisp: TdispState::Run,
        insecure: InsecureFlags::EMULATED_CHIP,
        session: 1,
        key_epoch: 1,
        interface_report: [0; 48],
        nonce: [6; 32],
        encapsulation_key: vec![1; MLKEM768_PUBLIC],
        certificates: CertificateList { model: vec![1], chip: vec![2, 2] },
    };
    every_truncation_refused(&accept.encode(), |b| Accept::parse(b).ok(), &accept);
    let mut classical = accept;
    classical.suite = SessionSuite::Classical;
    assert!(matches!(Accept::parse(&classical.encode()), Err(WireError::Length { .. })));
    assert_eq!(InsecureFlags::from_bits(0x80).ok(), None);
    assert_eq!(parse_finish(&put_finish(b""), SessionSuite::Classical), Ok(&b""[..]));
    assert!(parse_finish(&put_finish(b""), SessionSuite::Hybrid).is_err());
}

#[test]
fn job_bodies_round_trip() {
    let unseal = Unseal {
        handle: 1,
        payload: 2,
        first: 3,
        count: 4,
        source: Sgl::single(0x1000, 10),
        destination: Sgl::single(0x2000, 10),
    };
    every_truncation_refused(&unseal.encode(), |b| Unseal::parse(b).ok(), &unseal);
    let load = LoadTags { handle: 1, payload: 0, table: Sgl::single(1, 16) };
    every_truncation_refused(&load.encode(), |b| LoadTags::parse(b).ok(), &load);
    let reply = SealedReply { first_counter: 9, tags: vec![[1; 16], [2; 16]] };
    every_truncation_refused(&reply.encode(), |b| SealedReply::parse(b, 2).ok(), &reply);
    let status = SessionStatus { bytes_left: 1, submissions_left: 2, key_epoch: 3, handles: 4 };
    every_truncation_refused(&status.encode(), |b| SessionStatus::parse(b).ok(), &status);
    let floors = Floors {
        floors: vec![Floor { sealer: [1; 32], family: "acme/x".into(), counter: 7 }],
        collateral: vec![CollateralFloor { kind: 2, issuer: [2; 32], number: 9 }],
    };
    every_truncation_refused(&floors.encode(), |b| Floors::parse(b).ok(), &floors);
    let unwrap = Unwrap {
        suite: 2,
        key_epoch: 1,
        core: b"core",
        enc: b"enc",
        wrapped: &[1; 48],
        sealer_spki: b"",
        sealer_signature: b"",
    };
    assert_eq!(Unwrap::parse(&unwrap.encode()), Ok(unwrap));
    assert!(Unwrap::parse(&Unwrap { sealer_spki: b"x", ..unwrap }.encode()).is_err());
    assert!(Unwrap::parse(&Unwrap { wrapped: &[1; 47], ..unwrap }.encode()).is_err());
}

fn every_truncation_refused<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
    value: &T,
) {
    assert_eq!(parse(bytes).as_ref(), Some(value));
    for length in 0..bytes.len() {
        assert_eq!(parse(&bytes[..length]), None, "{length} of {} bytes", bytes.len());
    }
    let longer = [bytes, &[0]].concat();
    assert_eq!(parse(&longer), None, "one byte too many");
}
