//! The agent on the router.

pub mod cli;
pub mod clock;
pub mod commands;
pub mod cron;
pub mod environment;
mod failpoint;
pub mod files;
pub mod gates;
pub mod guardian;
pub mod hooks;
pub mod identity;
pub mod inventory;
pub mod modem;
pub mod netifd;
pub mod outbox;
pub mod processes;
pub mod profiles;
pub mod random;
pub mod route;
pub mod run;
pub mod settings;
pub mod source;
pub mod staging;
pub mod status;
pub mod sysfs;
pub mod sysupgrade;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod upgrade;
pub mod uplink;
pub mod verify;
pub mod wake;
