//! The lines over real sockets: the way of a well-behaved device and of a dashboard, and what others try.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml lets tests use them, but does not see helpers of tests as tests"
)]

mod attack;
mod dashboard;
mod log;
mod scene;
mod seat;
mod stand;
mod stranger;
mod uplink;
