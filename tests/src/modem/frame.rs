//! The lab's own flashing protocol on the diag port, spoken by `sim-uxfp` and the simulated modem.
//!
//! ```text
//! 0x7e ‖ kind (1) ‖ !kind (1) ‖ sequence (4, LE) ‖ length (4, LE) ‖ payload
//!
//! tool   HELLO ─► modem   ACK {model, ...}          in normal operation and in download mode
//!        ENTER_BOOT ─►    ACK, then another device
//!        HEADER ─►        ACK                       from here in download mode
//!        DATA … ─►        ACK …
//!        FINISH ─►        ACK, then a restart       or NACK: not what the header promised
//! ```

use serde::{Deserialize, Serialize};

const START: u8 = 0x7e;
const HEAD: usize = 11;
/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    EnterBoot = 2,
    Header = 3,
    Data = 4,
    Finish = 5,
    Ack = 6,
    Nack = 0x15,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::{Ack, Data, EnterBoot, Finish, Header, Hello, Nack};
        [Hello, EnterBoot, Header, Data, Finish, Ack, Nack]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub sequence: u32,
    pub payload: Vec<u8>,
}

/// The payload of the answer to HELLO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The number of the model; a loader does not know it.
    pub model: Option<u32>,
    pub version: Option<String>,
    pub loader: bool,
}

/// The bytes of a frame.
pub fn encode(kind: Kind, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend([START, kind as u8, !(kind as u8)]);
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Finds frames in a stream of bytes, also after rubbish.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Forgets half a frame.
    pub fn reset(&mut self) {
        self.buffer.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn take(&mut self) -> Option<Frame> {
        loop {
            let start = self.buffer.iter().position(|byte| *byte == START)?;
            if start > 0 {
                self.buffer.drain(..start);
            }
            let head: [u8; HEAD] = self.buffer.get(..HEAD)?.try_into().ok()?;
            let Some((kind, sequence, length)) = parse_head(head) else {
                self.buffer.drain(..1);
                continue;
            };
            let payload = self.buffer.get(HEAD..HEAD + length)?.to_vec();
            self.buffer.drain(..HEAD + length);
            return Some(Frame { kind, sequence, payload });
        }
    }
}

fn parse_head(head: [u8; HEAD]) -> Option<(Kind, u32, usize)> {
    let [_, kind, inverse, s0, s1, s2, s3, l0, l1, l2, l3] = head;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
    (inverse == !kind && length <= MAX_PAYLOAD).then_some(())?;
    Some((Kind::of(kind)?, u32::from_le_bytes([s0, s1, s2, s3]), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_after_rubbish_and_in_pieces() {
        let mut bytes = vec![0, START, 9, START];
        bytes.extend(encode(Kind::Hello, 7, b""));
        bytes.extend(encode(Kind::Data, 8, &[START; 100]));
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            found.extend(frames.take());
        }
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].sequence), (Kind::Hello, 7));
        assert_eq!((found[1].kind, found[1].payload.len()), (Kind::Data, 100));
        assert!(frames.is_empty());
    }
}
