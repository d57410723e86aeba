//! What crosses the wire between agent, coordinator and operator, and what both must read alike:
//! identifiers, topics, the job out ([`desired`], [`grant`]), the report back ([`event`], [`ack`],
//! [`inventory`]), the signed [`manifest`], [`signature`]s, the proofs of [`identity`], tool
//! [`profile`]s, and the one table of [`stages`].
//!
//! No tokio, no I/O. Everything from outside has a size limit ([`limits`]) and an `Unknown` variant
//! where the other side may be newer; every format is versioned and has golden files in
//! `shared/tests/golden`.

pub mod ack;
pub mod desired;
pub mod event;
pub mod failure;
pub mod fields;
pub mod grant;
pub mod hex;
pub mod identity;
pub mod ids;
pub mod inventory;
pub mod limits;
pub mod manifest;
mod names;
pub mod profile;
pub mod signature;
pub mod stages;
pub mod strict_json;
pub mod topics;
