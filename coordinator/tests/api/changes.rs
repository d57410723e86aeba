//! Every route that changes something, as the document has them: who is turned away, and what the
//! audit log says of the change. A new route fails here until [`requests`] has a request of it.

pub mod requests;

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, header};
use coordinator::api::{BASE, document::operations};
use coordinator::store::audit::Recorded;
use serde_json::{Value, json};

use crate::world::*;
use requests::{Ask, Content};

const PEER: &str = "192.0.2.7";

/// Methods and paths below [`BASE`] of what is not only read, and of what is.
fn routes() -> (Vec<(Method, String)>, Vec<String>) {
    let mut document = coordinator::api::openapi();
    let (mut changes, mut reads) = (Vec::new(), Vec::new());
    for (path, item) in &mut document.paths.paths {
        let Some(route) = path.strip_prefix(BASE) else { continue };
        for (method, _) in operations(item) {
            match method {
                "get" => reads.push(route.to_owned()),
                method => changes.push((method.to_uppercase().parse().unwrap(), route.to_owned())),
            }
        }
    }
    (changes, reads)
}

#[tokio::test]
async fn every_change_is_on_record_and_made_by_nobody_who_may_not() {
    let (changes, _) = routes();
    assert!(changes.len() > 50, "{changes:?}");
    for (method, route) in changes {
        let world = World::new().await;
        let ask = requests::of(&world, &method, &route).await;
        let made = Made { what: format!("{method} {route}"), world, method, ask };
        made.refused_to_others().await;
        made.recorded().await;
    }
}

#[tokio::test]
async fn nothing_is_read_without_a_token() {
    let world = World::new().await;
    let (_, reads) = routes();
    assert!(reads.len() > 30, "{reads:?}");
    for route in reads {
        let path = format!("{BASE}{}", route.replace(['{', '}'], ""));
        let answer = world.get("", &path).await;
        assert_eq!(answer.status, 401, "{route}");
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer", "{route}");
    }
}

struct Made {
    what: String,
    world: World,
    method: Method,
    ask: Ask,
}

impl Made {
    async fn refused_to_others(&self) {
        let Self { what, ask, .. } = self;
        let before = self.log().await;
        for (token, status) in others(ask) {
            let answer = self.send(token).await;
            let told = String::from_utf8_lossy(&answer.bytes);
            assert_eq!(answer.status, status, "{what} by {token:?}: {told}");
        }
        let mut tokens = 0;
        if ask.changes {
            tokens += 1;
            let new = json!({"name": "reading", "scope": "read"});
            let reading = self.world.post(ADMIN, "token/", new).await.ok(201);
            let answer = self.send(reading["token"].as_str().unwrap()).await;
            assert_eq!(answer.ok(403), json!({"detail": "This token may only read."}), "{what}");
        }
        let made = self.log().await.len() - before.len();
        assert_eq!(made, tokens, "{what}: what is refused leaves no entry");
    }

    async fn recorded(&self) {
        let Self { what, ask, .. } = self;
        let before = self.log().await.len();
        let answer = self.send(ask.by).await;
        let told = String::from_utf8_lossy(&answer.bytes);
        assert!(answer.status.is_success(), "{what}: {} {told}", answer.status);
        let log = self.log().await;
        assert_eq!(log.len(), before + 1, "{what}: one entry a change");
        let Recorded { entry, before, after, .. } = &log[0];
        assert_eq!(entry.actor, format!("user:{}", name(ask.by)), "{what}");
        assert_eq!(entry.action, ask.action.unwrap_or(self.method.as_str()), "{what}");
        let path = format!("{BASE}/{}", ask.path.split('?').next().unwrap());
        assert_eq!(entry.subject, *ask.subject.as_ref().unwrap_or(&path), "{what}");
        assert_eq!(entry.organization.as_deref(), ask.organization, "{what}");
        assert_eq!(entry.peer.as_deref(), Some(PEER), "{what}");
        let says = |value: &Option<Value>| value.as_ref().is_some_and(Value::is_object);
        assert_eq!(says(before), ask.before, "{what}, before: {before:?}");
        assert_eq!(says(after), ask.after, "{what}, after: {after:?}");
        assert!(before != after, "{what}: {before:?}");
    }

    async fn log(&self) -> Vec<Recorded> {
        self.world.app.store.audit(1000).await.unwrap()
    }

    async fn send(&self, token: &str) -> Answer {
        let request = request(self.method.clone(), token, &self.ask.path);
        let (kind, body) = match &self.ask.content {
            Content::Json(value) => ("application/json", value.to_string().into_bytes()),
            Content::Parts(parts) => ("multipart/form-data; boundary=frontier", multipart(parts)),
        };
        let request = request
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, body.len())
            .extension(ConnectInfo(SocketAddr::new(PEER.parse().unwrap(), 4711)));
        self.world.send(request.body(Body::from(body)).unwrap()).await
    }
}

/// Who may not, and what they are told: nobody at all, those of smaller roles, and a stranger.
fn others(ask: &Ask) -> Vec<(&'static str, u16)> {
    let smaller: &[&str] = match ask.by {
        ADMIN => &[VIEWER, OPERATOR, ADMINISTRATOR],
        ADMINISTRATOR => &[VIEWER, OPERATOR],
        OPERATOR => &[VIEWER],
        _ => &[],
    };
    let nobody = (!ask.by.is_empty()).then_some(("", 401));
    let smaller = smaller.iter().map(|token| (*token, 403));
    nobody.into_iter().chain(smaller).chain(ask.stranger.map(|told| (RIVAL, told))).collect()
}

/// The user whose token it is.
fn name(token: &str) -> String {
    match token {
        "" => requests::EVE.into(),
        ADMIN => "admin".into(),
        token => format!("user of {token}"),
    }
}
