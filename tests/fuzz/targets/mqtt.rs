//! MQTT packets at the coordinator's listener, before anybody has shown a token.

#![no_main]

use bytes::BytesMut;
use fuzz::lines::codec::{Taken, take};
use libfuzzer_sys::fuzz_target;
use shared::limits::MQTT_PACKET;

fuzz_target!(|input: &[u8]| {
    let mut buffer = BytesMut::from(input);
    loop {
        let before = buffer.len();
        match take(&mut buffer, MQTT_PACKET) {
            Ok(Taken::Packet(_)) => assert!(buffer.len() < before, "it takes what it read"),
            Ok(Taken::Missing(_)) => {
                assert_eq!(buffer.len(), before, "what is incomplete stays");
                break;
            }
            Err(_) => break,
        }
    }
});
