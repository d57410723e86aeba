//! The operator's API from outside, a file for each part of the URLs.

mod auth;
mod build;
mod category;
mod device;
mod events;
mod firmware;
mod health;
mod image;
mod operation;
mod world;
