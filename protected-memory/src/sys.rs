//! The unsafe islands: each file wraps one idea of the kernel in a safe interface.

pub(crate) mod child;
pub(crate) mod device_mapper;
pub(crate) mod device_memory;
pub(crate) mod file_verity;
pub(crate) mod file_view;
pub(crate) mod filter;
pub(crate) mod loop_device;
pub(crate) mod mapping;
pub(crate) mod mount_attributes;
pub(crate) mod secret_pages;
pub(crate) mod signals;
