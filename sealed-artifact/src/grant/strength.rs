//! An artifact is as strong as its weakest grant.

use super::{Grant, GrantKind};

/// The weakest kind among the grants of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeakestGrant {
    kind: GrantKind,
}

impl WeakestGrant {
    /// The kind.
    #[must_use]
    pub const fn kind(self) -> GrantKind {
        self.kind
    }

    /// What the artifact's secrecy rests on.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self.kind {
            GrantKind::Chip => "a chip that verifies the guest's evidence itself releases the key",
            GrantKind::Snp => {
                "the processor gives the key to the same image on the same platform, and that image alone compares initdata: \
                 no verifier is asked, and no TCB is refused that is new enough for the key"
            }
            GrantKind::Kbs => {
                "a key broker keeps a key to the artifact: its operator can open it, and what its policy language cannot \
                 express is not enforced"
            }
            GrantKind::Tpm => {
                "a TPM, which is no TEE, gives the key to whoever runs the measured software beside it: on a virtual machine \
                 the host provides the TPM and can read the key"
            }
        }
    }
}

/// The weakest of these grants; `None` if there are none.
///
/// From weakest to strongest: `tpm`, `kbs`, `snp`, `chip`. Weak policies are another matter: see
/// [`PolicyDocument::weaknesses`](crate::policy::PolicyDocument::weaknesses).
#[must_use]
pub fn weakest(grants: &[Grant]) -> Option<WeakestGrant> {
    [GrantKind::Tpm, GrantKind::Kbs, GrantKind::Snp, GrantKind::Chip]
        .into_iter()
        .find(|kind| grants.iter().any(|grant| grant.kind() == *kind))
        .map(|kind| WeakestGrant { kind })
}
