use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Method;
use bytes::Bytes;
use coordinator::api::operation::payload;
use coordinator::feed::{Change, Subject};
use futures_util::StreamExt;
use serde_json::Value;
use tower::ServiceExt;
use uuid::Uuid;

use crate::world::*;

/// The events of a response, as they come.
struct Stream {
    body: BodyDataStream,
    text: String,
}

impl Stream {
    async fn open(world: &World, token: &str, path: &str, last: Option<&str>) -> Self {
        let mut request = request(Method::GET, token, path);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = world.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event's id and state.
    async fn next(&mut self) -> (Option<String>, Value) {
        while !self.text.contains("\n\n") {
            let piece = tokio::time::timeout(Duration::from_secs(10), self.body.next());
            let piece = piece.await.expect("an event in time").unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        let (event, rest) = self.text.split_once("\n\n").unwrap();
        let (event, rest) = (event.to_owned(), rest.to_owned());
        self.text = rest;
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(field("event: "), Some("operation"));
        (field("id: ").map(str::to_owned), serde_json::from_str(field("data: ").unwrap()).unwrap())
    }
}

async fn publish(world: &World, id: &str) {
    let scope = coordinator::store::listing::Scope::Everything;
    let operation = world.app.store.operation(scope, id.parse().unwrap()).await.unwrap().unwrap();
    let (device, slot) = (operation.device, operation.slot.clone());
    let created = operation.created;
    let has_ended = operation.status.is_terminal();
    let subject = Subject::Operation { device, slot, operation: operation.id, created, has_ended };
    let organization = operation.organization.clone();
    world.app.feed.publish(Change { organization, subject, payload: payload(&operation) });
}

#[tokio::test]
async fn an_operation_is_shown_as_it_is_and_as_it_changes() {
    let world = World::new().await;
    let image = world.image().await;
    let id = world.upgrade(world.device(&["main"]).await, &image).await;
    let other = world.upgrade(world.device(&["main"]).await, &image).await;
    let path = format!("upgrade-operation/{id}/events/");
    let mut stream = Stream::open(&world, VIEWER, &path, None).await;
    let (none, state) = stream.next().await;
    assert_eq!((none, &state["id"], &state["status"]), (None, &id.as_str().into(), &"idle".into()));
    let shown = world.get(VIEWER, &format!("upgrade-operation/{id}/")).await.ok(200);
    assert_eq!(state, shown, "one shape");

    publish(&world, &other).await;
    world.post(OPERATOR, &format!("upgrade-operation/{id}/cancel/"), Value::Null).await;
    publish(&world, &id).await;
    let (last, state) = stream.next().await;
    assert_eq!((&state["id"], &state["status"]), (&id.as_str().into(), &"cancelled".into()));

    publish(&world, &id).await;
    let mut resumed = Stream::open(&world, VIEWER, &path, last.as_deref()).await;
    let (none, now) = resumed.next().await;
    assert_eq!(
        (none, &now["status"]),
        (None, &"cancelled".into()),
        "as it is, whatever was missed"
    );
    publish(&world, &id).await;
    let (next, _) = resumed.next().await;
    assert!(next > last, "{next:?} after {last:?}");
    world.get(RIVAL, &path).await.ok(404);
}

#[tokio::test]
async fn an_organization_hears_only_its_own() {
    let world = World::new().await;
    let image = world.image().await;
    let id = world.upgrade(world.device(&["main"]).await, &image).await;
    let mut ours = Stream::open(&world, VIEWER, "events/", None).await;
    let mut all = Stream::open(&world, ADMIN, "events/", None).await;
    let mut theirs = Stream::open(&world, RIVAL, "events/", None).await;
    publish(&world, &id).await;
    assert_eq!(ours.next().await.1["id"], id.as_str());
    assert_eq!(all.next().await.1["id"], id.as_str());
    let silent = tokio::time::timeout(Duration::from_millis(200), theirs.next()).await;
    assert!(silent.is_err(), "a foreign operation was heard");
    world.get(RIVAL, "events/?organization=acme").await.ok(404);
    let bad = request(Method::GET, VIEWER, "events/").header("Last-Event-ID", "x");
    assert!(world.send(bad.body(Body::empty()).unwrap()).await.ok(400)["Last-Event-ID"].is_array());
}

#[tokio::test]
async fn a_user_has_so_many_streams_and_gets_them_back() {
    let world = World::new().await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(Stream::open(&world, VIEWER, "events/", None).await);
    }
    assert_eq!(world.get(VIEWER, "events/").await.status.as_u16(), 429);
    drop(Stream::open(&world, ADMIN, "events/", None).await);
    streams.pop();
    Stream::open(&world, VIEWER, "events/", None).await;
    // So does an answer that nobody reads.
    let plain = request(Method::GET, VIEWER, "events/?since=0").body(Body::empty()).unwrap();
    let unread = world.router.clone().oneshot(plain).await.unwrap();
    assert_eq!(unread.status().as_u16(), 200);
    assert_eq!(world.get(VIEWER, "events/?since=0").await.status.as_u16(), 429);
    drop(unread);
    world.get(VIEWER, "events/?since=0").await.ok(200);
}

#[tokio::test]
async fn what_came_since_is_told_as_plain_json() {
    let world = World::new().await;
    let image = world.image().await;
    let device = world.device(&["main"]).await;
    let id = world.upgrade(device, &image).await;
    let before = world.get(VIEWER, "events/?since=0").await.ok(200);
    assert_eq!(before["events"], serde_json::json!([]));
    publish(&world, &id).await;
    publish(&world, &id).await;
    let last = before["last"].as_u64().unwrap();
    for path in ["events/".to_owned(), format!("upgrade-operation/{id}/events/")] {
        let now = world.get(VIEWER, &format!("{path}?since={last}")).await.ok(200);
        assert_eq!(now["events"].as_array().unwrap().len(), 2, "{now}");
        assert_eq!(now["events"][0]["event"], "operation");
        assert_eq!(now["events"][0]["data"]["id"], id.as_str());
        assert_eq!(now["last"], now["events"][1]["id"]);
        let again = world.get(VIEWER, &format!("{path}?since={}", now["last"])).await.ok(200);
        assert_eq!(again["events"], serde_json::json!([]));
    }
    let foreign = world.get(RIVAL, &format!("events/?since={last}")).await.ok(200);
    assert_eq!(foreign["events"], serde_json::json!([]));
    world.get(VIEWER, "events/?since=x").await.ok(400);
}

/// So much of another organization that nothing older is known any more.
pub fn pass_by(world: &World) {
    let batch = Uuid::from_u128(1).into();
    let change = Change {
        organization: "rival".parse().unwrap(),
        subject: Subject::Batch(batch),
        payload: Bytes::from_static(b"{}"),
    };
    for _ in 0..=16 * 1024 {
        world.app.feed.publish(change.clone());
    }
}

#[tokio::test]
async fn an_end_is_heard_of_though_another_upgrade_took_the_slot_and_the_past_is_gone() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    let old = world.upgrade(device, &world.image().await).await;
    let path = format!("upgrade-operation/{old}/events/");
    let mut slow = Stream::open(&world, VIEWER, &path, None).await;
    assert_eq!(slow.next().await.1["status"], "idle");
    publish(&world, &old).await;
    let before = world.get(VIEWER, &format!("{path}?since=0")).await.ok(200)["last"].clone();

    let new = world.upgrade(device, &world.image().await).await;
    publish(&world, &old).await;
    publish(&world, &new).await;
    pass_by(&world);
    let told = world.get(VIEWER, &format!("{path}?since={before}")).await.ok(200);
    assert_eq!(told["events"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["events"][0]["data"]["status"], "cancelled");
    assert_eq!(told["events"][0]["data"]["superseded_by"], new.as_str());
    assert_eq!(told["events"][0]["id"], told["last"]);
    let again = world.get(VIEWER, &format!("{path}?since={}", told["last"])).await.ok(200);
    assert_eq!(again["events"], serde_json::json!([]));
    let (id, state) = slow.next().await;
    assert_eq!((&state["id"], &state["status"]), (&old.as_str().into(), &"cancelled".into()));
    assert_eq!(id, Some(told["last"].to_string()));

    let world = world.again();
    let told = world.get(VIEWER, &format!("{path}?since={before}")).await.ok(200);
    assert_eq!(told["events"][0]["data"]["status"], "cancelled", "after a start: {told}");
}
