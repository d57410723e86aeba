//! The operator's API, base `/api/v1/modem-upgrader/`, and its route table.

pub mod body;
pub mod error;
pub mod page;
