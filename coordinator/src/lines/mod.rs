//! The lines to devices and dashboards: MQTT 3.1.1 over TLS, without a broker. Owns every
//! connection from accept to close, what its bearer may say and hear, and the way back to it.
//!
//! ```text
//!  accept ─> TLS ─> CONNECT ─> token, admission, acl ─┬─> device    ── Inbound ──> ingest ─ COMMIT ─┐
//!  (listener, each in its own task, all timed)         │      ^ wakes, acks: registry    PUBACK, acks <┘
//!                                                      └─> dashboard <── retained and live ── feed
//! ```
//! Nothing of rumqttd runs here but its codec ([`codec`]); see `docs/decisions`. There are no
//! stored sessions and no queues: what a device must not lose is in its outbox, what a dashboard
//! must not miss is retained by the [feed](crate::feed).

use shared::ack::Acks;
use shared::ids::{DeviceId, OrganizationSlug};
use tokio::sync::oneshot;

pub mod acl;
pub mod codec;
mod dashboard;
mod device;
pub mod limits;
pub mod listener;
pub mod reason;
pub mod registry;
mod strangers;
mod wire;

/// What a device said, on its way to ingest.
#[derive(Debug)]
pub struct Inbound {
    /// Who said it, by its token; nothing inside `body` can change that.
    pub device: DeviceId,
    pub organization: OrganizationSlug,
    pub body: InboundBody,
    /// Answered after the COMMIT: the acks for milestones, `None` for the rest. The device's PUBACK
    /// waits for it; dropping it unanswered ends the line, and the device sends again. Nobody waits
    /// for a tick's.
    pub done: oneshot::Sender<Option<Acks>>,
}

/// The payload as it came, not parsed, but within its size limit of [`shared::limits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboundBody {
    /// [`shared::event::Events`].
    Events(Vec<u8>),
    /// [`shared::event::Tick`]; may be dropped.
    Tick(Vec<u8>),
    /// [`shared::event::Presence`]; also the will of a line that ended without a word.
    Presence(Vec<u8>),
    /// [`shared::inventory::Inventory`].
    Inventory(Vec<u8>),
}
