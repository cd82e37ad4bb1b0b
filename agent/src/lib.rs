//! The guest agent: first process of the guest, and the port that the runtime speaks to.
//!
//! ```text
//!  kernel ─exec─▶ pid1: console, environment, mounts, hardening ─▶ TEE? insecure file? command line (log level only)
//!                   │                                                       │
//!                   │  SIGCHLD ─▶ Reaper    uevents ─▶ DiskNews ─▶ initdata, bound to the register
//!                   ▼                                                       ▼
//!  runtime ─vsock 1024, only from the host─▶ Guarded (frames, deadlines, budget) ─▶ ttrpc ─▶ grpc.Health
//!                   │
//!                   └── SIGTERM, SIGINT, an error, a panic, a crash ─▶ the reason as a line of JSON ─▶ power off
//! ```
//!
//! ```
//! use agent::cmdline::CommandLine;
//! use agent::log::Level;
//!
//! let line = CommandLine::parse(b"console=ttyS0 agent.log=debug agent.devmode agent.policy_file=/evil");
//! assert_eq!(line.log_level, Some(Level::Debug));
//! assert_eq!(line.ignored(), ["agent.devmode", "agent.policy_file"]);
//! ```
//!
//! As PID 1 it refuses to: read its arguments or environment; take security configuration from the kernel command line; go on
//! after a step that failed; answer anybody but the host. It never ends by itself and never leaves the machine running
//! without it.
//!
//! Whatever it prints is the host's to read: log lines are made of fixed texts and of the fields that
//! [`log::Key`] lists.

pub mod args;
mod audit;
mod audit_service;
pub mod cgroup;
pub mod cmdline;
mod containers;
mod context;
pub mod copy;
mod descriptors;
pub mod devices;
pub use cdh::dm;
#[doc(hidden)]
pub mod engine;
pub mod error;
pub mod gate;
mod health;
pub mod hotplug;
mod hub;
pub mod insecure;
pub mod log;
pub mod machine;
pub mod measured;
mod metrics;
pub mod namespaces;
pub mod network;
mod pid1;
pub mod reaper;
mod rest;
mod roles;
mod rpc;
mod sandbox;
mod sealed;
pub mod server;
pub mod spec;
mod standalone;
mod start;
pub mod storage;
pub mod streams;
pub mod swap;
mod sys;
mod tee;
pub mod uevent;
pub mod volume;
mod vsock;
#[doc(hidden)]
pub mod zygote;

pub use error::AgentError;
use roles::Role;

/// The version of Kata Containers whose agent this one stands in for: what `grpc.Health` and `--version` answer.
pub const INTERFACE_VERSION: &str = "4.1.0";
/// The version of the ttrpc interface.
pub const API_VERSION: &str = "0.0.1";
/// What upstream builds only if asked to: what GetGuestDetails and `--version` answer.
pub const EXTRA_FEATURES: [&str; 2] = ["agent-policy", "seccomp"];
/// Our own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The whole program. As PID 1 it does not return: it ends with the machine.
///
/// Returns the exit status.
#[must_use]
pub fn run() -> i32 {
    if rustix::process::getpid().is_init() {
        return pid1::run();
    }
    if zygote::is_one() {
        return zygote::run();
    }
    if let Some(status) = cdh::worker::main() {
        return status;
    }
    if let Some((role, arguments)) = Role::of(std::env::args_os()) {
        return role.run(arguments);
    }
    standalone::run()
}
