//! The chip's keys (interface spec §6.2).

use hpke::kem::{DhP384HkdfSha384, X25519HkdfSha256, XWing};
use hpke::{Deserializable, Kem, Serializable};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use p384::elliptic_curve::Curve;
use p384::elliptic_curve::bigint::{NonZero, U384, U576};
use p384::pkcs8::EncodePublicKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use chip_client::abi::identity_const::{CHIP_ID_LEN, LABEL_CHIP_ID, P384_PUBLIC_LEN, X_WING_PUBLIC_LEN};

use crate::puf::Root;

const SEED_LABEL: &[u8] = b"innerkeep chip key v1";
/// Keys that stay the same in all epochs.
const NO_EPOCH: u64 = 0;

type P384Private = <DhP384HkdfSha384 as Kem>::PrivateKey;
type XWingPrivate = <XWing as Kem>::PrivateKey;

/// All long-lived keys, derived at power-up and dropped, wiped, at reset.
pub(crate) struct Keys {
    signing: SigningKey,
    signing_spki: Vec<u8>,
    id: [u8; CHIP_ID_LEN],
    noise_private: Zeroizing<[u8; 32]>,
    noise_public: [u8; 32],
    grant_p384: P384Private,
    grant_p384_public: [u8; P384_PUBLIC_LEN],
    grant_x_wing: XWingPrivate,
    grant_x_wing_public: Box<[u8; X_WING_PUBLIC_LEN]>,
    epoch: u64,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("id", &hex::encode(self.id))
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// A derivation that no root can lead to; reported as an internal error instead of a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key could not be derived")]
pub(crate) struct DerivationFailed;

impl Keys {
    pub(crate) fn derive(root: &Root, epoch: u64) -> Result<Self, DerivationFailed> {
        let signing = signing_key(root)?;
        let signing_spki = VerifyingKey::from(&signing)
            .to_public_key_der()
            .map_err(|_encoding| DerivationFailed)?
            .into_vec();
        let mut id = Sha256::new();
        id.update(LABEL_CHIP_ID);
        id.update(&signing_spki);

        let mut noise_private = seed::<32>(root, "noise", NO_EPOCH);
        let [first, .., last] = &mut *noise_private;
        *first &= 0xf8;
        *last = *last & 0x7f | 0x40;
        let noise = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(noise_private.as_slice())
            .map_err(|_length| DerivationFailed)?;
        let noise_public = X25519HkdfSha256::sk_to_pk(&noise).to_bytes().into();

        let (grant_p384, p384_public) =
            DhP384HkdfSha384::derive_keypair(seed::<48>(root, "grant p384", epoch).as_slice());
        let (grant_x_wing, x_wing_public) =
            XWing::derive_keypair(seed::<32>(root, "grant x-wing", epoch).as_slice());
        let mut grant_p384_public = [0; P384_PUBLIC_LEN];
        p384_public.write_exact(&mut grant_p384_public);
        let mut grant_x_wing_public = Box::new([0; X_WING_PUBLIC_LEN]);
        x_wing_public.write_exact(grant_x_wing_public.as_mut_slice());
        Ok(Self {
            signing,
            signing_spki,
            id: id.finalize().into(),
            noise_private,
            noise_public,
            grant_p384,
            grant_p384_public,
            grant_x_wing,
            grant_x_wing_public,
            epoch,
        })
    }

    /// `r ‖ s` over the message, ECDSA P-384 with SHA-384.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 96] {
        let signature: Signature = self.signing.sign(message);
        signature.to_bytes().into()
    }

    pub(crate) fn id(&self) -> [u8; CHIP_ID_LEN] {
        self.id
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    pub(crate) fn signing_spki(&self) -> &[u8] {
        &self.signing_spki
    }

    pub(crate) fn noise_private(&self) -> &[u8; 32] {
        &self.noise_private
    }

    pub(crate) fn noise_public(&self) -> &[u8; 32] {
        &self.noise_public
    }

    pub(crate) fn grant_p384(&self) -> (&P384Private, &[u8; P384_PUBLIC_LEN]) {
        (&self.grant_p384, &self.grant_p384_public)
    }

    pub(crate) fn grant_x_wing(&self) -> (&XWingPrivate, &[u8; X_WING_PUBLIC_LEN]) {
        (&self.grant_x_wing, &self.grant_x_wing_public)
    }
}

/// `HKDF-Expand(SHA-512, root, "innerkeep chip key v1" ‖ LP(label) ‖ u64(epoch), N)`.
fn seed<const N: usize>(root: &Root, label: &str, epoch: u64) -> Zeroizing<[u8; N]> {
    let length = u32::try_from(label.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Zeroizing::new([0; N]);
    root.expand(&[SEED_LABEL, &length, label.as_bytes(), &epoch.to_le_bytes()], out.as_mut_slice());
    out
}

/// `seed("sign", 72)` as a big-endian integer mod (n − 1), + 1.
fn signing_key(root: &Root) -> Result<SigningKey, DerivationFailed> {
    let seed = seed::<72>(root, "sign", NO_EPOCH);
    let wide = Zeroizing::new(U576::from_be_slice(seed.as_slice()));
    let order = p384::NistP384::ORDER.get();
    let modulus = NonZero::new(order.wrapping_sub(&U384::ONE)).into_option().ok_or(DerivationFailed)?;
    let scalar = Zeroizing::new(wide.rem(&modulus).wrapping_add(&U384::ONE));
    let bytes = Zeroizing::new(scalar.to_be_bytes());
    SigningKey::from_slice(bytes.as_ref()).map_err(|_scalar| DerivationFailed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puf::{Extractor, Response};

    fn root(byte: u8) -> Root {
        let reading = Response::unpack(&[byte; crate::puf::RESPONSE_BYTES]);
        Extractor::new().enrol(&reading, &[1, 2, 3, 4, 5, 6, 7]).1
    }

    #[test]
    fn keys_are_deterministic_and_only_grant_keys_follow_the_epoch() {
        let one = Keys::derive(&root(0x3c), 1).unwrap();
        let again = Keys::derive(&root(0x3c), 1).unwrap();
        let two = Keys::derive(&root(0x3c), 2).unwrap();
        let other = Keys::derive(&root(0x3d), 1).unwrap();
        assert_eq!(one.id, again.id);
        assert_eq!(one.grant_x_wing_public, again.grant_x_wing_public);
        assert_eq!((one.id, one.noise_public), (two.id, two.noise_public));
        assert_ne!(one.grant_p384_public, two.grant_p384_public);
        assert_ne!(one.grant_x_wing_public, two.grant_x_wing_public);
        assert_ne!(one.id, other.id);
        assert_ne!(one.noise_public, other.noise_public);
    }

    #[test]
    fn the_id_is_the_labelled_hash_of_the_spki() {
        let keys = Keys::derive(&root(1), 1).unwrap();
        let mut input = b"innerkeep chip id v1".to_vec();
        input.extend_from_slice(keys.signing_spki());
        assert_eq!(keys.id(), <[u8; 32]>::from(Sha256::digest(&input)));
        assert_eq!(keys.signing_spki().len(), 120);
    }

    #[test]
    fn signatures_verify_under_the_spki() {
        use p384::ecdsa::signature::Verifier;
        use p384::pkcs8::DecodePublicKey;
        let keys = Keys::derive(&root(2), 1).unwrap();
        let public = VerifyingKey::from_public_key_der(keys.signing_spki()).unwrap();
        let signature = Signature::from_slice(&keys.sign(b"message")).unwrap();
        public.verify(b"message", &signature).unwrap();
    }
}
