//! The parsers of agent and coordinator, compiled in by their paths: the crates around them bring
//! TLS, HTTP and SQLite, which take minutes to build with coverage and are not fuzzed here.

// Nothing at all without its feature, which is not one of this crate.
#[allow(unexpected_cfgs, reason = "the agent's feature")]
#[path = "../../../agent/src/failpoint.rs"]
mod failpoint;

#[path = "../../../agent/src/files.rs"]
pub mod files;

#[path = "../../../agent/src/modem"]
pub mod modem {
    pub mod at;
    pub mod baseline;
    pub mod urc;

    pub use baseline::Baseline;
}

#[path = "../../../agent/src/guardian"]
pub mod guardian {
    pub mod progress;

    pub mod holders {
        pub mod holder;

        pub use holder::Holder;
    }
}

#[path = "../../../agent/src/settings"]
pub mod settings {
    pub mod uci;
}

#[path = "../../../agent/src/upgrade"]
pub mod upgrade {
    pub mod journal;
    pub mod policy;
    pub mod state;
}

#[path = "../../../coordinator/src/lines"]
pub mod lines {
    pub mod codec;
}
