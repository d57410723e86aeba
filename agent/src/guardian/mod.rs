//! The guardian: a process of its own that owns a running tool, and the agent's way to it.
//!
//! ```text
//! agent ── plan.json, image, lock ──▶ guardian ──▶ tool (and whatever it starts)
//!   │ dies, restarts                     │ progress.json, exit.json
//!   └── attach ◀─────────────────────────┘
//! ```
//! The lock `guardian.lock` is taken by the agent before it spawns, handed to the guardian and
//! inherited by every process of the tool: while one of them lives the lock is held, and while it
//! is held no second tool starts. The tool's word is a hint; the caller reads the versions back.

mod follow;
pub mod holders;
mod output;
mod process;
pub mod profile;
pub mod progress;
pub mod record;
mod runner;
mod running;
mod transcript;
mod tree;
mod watch;

pub use process::{give_back_when_orphaned, guard_main};
pub use record::{ExitRecord, Plan, Progress, Status, Verdict};
pub use running::{
    Ended, Guardian, NotStarted, Presence, Running, is_another_running, is_any_running,
};
