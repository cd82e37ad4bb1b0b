//! Container images: what is pulled, checked, unpacked and mounted inside the guest.

pub mod layer;
pub mod objects;
pub mod ocicrypt;
pub mod policy;
pub mod pull;
pub mod tree;
pub mod unpacking;
