//! Writes the seeds: small valid inputs of every target. `cargo run --example make-seeds` in `fuzz/`; keys are new each time.

#[path = "seeds/agent.rs"]
mod agent;
#[path = "seeds/attestation.rs"]
mod attestation;
#[path = "seeds/initdata.rs"]
mod initdata;

use std::fs;
use std::path::Path;

use chip_client::abi::{
    Abort, Accept, CertificateList, CollateralFloor, Completion, DataPath, Floor, Floors, IdentityFlags,
    IdentityRecord, InsecureFlags, LoadTags, Offer, Present, Provision, SealedReply, SessionStatus,
    SessionSuite, SessionSuites, Sgl, SglEntry, Submission, TdispState, Unseal, Unwrap, put_finish,
};
use chip_client::chain::{Authority, ChipId, certificate_to_pem};
use chip_client::vfio_user::wire::{
    DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, RegionAccess, RegionInfo, SetIrqs, VersionHeader,
};
use fuzz::fixed::{ARTIFACT, POLICY, RECIPIENTS, SECRET_KINDS, grant};
use sealed_artifact::digest::BlobDigest;
use sealed_artifact::oci::{ArtifactManifest, ImageIndex, Referrer, ReferrerKind};
use sealed_artifact::policy::{PolicyDocument, TEMPLATE};
use sealed_artifact::sealed_file::{Directory, HEADER};

const JSON_WORDS: &[&str] = &[
    "\"@type\":",
    "innerkeep core v1",
    "innerkeep parameters v1",
    "innerkeep policy v1",
    "innerkeep opaque policy v1",
    "innerkeep grant v1",
    "innerkeep signature v1",
    "innerkeep file v1",
    "\"any\"",
    "{\"exactly\":",
    "{\"one_of\":[",
    "\"environment\":",
    "\"family\":",
    "\"link_mode\":",
    "\"min_counter\":",
    "\"evidence\":",
    "\"bytes\":",
    "\"debug\":",
    "\"initdata\":",
    "\"snp\":",
    "\"tdx\":",
    "\"measurement\":",
    "\"mrtd\":",
    "\"rtmr0\":",
    "\"min_tcb\":",
    "\"max_vmpl\":",
    "\"counter\":",
    "\"id\":",
    "\"payloads\":[",
    "\"media_type\":",
    "\"name\":",
    "\"segment_size\":",
    "\"size\":",
    "\"sealer\":",
    "\"suite\":",
    "\"blake3\":",
    "\"commitment\":",
    "\"tags\":",
    "sha256:",
    "\"core\":",
    "\"grants\":[",
    "\"signature\":",
    "\"length\":",
    "\"offset\":",
    "\"recipient\":",
    "\"key_epoch\":",
    "\"wrapped\":",
    "\"kind\":\"kbs\"",
    "\"kind\":\"snp\"",
    "\"kind\":\"tpm\"",
    "\"broker\":",
    "\"guest_field_select\":",
    "\"salt\":",
    "\"pcrs\":[",
    "9007199254740991",
    "\"9007199254740992\"",
    "18446744073709551615",
    "null",
    "true",
    "false",
    "-0",
    "1e3",
    "\\\\u0000",
    "\\\\ud800",
];

fn main() {
    json_objects();
    carriers();
    scripts();
    abi();
    vfio();
    agent::write();
    attestation::write();
    initdata::write();
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&directory).expect("the directory of seeds");
    fs::write(directory.join(name), bytes).expect("a seed");
}

fn words(target: &str, words: &[&str]) {
    let lines: Vec<String> = words.iter().map(|word| format!("\"{}\"", word.replace('"', "\\\""))).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(format!("{target}.dict"));
    fs::write(path, lines.join("\n") + "\n").expect("a dictionary");
}

fn json_objects() {
    put("artifact_core", "two-payloads", ARTIFACT.core.bytes());
    for (name, own) in ["p384", "x-wing"].iter().zip(RECIPIENTS.iter()) {
        put("artifact_grant", name, &grant(own).encode());
    }
    for (name, grant) in ["kbs", "snp", "tpm"].iter().zip(SECRET_KINDS.grants()) {
        put("artifact_grant", name, &grant.encode());
    }
    put("artifact_signature", "signed", &ARTIFACT.signature.encode());
    put("policy_json", "static", POLICY);
    let full = PolicyDocument::from_toml(TEMPLATE).expect("the template");
    put("policy_json", "template", full.preimage());
    put("policy_json", "opaque", br#"{"@type":"innerkeep opaque policy v1","bytes":"AAEC"}"#);
    let choice = br#"{"@type":"innerkeep policy v1","environment":{"one_of":["a","b"]},"family":"any","link_mode":{"one_of":["dma-direct","key-release"]},"min_counter":"18446744073709551615"}"#;
    put("policy_json", "choices", choice);
    put("policy_fragment", "template", full.preimage());
    put("policy_fragment", "header", &[0, 8, 1, 8, 2, 8, 4]);
    put("policy_fragment", "both", &[0, 4, 3, 5, 8, 8]);
    put("policy_fragment", "damaged", &[0, 6, 0, 8, 3, 7, 1, 8]);
    put("policy_toml", "template", TEMPLATE.as_bytes());
    put(
        "policy_toml",
        "static",
        b"environment = { exactly = \"test\" }\nfamily = \"any\"\nlink_mode = \"any\"\nmin_counter = 3\n",
    );
    put("policy_toml", "opaque", b"type = \"opaque\"\nbytes = \"AAEC\"\n");
    for target in [
        "artifact_core",
        "artifact_grant",
        "artifact_signature",
        "policy_fragment",
        "policy_json",
        "sealed_directory",
        "sealed_file",
    ] {
        words(target, JSON_WORDS);
    }
    words(
        "policy_toml",
        &[
            "[evidence]",
            "[evidence.snp]",
            "[evidence.tdx]",
            "exactly = ",
            "one_of = [",
            "\"any\"",
            "min_counter = ",
            "type = \"opaque\"",
            "1.5",
            "1979-05-27",
            "'''",
            "\"\"\"",
        ],
    );
}

fn carriers() {
    let directory = Directory::plan(10, &[20], &[16], Some(5), &[7]);
    let encoded = directory.encode();
    put("sealed_directory", "small", &encoded);
    let skip = u8::try_from(directory.end() - HEADER).expect("a small file");
    let mut file = vec![1, 0, skip, 0];
    file.extend_from_slice(&[0; 144]);
    file.extend(std::iter::repeat_n(0xAA, usize::from(skip)));
    file.extend_from_slice(&encoded);
    put("sealed_file", "slot-a", &file);
    file[1] = 1;
    put("sealed_file", "both-slots", &file);

    let digests: Vec<BlobDigest> = ARTIFACT.ciphertexts.iter().map(|blob| BlobDigest::of(blob)).collect();
    let manifest = ArtifactManifest::build(&ARTIFACT.core, &digests).expect("a manifest");
    put("oci_manifest", "artifact", &manifest.bytes);
    let mut index = ImageIndex::new();
    index.set_artifact("v1", &manifest.descriptor);
    let referrer =
        Referrer::build(ReferrerKind::Grant, &manifest.descriptor, &grant(&RECIPIENTS[0]).encode());
    put("oci_manifest", "grant", &referrer.bytes);
    index.add_referrer(&referrer.descriptor);
    put("oci_index", "one-artifact", &index.encode());
    let oci = [
        "\"schemaVersion\":2",
        "\"mediaType\":",
        "\"manifests\":[",
        "\"digest\":\"sha256:",
        "\"size\":",
        "\"annotations\":{",
        "org.opencontainers.image.ref.name",
        "\"artifactType\":",
        "\"subject\":",
        "\"layers\":[",
        "\"config\":",
    ];
    words("oci_index", &oci);
    words("oci_manifest", &oci);
    let public = ARTIFACT.sealer.public_key();
    put("sealer_key_pem", "public", public.to_pem().as_bytes());
    put("sealer_key_pem", "spki", public.spki_der());
    words(
        "sealer_key_pem",
        &["-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----", "-----BEGIN PRIVATE KEY-----"],
    );
}

/// Inputs that are choices rather than formats.
fn scripts() {
    put("artifact_open", "first-payload", &[0, 3, 0, 0, 1, 2, 3]);
    put("artifact_open", "tags", &[0, 0, 5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
    put("artifact_open", "blob", &[1, 1, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    put("artifact_open", "short", &[0, 2, 0, 0, 1, 0, 0, 0, 1, 2]);
    put("chip_puf", "clean", &[0, 0, 0, 0]);
    put("chip_puf", "noisy", &[0, 0, 30, 6, 3, 0, 0]);
    put("chip_puf", "altered", &[0, 0, 2, 0, 3, 0, 1, 0xF0, 0, 1]);
    put("chip_relay", "honest-classical", &[6]);
    put("chip_relay", "honest-hybrid", &[7]);
    put("chip_relay", "edits", &[5, 0, 0, 0, 0, 0, 0, 1, 1, 4, 0, 1]);
    put("chip_driver", "honest", &[7]);
    put("chip_driver", "opened", &[0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put("chip_driver", "lies", &[7, 0, 0, 0, 0, 0x81, 0x1F, 0xFE, 0, 0xFD, 0x87, 0xFF, 0xFF, 0xFF, 0xFF]);
    put("chip_driver", "acceptance", &[8, 0, 0, 0, 1, 4, 0, 1, 0, 0, 0, 0, 0]);
}

fn abi() {
    let spki = ARTIFACT.sealer.public_key().spki_der().to_vec();
    let record = IdentityRecord {
        flags: IdentityFlags(3),
        id: *ChipId::of_signing_key(&spki).as_bytes(),
        key_epoch: 1,
        environment: "test".to_owned(),
        signing_spki: spki,
        noise: [3; 32],
        p384: [4; 97],
        x_wing: Box::new([5; 1_216]),
        suites: 3,
        paths: 7,
    };
    let authority = Authority::create_root("fuzz root").expect("a root");
    let model = authority.create_model("fuzz model").expect("a model CA");
    let chip = model.issue_chip(&record, "test", 1, "fuzz").expect("a chip certificate");
    put("chip_chain", "edit", &[1, 40, 0, 3, 1]);
    put("chip_chain", "chip", &[&[4], chip.as_slice()].concat());
    put("chip_chain", "model", &[&[3], model.certificate()].concat());
    put("chip_chain", "root", &[&[5], authority.certificate()].concat());
    put("chip_chain", "root-pem", &[&[5], certificate_to_pem(authority.certificate()).as_bytes()].concat());

    let certificates = CertificateList { model: model.certificate().to_vec(), chip };
    let list = Sgl {
        entries: vec![SglEntry { iova: 0x20_0000, length: 4_096 }, SglEntry { iova: 0x40_0000, length: 1 }],
    };
    let provision = Provision {
        environment: "test".to_owned(),
        key_epoch: 1,
        certificates: certificates.clone(),
        root: authority.certificate().to_vec(),
        min_tcb_evaluation: 1,
        min_pck_crl: 2,
        min_root_crl: 0,
        min_snp_crl: 0,
    };
    let accept = Accept {
        suite: SessionSuite::Hybrid,
        path: DataPath::DmaSealed,
        tdisp: TdispState::Run,
        insecure: InsecureFlags::EMULATED_CHIP,
        session: 1,
        key_epoch: 1,
        interface_report: [0; 48],
        nonce: [1; 32],
        encapsulation_key: vec![7; 1_184],
        certificates: certificates.clone(),
    };
    let offer = Offer {
        suites: SessionSuites(3),
        path: DataPath::KeyRelease,
        insecure: InsecureFlags::NO_TEE,
        nonce: [2; 32],
    };
    let unwrap = Unwrap {
        suite: 1,
        key_epoch: 1,
        core: b"core",
        enc: &[4; 97],
        wrapped: &[6; 48],
        sealer_spki: b"",
        sealer_signature: b"",
    };
    let unseal =
        Unseal { handle: 1, payload: 0, first: 0, count: 2, source: list.clone(), destination: list.clone() };
    let floors = Floors {
        floors: vec![Floor { sealer: [1; 32], family: "acme/ranker".to_owned(), counter: 3 }],
        collateral: vec![CollateralFloor { kind: 2, issuer: [2; 32], number: 9 }],
    };
    let mut register = Vec::new();
    list.put(&mut register);
    let sealed = SealedReply { first_counter: 3, tags: vec![[9; 16]; 2] }.encode();
    let status = SessionStatus { bytes_left: 1, submissions_left: 2, key_epoch: 3, handles: 4 };
    let objects: [(&str, Vec<u8>); 18] = [
        ("identity", record.encode()),
        ("certificates", certificates.encode()),
        ("provision", provision.encode()),
        ("abort", Abort { queue: 1, cid: 2 }.encode()),
        ("offer", offer.encode()),
        ("accept", accept.encode()),
        ("present", Present { evidence: b"evidence", preimage: POLICY }.encode()),
        ("unwrap", unwrap.encode()),
        ("load-tags", LoadTags { handle: 1, payload: 0, table: list }.encode()),
        ("unseal", unseal.encode()),
        ("status", status.encode()),
        ("floors", floors.encode()),
        ("register", register),
        ("sealed", [&[2], sealed.as_slice()].concat()),
        ("finish", put_finish(&[3; 1_088])),
        (
            "submission",
            Submission { opcode: 0x24, cid: 7, session: 1, in_len: 64, seq: 1, ..Submission::default() }
                .encode()
                .to_vec(),
        ),
        ("completion", Completion { cid: 7, phase: 1, ..Completion::default() }.encode().to_vec()),
        ("handle", vec![1, 0, 0, 0]),
    ];
    for (which, (name, bytes)) in (0_u8..).zip(objects) {
        put("chip_abi", name, &[&[which], bytes.as_slice()].concat());
    }
}

fn vfio() {
    let header = Header { message_id: 1, command: 9, message_size: 32, flags: 0, error: 0 };
    let access = RegionAccess { offset: 0, region: 0, count: 4 };
    let map = DmaMap { argsz: 32, flags: 3, offset: 0, address: 0x20_0000, size: 1 << 20 };
    put("vfio_wire", "region-read", &[header.encode().as_slice(), &access.encode()].concat());
    put("vfio_wire", "map", &map.encode());

    // The replies of a server that behaves, in the order in which the target asks.
    let reply = |body: &[u8]| {
        [&[7], u16::try_from(body.len()).expect("a length").to_le_bytes().as_slice(), body].concat()
    };
    let version =
        [VersionHeader { major: 0, minor: 0 }.encode().as_slice(), b"{\"capabilities\":{}}\0"].concat();
    let info = DeviceInfo { argsz: 16, flags: 3, num_regions: 9, num_irqs: 5 };
    let read = |count: u32, region| {
        [RegionAccess { offset: 0, region, count }.encode(), vec![0; count as usize]].concat()
    };
    let written = |count: u32| RegionAccess { offset: 0, region: 7, count }.encode();
    let region = RegionInfo { argsz: 32, flags: 3, index: 0, cap_offset: 0, size: 0x4000, offset: 0 };
    let irq = IrqInfo { argsz: 16, flags: 1, index: 2, count: 2 };
    let unmap = DmaUnmap { argsz: 24, flags: 0, address: 1 << 21, size: 4_096 };
    let replies: [Vec<u8>; 18] = [
        version.clone(),
        info.encode(),
        read(2, 7),
        written(2),
        read(4, 7),
        region.encode(),
        read(4, 0),
        written(4),
        irq.encode(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        unmap.encode(),
        Vec::new(),
        read(2, 7),
        written(2),
        Vec::new(),
        Vec::new(),
    ];
    let script: Vec<u8> = replies.iter().flat_map(|body| reply(body)).collect();
    put("vfio_client", "benign", &script);
    put("vfio_client", "short", &script[..60]);

    // A client that behaves: version, memory, rings, one IDENTIFY, reset.
    let message = |kind: u8, command: u8, body: &[u8]| {
        [&[kind, command], u16::try_from(body.len()).expect("a length").to_le_bytes().as_slice(), body]
            .concat()
    };
    let write = |offset: u64, value: u32| {
        let access = RegionAccess { offset, region: 0, count: 4 }.encode();
        message(0, 10, &[access.as_slice(), &value.to_le_bytes()].concat())
    };
    let poke =
        |at: u16, bytes: &[u8]| [&[0x80], at.to_le_bytes().as_slice(), &[bytes.len() as u8], bytes].concat();
    let arm = SetIrqs { argsz: 20, flags: 0x24, index: 2, start: 0, count: 1 };
    let entry =
        Submission { opcode: 1, cid: 1, out_cap: 4_096, out_iova: 0x21_0000, ..Submission::default() };
    let mut script = message(0, 1, &version);
    script.extend(message(0, 4, &info.encode()));
    script.extend(message(0, 5, &region.encode()));
    script.extend(message(0, 7, &irq.encode()));
    script.extend(message(1, 8, &arm.encode()));
    script.extend(message(1, 2, &map.encode()));
    for (offset, value) in
        [(0x100, 0x20_0000), (0x104, 0), (0x108, 0x20_1000), (0x10C, 0), (0x110, 8), (0x114, 8), (0x10, 1)]
    {
        script.extend(write(offset, value));
    }
    script.extend(poke(0, &entry.encode()));
    script.extend(write(0x1000, 1));
    script.push(0xC3);
    script.extend(message(0, 9, &RegionAccess { offset: 0, region: 0, count: 32 }.encode()));
    script.extend(message(0, 3, &DmaUnmap { address: 0x20_0000, size: 1 << 20, ..unmap }.encode()));
    script.extend(message(0, 13, &[]));
    put("vfio_server", "identify", &script);
    put("vfio_server", "first", &script[..40]);
}
