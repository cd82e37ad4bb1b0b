//! Container images: what is pulled, checked, unpacked and mounted inside the guest.

pub mod ocicrypt;
pub mod policy;
pub mod tree;
