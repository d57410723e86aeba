//! The coordinator as agents and an operator see it, over real TLS.

#![allow(clippy::disallowed_methods, reason = "a test plays the world around the coordinator")]

mod api;
mod crash;
mod peer;
