//! A TPM quote, made once: by a key of this process, over registers that are not all zero.

use std::sync::LazyLock;

use attestation_agent::tpm::{PcrSelection, Pcrs, TpmEvidence};
use evidence::mint::der::{bit_string, oid, sequence};
use evidence::mint::{MintError, P256Key};

/// What the quote was asked for with.
pub const REPORT_DATA: [u8; 32] = [0x5a; 32];

/// The quote.
pub static QUOTE: LazyLock<TpmEvidence> = LazyLock::new(|| quote().expect("the fixed quote"));

/// Bytes with their 16-bit length, as TPM2B types have them.
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("a length").to_be_bytes(), bytes].concat()
}

fn quote() -> Result<TpmEvidence, MintError> {
    let key = P256Key::derive("fuzz", "tpm")?;
    let point = [&[4], key.point().as_slice()].concat();
    let algorithm = sequence(&[oid("1.2.840.10045.2.1")?, oid("1.2.840.10045.3.1.7")?]);
    let pcrs = Pcrs::new(std::array::from_fn(|i| [i as u8; 32]));
    let mut message = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18];
    message.extend(sized(&[9; 34]));
    message.extend(sized(&REPORT_DATA));
    // Clock, resets, restarts, safe, firmware version; one bank, three bytes of registers.
    message.extend([0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 3, 0, 0, 0, 4]);
    message.extend([0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff]);
    message.extend(sized(&pcrs.digest(PcrSelection::ALL)));
    let signed = key.sign(&message)?;
    let (r, s) = signed.split_at(32);
    let signature = [&[0, 0x18, 0, 0x0b], sized(r).as_slice(), &sized(s)].concat();
    let ak_public = sequence(&[algorithm, bit_string(&point)]);
    Ok(TpmEvidence { signature, message, pcrs, ak_public })
}
