//! How large things from outside may be, in bytes unless said otherwise. A reader checks the limit
//! before it parses.

/// A manifest's exact bytes. 4096 block digests of 64 hex digits leave room for the rest.
pub const MANIFEST: usize = 512 * 1024;
/// Blocks of one image; with [`BLOCK`] this bounds an image to 4 GiB.
pub const MANIFEST_BLOCKS: usize = 4096;
/// Bytes in one block of an image, the unit of verification and of resumption.
pub const BLOCK: u64 = 1024 * 1024;
/// Bytes that a zstd decoder must keep in memory for an image.
pub const ZSTD_WINDOW: u64 = 1024 * 1024;
/// A signify signature file: two lines.
pub const SIGNATURE: usize = 1024;
/// A `desired` answer.
pub const DESIRED: usize = 64 * 1024;
/// One event as JSON.
pub const EVENT: usize = 4 * 1024;
/// A batch of events (MQTT payload or HTTPS body).
pub const EVENTS: usize = 64 * 1024;
/// Events in one batch.
pub const EVENTS_COUNT: usize = 64;
/// One tick as JSON.
pub const TICK: usize = 1024;
/// A presence message.
pub const PRESENCE: usize = 256;
/// An inventory.
pub const INVENTORY: usize = 16 * 1024;
/// The claims text of an enrolment.
pub const CLAIMS: usize = 4 * 1024;
/// Free text in a failure, a reason or a tick: longer text is cut at a character boundary.
pub const DETAIL: usize = 512;
/// A tool profile's TOML.
pub const PROFILE: usize = 64 * 1024;
/// An MQTT packet in either direction.
pub const MQTT_PACKET: usize = EVENTS + 1024;

/// Cuts `text` to [`DETAIL`] bytes at a character boundary.
///
/// ```
/// assert_eq!(shared::limits::cut("short".into()), "short");
/// assert!(shared::limits::cut("ä".repeat(600)).len() <= shared::limits::DETAIL);
/// ```
#[must_use]
pub fn cut(mut text: String) -> String {
    if text.len() > DETAIL {
        let end = (0..=DETAIL).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
