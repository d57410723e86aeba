use proptest::prelude::*;
use rumqttd::protocol::{Filter, LastWill, Login, RetainForwardRule, Subscribe, Unsubscribe};

use super::*;

fn bytes(packet: Packet) -> BytesMut {
    let mut buffer = BytesMut::new();
    V4.write(packet, &mut buffer).unwrap();
    buffer
}

fn read(mut buffer: BytesMut) -> Result<Incoming, Malformed> {
    match take(&mut buffer, 1024)? {
        Taken::Packet(packet) => {
            assert!(buffer.is_empty());
            Ok(packet)
        }
        Taken::Missing(count) => panic!("{count} bytes missing"),
    }
}

#[test]
fn a_connect_keeps_will_and_login() {
    let connect = rumqttd::protocol::Connect {
        keep_alive: 60,
        client_id: "a".to_owned(),
        clean_session: true,
    };
    let will = LastWill {
        topic: "t".into(),
        message: "gone".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    let login = Login { username: "u".to_owned(), password: "p".to_owned() };
    let packet = Packet::Connect(connect, None, Some(will), None, Some(login));
    let expected = Connect {
        client_id: "a".to_owned(),
        clean_session: true,
        keep_alive: 60,
        password: Some("p".to_owned()),
        username: "u".to_owned(),
        will: Some(Will { topic: "t".to_owned(), payload: b"gone".to_vec(), exactly_once: false }),
    };
    assert_eq!(read(bytes(packet)), Ok(Incoming::Connect(expected)));
}

#[test]
fn another_version_is_told_apart_from_garbage() {
    let mut buffer = BytesMut::from(&b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x01a"[..]);
    assert_eq!(take(&mut buffer, 1024), Err(Malformed::Version));
    assert_eq!(read(BytesMut::from(&b"\x10\x04\x00\x02XX"[..])), Err(Malformed::Garbage));
    assert_eq!(read(BytesMut::from(&b"\x47\x04/ HT"[..])), Err(Malformed::Garbage));
}

#[test]
fn publishes_keep_delivery_and_packet_id() {
    let publish = |first: u8, body: &[u8]| {
        let mut buffer = BytesMut::from(&[first, u8::try_from(body.len()).unwrap()][..]);
        buffer.extend_from_slice(body);
        match read(buffer) {
            Ok(Incoming::Publish(uplink)) => {
                assert_eq!((uplink.topic.as_str(), &uplink.payload[..]), ("t", &b"x"[..]));
                Ok(uplink.delivery)
            }
            Ok(other) => panic!("{other:?}"),
            Err(malformed) => Err(malformed),
        }
    };
    assert_eq!(publish(0x30, b"\x00\x01tx"), Ok(Delivery::AtMostOnce));
    assert_eq!(publish(0x32, b"\x00\x01t\x01\x02x"), Ok(Delivery::AtLeastOnce(0x102)));
    assert_eq!(publish(0x34, b"\x00\x01t\x01\x02x"), Ok(Delivery::ExactlyOnce));
    assert_eq!(publish(0x36, b"\x00\x01t\x01\x02x"), Err(Malformed::Garbage));
    assert_eq!(publish(0x32, b"\x00\x01t\x00\x00x"), Err(Malformed::Garbage));
    assert_eq!(publish(0x32, b"\x00\x01t"), Err(Malformed::Garbage));
    assert_eq!(publish(0x30, b"\x00\x09t"), Err(Malformed::Garbage));
}

#[test]
fn subscribe_and_unsubscribe_name_their_filters() {
    let filter = Filter {
        path: "#".to_owned(),
        qos: QoS::ExactlyOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::Never,
    };
    let packet = Packet::Subscribe(Subscribe { pkid: 3, filters: vec![filter] }, None);
    let filters = vec!["#".to_owned()];
    assert_eq!(read(bytes(packet)), Ok(Incoming::Subscribe { pkid: 3, filters: filters.clone() }));
    let packet = Packet::Unsubscribe(Unsubscribe { pkid: 4, filters: filters.clone() }, None);
    assert_eq!(read(bytes(packet)), Ok(Incoming::Unsubscribe { pkid: 4, filters }));
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_bytes_arrive() {
    let mut buffer = BytesMut::from(&b"\x30\xff\xff\x7f"[..]);
    assert_eq!(take(&mut buffer, 1024), Err(Malformed::Oversized));
    let mut endless = BytesMut::from(&b"\x30\xff\xff\xff\xff\xff"[..]);
    assert_eq!(take(&mut endless, 1024), Err(Malformed::Garbage));
}

#[test]
fn answers_have_the_standards_bytes() {
    let written = |write: &dyn Fn(&mut BytesMut)| {
        let mut buffer = BytesMut::new();
        write(&mut buffer);
        buffer.to_vec()
    };
    let answers = [
        Answer::Accepted,
        Answer::Version,
        Answer::ClientId,
        Answer::Unavailable,
        Answer::Credentials,
        Answer::NotAuthorized,
    ];
    for (code, answer) in (0..).zip(answers) {
        assert_eq!(written(&|buffer| put_connack(buffer, answer)), [0x20, 2, 0, code]);
    }
    assert_eq!(written(&|buffer| put_puback(buffer, 0x102)), [0x40, 2, 1, 2]);
    assert_eq!(written(&put_pingresp), [0xd0, 0]);
    assert_eq!(written(&|buffer| put_suback(buffer, 7, &[true, false])), [0x90, 4, 0, 7, 0, 0x80]);
    assert_eq!(written(&|buffer| put_unsuback(buffer, 0x102)), [0xb0, 2, 1, 2]);
    assert_eq!(
        written(&|buffer| put_publish(buffer, "t", b"x", true)),
        [0x31, 4, 0, 1, b't', b'x']
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Taken::Packet(_)) = take(&mut buffer, 100) {}
    }

    #[test]
    fn no_framed_bytes_make_it_panic(
        first in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut buffer = BytesMut::from(&[first, u8::try_from(body.len()).unwrap()][..]);
        buffer.extend_from_slice(&body);
        let taken = take(&mut buffer, 200);
        prop_assert!(!matches!(taken, Ok(Taken::Missing(_))));
    }
}
