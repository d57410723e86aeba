//! The way in for devices: tokens, waiting devices, and those that come back.

use coordinator::store::Rejection;
use coordinator::store::enrolment::{EnrolRefusal, Enrolment};
use coordinator::store::operation::StartRefused;
use serde_json::{Value, json};
use shared::hex::{Hex, sha256};
use shared::identity::{Claims, Enrolled};

use crate::world::*;

async fn enrol(
    world: &World,
    token: &str,
    key: u8,
    mac: Option<&str>,
) -> Result<Enrolled, Rejection<EnrolRefusal>> {
    let claims = Claims { mac: mac.map(str::to_owned), ..Claims::default() };
    let token = sha256(token.as_bytes());
    let enrolment = Enrolment { public_key: Hex([key; 32]), token, claims, peer: None };
    world.app.store.enrol(enrolment).await.map(|(enrolled, _)| enrolled)
}

async fn make(world: &World, body: Value) -> (String, String) {
    let made = world.post(ADMINISTRATOR, "enrolment-token/", body).await.ok(201);
    let secret = made["token"].as_str().unwrap().to_owned();
    (made["id"].as_str().unwrap().to_owned(), secret)
}

#[tokio::test]
async fn a_token_is_for_one_device_or_many_and_may_end() {
    let world = World::new().await;
    let (once, secret) = make(&world, json!({"name": "once", "uses": 1})).await;
    let device = enrol(&world, &secret, 1, None).await.unwrap();
    let used_up = enrol(&world, &secret, 2, None).await;
    assert!(matches!(used_up, Err(Rejection::Refused(EnrolRefusal::UsedUpToken))));
    let shown = world.get(ADMINISTRATOR, &format!("enrolment-token/{once}/")).await.ok(200);
    assert_eq!(
        (&shown["uses_left"], &shown["used"], &shown["token"], &shown["organization"]),
        (&json!(0), &json!(1), &Value::Null, &json!("acme"))
    );
    let again = enrol(&world, &secret, 1, None).await.unwrap();
    assert_eq!(again.device, device.device, "who is known needs no token any more");

    let soon = json!({"name": "soon", "expires": "2023-11-15T00:00:00Z", "auto_accept": true});
    let (_, soon) = make(&world, soon).await;
    enrol(&world, &soon, 3, None).await.unwrap();
    enrol(&world, &soon, 4, None).await.unwrap();
    world.pass(24 * 3600 * 1000);
    let late = enrol(&world, &soon, 5, None).await;
    assert!(matches!(late, Err(Rejection::Refused(EnrolRefusal::ExpiredToken))));

    let (gone, secret) = make(&world, json!({"name": "gone"})).await;
    world.delete(ADMINISTRATOR, &format!("enrolment-token/{gone}/")).await.ok(204);
    let withdrawn = enrol(&world, &secret, 6, None).await;
    assert!(matches!(withdrawn, Err(Rejection::Refused(EnrolRefusal::UnknownToken))));
}

#[tokio::test]
async fn tokens_are_the_administrators() {
    let world = World::new().await;
    let (id, _) = make(&world, json!({"name": "x", "organization": "acme"})).await;
    let path = format!("enrolment-token/{id}/");
    for token in [VIEWER, OPERATOR] {
        world.get(token, "enrolment-token/").await.ok(403);
        world.get(token, &path).await.ok(403);
        world.post(token, "enrolment-token/", json!({"name": "x"})).await.ok(403);
        world.delete(token, &path).await.ok(403);
    }
    world.get(RIVAL, &path).await.ok(404);
    let listing = world.get(ADMINISTRATOR, "enrolment-token/?ordering=name").await.ok(200);
    assert_eq!(listing["count"], 2, "the test's own and this one");
    let foreign = json!({"name": "x", "organization": "rival"});
    assert!(
        world.post(ADMINISTRATOR, "enrolment-token/", foreign).await.ok(400)["organization"]
            .is_array()
    );
    world.post(ADMIN, "enrolment-token/", json!({"name": "x"})).await.ok(400);
    for (body, field) in [(json!({"name": "x", "uses": 0}), "uses"), (json!({}), "name")] {
        let refused = world.post(ADMINISTRATOR, "enrolment-token/", body).await.ok(400);
        assert!(refused[field].is_array(), "{refused}");
    }
}

#[tokio::test]
async fn a_waiting_device_is_accepted_or_refused() {
    let world = World::new().await;
    let (_, secret) = make(&world, json!({"name": "wait"})).await;
    let (one, two) = (
        enrol(&world, &secret, 1, None).await.unwrap(),
        enrol(&world, &secret, 2, None).await.unwrap(),
    );
    assert_eq!(world.get(OPERATOR, "device/?state=pending").await.ok(200)["count"], 2);
    let path = |device: &Enrolled, what: &str| format!("device/{}/{what}/", device.device);
    world.post(OPERATOR, &path(&one, "refuse"), json!({})).await.ok(403);
    let refused = world.post(ADMINISTRATOR, &path(&one, "refuse"), json!({})).await.ok(200);
    assert_eq!(refused["state"], "revoked");
    world.post(ADMINISTRATOR, &path(&one, "refuse"), json!({})).await.ok(409);
    let accepted = world.post(ADMINISTRATOR, &path(&two, "accept"), json!({})).await.ok(200);
    assert_eq!(accepted["state"], "accepted");
    world.post(ADMINISTRATOR, &path(&two, "refuse"), json!({})).await.ok(409);
    let back = enrol(&world, &secret, 1, None).await;
    assert!(matches!(back, Err(Rejection::Refused(EnrolRefusal::Revoked))));
}

#[tokio::test]
async fn a_revoked_router_comes_back_under_a_new_key_and_with_leave() {
    let world = World::new().await;
    let mac = Some("00:11:22:33:44:55");
    let first = enrol(&world, "enrolment", 1, mac).await.unwrap().device;
    world.post(ADMINISTRATOR, &format!("device/{first}/revoke/"), json!({})).await.ok(200);
    let second = enrol(&world, "enrolment", 2, mac).await.unwrap().device;
    let waiting = world.get(VIEWER, &format!("device/{second}/")).await.ok(200);
    assert_eq!(
        (&waiting["state"], &waiting["replacement_of"]),
        (&json!("pending"), &json!(first)),
        "also with a token that accepts"
    );
    let path = format!("device/{second}/accept/");
    assert_eq!(world.post(ADMINISTRATOR, &path, json!({})).await.ok(200)["state"], "accepted");
}

#[tokio::test]
async fn an_identity_that_two_boards_use_starts_nothing_until_somebody_has_looked() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    let operation = world.upgrade(device, &world.image().await).await;
    let jobs = async || world.app.store.desired(device, None).await.unwrap().unwrap().jobs.len();
    assert_eq!(jobs().await, 1);
    for boot in ["one", "two", "one", "two", "one"] {
        world.inventory(device, boot).await;
    }
    let shown = world.get(VIEWER, &format!("device/{device}/")).await.ok(200);
    assert!(shown["duplicate"]["reason"].as_str().unwrap().contains("take turns"), "{shown}");
    assert_eq!(world.get(VIEWER, "device/?duplicate=true").await.ok(200)["count"], 1);
    assert_eq!(jobs().await, 1, "a job that is gone is taken for withdrawn and never comes back");
    let start = shared::grant::StartRequest {
        attempt: 1,
        stream: shared::ids::StreamId(uuid::Uuid::from_u128(1)),
        dark_expected_s: 60,
        dark_longest_s: 600,
        returned: 0,
    };
    let id = operation.parse().unwrap();
    match world.app.store.start(device, id, start).await {
        Err(Rejection::Refused(StartRefused::Refused(refusal))) => {
            assert!(refusal.code.passes() && refusal.retry_after_s.is_some());
        }
        other => panic!("{other:?}"),
    }
    let log = world.app.store.audit(1).await.unwrap();
    assert_eq!(log[0].entry.action, "hold");
    let told = log[0].after.as_ref().unwrap();
    assert_eq!((&told["id"], &told["name"]), (&json!(device), &json!("router")));
    assert!(told["duplicate"].as_str().unwrap().contains("take turns"), "{told}");

    world.post(OPERATOR, &format!("device/{device}/release/"), json!({})).await.ok(403);
    let path = format!("device/{device}/release/");
    let shown = world.post(ADMINISTRATOR, &path, json!({})).await.ok(200);
    assert_eq!(shown["duplicate"], Value::Null);
    assert_eq!(jobs().await, 1);
    world.app.store.start(device, id, start).await.unwrap();
}

#[tokio::test]
async fn a_new_key_takes_the_place_of_the_one_that_loses_its_access() {
    let world = World::new().await;
    let mac = Some("00:11:22:33:44:55");
    let (token, secret) = make(&world, json!({"name": "bench", "auto_accept": true})).await;
    let enrol = async |key| enrol(&world, &secret, key, mac).await.unwrap().device;
    let accept = async |device| {
        let path = format!("device/{device}/accept/");
        world.post(ADMINISTRATOR, &path, json!({})).await.ok(200)
    };
    let first = enrol(1).await;
    let group = world.post(OPERATOR, "group/", json!({"name": "north"})).await.id(201);
    let location = world.post(OPERATOR, "location/", json!({"name": "shed"})).await.id(201);
    let place = json!({"group": group, "location": location, "tags": ["spare", "van"]});
    world.patch(OPERATOR, &format!("device/{first}/"), place).await.ok(200);
    let off = json!({"deactivated": true});
    world.patch(ADMINISTRATOR, &format!("device/{first}/"), off).await.ok(200);
    let second = enrol(2).await;
    let shown = accept(second).await;
    assert_eq!(
        (&shown["group"], &shown["location"], &shown["tags"], &shown["replacement_of"]),
        (&json!(group), &json!(location), &json!(["spare", "van"]), &json!(first))
    );
    assert_eq!(shown["deactivated"], true, "who was to get no jobs gets none under a new key");

    world.pass(1);
    let third = enrol(3).await;
    let waiting = world.get(VIEWER, &format!("device/{third}/")).await.ok(200);
    assert_eq!(waiting["replacement_of"], json!(second), "the first has no access any more");
    let own = json!({"group": null, "location": null, "tags": ["mine"]});
    world.patch(OPERATOR, &format!("device/{third}/"), own).await.ok(200);
    let shown = accept(third).await;
    assert_eq!(
        (&shown["group"], &shown["tags"], &shown["replacement_of"]),
        (&json!(group), &json!(["mine"]), &json!(second))
    );
    let second = world.get(VIEWER, &format!("device/{second}/")).await.ok(200);
    assert_eq!((&second["state"], &second["replacement_of"]), (&json!("revoked"), &json!(first)));

    let of = async |device: &Value, action: &str| {
        let path = format!("audit/?action={action}&subject={}", device.as_str().unwrap());
        world.get(ADMINISTRATOR, &path).await.ok(200)["results"][0].clone()
    };
    let revoked = of(&second["id"], "revoke").await;
    let by = format!("user:user of {ADMINISTRATOR}");
    let after = json!({"state": "revoked", "for": third, "by": by});
    assert_eq!((&revoked["actor"], &revoked["after"]), (&json!("system"), &after));
    let accepted = of(&json!(third), "POST").await;
    assert_eq!(
        (&accepted["before"]["group"], &accepted["after"]["group"]),
        (&Value::Null, &json!(group))
    );
    let enrolled = of(&json!(third), "enrol").await;
    assert_eq!(enrolled["after"]["enrolment_token"], json!({"id": token, "name": "bench"}));
    assert_eq!(
        (&enrolled["after"]["mac_address"], &enrolled["after"]["public_key"]),
        (&json!(mac), &json!("03".repeat(32)))
    );
    assert!(enrolled["detail"].as_str().unwrap().starts_with("pending, would replace"));
}
