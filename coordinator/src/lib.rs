//! The coordinator.

pub mod api;
pub mod artifacts;
pub mod backup;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod config;
mod crowd;
pub mod dispatch;
pub mod duplicate;
pub mod feed;
pub mod ingest;
pub mod lines;
pub mod operation;
pub mod password;
pub mod pilot;
pub mod secret;
pub mod secret_file;
pub mod serve;
pub mod store;
pub mod tls;
pub mod tokens;
