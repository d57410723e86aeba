//! The operator's API from outside, a file for each part of the URLs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml lets tests use them, but does not see helpers of tests as tests"
)]

mod account;
mod audit;
mod auth;
mod batch;
mod build;
mod category;
mod changes;
mod device;
mod enrolment;
mod events;
mod firmware;
mod health;
mod image;
mod large;
#[path = "../fixture/manifest.rs"]
mod manifest;
mod openapi;
mod operation;
mod organization;
mod repeat;
mod report;
mod strict;
mod token;
mod world;
