//! The upgrade machine: one upgrade of one modem, from the job to the proof, across every crash.
//!
//! ```text
//!            ┌───────────── driver: save ─ rest ─ act ─ apply ─ report ─────────────┐
//!            ▼                 │                                                    │
//!   state ── action ──► perform ── outcome ──► state::table ── next state ──────────┘
//!            ▲                 │
//!         journal           modem, source, verify, guardian, uplink
//! ```
//! A state names exactly one pending action; its outcome gives the next state. Everything that is
//! decided is decided in `state`, without I/O; everything that is done is done in `perform`, which
//! decides nothing. Start and recovery are the same path: load the journal, [`state::State::resume`],
//! drive.
//!
//! To understand it, read in this order:
//!
//! | file | what it says | I/O |
//! |---|---|---|
//! | [`state`] | the states, drawn; which may be cancelled, which come first | none |
//! | `state/table` | the whole transition table, a line an outcome | none |
//! | `state/kinds` | its words: steps, actions, outcomes, sightings | none |
//! | [`driver`] | how one turn goes, and when it ends | through the others |
//! | [`perform`] | what each action does to the world, a file an action | the environment's ports |
//!
//! And when it is needed:
//!
//! | file | what it says | I/O |
//! |---|---|---|
//! | [`exclusion`] | which nameless device is our modem, and when nobody could say | none |
//! | [`policy`] | how often and how long to wait | none |
//! | [`journal`] | the state on disk, across power cuts | files |
//! | [`report`] | which transitions are milestones | the outbox |
//! | [`results`] | how the last operations ended | files |
//!
//! `state/enumeration` searches every reachable combination of memory, journal and world with up to
//! three cuts; it is what the promise of never bricking rests on. Which of several modems has its turn
//! is not decided here but in [`crate::run`].

pub mod driver;
pub mod exclusion;
pub mod journal;
pub mod perform;
pub mod policy;
pub mod report;
pub mod results;
pub mod state;
