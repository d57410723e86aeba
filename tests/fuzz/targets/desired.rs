//! The coordinator's answer to `GET desired`: what is understood says the same when it is written
//! again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::desired::Desired;

fuzz_target!(|input: &[u8]| {
    let Ok(desired) = serde_json::from_slice::<Desired>(input) else { return };
    let again = serde_json::to_vec(&desired).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<Desired>(&again).expect("and read"), desired);
});
