//! Live events (server-sent): `upgrade-operation/{id}/events/` and `events/`. Each is the whole new
//! state of an operation or a batch; `Last-Event-ID` resumes. With `?since=` the same as plain JSON.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use shared::ids::{BatchId, OperationId, OrganizationSlug, UserId};
use utoipa::ToSchema;

use super::{
    App, Operator, batch,
    error::{Answer, ApiError},
    operation,
    page::ListQuery,
    path::Ids,
};
use crate::feed::{Interest, One, Published, Read, Subject, Subscription};
use crate::store::user::Principal;

/// Proxies give up on silence.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this a watcher has to come back, with a token that still is one.
const LONGEST: Duration = Duration::from_secs(3600);

type Events = Sse<axum::response::sse::KeepAliveStream<EventStream>>;
type EventStream = stream::BoxStream<'static, Result<Event, Infallible>>;

/// Streams and unread answers that one user may have open.
const OF_ONE_USER: usize = 32;

/// The open streams of each user.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<UserId, usize>>);

/// One of them; closed by being dropped.
pub(super) struct Open {
    streams: Arc<Streams>,
    user: UserId,
}

impl Streams {
    /// # Errors
    /// The user has too many.
    pub(super) fn open(self: &Arc<Self>, user: UserId) -> Answer<Open> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(user).or_default();
        if *count >= OF_ONE_USER {
            return Err(ApiError::throttled(KEEP_ALIVE.as_secs()));
        }
        *count += 1;
        drop(open);
        Ok(Open { streams: self.clone(), user })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.entry(self.user) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// One operation: its state now, and every change. Each event is the whole state, so what it is now
/// makes up for all that a watcher who comes back has missed, the operation's end included.
#[utoipa::path(get, path = "/upgrade-operation/{id}/events/", tag = "events",
    params(("id" = Uuid, Path), ("since" = Option<u64>, Query,
            description = "An event's id: what came after it, at once; its present state where that is not known any more."),
        ("Last-Event-ID" = Option<u64>, Header, description = "Where a stream goes on.")),
    responses((status = 200, description = "Server-sent events; with `since`, those that there are, as JSON.",
        content((String = "text/event-stream"), (EventList = "application/json")))))]
pub async fn of_operation(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
    query: ListQuery,
    headers: HeaderMap,
) -> Answer {
    let found = operation::find(&app, &operator, id).await?;
    let one = Followed { app, operator, one: One::Operation(id) };
    follow(one, found.organization, query, &headers).await
}

/// One batch: its state now, and every change.
#[utoipa::path(get, path = "/batch-upgrade-operation/{id}/events/", tag = "events",
    params(("id" = Uuid, Path), ("since" = Option<u64>, Query,
            description = "An event's id: what came after it, at once; its present state where that is not known any more."),
        ("Last-Event-ID" = Option<u64>, Header, description = "Where a stream goes on.")),
    responses((status = 200, description = "Server-sent events; with `since`, those that there are, as JSON.",
        content((String = "text/event-stream"), (EventList = "application/json")))))]
pub async fn of_batch(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BatchId>,
    query: ListQuery,
    headers: HeaderMap,
) -> Answer {
    let found = batch::find(&app, &operator, id).await?;
    let one = Followed { app, operator, one: One::Batch(id) };
    follow(one, found.batch.organization_slug, query, &headers).await
}

/// All changes of an organization; of all that the user may see where none is named. Where some are not known any more,
/// an event `gap` comes before the latest states: something may have ended without a word, read the lists anew.
#[utoipa::path(get, path = "/events/", tag = "events",
    params(("organization" = Option<String>, Query),
        ("since" = Option<u64>, Query, description = "An event's id: what came after it, at once."),
        ("Last-Event-ID" = Option<u64>, Header, description = "Where a stream goes on.")),
    responses((status = 200, description = "Server-sent events; with `since`, those that there are, as JSON.",
        content((String = "text/event-stream"), (EventList = "application/json"))), (status = 404)))]
pub async fn of_organization(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
    headers: HeaderMap,
) -> Answer {
    let organizations = match query.organization()? {
        Some(asked) => Some(vec![operator.organization(Some(asked))?]),
        None if operator.user.superuser => None,
        None => Some(operator.user.memberships.iter().map(|of| of.slug.clone()).collect()),
    };
    let interest = Interest { organizations, subject: None };
    let since = query.filter("since", NOT_AN_ID)?;
    query.finish()?;
    if let Some(since) = since {
        let open = app.streams.open(operator.user.user)?;
        let (read, last) = app.feed.resume(interest, since).now();
        return Ok(plain(told(&read), last, read.lost.is_some(), open));
    }
    let changes = match last_event_id(&headers)? {
        Some(last) => app.feed.resume(interest, last),
        None => app.feed.subscribe(interest),
    };
    let open = app.streams.open(operator.user.user)?;
    Ok(sse(&app, operator, events(changes, None).boxed(), open).into_response())
}

/// The one thing that somebody follows.
struct Followed {
    app: App,
    operator: Operator,
    one: One,
}

impl Followed {
    /// How it is by now.
    async fn state(&self, id: Option<u64>) -> Answer<Told> {
        let Self { app, operator, .. } = self;
        Ok(match self.one {
            One::Operation(operation) => {
                let found = operation::find(app, operator, operation).await?;
                Told { id, event: OPERATION, data: operation::payload(&found) }
            }
            One::Batch(batch) => {
                let found = batch::find(app, operator, batch).await?;
                Told { id, event: BATCH, data: batch::payload(&found) }
            }
        })
    }

    /// What was read of it, and how it is where some was lost: it may have ended meanwhile.
    async fn told(&self, read: &Read) -> Answer<Vec<Told>> {
        let mut all = Vec::new();
        if read.lost.is_some() {
            all.push(self.state(read.lost).await?);
        }
        all.extend(told(read));
        Ok(all)
    }
}

async fn follow(
    followed: Followed,
    organization: OrganizationSlug,
    mut query: ListQuery,
    headers: &HeaderMap,
) -> Answer {
    let (app, operator) = (followed.app.clone(), followed.operator.clone());
    let interest =
        Interest { subject: Some(followed.one), ..Interest::in_organization(organization) };
    let since = query.filter("since", NOT_AN_ID)?;
    query.finish()?;
    if let Some(since) = since {
        let open = app.streams.open(operator.user.user)?;
        let (read, last) = app.feed.resume(interest, since).now();
        return Ok(plain(followed.told(&read).await?, last, read.lost.is_some(), open));
    }
    last_event_id(headers)?;
    let open = app.streams.open(operator.user.user)?;
    // Listen first, look second: nothing can fall between.
    let changes = app.feed.subscribe(interest);
    let now = event(&followed.state(None).await?);
    let events = stream::once(async { Ok(now) }).chain(events(changes, Some(followed))).boxed();
    Ok(sse(&app, operator, events, open).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get(HeaderName::from_static("last-event-id")) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| ApiError::field("Last-Event-ID", NOT_AN_ID))
}

const NOT_AN_ID: &str = "Not an id of these events.";

/// Events that there are, two thousand at most.
#[derive(Debug, ToSchema)]
pub struct EventList {
    pub events: Vec<PlainEvent>,
    /// For the next `since`: there is nothing else up to here.
    pub last: u64,
    /// What came directly after `since` is not known any more: these are present states, and of an organization
    /// something may have ended without a word here: read its lists anew, once they have all come.
    pub gap: bool,
}

#[derive(Debug, ToSchema)]
pub struct PlainEvent {
    pub id: u64,
    /// `operation` or `batch`; in a stream also `gap`, see [`EventList`].
    pub event: &'static str,
    /// The whole new state.
    #[schema(value_type = Object)]
    pub data: Bytes,
}

/// What an event is called.
const OPERATION: &str = "operation";
const BATCH: &str = "batch";
/// Before present states that stand for what is not known any more.
const GAP: &str = "gap";

/// A state on its way out.
struct Told {
    /// `None` = as it is now, which no event says.
    id: Option<u64>,
    event: &'static str,
    data: Bytes,
}

fn told(read: &Read) -> Vec<Told> {
    let told = |published: &Arc<Published>| Told {
        id: Some(published.id),
        event: name(published),
        data: published.change.payload.clone(),
    };
    read.changes.iter().map(told).collect()
}

/// An [`EventList`]. The states are JSON already, and tens of megabytes may be none of them copied before
/// somebody reads them.
fn plain(found: Vec<Told>, last: u64, gap: bool, open: Open) -> Response {
    let events = found.into_iter().enumerate().map(move |(index, told)| {
        let comma = if index > 0 { "," } else { "" };
        let (id, event) = (told.id.unwrap_or(last), told.event);
        let head = format!("{comma}{{\"id\":{id},\"event\":\"{event}\",\"data\":");
        let mut piece = BytesMut::from(head.as_bytes());
        piece.extend_from_slice(&told.data);
        piece.extend_from_slice(b"}");
        piece.freeze()
    });
    let first = std::iter::once(Bytes::from_static(b"{\"events\":["));
    let pieces =
        first.chain(events).chain([Bytes::from(format!("],\"last\":{last},\"gap\":{gap}}}"))]);
    let body = stream::iter(pieces).map(move |piece| {
        // Lives as long as the answer does.
        let _ = &open;
        Ok::<_, Infallible>(piece)
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

fn sse(app: &App, operator: Operator, events: EventStream, open: Open) -> Events {
    let events = events.inspect(move |_| {
        // Lives as long as the stream does.
        let _ = &open;
    });
    let ends = over(app.clone(), operator.user);
    Sse::new(events.take_until(ends).boxed()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Until the stream has been open for long enough, or the user is not who they were.
async fn over(app: App, user: Principal) {
    let began = Instant::now();
    while began.elapsed() < LONGEST {
        tokio::time::sleep(KEEP_ALIVE).await;
        match app.store.principal(user.token).await {
            Ok(Some(now))
                if (now.superuser, &now.memberships) == (user.superuser, &user.memberships) => {}
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "whether a stream may go on"),
        }
    }
}

/// What there is to hear, until the one thing that is followed cannot be looked at any more.
fn events(
    changes: Subscription,
    followed: Option<Followed>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let begin = (changes, followed, false);
    let pieces = stream::unfold(begin, |(mut changes, followed, was_lost)| async move {
        let read = changes.next().await;
        let told = match &followed {
            Some(followed) => followed.told(&read).await.ok()?,
            None => {
                // Once, however many pages of states follow.
                let id = read.lost.filter(|_| read.changes.is_empty());
                let gap = Told { id, event: GAP, data: Bytes::from_static(b"{}") };
                let gap = read.lost.filter(|_| !was_lost).map(|_| gap);
                gap.into_iter().chain(told(&read)).collect()
            }
        };
        let next = (changes, followed, read.lost.is_some());
        Some((stream::iter(told).map(|told| Ok(event(&told))), next))
    });
    pieces.flatten()
}

fn event(told: &Told) -> Event {
    let event = Event::default().event(told.event).data(String::from_utf8_lossy(&told.data));
    match told.id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}

fn name(published: &Published) -> &'static str {
    match published.change.subject {
        Subject::Operation { .. } => OPERATION,
        Subject::Batch(_) => BATCH,
    }
}
