//! The same artifact in a `.sealed` file and in an OCI image layout.

use super::{Set, Writer, pin_sealer, released, small, whole};
use crate::carrier::{file_of, layout_of};
use crate::digest::BlobDigest;
use crate::fixture::{Artifact, POLICY, Recipe, grant, identity, sign};
use crate::grant::GrantSuite;
use crate::names::MediaType;
use crate::oci::{ArtifactManifest, Descriptor, ImageIndex, MANIFEST_TYPE};
use crate::sealed_file::{Current, Directory, Region, Slot};

pub(super) fn add(set: &mut Set) {
    let artifact = small();
    let own = identity(GrantSuite::P384, 66, 1);
    let grant = grant(&artifact, &own, POLICY).encode();
    let members = Writer::default()
        .line("kind", "artifact")
        .line("pin", &pin_sealer(1, "acme/ranker", 7))
        .line("recipient.suite", "P-384")
        .line("recipient.secret", &hex::encode(own.key.expose_bytes().as_slice()))
        .line("recipient.id", &hex::encode(own.id.as_bytes()))
        .line("recipient.epoch", "1")
        .line("facts", "tier production link-mode key-release");
    let fixture = set.fixture("carried", members);
    files(set, &fixture, &artifact, &grant);
    layouts(set, &fixture, &artifact, &grant);
    images(set);
}

/// A file with its directory replaced, named by slot A.
fn with_directory(file: &[u8], change: impl FnOnce(&mut Directory)) -> Vec<u8> {
    let read = |region: Region| {
        let start = usize::try_from(region.offset).unwrap();
        Ok::<_, crate::ArtifactError>(file[start..start + usize::try_from(region.length).unwrap()].to_vec())
    };
    let current = Current::find(&file[..8_192], crate::error::length(file), read).unwrap();
    let mut directory = current.directory.clone();
    change(&mut directory);
    let mut file = file.to_vec();
    let (offset, encoded) = (crate::error::length(&file), directory.encode());
    let (position, slot) = current.next_slot(offset, &encoded);
    let start = usize::try_from(position.offset()).unwrap();
    file[start..start + 4_096].copy_from_slice(&slot.encode());
    file.extend(encoded);
    file
}

fn files(set: &mut Set, fixture: &str, artifact: &Artifact, grant: &[u8]) {
    let file = file_of(artifact, Some(&sign(&artifact.core, 1)), &[grant.to_vec()]);
    let (all, none) = (whole(artifact), released(&[]));
    let on = |comment: &str, expect: &str, file: &[u8]| {
        let outcome = if expect == "success" { &all } else { &none };
        Writer::on(fixture, comment, expect).bytes("file", file).line("released", outcome)
    };
    set.vector("success-file", on("an artifact with signature and grant in a single file", "success", &file));
    let newer = with_directory(&file, |_| {});
    set.vector("success-file-second-slot", on("the slot with the higher sequence counts", "success", &newer));
    set.vector(
        "success-file-torn-slot",
        on("a torn newer slot: the older one counts", "success", &newer).mutate("flip file 32900"),
    );
    let end = newer.len() * 8 - 1;
    set.vector(
        "success-file-torn-directory",
        on("a torn newer directory: the older one counts", "success", &newer)
            .mutate(&format!("flip file {end}")),
    );
    set.vector(
        "success-file-cut-directory",
        on("a newer directory that was not written to its end", "success", &newer)
            .mutate(&format!("truncate file {}", newer.len() - 1)),
    );
    set.vector("file-no-slot", on("no valid slot", "CARRIER_CORRUPT", &file).mutate("flip file 0"));
    set.vector(
        "file-version",
        on("a slot of another version, its digest right", "CARRIER_CORRUPT", &{
            let mut other = file.clone();
            other[11] = 2;
            let digest = <sha2::Sha256 as sha2::Digest>::digest(&other[..72]);
            other[72..104].copy_from_slice(&digest);
            other
        }),
    );
    set.vector(
        "file-header-only",
        on("a file that ends behind the slots", "CARRIER_CORRUPT", &file).mutate("truncate file 8192"),
    );
    set.vector("file-empty", on("an empty file", "CARRIER_CORRUPT", b""));
    let payload = artifact.core.parameters().payloads()[0].layout.size();
    let outside = Region { length: payload, offset: 1 << 30 };
    let changes: [Edit<'_>; 5] = [
        ("file-region-outside", "a region behind the end of the file", &|directory| {
            directory.payloads[0] = outside
        }),
        ("file-region-in-slot", "a region inside the slots", &|directory| {
            directory.payloads[0].offset = 4_096
        }),
        ("file-region-overlap", "two regions that overlap", &|directory| {
            directory.payloads[1].offset = directory.payloads[0].offset
        }),
        ("file-region-unaligned", "a payload that is not aligned", &|directory| {
            directory.payloads[0].offset += 120
        }),
        ("file-region-huge", "a region whose end is above 2^64", &|directory| {
            directory.payloads[0].offset = u64::MAX - 5
        }),
    ];
    for (name, comment, change) in changes {
        set.vector(name, on(comment, "CARRIER_CORRUPT", &with_directory(&file, change)));
    }
    let swapped = with_directory(&file, |directory| directory.payloads.swap(0, 1));
    set.vector(
        "file-payloads-exchanged",
        on("two payloads exchanged by the directory", "SEGMENT_AUTH_FAILED", &swapped),
    );
    let shorter = with_directory(&file, |directory| directory.payloads[0].length -= 1);
    set.vector("file-payload-shorter", on("a payload cut by the directory", "LENGTH_MISMATCH", &shorter));
    let fewer = with_directory(&file, |directory| {
        directory.payloads.pop();
        directory.tags.pop();
    });
    set.vector("file-fewer-payloads", on("fewer payloads than in the core", "CARRIER_CORRUPT", &fewer));
    let more = with_directory(&file, |directory| {
        directory.payloads.push(Region { length: 0, offset: 8_192 });
        directory.tags.push(Region { length: 0, offset: 8_192 });
    });
    set.vector(
        "success-file-further-payloads",
        on("a directory with more payloads than the core", "success", &more),
    );
    let stale = Slot::new(9, 8_192, b"{}").encode();
    let mut broken = file.clone();
    broken[4_096..8_192].copy_from_slice(&stale);
    set.vector(
        "success-file-slot-of-other-bytes",
        on("a newer slot whose directory is other bytes", "success", &broken),
    );
}

fn layouts(set: &mut Set, fixture: &str, artifact: &Artifact, grant: &[u8]) {
    let signature = sign(&artifact.core, 1);
    let (index, blobs) = layout_of(artifact, "v1", Some(&signature), &[grant.to_vec()]);
    let (all, none) = (whole(artifact), released(&[]));
    let write = |name: &str, comment: &str, expect: &str, index: &ImageIndex, blobs: &[Vec<u8>]| {
        let outcome = if expect == "success" { &all } else { &none };
        let mut writer = Writer::on(fixture, comment, expect)
            .line("released", outcome)
            .line("tag", "v1")
            .bytes("index", &index.encode());
        for blob in blobs {
            writer = writer.bytes("blob", blob);
        }
        (name.to_owned(), writer)
    };
    let manifest = 1;
    let mut vectors = vec![
        write(
            "success-oci",
            "an artifact with signature and grant in an OCI image layout",
            "success",
            &index,
            &blobs,
        ),
        write(
            "oci-blob-missing",
            "the manifest is missing",
            "CARRIER_CORRUPT",
            &index,
            &[&blobs[..manifest], &blobs[manifest + 1..]].concat(),
        ),
    ];
    let mut other_tag = ImageIndex::new();
    other_tag.set_artifact("v2", &index.manifests()[0]);
    vectors.push(write("oci-tag-missing", "no such tag", "NOT_FOUND", &other_tag, &blobs));
    let mut stripped = ImageIndex::new();
    stripped.set_artifact("v1", &index.manifests()[0]);
    stripped.add_referrer(&index.manifests()[2]);
    vectors.push(write(
        "oci-signature-withheld",
        "a registry that withholds the signature",
        "ORIGIN_UNPROVEN",
        &stripped,
        &blobs,
    ));
    for (name, comment, expect, change) in manifests() {
        let text = change(String::from_utf8(blobs[manifest].clone()).unwrap(), artifact);
        let mut changed = blobs.clone();
        changed[manifest] = text.into_bytes();
        let entry = Descriptor::of(MANIFEST_TYPE, &changed[manifest]);
        let mut index = ImageIndex::new();
        index.set_artifact("v1", &entry);
        // The referrers follow to the altered manifest: a registry can do all that.
        for (kind, object) in
            [(crate::oci::ReferrerKind::Signature, &signature[..]), (crate::oci::ReferrerKind::Grant, grant)]
        {
            let referrer = crate::oci::Referrer::build(kind, &entry, object);
            index.add_referrer(&referrer.descriptor);
            changed.push(referrer.bytes);
        }
        vectors.push(write(name, comment, expect, &index, &changed));
    }
    for (name, writer) in vectors {
        set.vector(&name, writer);
    }
    let writer = Writer::on(fixture, "an index that is no JSON", "MALFORMED")
        .line("released", &none)
        .line("tag", "v1")
        .bytes("index", b"{\"schemaVersion\":2,");
    set.vector("oci-index-malformed", writer);
    let writer = Writer::on(fixture, "an index above its largest size", "LIMIT_EXCEEDED")
        .line("released", &none)
        .line("tag", "v1")
        .bytes("index", &index.encode())
        .mutate("fill index 4194305");
    set.vector("oci-index-oversize", writer);
}

/// Images with sealed layers: one, and what a registry can do to its manifest.
fn images(set: &mut Set) {
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    let types = [LAYER, MANIFEST_TYPE].map(|text| MediaType::parse(text).unwrap());
    let artifact = Recipe { media_types: types.to_vec(), ..Recipe::new(67, &[70_000, 300]) }.seal();
    let digests: Vec<_> = artifact.payloads.iter().map(|blob| BlobDigest::of(blob)).collect();
    let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
    let built = ArtifactManifest::build_image(&artifact.core, config, &digests).unwrap();
    let text = String::from_utf8(built.bytes).unwrap();
    let core = BlobDigest::of(artifact.core.bytes()).to_string();
    let named = format!("\"vnd.innerkeep.core.v1\":\"{core}\"");
    let other = named.replace(&core, &BlobDigest::of(b"other").to_string());
    let sealed = format!("{LAYER}+sealed");
    let (all, none) = (whole(&artifact), released(&[]));
    for (name, comment, expect, manifest) in [
        ("success-image", "an image whose layers are sealed", "success", text.clone()),
        (
            "image-layer-plain",
            "an image of which one layer is not sealed",
            "MALFORMED",
            text.replace(&sealed, LAYER),
        ),
        (
            "image-layer-other-type",
            "an image with a layer of another type than its payload",
            "MALFORMED",
            text.replace(&sealed, "application/vnd.oci.image.layer.v1.tar+sealed"),
        ),
        ("image-other-core", "an image that names another core", "MALFORMED", text.replace(&named, &other)),
        ("image-core-unnamed", "an image that names no core", "MALFORMED", text.replace(&named, "")),
    ] {
        assert!(expect == "success" || manifest != text, "{name}");
        let mut index = ImageIndex::new();
        index.set_image("v1", &Descriptor::of(MANIFEST_TYPE, manifest.as_bytes()));
        let mut writer = Writer::new(comment, expect)
            .line("kind", "artifact")
            .line("content_key", &hex::encode(artifact.key))
            .line("pin", &format!("core {}", artifact.core.digest()))
            .line("released", if expect == "success" { &all } else { &none })
            .line("tag", "v1")
            .bytes("index", &index.encode())
            .bytes("blob", manifest.as_bytes())
            .bytes("blob", artifact.core.bytes());
        for blob in artifact.payloads.iter().chain(&artifact.tags) {
            writer = writer.bytes("blob", blob);
        }
        set.vector(name, writer);
    }
}

/// Name, comment, and what is done to the directory.
type Edit<'a> = (&'static str, &'static str, &'a dyn Fn(&mut Directory));
type Change = fn(String, &Artifact) -> String;

/// What a registry can do to the manifest.
fn manifests() -> [(&'static str, &'static str, &'static str, Change); 5] {
    fn digest(bytes: &[u8]) -> String {
        BlobDigest::of(bytes).to_string()
    }
    fn exchange(text: &str, a: &str, b: &str) -> String {
        text.replace(a, "#").replace(b, a).replace('#', b)
    }
    [
        ("oci-layers-exchanged", "two payload layers exchanged", "SEGMENT_AUTH_FAILED", |text, artifact| {
            exchange(&text, &digest(&artifact.payloads[0]), &digest(&artifact.payloads[1]))
        }),
        ("oci-tags-exchanged", "two tag tables exchanged", "TAG_TABLE_MISMATCH", |text, artifact| {
            exchange(&text, &digest(&artifact.tags[0]), &digest(&artifact.tags[1]))
        }),
        ("oci-other-artifact-type", "a manifest of another artifact type", "MALFORMED", |text, _| {
            text.replace("vnd.innerkeep.sealed.v1", "vnd.innerkeep.sealed.v2")
        }),
        (
            "oci-core-too-large",
            "a core that claims more than its limit",
            "LIMIT_EXCEEDED",
            |text, artifact| {
                text.replace(&format!("\"size\":{}", artifact.core.bytes().len()), "\"size\":262145")
            },
        ),
        (
            "success-oci-wrong-sizes",
            "sizes and titles of payloads that lie: the core decides",
            "success",
            |text, _| text.replace("\"size\":100", "\"size\":1").replace("part-0.bin", "../../evil"),
        ),
    ]
}
