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

use std::time::Duration;

use futures_util::future::join_all;
use shared::ack::{Ack, Acks};
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::sleep;

pub use read::{Malformed, read_events, read_inventory, read_tick};
pub use signs::Signs;

use crate::lines::{Inbound, InboundBody};
use crate::store::event::Reported;
use crate::store::{Store, StoreError};

/// Payloads taken into one transaction.
const TOGETHER: usize = 512;
/// Payloads that may wait; then the lines wait as well.
pub const QUEUE: usize = 1024;

/// Milestones in one transaction, unless one payload has more.
const EVENTS: usize = 256;
/// Until what the store could not take is tried again. The line waits, and ends when that is too long.
const AGAIN: Duration = Duration::from_secs(1);

type Done = oneshot::Sender<Option<Acks>>;
/// The milestones of one payload.
type Post = (Vec<Reported>, Done);

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
            Ok(presence) => {
                let write = || signs.presence(device, presence);
                persevere(&device, &done, write).await
            }
            Err(()) => Err(()),
        },
        InboundBody::Inventory(payload) => match heard(&device, read_inventory(&payload)) {
            Ok(inventory) => {
                let write = || store.set_inventory(device, inventory.clone());
                persevere(&device, &done, write).await
            }
            Err(()) => Err(()),
        },
        InboundBody::Events(_) => Err(()),
    };
    if taken.is_ok() {
        // The line may have ended meanwhile.
        let _ = done.send(None);
    }
}

/// Tries again while the store is out of order and somebody waits for it: were all lines ended that have
/// something to say, a full disk would become a storm of connections.
async fn persevere<F: Future<Output = Result<(), StoreError>>>(
    device: &impl std::fmt::Display,
    done: &Done,
    write: impl Fn() -> F,
) -> Result<(), ()> {
    loop {
        match write().await {
            Err(error) if error.passes() && !done.is_closed() => sleep(AGAIN).await,
            Err(error) => {
                tracing::warn!(%device, %error, "not recorded");
                return Err(());
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Commits posts, some together. Should they fail together, each is tried on its own, so that one
/// cannot hold up the others; without an ack the device sends again.
async fn record(store: &Store, posts: Vec<Post>) {
    join_all(pieces(posts).map(|piece| record_piece(store, piece))).await;
}

/// As many posts as make a transaction that holds nobody up.
fn pieces(posts: Vec<Post>) -> impl Iterator<Item = Vec<Post>> {
    let mut posts = posts.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = posts.next()?;
        let mut events = first.0.len();
        let mut piece = vec![first];
        while let Some(post) = posts.next_if(|post| events + post.0.len() <= EVENTS) {
            events += post.0.len();
            piece.push(post);
        }
        Some(piece)
    })
}

async fn record_piece(store: &Store, mut posts: Vec<Post>) {
    while !posts.is_empty() {
        let all = posts.iter().flat_map(|(reported, _)| reported).cloned().collect();
        match store.record_events(all).await {
            Ok(acks) => return answer(posts, acks),
            Err(error) if error.passes() => {
                sleep(AGAIN).await;
                posts.retain(|(_, done)| !done.is_closed());
            }
            Err(error) if posts.len() == 1 => {
                return tracing::error!(%error, "milestones were not recorded");
            }
            Err(_) => {
                for post in posts {
                    Box::pin(record_piece(store, vec![post])).await;
                }
                return;
            }
        }
    }
}

fn answer(posts: Vec<Post>, acks: Vec<Ack>) {
    let mut acks = acks.into_iter();
    for (reported, done) in posts {
        let own = acks.by_ref().take(reported.len()).collect();
        let _ = done.send(Some(Acks::new(own)));
    }
}

#[cfg(test)]
mod tests;
