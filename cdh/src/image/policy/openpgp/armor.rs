//! Armor (RFC 4880, 6.2): one block, with nothing in front of it and nothing behind it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::OpenPgpFault;

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
const HEADERS: [&str; 5] = ["Charset", "Comment", "Hash", "MessageID", "Version"];
const LINE_MAX: usize = 76;

/// The bytes of a keyring, out of its armor if it has one. The caller capped their length.
pub(super) fn keyring(bytes: &[u8]) -> Result<Vec<u8>, OpenPgpFault> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if text.starts_with('-') => text,
        _ => return Ok(bytes.to_vec()),
    };
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    if lines.next() != Some(BEGIN) {
        return Err(OpenPgpFault::malformed("an armored public key block"));
    }
    loop {
        match lines.next() {
            Some("") => break,
            Some(line) if line.split_once(": ").is_some_and(|(name, _)| HEADERS.contains(&name)) => {}
            _ => return Err(OpenPgpFault::malformed("armor headers and an empty line")),
        }
    }
    let mut body = String::new();
    let mut crc = None;
    loop {
        let line = lines.next().ok_or(OpenPgpFault::malformed("the end of the armor"))?;
        if line == END {
            break;
        }
        // GUARD: armor-body -> evil_armor
        if line.is_empty() || line.len() > LINE_MAX || crc.is_some() {
            return Err(OpenPgpFault::malformed(
                "lines of base64, then a checksum, then the end of the armor",
            ));
        }
        match line.strip_prefix('=') {
            Some(sum) => crc = Some(sum),
            None => body.push_str(line),
        }
    }
    // GUARD: armor-behind -> evil_armor
    if !lines.all(str::is_empty) {
        return Err(OpenPgpFault::malformed("nothing behind the armor"));
    }
    let bytes = STANDARD.decode(body).map_err(|_| OpenPgpFault::malformed("base64 in the armor"))?;
    let sum = STANDARD.encode(crc24(&bytes).to_be_bytes().get(1..).unwrap_or_default());
    // GUARD: armor-checksum -> evil_armor
    if crc.is_some_and(|crc| crc != sum) {
        return Err(OpenPgpFault::malformed("the checksum of the armored bytes"));
    }
    Ok(bytes)
}

/// RFC 4880, 6.1.
fn crc24(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(0x00b7_04ce_u32, |sum, byte| {
        (0..8).fold(sum ^ (u32::from(*byte) << 16), |sum, _| {
            let shifted = sum << 1;
            if shifted & 0x0100_0000 == 0 { shifted } else { shifted ^ 0x0186_4cfb }
        })
    });
    sum & 0x00ff_ffff
}
