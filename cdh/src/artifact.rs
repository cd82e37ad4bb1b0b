//! Sealed artifacts: found, judged, opened, landed.

mod chip;
mod fill;
mod guest;
mod keys;
mod land;
mod prepared;
pub mod store;

pub use chip::Chip;
pub use fill::{openers, plan, write_to};
pub use guest::{Choices, Facts, Guest};
pub use keys::{Broker, BrokerAccess, KeySource};
pub use land::{Landed, Order, Released, Reserved};
pub use prepared::{Prepared, describe_origin, pin_of};
pub use sealed_artifact::kbs::KbsRecipient;
pub use sealed_artifact::parallel::Observer;
pub use sealed_artifact::signature::{Origin, Pin};
pub use store::{Reference, Store};
