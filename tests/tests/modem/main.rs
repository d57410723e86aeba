//! The agent's dialect and the stand-in tool against the simulated modem, over real ptys.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what tests share is a test as well")]
#![allow(clippy::disallowed_methods, reason = "a test plays the world around the agent")]

mod dialect;
mod faults;
mod flash;
mod ports;
mod router;
