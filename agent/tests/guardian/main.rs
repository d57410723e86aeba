//! The guardian with real processes: shell scripts stand in for the vendor's tool.
//!
//! | file | what |
//! |---|---|
//! | `tool` | how a tool runs, ends and is understood |
//! | `death` | the agent's, the guardian's, and signals that are none |
//! | `holders` | whose business giving back is, and when |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "a test plays the world around the agent")]

#[allow(dead_code)] // Shared with the unit tests, which use all of it.
#[path = "../../src/testing.rs"]
mod testing;

mod death;
mod holders;
mod router;
mod tool;
