//! Segments, grants, signatures, policies and cores, one operation at a time on one thread.

use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use clap::Parser;
use sealed_artifact::core::Core;
use sealed_artifact::grant::{
    Grant, GrantSuite, KeyEpoch, Recipient, RecipientId, RecipientIdentity, RecipientSecretKey,
};
use sealed_artifact::names::{
    Counter, EnvironmentTag, Family, MediaType, PayloadIndex, PayloadName, SegmentIndex, SegmentSize,
};
use sealed_artifact::parallel::seal_slices;
use sealed_artifact::policy::{PolicyDigest, PolicyDocument};
use sealed_artifact::seal::{SealInput, SealRequest, Sealed, Sealer};
use sealed_artifact::signature::{SealerSigningKey, Signature};
use serde_json::{Value, json};

use crate::statistics::Samples;

/// Time the parts: segments, grants, policies, cores.
#[derive(Debug, Parser)]
#[command(name = "bench-micro")]
pub(crate) struct Arguments {
    /// Directory for results.
    #[arg(long)]
    out: PathBuf,
    /// How often each operation is timed.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

/// Bytes of a payload for segment rows.
const PAYLOAD: usize = 64 << 20;

struct Table {
    rounds: usize,
    rows: Vec<Value>,
}

impl Table {
    /// Times `count` operations at once, each over `bytes`, in as many rounds as asked for.
    fn row(
        &mut self,
        name: &str,
        bytes: u64,
        count: u32,
        mut work: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        work()?;
        let mut seconds = Samples::default();
        for _ in 0..self.rounds {
            let start = Instant::now();
            work()?;
            seconds.0.push(start.elapsed().as_secs_f64() / f64::from(count));
        }
        let (median, low, high) = (seconds.median(), seconds.quantile(0.1), seconds.quantile(0.9));
        let rate = (bytes > 0).then(|| bytes as f64 / 1e9 / median);
        let shown = rate.map(|rate| format!("{rate:.2} GB/s")).unwrap_or_default();
        println!("{name:<52} {:>12.2} µs [{:.2} … {:.2}] {shown}", median * 1e6, low * 1e6, high * 1e6);
        self.rows
            .push(json!({ "name": name, "bytes": bytes, "seconds": seconds.to_json(), "gb_per_s": rate }));
        Ok(())
    }
}

/// Runs everything, prints the table and writes `micro.json`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut table = Table { rounds: arguments.rounds, rows: Vec::new() };
    segments(&mut table)?;
    cores(&mut table)?;
    grants(&mut table)?;
    signatures(&mut table)?;
    policies(&mut table)?;
    fs::create_dir_all(&arguments.out)?;
    let path = arguments.out.join("micro.json");
    let document = json!({ "suite": "micro", "rows": table.rows });
    fs::write(&path, serde_json::to_vec_pretty(&document)?)?;
    println!("\n{}", path.display());
    Ok(())
}

fn request(
    payloads: u32,
    size: u64,
    segment_size: SegmentSize,
    digests: bool,
) -> anyhow::Result<SealRequest> {
    let inputs = (0..payloads).map(|index| {
        Ok(SealInput {
            media_type: MediaType::parse("application/octet-stream")?,
            name: PayloadName::parse(&format!("part-{index:05}"))?,
            size,
        })
    });
    Ok(SealRequest {
        counter: Counter::new(1),
        environment: EnvironmentTag::parse("bench")?,
        family: Family::parse("bench/micro")?,
        inputs: inputs.collect::<anyhow::Result<_>>()?,
        payload_digests: digests,
        sealer: None,
        segment_size,
    })
}

fn seal(request: &SealRequest, plaintext: &[u8], ciphertext: &mut [u8]) -> anyhow::Result<Sealed> {
    let sealer = Sealer::new(request)?;
    for payload in sealer.payloads() {
        seal_slices(payload, NonZeroUsize::MIN, plaintext, ciphertext, &())?;
    }
    Ok(sealer.finish()?)
}

fn segments(table: &mut Table) -> anyhow::Result<()> {
    let plaintext = vec![0x5A; PAYLOAD];
    let mut ciphertext = vec![0; PAYLOAD];
    let mut opened = vec![0; PAYLOAD];
    for bytes in [65_536, 262_144, 1_048_576, 4_194_304] {
        let size = SegmentSize::parse(bytes)?;
        let length = size.as_usize();
        let count = u32::try_from(PAYLOAD / length)?;
        raw(table, length, count, &plaintext, &mut ciphertext)?;
        for (digests, digest) in [(false, ""), (true, ", payload digest")] {
            let request = request(1, PAYLOAD as u64, size, digests)?;
            table.row(&format!("seal a segment of {} KiB{digest}", bytes >> 10), bytes, count, || {
                black_box(seal(&request, &plaintext, &mut ciphertext)?);
                Ok(())
            })?;
            let sealed = seal(&request, &plaintext, &mut ciphertext)?;
            let tags = sealed.tag_tables.first().context("no tag table")?;
            let opener =
                sealed.core.unlock(&sealed.content_key)?.opener(PayloadIndex::new(0), tags.bytes())?;
            table.row(&format!("open a segment of {} KiB{digest}", bytes >> 10), bytes, count, || {
                let mut progress = opener.progress();
                let windows = ciphertext.chunks(length).zip(opened.chunks_mut(length));
                for (index, (source, window)) in (0..).zip(windows) {
                    let verified = opener.open_into(SegmentIndex::new(index), source, window)?;
                    progress.record(verified, window)?;
                }
                Ok(progress.finish()?)
            })?;
        }
    }
    anyhow::ensure!(opened == plaintext, "what was opened is not what was sealed");
    Ok(())
}

/// The same library without the format.
fn raw(table: &mut Table, length: usize, count: u32, from: &[u8], to: &mut [u8]) -> anyhow::Result<()> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).ok().context("a key")?);
    let mut tags = vec![[0; 16]; from.len() / length];
    table.row(&format!("raw AES-256-GCM seal, {} KiB", length >> 10), length as u64, count, || {
        for ((source, window), tag) in from.chunks(length).zip(to.chunks_mut(length)).zip(&mut tags) {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let done = key.seal_out_of_place_scatter(nonce, Aad::from([0; 32]), source, window, &[], tag);
            done.ok().context("raw seal")?;
        }
        Ok(())
    })?;
    let mut opened = vec![0; from.len()];
    table.row(&format!("raw AES-256-GCM open, {} KiB", length >> 10), length as u64, count, || {
        for ((source, window), tag) in to.chunks(length).zip(opened.chunks_mut(length)).zip(&tags) {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let done = key.open_separate_gather(nonce, Aad::from([0; 32]), source, tag, window);
            done.ok().context("raw open")?;
        }
        Ok(())
    })
}

fn cores(table: &mut Table) -> anyhow::Result<()> {
    for payloads in [1, 256] {
        let sealed = seal(&request(payloads, 0, SegmentSize::DEFAULT, true)?, &[], &mut [])?;
        let bytes = sealed.core.bytes();
        table.row(&format!("parse a core of {payloads} payloads ({} bytes)", bytes.len()), 0, 20, || {
            for _ in 0..20 {
                black_box(Core::parse(black_box(bytes))?);
            }
            Ok(())
        })?;
        table.row(&format!("key schedule and commitments of {payloads} payloads"), 0, 20, || {
            for _ in 0..20 {
                black_box(sealed.core.unlock(&sealed.content_key)?);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn policy() -> anyhow::Result<PolicyDocument> {
    Ok(PolicyDocument::from_toml(sealed_artifact::policy::TEMPLATE)?)
}

fn grants(table: &mut Table) -> anyhow::Result<()> {
    let sealed = seal(&request(1, 0, SegmentSize::DEFAULT, true)?, &[], &mut [])?;
    let policy = policy()?;
    for suite in [GrantSuite::P384, GrantSuite::XWing] {
        let key = RecipientSecretKey::generate(suite)?;
        let id = RecipientId::new([1; 32]);
        let to = Recipient { id, key: key.public_key(), key_epoch: KeyEpoch::new(1) };
        let own = RecipientIdentity { id, key_epoch: KeyEpoch::new(1), key };
        table.row(&format!("grant: seal, {suite}"), 0, 10, || {
            for _ in 0..10 {
                black_box(Grant::seal(&sealed.core, &sealed.content_key, &to, &policy)?);
            }
            Ok(())
        })?;
        let grant = Grant::seal(&sealed.core, &sealed.content_key, &to, &policy)?;
        table.row(&format!("grant: open, {suite}"), 0, 10, || {
            for _ in 0..10 {
                black_box(grant.open(&own, &sealed.core, &policy)?);
            }
            Ok(())
        })?;
        let bytes = grant.encode();
        table.row(&format!("grant: parse, {} bytes", bytes.len()), 0, 50, || {
            for _ in 0..50 {
                black_box(Grant::parse(black_box(&bytes))?);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn signatures(table: &mut Table) -> anyhow::Result<()> {
    let key = SealerSigningKey::generate()?;
    let mut request = request(1, 0, SegmentSize::DEFAULT, true)?;
    request.sealer = Some(key.public_key().digest());
    let sealed = seal(&request, &[], &mut [])?;
    table.row("signature: sign", 0, 10, || {
        for _ in 0..10 {
            black_box(Signature::sign(&sealed.core, &key)?);
        }
        Ok(())
    })?;
    let signature = Signature::sign(&sealed.core, &key)?;
    table.row("signature: verify", 0, 10, || {
        for _ in 0..10 {
            black_box(signature.verify(&sealed.core)?);
        }
        Ok(())
    })
}

fn policies(table: &mut Table) -> anyhow::Result<()> {
    let document = policy()?;
    let preimage = document.preimage();
    table.row(&format!("policy: digest of {} bytes", preimage.len()), preimage.len() as u64, 50, || {
        for _ in 0..50 {
            black_box(PolicyDigest::of(black_box(preimage)));
        }
        Ok(())
    })?;
    let large = vec![0x5A; 65_536];
    table.row("policy: digest of 65536 bytes", 65_536, 5, || {
        for _ in 0..5 {
            black_box(PolicyDigest::of(black_box(&large)));
        }
        Ok(())
    })?;
    table.row("policy: parse", 0, 50, || {
        for _ in 0..50 {
            black_box(PolicyDocument::parse(black_box(preimage))?);
        }
        Ok(())
    })?;
    table.row("policy: from TOML", 0, 20, || {
        for _ in 0..20 {
            black_box(PolicyDocument::from_toml(black_box(sealed_artifact::policy::TEMPLATE))?);
        }
        Ok(())
    })?;
    table.row("policy: lint", 0, 50, || {
        for _ in 0..50 {
            black_box(document.weaknesses());
        }
        Ok(())
    })
}
