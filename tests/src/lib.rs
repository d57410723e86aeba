//! The lab: routers that are real down to the serial bytes, vendor tools, faults.
//!
//! A router here is a directory (`sys`, `dev`, `proc`, `state`, `run`, ...) with the real agent in it and a
//! [`modem::SimulatedModem`] behind real ptys.

#![allow(
    clippy::disallowed_methods,
    reason = "the lab is the world around the product: it starts it, kills it, and plays its tools"
)]

pub mod applet;
pub mod bench;
pub mod campaign;
pub mod coordinator;
pub mod demo;
pub mod faults;
pub mod firmware;
pub mod fleet;
pub mod link;
pub mod modem;
pub mod random;
pub mod release;
pub mod router;
pub mod scene;
pub mod sign_in;
pub mod tools;
pub mod uxfp;
pub mod watch;
