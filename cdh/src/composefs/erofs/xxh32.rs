//! xxHash with 32 bits (xxHash specification 0.1.1), by which EROFS keeps a filter of the names of attributes.

const PRIMES: [u32; 5] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D, 0x27D4_EB2F, 0x1656_67B1];
const STRIPE: usize = 16;

/// The hash of this data with this seed.
pub(super) fn xxh32(data: &[u8], seed: u32) -> u32 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let (stripes, rest) = data.as_chunks::<STRIPE>();
    let mut hash = if stripes.is_empty() {
        seed.wrapping_add(p5)
    } else {
        let mut lanes =
            [seed.wrapping_add(p1).wrapping_add(p2), seed.wrapping_add(p2), seed, seed.wrapping_sub(p1)];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<4>().0) {
                let input = u32::from_le_bytes(*word).wrapping_mul(p2);
                *lane = lane.wrapping_add(input).rotate_left(13).wrapping_mul(p1);
            }
        }
        let [a, b, c, d] = lanes;
        a.rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18))
    };
    // The length counts modulo 2³².
    let [a, b, c, d, ..] = (data.len() as u64).to_le_bytes();
    hash = hash.wrapping_add(u32::from_le_bytes([a, b, c, d]));
    let (words, bytes) = rest.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(p3)).rotate_left(17).wrapping_mul(p4);
    }
    for byte in bytes {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(p5)).rotate_left(11).wrapping_mul(p1);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(p2);
    hash = (hash ^ (hash >> 13)).wrapping_mul(p3);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation.
    #[test]
    fn the_known_hashes() {
        for (data, seed, hash) in [
            (&b""[..], 0, 0x02cc_5d05),
            (b"", 0x9E37_79B1, 0x36b7_8ae7),
            (b"a", 0, 0x550d_7456),
            (b"abc", 0, 0x32d1_53ff),
            (b"abcdefghijklmnopqrstuvwxyz", 0, 0x63a1_4d5f),
            (b"abcdefghijklmnopqrstuvwxyz0123456789", 0, 0x42ae_804d),
        ] {
            assert_eq!(xxh32(data, seed), hash, "{data:?}");
        }
    }
}
