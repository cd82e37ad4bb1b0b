use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use attestation_agent::TeeRoot;
use initdata::{Sha256Digest, Tag};
use protected_memory::landing::{TeePolicy, TeeState};
use sealed_artifact::layout::Span;
use sealed_artifact::names::{Counter, EnvironmentTag, Family, MediaType, PayloadName, SegmentSize};
use sealed_artifact::parallel::seal_streaming;
use sealed_artifact::seal::{SealInput, SealRequest, Sealed, Sealer};

use super::*;
use crate::artifact::store::{Finished, Reference, Writer};
use crate::artifact::{Guest, Shared};

/// A `.sealed` file with files of these sizes, which nobody has a grant for; and its core.
fn sealed(sizes: &[u64]) -> (Vec<u8>, Sha256Digest) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sealed");
    let input = |(index, size): (usize, &u64)| SealInput {
        media_type: MediaType::parse("application/octet-stream").unwrap(),
        name: PayloadName::parse(&index.to_string()).unwrap(),
        size: *size,
    };
    let request = SealRequest {
        counter: Counter::new(3),
        environment: EnvironmentTag::parse("production").unwrap(),
        family: Family::parse("acme/password").unwrap(),
        inputs: sizes.iter().enumerate().map(input).collect(),
        payload_digests: true,
        sealer: None,
        segment_size: SegmentSize::parse(1 << 16).unwrap(),
    };
    let sealer = Sealer::new(&request).unwrap();
    let mut writer = Writer::create(&Reference::File(path.clone()), sizes.iter().copied()).unwrap();
    for (index, payload) in sealer.payloads().iter().enumerate() {
        let (sink, to, _) = writer.sink(index).unwrap();
        let read = |_: &Span, buffer: &mut [u8]| {
            buffer.fill(7);
            Ok::<_, Error>(())
        };
        let write = |span: &Span, bytes: &[u8]| {
            use std::os::unix::fs::FileExt as _;
            sink.write_all_at(bytes, to + span.offset).map_err(Error::file("write", "x"))
        };
        seal_streaming(payload, NonZeroUsize::MIN, read, write, &()).unwrap();
        writer.payload_done(index).unwrap();
    }
    let Sealed { core, tag_tables, .. } = sealer.finish().unwrap();
    writer.finish(&Finished { core: &core, tag_tables: &tag_tables, signature: None, image: None }).unwrap();
    (std::fs::read(path).unwrap(), Sha256Digest::new(*core.digest().as_bytes()))
}

/// A guest without any source of keys, which takes these cores.
fn guest(environment: &str, cores: &[Sha256Digest]) -> SealedSecrets {
    let guest = Guest {
        tee: TeeState::None,
        attester: None,
        collateral: None,
        bound: None,
        root: TeeRoot::insecure("/nowhere"),
    };
    let opener = Opener {
        guest,
        chips: None,
        broker: None,
        insecure: BTreeSet::new(),
        tee: TeePolicy::Require,
        shared: Shared::default(),
    };
    let origins: Vec<_> = cores
        .iter()
        .map(|core| SealedSecretOrigin {
            environment: Tag::parse(environment).unwrap(),
            origin: initdata::Origin::Core(*core),
        })
        .collect();
    SealedSecrets::new(Arc::new(opener), &origins).unwrap()
}

fn code(secrets: &SealedSecrets, text: &str) -> &'static str {
    secrets.open(text.as_bytes()).map_or_else(|error| error.code(), |_| "OK")
}

/// Everything was right so far, and nobody here has a key.
const NO_KEY: [&str; 2] = ["SEALED_NO_KEY_SOURCE", "NO_GRANT"];

#[test]
fn a_text_holds_the_file() {
    let (file, core) = sealed(&[10]);
    let text = text_of(&file).unwrap();
    assert!(is_one(text.as_bytes()) && !is_one(b"sealed.fakejwsheader.x.y"));
    assert_eq!(file_of(format!("{text}\n").as_bytes()).unwrap(), file);
    let found = code(&guest("production", &[core]), &text);
    assert!(NO_KEY.contains(&found), "{found}");
    // The second origin is as good as the first.
    let found = code(&guest("production", &[Sha256Digest::new([1; 32]), core]), &text);
    assert!(NO_KEY.contains(&found), "{found}");
}

#[test]
fn evil_author_secret_of_no_named_origin() {
    let (file, core) = sealed(&[10]);
    let text = text_of(&file).unwrap();
    assert_eq!(code(&guest("production", &[]), &text), "CDH_ARTIFACT_NOT_NAMED");
    assert_eq!(code(&guest("production", &[Sha256Digest::new([1; 32])]), &text), "ORIGIN_UNPROVEN");
    assert_eq!(code(&guest("development", &[core]), &text), "SEALED_ENVIRONMENT");
}

#[test]
fn evil_author_artifact_as_a_secret_of_any_size() {
    for sizes in [&[10, 10][..], &[MAXIMUM_SECRET_BYTES + 1]] {
        let (file, core) = sealed(sizes);
        let text = text_of(&file).unwrap();
        assert_eq!(code(&guest("production", &[core]), &text), "SEALED_SECRET_MALFORMED", "{sizes:?}");
    }
    let long = format!("{PREFIX}{}", "A".repeat(MAXIMUM_SEALED_BYTES));
    assert_eq!(code(&guest("production", &[]), &long), "CDH_REQUEST_TOO_LARGE");
    assert_eq!(text_of(&vec![0; MAXIMUM_SEALED_BYTES]).unwrap_err().code(), "CDH_REQUEST_TOO_LARGE");
}

#[test]
fn texts_without_the_form_are_refused() {
    let secrets = guest("production", &[Sha256Digest::new([1; 32])]);
    for text in
        ["sealed.", "sealed.innerkeep-v1.=", "sealed.innerkeep-v1.a", "sealed.innerkeep-v2.AAAA", "AAAA"]
    {
        assert_eq!(code(&secrets, text), "SEALED_SECRET_MALFORMED", "{text}");
    }
    let (file, core) = sealed(&[10]);
    let text = text_of(&file[..file.len() / 2]).unwrap();
    let secrets = guest("production", &[core]);
    assert_eq!(code(&secrets, &text), "CARRIER_CORRUPT");
    assert_eq!(code(&secrets, PREFIX), "CARRIER_CORRUPT");
}

/// Callers go, and come back: threads that open do not grow with them.
#[tokio::test]
async fn evil_peer_secrets_that_nobody_waits_for() {
    let (file, core) = sealed(&[10]);
    let text = text_of(&file).unwrap();
    let secrets = Arc::new(guest("production", &[core]));
    let all =
        secrets.places.clone().acquire_many_owned(u32::try_from(MAXIMUM_AT_ONCE).unwrap()).await.unwrap();
    for _ in 0..8 {
        let soon = Instant::now() + std::time::Duration::from_millis(5);
        assert_eq!(secrets.open_by(text.as_bytes(), soon).await.unwrap_err().code(), "CDH_DEADLINE");
    }
    drop(all);
    let later = Instant::now() + std::time::Duration::from_secs(30);
    let found = secrets.open_by(text.as_bytes(), later).await.unwrap_err().code();
    assert!(NO_KEY.contains(&found), "{found}");
    assert_eq!(secrets.places.available_permits(), MAXIMUM_AT_ONCE);
}
