//! UCI as `uci export` or a hand wrote it: what is understood says the same when it is written again.

#![no_main]

use fuzz::settings::uci::{export, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(package) = parse(text) else { return };
    let again = parse(&export(&package)).expect("what was written can be read");
    assert_eq!(export(&again), export(&package));
});
