//! What the developer commands and the end-to-end tests share: where the workspace is, and a virtual machine to stand in.
#![forbid(unsafe_code)]

pub mod shell;
pub mod vm;
