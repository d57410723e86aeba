//! Who may be on a line and what they may say and hear: decided by exact shape of the topic, with
//! organization and device both compared ◆. Pure, but for [`Admission`], which is a map.
//!
//! | bearer | publishes | hears |
//! |---|---|---|
//! | device | `mu/<own org>/<own id>/up/{presence,inventory,event,progress}` | `mu/<own org>/<own id>/down/{wake,ack}` |
//! | user | nothing | `mu/<own org>/<device or +>/<slot or +>/operation`, `mu/<own org>/batches/<id or +>`, `mu/<own org>/#` |

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{PoisonError, RwLock};

use shared::ids::{BatchId, DeviceId, OrganizationSlug, Slot};
use shared::limits;
use shared::topics::{Down, ROOT, Topic, Up};
use uuid::Uuid;

use super::codec::{Connect, Will};
use super::reason::Reason;
use crate::feed::Subject;
use crate::tokens::{Claims, Epoch, Kind};

/// Who is admitted at present: the epochs of all accepted devices and of all active users.
///
/// The store is the truth; this is its copy for the lines, which ask at every CONNECT. The
/// composition root fills it at the start; whoever commits an acceptance or a revocation updates it
/// after the commit, and then kicks ([`Registry::kick`](super::registry::Registry::kick)).
#[derive(Debug, Default)]
pub struct Admission {
    /// `None` = revoked.
    standing: RwLock<HashMap<Uuid, Option<Epoch>>>,
}

impl Admission {
    /// `subject` (a device's or user's id) is admitted with tokens of `epoch` and no other.
    pub fn set_epoch(&self, subject: Uuid, epoch: Epoch) {
        self.write().insert(subject, Some(epoch));
    }

    /// As [`Admission::set_epoch`], by what may have been read before another change: an epoch only
    /// rises.
    pub fn raise_epoch(&self, subject: Uuid, epoch: Epoch) {
        let mut standing = self.write();
        let current = standing.entry(subject).or_default();
        *current = Some(current.map_or(epoch, |current| current.max(epoch)));
    }

    /// No token of `subject` is good any more, until the next [`Admission::set_epoch`].
    pub fn revoke(&self, subject: Uuid) {
        self.write().insert(subject, None);
    }

    /// `subject` no longer exists.
    pub fn forget(&self, subject: Uuid) {
        self.write().remove(&subject);
    }

    /// # Errors
    /// [`Reason::Unknown`] or [`Reason::Revoked`].
    pub fn check(&self, subject: Uuid, epoch: Epoch) -> Result<(), Reason> {
        let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner);
        match standing.get(&subject) {
            None => Err(Reason::Unknown),
            Some(Some(current)) if *current == epoch => Ok(()),
            Some(_) => Err(Reason::Revoked),
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Uuid, Option<Epoch>>> {
        self.standing.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// MQTT's client id as we take it: what can stand in a log line and a topic without surprise.
#[must_use]
pub fn is_client_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether a CONNECT names itself as it may: by an id of ours, or not at all with a clean session
/// (MQTT 3.1.1, section 3.1.3.1), as `mosquitto_sub` does. A device's name is compared later, so
/// that only a user's client can go without.
#[must_use]
pub fn is_named(connect: &Connect) -> bool {
    is_client_id(&connect.client_id) || (connect.client_id.is_empty() && connect.clean_session)
}

/// Whether the CONNECT fits the token that came with it.
///
/// # Errors
/// [`Reason::ClientId`] where a device calls itself other than its token does,
/// [`Reason::ForeignWill`].
pub fn connect(claims: &Claims, connect: &Connect) -> Result<(), Reason> {
    match claims.kind {
        Kind::User if connect.will.is_some() => Err(Reason::ForeignWill),
        Kind::User => Ok(()),
        Kind::Device => {
            let id = claims.sub.to_string();
            if connect.client_id != id || connect.username != id {
                return Err(Reason::ClientId);
            }
            match &connect.will {
                Some(will) if !is_own_will(&claims.org, DeviceId(claims.sub), will) => {
                    Err(Reason::ForeignWill)
                }
                _ => Ok(()),
            }
        }
    }
}

fn is_own_will(organization: &OrganizationSlug, device: DeviceId, will: &Will) -> bool {
    !will.exactly_once
        && will.payload.len() <= limits::PRESENCE
        && uplink(organization, device, &will.topic) == Some(Up::Presence)
}

/// What a device says on `topic`; `None` = it is not its own.
#[must_use]
pub fn uplink(organization: &OrganizationSlug, device: DeviceId, topic: &str) -> Option<Up> {
    match topic.parse() {
        Ok(Topic::Up(org, id, up)) if org == *organization && id == device => Some(up),
        _ => None,
    }
}

/// The largest payload of an uplink.
#[must_use]
pub fn largest(up: Up) -> usize {
    match up {
        Up::Presence => limits::PRESENCE,
        Up::Inventory => limits::INVENTORY,
        Up::Event => limits::EVENTS,
        Up::Progress => limits::TICK,
    }
}

/// What a device hears by `filter`; `None` = it is not its own, or has wildcards.
#[must_use]
pub fn downlink(organization: &OrganizationSlug, device: DeviceId, filter: &str) -> Option<Down> {
    match filter.parse() {
        Ok(Topic::Down(org, id, down)) if org == *organization && id == device => Some(down),
        _ => None,
    }
}

/// What a dashboard hears by one subscription, within its organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    Everything,
    /// `None` = any.
    Operations(Option<DeviceId>, Option<Slot>),
    Batches(Option<BatchId>),
}

impl Filter {
    /// A dashboard's filter by its exact shape; `None` = not for `organization`, or no such shape.
    #[must_use]
    pub fn parse(organization: &OrganizationSlug, filter: &str) -> Option<Self> {
        if filter.len() > 160 {
            return None;
        }
        let levels: Vec<&str> = filter.split('/').collect();
        let [ROOT, org, rest @ ..] = levels.as_slice() else { return None };
        if *org != organization.as_str() {
            return None;
        }
        match *rest {
            ["#"] => Some(Filter::Everything),
            ["batches", batch] => Some(Filter::Batches(level(batch)?)),
            [device, slot, "operation"] => Some(Filter::Operations(level(device)?, level(slot)?)),
            _ => None,
        }
    }

    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        match (self, subject) {
            (Filter::Everything, _) => true,
            (Filter::Operations(device, slot), Subject::Operation { device: d, slot: s, .. }) => {
                device.is_none_or(|device| device == *d)
                    && slot.as_ref().is_none_or(|slot| slot == s)
            }
            (Filter::Batches(batch), Subject::Batch(b)) => batch.is_none_or(|batch| batch == *b),
            (Filter::Operations(..), Subject::Batch(_))
            | (Filter::Batches(_), Subject::Operation { .. }) => false,
        }
    }
}

/// One level: `+` = any, otherwise exactly one; `None` = neither.
fn level<T: FromStr>(text: &str) -> Option<Option<T>> {
    if text == "+" { Some(None) } else { text.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests;
