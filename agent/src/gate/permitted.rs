//! A request that the policy permits.

use std::fmt;
use std::ops::Deref;

use tokio::time::Instant;

/// A request that the policy permits, and that the audit knows of. Handlers take nothing else, and only the gate makes it.
///
/// ```compile_fail,E0451
/// # fn forge(request: protocol::agent::ExecProcessRequest) {
/// let permitted = agent::gate::Permitted { request, deadline: None };
/// # }
/// ```
///
/// ```compile_fail,E0624
/// # fn forge(request: protocol::agent::ExecProcessRequest) {
/// let permitted = agent::gate::Permitted::new(request, None);
/// # }
/// ```
///
/// Nor is there a second use of one:
///
/// ```compile_fail,E0599
/// # fn again(permitted: agent::gate::Permitted<protocol::agent::ExecProcessRequest>) {
/// let second = permitted.clone();
/// # let _: agent::gate::Permitted<protocol::agent::ExecProcessRequest> = second;
/// # }
/// ```
pub struct Permitted<R> {
    request: R,
    deadline: Option<Instant>,
}

impl<R> Permitted<R> {
    /// Made by the gate, after the decision.
    pub(super) const fn new(request: R, deadline: Option<Instant>) -> Self {
        Self { request, deadline }
    }

    /// The request, whole.
    pub fn into_inner(self) -> R {
        self.request
    }

    /// Whether the caller has stopped waiting: what is made now would be left over, and has to be taken back.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// When the caller stops waiting.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl<R> Deref for Permitted<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.request
    }
}

/// Nothing of the request.
impl<R> fmt::Debug for Permitted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permitted").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
