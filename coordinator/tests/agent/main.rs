//! The coordinator as agents and an operator see it, over real TLS.

mod api;
mod crash;
mod peer;
