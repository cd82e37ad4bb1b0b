use proptest::prelude::*;

use super::*;

/// The definition, level by level with everything in memory.
fn by_definition<D: Digest>(data: &[u8], algorithm: u8) -> Vec<u8> {
    let mut level = data.to_vec();
    let mut root = Vec::new();
    if !data.is_empty() {
        loop {
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            let hashes: Vec<_> = level.chunks(BLOCK).map(|block| D::digest(block).to_vec()).collect();
            if let [only] = hashes.as_slice() {
                root.clone_from(only);
                break;
            }
            level = hashes.concat();
        }
    }
    let mut descriptor = [0u8; 256];
    descriptor[..3].copy_from_slice(&[1, algorithm, 12]);
    descriptor[8..16].copy_from_slice(&(data.len() as u64).to_le_bytes());
    descriptor[16..16 + root.len()].copy_from_slice(&root);
    D::digest(descriptor).to_vec()
}

#[test]
fn the_vectors_hold() {
    let zeros = vec![0; 524_289];
    for (data, sha256, sha512) in [
        (
            &b""[..],
            "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
            "ccf9e5aea1c2a64efa2f2354a6024b90dffde6bbc017825045dce374474e13d10adb9dadcc6ca8e17a3c075fbd31336e8f266ae6fa93a6c3bed66f9e784e5abf",
        ),
        (
            b"hello, world\n",
            "8b174f1ec58f607df27386a4485c66913251da99af628e87dd62968cddd6bbc1",
            "08ec1ded8b8d6699ea2aa2e437e1bf7259f2d7db2edc02c5cccf5b9e54ec4a4c2d602f38e5e500a8527acc2746eb4a0b8feadb62b6eae42984e0c96e082441f8",
        ),
        (
            &zeros[..10_000],
            "9673b4ca4cc979b11de1f50e235210cec780fc5f71fab218f9fb5efe18dfd866",
            "5747a5d809c7c61333922bb7b3589879054d8d9f0652aebdb72690e017dfacc7aea2c073eac2d62c1b9a16425c5d41ec3cd02539fd93efe10e56980b8fce3442",
        ),
        (
            &zeros,
            "e4143a5705610b7ad2eb85482cfc033c7062a89b9faf9118603f592d53fd10e0",
            "7d26d3e731675b1ecf081c10277a5fd42e9abd456eee3b8a8c3c8a2d5e1711b7a28027eaa104fc01080df1c37ca1dc9a186bbf7d2decd13de170d5ec9c350584",
        ),
    ] {
        assert_eq!(hex::encode(Hasher::hash(data).0), sha256, "{} bytes", data.len());
        assert_eq!(hex::encode(Sha512Hasher::hash(data).0), sha512, "{} bytes", data.len());
    }
}

/// Lengths at which a block, a level, or both are just full, one short, or one over.
#[test]
fn the_edges_of_blocks_and_levels() {
    for blocks in [1, 2, 64, 127, 128, 129, 64 * 64] {
        for size in [blocks * BLOCK - 1, blocks * BLOCK, blocks * BLOCK + 1] {
            let data: Vec<u8> = (0..=250).cycle().take(size).collect();
            assert_eq!(Hasher::hash(&data).0.to_vec(), by_definition::<Sha256>(&data, SHA256), "{size}");
            assert_eq!(
                Sha512Hasher::hash(&data).0.to_vec(),
                by_definition::<Sha512>(&data, SHA512),
                "{size}"
            );
        }
    }
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        data in proptest::collection::vec(any::<u8>(), 0..20_000),
        cuts in proptest::collection::vec(0_usize..9000, 0..8),
    ) {
        let mut hasher = Hasher::new();
        let mut rest = &data[..];
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            hasher.update(piece);
            rest = after;
        }
        hasher.update(rest);
        prop_assert_eq!(hasher.size(), data.len() as u64);
        prop_assert_eq!(hasher.finish().0.to_vec(), by_definition::<Sha256>(&data, SHA256));
    }
}
