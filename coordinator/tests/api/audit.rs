//! The audit log of operators.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, header};
use coordinator::api::BASE;
use serde_json::json;
use tower::ServiceExt;

use crate::world::*;

#[tokio::test]
async fn a_change_is_recorded_though_its_client_went_away() {
    let world = World::new().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    for n in 0.. {
        let before = recorded(&world).await;
        let request = Request::post(format!("{BASE}/category/"))
            .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(format!(r#"{{"name":"hasty {n}"}}"#)))
            .unwrap();
        // Polled once, then dropped, as a connection that is reset drops it.
        let answer = tokio::time::timeout(Duration::ZERO, world.router.clone().oneshot(request));
        let went_away = answer.await.is_err();
        let patience = Instant::now() + Duration::from_secs(1);
        while went_away && Instant::now() < patience {
            if recorded(&world).await > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // It was answered all the same, or dropped while it waited for a reader: then nothing is changed.
        let made = world.get(ADMIN, "category/").await.ok(200);
        assert_eq!(made["count"], recorded(&world).await, "changed, and on no record");
        assert!(Instant::now() < deadline, "no request is ever dropped in time");
    }
}

/// How many categories the log has.
async fn recorded(world: &World) -> usize {
    let log = world.app.store.audit(100).await.unwrap();
    log.iter().filter(|recorded| recorded.entry.subject.ends_with("/category/")).count()
}

#[tokio::test]
async fn a_change_and_its_entry_are_one_and_what_is_refused_leaves_none() {
    let world = World::new().await;
    let before = world.app.store.audit(10).await.unwrap();
    let made = world.post(ADMIN, "category/", json!({ "name": "FN990A" })).await;
    assert_eq!(made.status, 201);
    let log = world.app.store.audit(10).await.unwrap();
    assert_eq!(log.len(), before.len() + 1, "{log:?}");
    let entry = &log[0].entry;
    assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("user:admin", "POST"));
    assert_eq!(entry.subject, format!("{BASE}/category/"));

    let again = world.post(ADMIN, "category/", json!({ "name": "FN990A" })).await;
    assert_eq!(again.status, 400);
    assert_eq!(world.app.store.audit(10).await.unwrap(), log, "nothing was changed");
}

async fn entries(world: &World, token: &str, query: &str) -> Vec<serde_json::Value> {
    let listing = world.get(token, &format!("audit/?{query}")).await.ok(200);
    listing["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_log_tells_before_and_after_and_from_where() {
    let world = World::new().await;
    let id = world.post(OPERATOR, "category/", json!({"name": "one"})).await.id(201);
    let path = format!("category/{id}/");
    let peer: std::net::SocketAddr = "192.0.2.7:4711".parse().unwrap();
    let mut request = request(axum::http::Method::PATCH, OPERATOR, &path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(r#"{"name":"two"}"#))
        .unwrap();
    request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
    world.send(request).await.ok(200);
    world.delete(OPERATOR, &path).await.ok(204);

    let log = entries(&world, ADMINISTRATOR, &format!("subject={BASE}/{path}")).await;
    let actions: Vec<_> = log.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["DELETE", "PATCH"], "newest first");
    let change = &log[1];
    assert_eq!(
        (&change["before"]["name"], &change["after"]["name"]),
        (&json!("one"), &json!("two"))
    );
    assert_eq!(change["peer"], "192.0.2.7");
    assert_eq!(change["organization"], "acme");
    assert_eq!(change["actor"], format!("user:user of {OPERATOR}"));
    assert_eq!((&log[0]["before"]["name"], &log[0]["after"]), (&json!("two"), &json!(null)));
}

#[tokio::test]
async fn the_log_is_read_by_those_who_look_after_an_organization() {
    let world = World::new().await;
    world.post(OPERATOR, "category/", json!({"name": "ours"})).await.ok(201);
    world.post(RIVAL, "category/", json!({"name": "theirs"})).await.ok(201);
    world.post(ADMIN, "category/", json!({"name": "shared"})).await.ok(201);
    for token in [VIEWER, OPERATOR, RIVAL] {
        world.get(token, "audit/").await.ok(403);
    }
    let own = entries(&world, ADMINISTRATOR, "page_size=100").await;
    assert!(own.iter().all(|entry| entry["organization"] == "acme"), "{own:?}");
    assert!(own.iter().any(|entry| entry["after"]["name"] == "ours"));
    assert!(entries(&world, ADMINISTRATOR, "organization=rival").await.is_empty());
    let all = entries(&world, ADMIN, "page_size=100").await;
    for name in ["ours", "theirs", "shared"] {
        assert!(all.iter().any(|entry| entry["after"]["name"] == name), "{name}");
    }
}

#[tokio::test]
async fn the_log_is_filtered_and_paged() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.pass(60_000);
        world.post(ADMIN, "category/", json!({"name": name})).await.ok(201);
    }
    let made = format!("actor=user:admin&action=POST&subject={BASE}/category/");
    assert_eq!(entries(&world, ADMIN, &made).await.len(), 3);
    let names = |entries: Vec<serde_json::Value>| -> Vec<String> {
        let name = |entry: &serde_json::Value| entry["after"]["name"].as_str().unwrap().to_owned();
        entries.iter().map(name).collect()
    };
    let since = "since=2023-11-14T22:15:20Z";
    assert_eq!(names(entries(&world, ADMIN, &format!("{made}&{since}")).await), ["c", "b"]);
    let until = "until=2023-11-14T22:16:20Z";
    assert_eq!(names(entries(&world, ADMIN, &format!("{made}&{since}&{until}")).await), ["b"]);
    let page = entries(&world, ADMIN, &format!("{made}&page_size=1&page=3")).await;
    assert_eq!(names(page), ["a"]);
    world.get(ADMIN, "audit/?since=yesterday").await.ok(400);
    world.get(ADMIN, "audit/?page=99").await.ok(404);
}

#[tokio::test]
async fn no_secret_is_in_the_log() {
    let world = World::new().await;
    let password = "correct horse battery";
    let new = json!({"username": "eve", "password": password, "superuser": true});
    let id = world.post(ADMIN, "user/", new).await.id(201);
    world.patch(ADMIN, &format!("user/{id}/"), json!({"password": "another horse"})).await.ok(200);
    let login = json!({"username": "eve", "password": "another horse"});
    let eve = world.post("", "users/token/", login).await.ok(200);
    let eve = eve["token"].as_str().unwrap();
    let token = world.post(eve, "token/", json!({"name": "x"})).await.ok(201);
    let body = json!({"name": "x", "organization": "acme"});
    let enrolment = world.post(eve, "enrolment-token/", body).await.ok(201);
    let mqtt = world.post(eve, "users/mqtt-token/", json!({"organization": "acme"})).await.ok(201);
    let log = world.get(ADMIN, "audit/?page_size=100").await.ok(200);
    assert!(log["count"].as_u64().unwrap() >= 6);
    let text = log.to_string();
    let secrets = [&token, &enrolment, &mqtt].map(|made| made["token"].as_str().unwrap());
    for secret in secrets.into_iter().chain([password, "another horse", eve, "$argon2"]) {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    for secret in secrets {
        let digest = shared::hex::sha256(secret.as_bytes()).to_string();
        assert!(!text.contains(&digest), "its digest is");
    }
}

#[tokio::test]
async fn the_start_of_a_batch_says_whom_it_was_for_and_what_was_allowed() {
    let world = World::new().await;
    let build = crate::changes::requests::fleet(&world).await;
    let body = json!({
        "upgrade_all": true, "boards": ["glinet,gl-x3000"], "models": ["FN990A28"],
        "include_unsigned": true, "allow_volatile_staging": true,
        "upgrade_options": {"speed": "115200"},
    });
    world.post(OPERATOR, &format!("build/{build}/upgrade/"), body).await.ok(201);
    let start = entries(&world, ADMINISTRATOR, "action=POST").await.remove(0);
    let expected = json!({
        "upgrade_all": true, "boards": ["glinet,gl-x3000"], "models": ["FN990A28"],
        "include_unsigned": true, "allow_volatile_staging": true,
        "upgrade_options": {"speed": "115200", "allow_volatile_staging": true},
    });
    assert_eq!(start["after"]["asked"], expected, "{start}");
    assert_eq!(start["after"]["operations"], 1);
}

#[tokio::test]
async fn what_happened_to_one_thing_is_found_by_its_id() {
    let world = World::new().await;
    let build = crate::changes::requests::fleet(&world).await;
    let start = format!("build/{build}/upgrade/");
    let made = world.post(OPERATOR, &start, json!({"upgrade_all": true})).await.ok(201);
    let batch = made["batch"].as_str().unwrap();
    let path = format!("batch-upgrade-operation/{batch}");
    for verb in ["pause", "resume", "cancel"] {
        world.post(OPERATOR, &format!("{path}/{verb}/"), json!({})).await;
    }
    let of_batch = entries(&world, ADMINISTRATOR, &format!("subject={batch}&ordering=id")).await;
    let subjects: Vec<_> =
        of_batch.iter().map(|entry| entry["subject"].as_str().unwrap()).collect();
    let expected =
        [start, format!("{path}/pause/"), format!("{path}/resume/"), format!("{path}/cancel/")];
    assert_eq!(subjects, expected.map(|path| format!("{BASE}/{path}")), "{of_batch:?}");
    let who = &of_batch[0]["actor_id"];
    let me = world.get(OPERATOR, "user/me/").await.ok(200);
    assert_eq!(who, &me["id"], "a name may be another one's later");
    assert!(
        entries(&world, ADMINISTRATOR, &format!("subject={}", uuid::Uuid::nil())).await.is_empty()
    );

    let device = world.device(&["main"]).await;
    let image = world.image().await;
    let operation = world.upgrade(device, &image).await;
    let cancel = format!("upgrade-operation/{operation}/cancel/");
    world.post(OPERATOR, &cancel, json!({})).await.ok(200);
    let asked = format!("{BASE}/device/{device}/modem-firmware/");
    for (id, known) in [
        (device.to_string(), vec![format!("{BASE}/{cancel}"), asked.clone(), device.to_string()]),
        (operation, vec![format!("{BASE}/{cancel}"), asked]),
    ] {
        let log = entries(&world, ADMINISTRATOR, &format!("subject={id}")).await;
        let subjects: Vec<_> = log.iter().map(|entry| entry["subject"].as_str().unwrap()).collect();
        assert_eq!(subjects, known, "{log:?}");
    }
}

#[tokio::test]
async fn what_went_with_it_is_told_when_something_is_deleted() {
    let world = World::new().await;
    let build = crate::changes::requests::fleet(&world).await;
    let category =
        world.get(OPERATOR, &format!("build/{build}/")).await.ok(200)["category"].clone();
    let images = world.get(OPERATOR, &format!("build/{build}/image/")).await.ok(200);
    let image = &images["results"][0];
    let start = format!("build/{build}/upgrade/");
    let made = world.post(OPERATOR, &start, json!({"upgrade_all": true})).await.ok(201);
    let batch = made["batch"].as_str().unwrap().to_owned();
    let cancel = format!("batch-upgrade-operation/{batch}/cancel/");
    world.post(OPERATOR, &cancel, json!({})).await.ok(200);
    let gone = async |path: &str| {
        world.delete(OPERATOR, path).await.ok(204);
        entries(&world, ADMINISTRATOR, "action=DELETE").await.remove(0)["before"].clone()
    };
    let told = gone(&format!("category/{}/", category.as_str().unwrap())).await;
    let [went] = told["images"].as_array().unwrap().as_slice() else { panic!("{told}") };
    for field in ["id", "type", "sha256"] {
        assert_eq!(went[field], image[field], "{field}: {went} {image}");
    }
    assert!(went["signed_by"].is_string(), "{went}");
    assert_eq!(told["lost_by"]["batches"], 1, "{told}");
    assert_eq!(told["lost_by"]["operations"], 1, "{told}");

    let device = world.device(&["main"]).await;
    let group = world.post(OPERATOR, "group/", json!({"name": "north"})).await.id(201);
    let path = format!("device/{device}/");
    world.patch(OPERATOR, &path, json!({"group": group})).await.ok(200);
    let told = gone(&format!("group/{group}/")).await;
    assert_eq!(told, json!({"id": group, "name": "north", "devices": 1}));
    assert_eq!(world.get(OPERATOR, &path).await.ok(200)["group"], json!(null));

    let image = world.image().await;
    world.upgrade(device, &image).await;
    world.delete(OPERATOR, &format!("device/{device}/modem-firmware/")).await;
    let operations =
        world.get(OPERATOR, &format!("upgrade-operation/?device={device}")).await.ok(200);
    let id = operations["results"][0]["id"].as_str().unwrap();
    world.post(OPERATOR, &format!("upgrade-operation/{id}/cancel/"), json!({})).await;
    let build = world.get(OPERATOR, "build/").await.ok(200)["results"][0]["id"].clone();
    let told = gone(&format!("build/{}/image/{image}/", build.as_str().unwrap())).await;
    assert_eq!(told["lost_by"]["operations"], 1, "{told}");
}

#[tokio::test]
async fn administrators_see_what_became_of_their_members() {
    let world = World::new().await;
    let role = |organization: &str| json!({"organization": organization, "role": "operator"});
    let both = json!([role("acme"), role("rival")]);
    let eve = world.post(ADMIN, "user/", json!({"username": "eve", "memberships": both}));
    let id = eve.await.id(201);
    let path = format!("user/{id}/");
    world.patch(ADMIN, &path, json!({"username": "mallory"})).await.ok(200);
    world.patch(ADMIN, &path, json!({"superuser": false})).await.ok(200);
    world.delete(ADMIN, &path).await.ok(204);
    let log = entries(&world, ADMINISTRATOR, &format!("subject={id}&ordering=id")).await;
    let as_member =
        |name: &str| json!({"id": id, "username": name, "active": true, "role": "operator"});
    let changes: Vec<_> = log.iter().map(|entry| (&entry["before"], &entry["after"])).collect();
    let (eve, mallory, nobody) = (as_member("eve"), as_member("mallory"), json!(null));
    assert_eq!(changes, [(&nobody, &eve), (&eve, &mallory), (&mallory, &nobody)], "{log:?}");
    assert!(log.iter().all(|entry| entry["actor"] == "user:admin"), "{log:?}");
    assert!(!json!(log).to_string().contains("rival"), "where else she is, is not told");
    assert_eq!(entries(&world, ADMIN, &format!("subject={id}&page_size=100")).await.len(), 4 + 6);
}

#[tokio::test]
async fn the_first_start_is_on_record() {
    let world = World::new().await;
    let first = entries(&world, ADMIN, "action=first%20start").await.remove(0);
    assert_eq!(first["actor"], "system");
    assert_eq!(first["after"]["superuser"]["username"], "admin");
    assert_eq!(first["after"]["organization"]["slug"], "default");
    for token in ["api_token", "enrolment_token"] {
        assert_eq!(first["after"][token]["name"], "first start", "{first}");
    }
}

#[tokio::test]
async fn times_in_the_log_are_written_as_everywhere() {
    let world = World::new().await;
    let end = "2099-12-31T00:00:00.000Z";
    let body = json!({"name": "x", "expires": end});
    world.post(ADMINISTRATOR, "token/", body.clone()).await.ok(201);
    let log = world.get(ADMIN, "audit/?page_size=1").await.ok(200);
    assert_eq!(log["results"][0]["after"]["expires"], end);
    world.post(ADMINISTRATOR, "enrolment-token/", body).await.ok(201);
    let log = world.get(ADMIN, "audit/?page_size=1").await.ok(200);
    assert_eq!(log["results"][0]["after"]["expires"], end);
    let password = json!({"password": "correct horse battery"});
    let me = world.get(OPERATOR, "user/me/").await.ok(200);
    world.patch(ADMIN, &format!("user/{}/", me["id"].as_str().unwrap()), password).await.ok(200);
    let login = json!({"username": me["username"], "password": "correct horse battery"});
    let until = world.post("", "users/token/", login).await.ok(200)["expires"].clone();
    let log = world.get(ADMIN, "audit/?action=login").await.ok(200);
    assert_eq!(log["results"][0]["after"]["expires"], until);
}
