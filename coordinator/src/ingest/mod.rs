//! What devices report, on its way into the store: milestones at once and together, signs of life
//! when there is time.
//!
//! ```text
//! lines ─▶ Inbound ─┬─ events, inventory ─▶ one transaction for all that waited ─▶ acks
//!                   └─ ticks, presence ───▶ latest of each ─▶ now and then, low priority
//! HTTPS ─▶ read_events / Signs ───────────▶ the same
//! ```
//! Who speaks is known from the connection; nothing in a payload can change that.

mod read;
mod signs;

use futures_util::future::join_all;
use shared::ack::{Ack, Acks};
use tokio::sync::mpsc;
use tokio::sync::oneshot;

pub use read::{Malformed, read_events, read_inventory, read_tick};
pub use signs::Signs;

use crate::lines::{Inbound, InboundBody};
use crate::store::Store;
use crate::store::event::Reported;

/// Payloads taken into one transaction.
const TOGETHER: usize = 512;
/// Payloads that may wait; then the lines wait as well.
pub const QUEUE: usize = 1024;

type Done = oneshot::Sender<Option<Acks>>;

/// Takes what the lines bring, until they are gone.
pub async fn run(store: Store, signs: Signs, mut inbound: mpsc::Receiver<Inbound>) {
    let mut waiting = Vec::with_capacity(TOGETHER);
    while inbound.recv_many(&mut waiting, TOGETHER).await > 0 {
        let mut posts = Vec::new();
        let mut others = Vec::new();
        for inbound in waiting.drain(..) {
            match inbound.body {
                InboundBody::Events(payload) => {
                    if let Ok(reported) =
                        heard(&inbound.device, read_events(inbound.device, &payload))
                    {
                        posts.push((reported, inbound.done));
                    }
                }
                body => others.push(take(&store, &signs, inbound.device, body, inbound.done)),
            }
        }
        tokio::join!(record(&store, posts), join_all(others));
    }
}

/// Garbage is dropped with its `done`, which ends the line.
fn heard<T>(device: &impl std::fmt::Display, read: Result<T, Malformed>) -> Result<T, ()> {
    read.map_err(|malformed| tracing::warn!(%device, %malformed, "dropped"))
}

async fn take(
    store: &Store,
    signs: &Signs,
    device: shared::ids::DeviceId,
    body: InboundBody,
    done: Done,
) {
    let taken = match body {
        InboundBody::Tick(payload) => {
            heard(&device, read_tick(&payload)).map(|tick| signs.tick(device, tick))
        }
        InboundBody::Presence(payload) => match heard(&device, read::read_presence(&payload)) {
            Ok(presence) => signs.presence(device, presence).await,
            Err(()) => Err(()),
        },
        InboundBody::Inventory(payload) => match heard(&device, read_inventory(&payload)) {
            Ok(inventory) => store.set_inventory(device, inventory).await.map_err(|error| {
                tracing::error!(%device, %error, "inventory");
            }),
            Err(()) => Err(()),
        },
        InboundBody::Events(_) => Err(()),
    };
    if taken.is_ok() {
        // The line may have ended meanwhile.
        let _ = done.send(None);
    }
}

/// Commits all posts together. Should they fail together, each is tried on its own, so that one
/// cannot hold up the others; without an ack the device sends again.
async fn record(store: &Store, posts: Vec<(Vec<Reported>, Done)>) {
    if posts.is_empty() {
        return;
    }
    let all = posts.iter().flat_map(|(reported, _)| reported).cloned().collect();
    match store.record_events(all).await {
        Ok(acks) => answer(posts, acks),
        Err(error) if posts.len() == 1 => tracing::error!(%error, "milestones were not recorded"),
        Err(_) => {
            for (reported, done) in posts {
                Box::pin(record(store, vec![(reported, done)])).await;
            }
        }
    }
}

fn answer(posts: Vec<(Vec<Reported>, Done)>, acks: Vec<Ack>) {
    let mut acks = acks.into_iter();
    for (reported, done) in posts {
        let own = acks.by_ref().take(reported.len()).collect();
        let _ = done.send(Some(Acks::new(own)));
    }
}

#[cfg(test)]
mod tests;
