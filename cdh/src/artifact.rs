//! Sealed artifacts: found, judged, opened, landed.

mod cache;
mod chip;
mod fill;
mod guest;
mod keys;
mod land;
mod named;
mod opener;
mod prepared;
mod remote;
pub mod store;

pub use cache::{Cache, StoredArtifacts};
pub use chip::Chip;
pub use fill::{openers, plan, write_to};
pub use guest::{Choices, Facts, Guest};
pub use keys::{Broker, BrokerAccess, KeySource};
pub use land::{Landed, Order, Released, Reserved};
pub use named::NamedArtifacts;
pub use opener::{BrokerPlace, Chips, HubBroker, Opener, OpenerError, Shared, require_environment};
pub use prepared::{Prepared, describe_origin, pin_of};
pub use remote::prepare as prepare_remote;
pub use sealed_artifact::kbs::KbsRecipient;
pub use sealed_artifact::parallel::Observer;
pub use sealed_artifact::signature::{Origin, Pin};
pub use store::{Beside, Parts, Ranges, Reference, Store};
