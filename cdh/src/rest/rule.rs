//! What a list of names alone does not decide.

use crate::rest::peers::ContainerId;
use crate::rest::{RestError, Route};

/// Says of a container that asks for what is listed for it whether it gets it now. A guest agent knows of a container on which root it stands, and
/// whom bound configuration means.
pub trait Rule: Send + Sync {
    /// Whether a route may be answered. Asked last, when it is known again who asks.
    ///
    /// # Errors
    ///
    /// `REST_NOT_ATTESTED`, and whatever else is in the way.
    fn permit(&self, container: &ContainerId, route: &Route) -> Result<(), RestError>;
}

/// What is listed is answered: for a front that knows nothing of containers but their names.
#[derive(Clone, Copy, Debug)]
pub struct ListAlone;

impl Rule for ListAlone {
    fn permit(&self, _: &ContainerId, _: &Route) -> Result<(), RestError> {
        Ok(())
    }
}
