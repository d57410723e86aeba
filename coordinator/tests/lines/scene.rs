//! Who plays, and what they say.

use coordinator::lines::InboundBody;
use rumqttd::protocol::{LastWill, QoS};

use crate::stand::device;

pub const VICTIM: u128 = 1;

pub const VILLAIN: u128 = 2;

pub const USER: u128 = 77;

pub fn up(n: u128, what: &str) -> String {
    format!("mu/acme/{}/up/{what}", device(n))
}

pub fn will(n: u128, payload: &str) -> LastWill {
    LastWill {
        topic: up(n, "presence").into(),
        message: payload.to_owned().into(),
        qos: QoS::AtLeastOnce,
        retain: false,
    }
}

pub fn presence(text: &str) -> InboundBody {
    InboundBody::Presence(text.as_bytes().to_vec())
}
