//! What a peer may ask for.

/// The permission to have chosen bytes attested, for one request. Only the check of a peer makes one.
#[derive(Debug)]
pub struct RawPermission(());

impl RawPermission {
    /// The permission is gone with the request.
    pub(crate) fn use_up(self) {
        let Self(()) = self;
    }

    /// For tests of what it permits.
    #[cfg(test)]
    pub(crate) const fn for_tests() -> Self {
        Self(())
    }
}
