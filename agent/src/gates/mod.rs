//! What must hold around a modem before it is flashed, each as a rule that can be asked alone: the
//! maintenance window, free memory, traffic, the month's data.
//!
//! Everything here decides; reading the router and asking the modem is `upgrade/perform/gates`.
//! A closed gate never fails an upgrade: it postpones it, with a reason for people.

pub mod budget;
pub mod local_time;
pub mod memory;
pub mod traffic;
pub mod window;
