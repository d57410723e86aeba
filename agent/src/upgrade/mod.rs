//! The upgrade machine.
//!
//! | file | owns | I/O |
//! |---|---|---|
//! | [`state`] | the states and the whole transition table | none |
//! | [`exclusion`] | what it means that our modem does not answer | none |
//! | [`policy`] | how often and how long to wait | none |
//! | [`journal`] | the state on disk, across power cuts | files |
//! | [`driver`] | save, report, act, apply, again | through the others |
//! | [`report`] | which transitions are milestones | the outbox |
//! | [`results`] | how the last operations ended | files |
//! | [`perform`] | what each action does to the world | the environment's ports |
//!
//! Start and recovery are the same path: load the journal, [`state::State::resume`], drive.

pub mod driver;
pub mod exclusion;
pub mod journal;
pub mod perform;
pub mod policy;
pub mod report;
pub mod results;
pub mod state;
