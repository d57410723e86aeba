//! What crosses the wire between agent and coordinator: no tokio, no I/O.
