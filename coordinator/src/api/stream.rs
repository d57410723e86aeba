//! Live events (server-sent): `upgrade-operation/{id}/events/` and `events/`. Each is the whole new
//! state of an operation or a batch; `Last-Event-ID` resumes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use shared::ids::OperationId;

use super::{
    App, Operator,
    error::{Answer, ApiError},
    operation,
    page::ListQuery,
    path::Ids,
};
use crate::feed::{Interest, Published, Subject, Subscription};

/// Proxies give up on silence.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this a watcher has to come back, with a token that still is one.
const LONGEST: Duration = Duration::from_secs(3600);

type Events = Sse<axum::response::sse::KeepAliveStream<EventStream>>;
type EventStream = stream::BoxStream<'static, Result<Event, Infallible>>;

/// One operation: its state now, unless it is resumed, and every change.
pub async fn of_operation(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
    headers: HeaderMap,
) -> Answer<Events> {
    let found = operation::find(&app, &operator, id).await?;
    let interest = Interest { organizations: Some(vec![found.organization]), operation: Some(id) };
    let Some(last) = last_event_id(&headers)? else {
        // Listen first, look second: nothing can fall between.
        let changes = app.feed.subscribe(interest);
        let now = operation::find(&app, &operator, id).await?;
        let data = operation::payload(&now);
        let now = Event::default().event("operation").data(String::from_utf8_lossy(&data));
        return Ok(sse(stream::once(async { Ok(now) }).chain(events(changes)).boxed()));
    };
    Ok(sse(events(app.feed.resume(interest, last)).boxed()))
}

/// All changes of an organization; of all that the user may see where none is named.
pub async fn of_organization(
    State(app): State<App>,
    operator: Operator,
    query: ListQuery,
    headers: HeaderMap,
) -> Answer<Events> {
    let organizations = match query.organization()? {
        Some(asked) => Some(vec![operator.organization(Some(asked))?]),
        None if operator.0.superuser => None,
        None => Some(operator.0.memberships.iter().map(|of| of.slug.clone()).collect()),
    };
    let interest = Interest { organizations, operation: None };
    let changes = match last_event_id(&headers)? {
        Some(last) => app.feed.resume(interest, last),
        None => app.feed.subscribe(interest),
    };
    Ok(sse(events(changes).boxed()))
}

fn last_event_id(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get(HeaderName::from_static("last-event-id")) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| ApiError::field("Last-Event-ID", "Not an id of these events."))
}

fn sse(events: EventStream) -> Events {
    let ends = tokio::time::sleep(LONGEST);
    Sse::new(events.take_until(ends).boxed()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn events(changes: Subscription) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let pieces = stream::unfold(changes, |mut changes| async move {
        let next = changes.next().await;
        Some((stream::iter(next).map(|change| Ok(event(&change))), changes))
    });
    pieces.flatten()
}

fn event(published: &Published) -> Event {
    let name = match published.change.subject {
        Subject::Operation { .. } => "operation",
        Subject::Batch(_) => "batch",
    };
    let data = String::from_utf8_lossy(&published.change.payload);
    Event::default().id(published.id.to_string()).event(name).data(data)
}
