//! Signed messages (RFC 4880, 11.3), as containers-signature(5) has them: one signer, one literal.

use super::compressed;
use super::error::OpenPgpFault;
use super::keyring::Keyring;
use super::packet::{COMPRESSED, LITERAL, ONE_PASS, Packet, Reader, SIGNATURE, packets};
use super::signature::{BINARY, Signature};

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 128 << 10;
/// Most packets that are looked at.
const PACKETS_MAX: usize = 4;

/// What a key of the keyring signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signed bytes.
    pub text: Vec<u8>,
    /// Fingerprint of the primary key, in upper-case hex.
    pub primary: String,
    /// Fingerprint of the key that signed: the primary key or one of its subkeys.
    pub signer: String,
    /// The date in the signature, in seconds since 1970: the signer's word.
    pub date: u32,
}

impl Keyring {
    /// Verifies a signed message and gives what was signed.
    ///
    /// # Errors
    ///
    /// [`OpenPgpFault`]; nothing of the text is given then.
    pub fn verify(&self, message: &[u8]) -> Result<Verified, OpenPgpFault> {
        // GUARD: pgp-message-size -> evil_huge_signature
        if message.len() > MESSAGE_MAX {
            return Err(OpenPgpFault::TooLarge { most: MESSAGE_MAX, unit: "bytes of a signature" });
        }
        let outer = packets(message, PACKETS_MAX)?;
        match outer.as_slice() {
            [packet] if packet.tag == COMPRESSED => {
                let inflated = compressed::inflate(&packet.body, MESSAGE_MAX)?;
                self.verify_packets(&packets(&inflated, PACKETS_MAX)?)
            }
            packets => self.verify_packets(packets),
        }
    }

    fn verify_packets(&self, packets: &[Packet<'_>]) -> Result<Verified, OpenPgpFault> {
        let [one_pass, literal, signature] = packets else {
            return Err(OpenPgpFault::malformed("one one-pass signature, one literal, one signature"));
        };
        if [one_pass.tag, literal.tag, signature.tag] != [ONE_PASS, LITERAL, SIGNATURE] {
            return Err(OpenPgpFault::malformed("one one-pass signature, one literal, one signature"));
        }
        let announced = OnePass::parse(&one_pass.body)?;
        let text = literal_text(&literal.body)?;
        let signature = Signature::parse(&signature.body)?;
        // GUARD: pgp-one-pass -> evil_signature_that_was_not_announced
        if (announced.kind, announced.hash, announced.algorithm)
            != (signature.kind, signature.hash, signature.algorithm)
            || signature.issuer.is_some_and(|id| id != announced.key)
        {
            return Err(OpenPgpFault::malformed("the signature that the one-pass packet announces"));
        }
        // GUARD: pgp-type -> evil_signature_of_a_text_document
        if signature.kind != BINARY {
            return Err(OpenPgpFault::Unsupported { what: "type of signature", found: signature.kind });
        }
        let mut fault = OpenPgpFault::Stranger { key_id: hex::encode_upper(announced.key) };
        for signer in self.by_id(announced.key) {
            if !signature.is_of(&signer.key) {
                continue;
            }
            let verified = signature.verify(&signer.key, &[text]);
            // GUARD: pgp-signature -> evil_signature_over_another_text
            if let Err(found) = verified {
                fault = found;
                continue;
            }
            let allowed = signer.may_sign(signature.created);
            // GUARD: pgp-key-allowed -> evil_signature_by_a_revoked_key
            if let Err(found) = allowed {
                fault = found;
                continue;
            }
            // GUARD: pgp-signature-expires -> evil_signature_that_expires
            if signature.expires.is_some_and(|seconds| seconds != 0) {
                return Err(OpenPgpFault::SignatureExpires);
            }
            return Ok(Verified {
                text: text.to_vec(),
                primary: signer.primary.clone(),
                signer: signer.key.name(),
                date: signature.created,
            });
        }
        Err(fault)
    }
}

/// A one-pass signature packet (RFC 4880, 5.4).
struct OnePass {
    kind: u8,
    hash: u8,
    algorithm: u8,
    key: [u8; 8],
}

impl OnePass {
    fn parse(body: &[u8]) -> Result<Self, OpenPgpFault> {
        let mut reader = Reader::new(body);
        let version = reader.byte()?;
        if version != 3 {
            return Err(OpenPgpFault::Unsupported {
                what: "version of a one-pass signature",
                found: version,
            });
        }
        let (kind, hash, algorithm) = (reader.byte()?, reader.byte()?, reader.byte()?);
        let key = reader.array()?;
        let last = reader.byte()?;
        reader.finish()?;
        if last != 1 {
            return Err(OpenPgpFault::malformed("one signature only"));
        }
        Ok(Self { kind, hash, algorithm, key })
    }
}

/// The text of a literal packet (RFC 4880, 5.9). Name and date in it are not signed and not looked at.
fn literal_text(body: &[u8]) -> Result<&[u8], OpenPgpFault> {
    let mut reader = Reader::new(body);
    let kind = reader.byte()?;
    if kind != b'b' {
        return Err(OpenPgpFault::Unsupported { what: "kind of literal", found: kind });
    }
    let name = reader.byte()?;
    reader.take(usize::from(name))?;
    reader.u32()?;
    Ok(reader.rest())
}
