//! The coordinator as agents and an operator see it, over real TLS.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test plays the world around the coordinator, and its helpers may fail"
)]

mod api;
mod crash;
mod line;
#[path = "../fixture/manifest.rs"]
mod manifest;
mod peer;
