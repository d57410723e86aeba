//! MQTT 3.1.1 packets to and from bytes: `rumqttd::protocol::v4` behind the few kinds of packet
//! that a line knows. Pure; owns no socket.
//!
//! The codec keeps a publish's QoS and packet id to itself and cannot write an UNSUBACK, so those
//! are read and written here, from the OASIS standard of MQTT 3.1.1.

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::v4::{self, V4};
use rumqttd::protocol::{
    ConnAck, ConnectReturnCode, Error, Packet, PingResp, Protocol as _, PubAck, PubAckReason,
    Publish, QoS, SubAck, SubscribeReasonCode,
};

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Connect(Connect),
    Publish(Uplink),
    PubAck,
    Subscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    Ping,
    Disconnect,
    /// A packet that only servers send, or one of QoS 2's.
    Unexpected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Empty = the client leaves its name to us.
    pub client_id: String,
    pub clean_session: bool,
    /// Seconds; 0 = the client promises nothing.
    pub keep_alive: u16,
    pub password: Option<String>,
    pub username: String,
    pub will: Option<Will>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub exactly_once: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub topic: String,
    pub payload: Vec<u8>,
    pub delivery: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1, with the packet id to acknowledge.
    AtLeastOnce(u16),
    /// QoS 2, which no line serves.
    ExactlyOnce,
}

/// Why bytes are not a packet we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than the limit.
    Oversized,
    /// A CONNECT of another protocol version.
    Version,
    /// Anything else.
    Garbage,
}

/// What [`take`] found at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Packet(Incoming),
    /// At least this many bytes are missing.
    Missing(usize),
}

/// Takes one whole packet of at most `limit` bytes (beside its fixed header) off `buffer`.
///
/// # Errors
/// [`Malformed`]; the buffer is then of no more use.
pub fn take(buffer: &mut BytesMut, limit: usize) -> Result<Taken, Malformed> {
    let header = match v4::check(buffer.iter(), limit) {
        Ok(header) => header,
        Err(Error::InsufficientBytes(missing)) => return Ok(Taken::Missing(missing)),
        Err(Error::PayloadSizeLimitExceeded(_)) => return Err(Malformed::Oversized),
        Err(_) => return Err(Malformed::Garbage),
    };
    let mut frame = buffer.split_to(header.frame_length());
    let delivery = delivery(header.byte1, frame.get(header.fixed_header_len..).unwrap_or(&[]));
    let packet = V4.read_mut(&mut frame, limit).map_err(|error| match error {
        Error::InvalidProtocolLevel(_) => Malformed::Version,
        _ => Malformed::Garbage,
    })?;
    incoming(packet, delivery).map(Taken::Packet)
}

fn incoming(packet: Packet, delivery: Option<Delivery>) -> Result<Incoming, Malformed> {
    Ok(match packet {
        Packet::Connect(connect, _, will, _, login) => {
            let (username, password) = match login {
                Some(login) => (login.username, Some(login.password)),
                None => (String::new(), None),
            };
            let will = will
                .map(|will| {
                    Ok(Will {
                        topic: text(&will.topic)?,
                        payload: will.message.to_vec(),
                        exactly_once: will.qos == QoS::ExactlyOnce,
                    })
                })
                .transpose()?;
            Incoming::Connect(Connect {
                client_id: connect.client_id,
                clean_session: connect.clean_session,
                keep_alive: connect.keep_alive,
                password,
                username,
                will,
            })
        }
        // Copied: a slice would keep the connection's whole read buffer alive in the queue.
        Packet::Publish(publish, _) => Incoming::Publish(Uplink {
            topic: text(&publish.topic)?,
            payload: publish.payload.to_vec(),
            delivery: delivery.ok_or(Malformed::Garbage)?,
        }),
        Packet::PubAck(..) => Incoming::PubAck,
        Packet::Subscribe(subscribe, _) => Incoming::Subscribe {
            pkid: subscribe.pkid,
            filters: subscribe.filters.into_iter().map(|filter| filter.path).collect(),
        },
        Packet::Unsubscribe(unsubscribe, _) => {
            Incoming::Unsubscribe { pkid: unsubscribe.pkid, filters: unsubscribe.filters }
        }
        Packet::PingReq(_) => Incoming::Ping,
        Packet::Disconnect(..) => Incoming::Disconnect,
        Packet::ConnAck(..)
        | Packet::PingResp(_)
        | Packet::SubAck(..)
        | Packet::PubRec(..)
        | Packet::PubRel(..)
        | Packet::PubComp(..)
        | Packet::UnsubAck(..) => Incoming::Unexpected,
    })
}

/// A publish's QoS and packet id (MQTT 3.1.1, sections 3.3.1.2 and 3.3.2); `body` begins at the
/// variable header.
fn delivery(first: u8, body: &[u8]) -> Option<Delivery> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    match first & 0b0110 {
        0 => Some(Delivery::AtMostOnce),
        0b0010 => {
            let after_topic = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
            let (pkid, _) = after_topic.split_first_chunk::<2>()?;
            Some(Delivery::AtLeastOnce(u16::from_be_bytes(*pkid)))
        }
        _ => Some(Delivery::ExactlyOnce),
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Garbage)
}

/// The answers to a CONNECT that MQTT 3.1.1 has (section 3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    Version,
    ClientId,
    Unavailable,
    Credentials,
    NotAuthorized,
}

/// Appends a CONNACK. There are no stored sessions, so none is ever present.
pub fn put_connack(buffer: &mut BytesMut, answer: Answer) {
    let code = match answer {
        Answer::Accepted => ConnectReturnCode::Success,
        Answer::Version => ConnectReturnCode::RefusedProtocolVersion,
        Answer::ClientId => ConnectReturnCode::ClientIdentifierNotValid,
        Answer::Unavailable => ConnectReturnCode::ServiceUnavailable,
        Answer::Credentials => ConnectReturnCode::BadUserNamePassword,
        Answer::NotAuthorized => ConnectReturnCode::NotAuthorized,
    };
    put(buffer, Packet::ConnAck(ConnAck { session_present: false, code }, None));
}

pub fn put_puback(buffer: &mut BytesMut, pkid: u16) {
    put(buffer, Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None));
}

pub fn put_pingresp(buffer: &mut BytesMut) {
    put(buffer, Packet::PingResp(PingResp));
}

/// Appends a SUBACK: QoS 0 where granted, 0x80 where not.
pub fn put_suback(buffer: &mut BytesMut, pkid: u16, granted: &[bool]) {
    let code = |granted: &bool| match granted {
        true => SubscribeReasonCode::QoS0,
        false => SubscribeReasonCode::Failure,
    };
    let return_codes = granted.iter().map(code).collect();
    put(buffer, Packet::SubAck(SubAck { pkid, return_codes }, None));
}

/// Appends an UNSUBACK (MQTT 3.1.1, section 3.11).
pub fn put_unsuback(buffer: &mut BytesMut, pkid: u16) {
    buffer.put_slice(&[0xb0, 2]);
    buffer.put_u16(pkid);
}

/// Appends a QoS 0 PUBLISH.
pub fn put_publish(buffer: &mut BytesMut, topic: &str, payload: &[u8], retain: bool) {
    let publish = Publish::new(topic.as_bytes().to_vec(), payload.to_vec(), retain);
    put(buffer, Packet::Publish(publish, None));
}

/// The codec refuses only bodies over 256 MiB and packet id 0 of a QoS it is never given here;
/// it panics on the kinds it cannot write, none of which is passed above.
fn put(buffer: &mut BytesMut, packet: Packet) {
    let before = buffer.len();
    if V4.write(packet, buffer).is_err() {
        buffer.truncate(before);
    }
}

#[cfg(test)]
mod tests;
