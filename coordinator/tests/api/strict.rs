//! What nobody asked for is refused by its name: a misspelt or empty condition must not be a batch of
//! everybody.

use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::desired::CAPABILITIES;
use shared::inventory::{Inventory, Staging};

use crate::world::*;

fn fit(inventory: &mut Inventory) {
    inventory.capabilities = CAPABILITIES.iter().map(|&name| name.to_owned()).collect();
    inventory.keys = vec!["ab".repeat(8)];
    inventory.staging =
        vec![Staging { path: "/srv".into(), free_bytes: 1 << 30, durable: true, problem: None }];
}

/// Two routers that a build fits; the first has tag `canary`. Answers with the build's path and the
/// first one's id.
async fn fleet(world: &World) -> (String, String) {
    let image = world.image().await;
    let build = world.app.store.image(image.parse().unwrap()).await.unwrap().unwrap().build;
    let tagged = world.device_with(&["main"], fit).await;
    world.device_with(&["main"], fit).await;
    let tags = json!({"tags": ["canary"]});
    world.patch(OPERATOR, &format!("device/{tagged}/"), tags).await.ok(200);
    (format!("build/{build}/upgrade/"), tagged.to_string())
}

async fn batches(world: &World) -> u64 {
    let list = world.get(OPERATOR, "batch-upgrade-operation/").await.ok(200);
    list["count"].as_u64().unwrap()
}

#[tokio::test]
async fn a_condition_has_the_same_names_in_the_dry_run_and_in_the_batch() {
    let world = World::new().await;
    let (path, device) = fleet(&world).await;
    let chosen = [
        (["tag", "tags"], "canary"),
        (["device", "devices"], device.as_str()),
        (["model", "models"], "no-such-model"),
        (["board", "boards"], "glinet,gl-x3001"),
        (["from_version", "from_versions"], "1"),
    ];
    for (names, value) in chosen {
        for name in names {
            let query = format!("{path}?upgrade_all=true&{name}={value}");
            let shown = world.get(OPERATOR, &query).await.ok(200);
            let expected = if ["tag", "device"].contains(&names[0]) { 1 } else { 0 };
            assert_eq!(shown["count"], expected, "{name}: {shown}");
            for value in [json!(value), json!([value])] {
                let body = json!({"upgrade_all": true, name: value});
                let answer = world.post(OPERATOR, &path, body).await;
                if expected == 0 {
                    assert!(answer.ok(400)["error"].is_string(), "{name}");
                    continue;
                }
                let batch = answer.ok(201)["batch"].as_str().unwrap().to_owned();
                let shown = format!("batch-upgrade-operation/{batch}/");
                let total = &world.get(OPERATOR, &shown).await.ok(200)["tally"]["total"];
                assert_eq!(*total, 1, "{name}");
                world.post(OPERATOR, &format!("{shown}cancel/"), json!({})).await.ok(200);
            }
        }
    }
}

#[tokio::test]
async fn a_comma_is_the_same_in_the_dry_run_and_in_the_batch() {
    let world = World::new().await;
    let (path, device) = fleet(&world).await;
    let shown = async |query: &str| {
        let query = format!("{path}?upgrade_all=true&{query}");
        world.get(OPERATOR, &query).await.ok(200)["count"].clone()
    };
    // A tag has none.
    let path_of_device = format!("device/{device}/");
    let tags = json!({"tags": ["canary,spare"]});
    let told = world.patch(OPERATOR, &path_of_device, tags).await.ok(400);
    assert!(told["tags"][0].as_str().unwrap().contains("comma"), "{told}");
    for name in ["tag", "tags"] {
        for value in [json!("canary,spare"), json!(["canary,spare"])] {
            let body = json!({"upgrade_all": true, name: value});
            let told = world.post(OPERATOR, &path, body).await.ok(400);
            assert!(told[name][0].as_str().unwrap().contains("comma"), "{told}");
        }
    }
    assert_eq!(shown("tag=canary,spare").await, 1);
    // What a modem tells may have one.
    for (name, value, other) in
        [("model", "FN990A28", "FN990A40"), ("from_version", "45.00.010", "45.00.011")]
    {
        assert_eq!(shown(&format!("{name}={value}&{name}={other}")).await, 2);
        assert_eq!(shown(&format!("{name}={value},{other}")).await, 0);
        let body = json!({"upgrade_all": true, name: format!("{value},{other}")});
        assert!(world.post(OPERATOR, &path, body).await.ok(400)["error"].is_string());
    }
    assert_eq!(batches(&world).await, 0);
}

#[tokio::test]
async fn conditions_may_come_several_times() {
    let world = World::new().await;
    let (path, device) = fleet(&world).await;
    let other = world.device_with(&["main"], fit).await;
    for query in [
        format!("{path}?device={device}&device={other}"),
        format!("{path}?device={device},{other}"),
        format!("{path}?device={device}&devices={other}"),
    ] {
        assert_eq!(world.get(OPERATOR, &query).await.ok(200)["count"], 2, "{query}");
    }
    let boards = format!("{path}?upgrade_all=true&board=x&board=glinet,gl-x3000");
    assert_eq!(world.get(OPERATOR, &boards).await.ok(200)["count"], 3);
}

#[tokio::test]
async fn what_is_taken_once_is_refused_twice() {
    let world = World::new().await;
    let (path, device) = fleet(&world).await;
    for query in [
        format!("{path}?device={device}&upgrade_all=true&upgrade_all=false"),
        format!("{path}?device={device}&page=1&page=1"),
        format!("upgrade-operation/?device={device}&device={device}"),
        "device/?state=pending&state=accepted".to_owned(),
    ] {
        let told = world.get(OPERATOR, &query).await.ok(400);
        let messages: Vec<_> = told.as_object().unwrap().values().collect();
        assert_eq!(messages, [&json!(["Give this parameter once."])], "{query}");
    }
}

/// The parameters in the query that the API's document names, of everything that can be read.
fn documented() -> Vec<(String, Vec<String>)> {
    let document = serde_json::to_value(coordinator::api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let named = |item: &Value| {
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let query = parameters.iter().filter(|one| one["in"] == "query");
        query.map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    paths.map(|(path, item)| (path.clone(), named(item))).filter(|of| !of.1.is_empty()).collect()
}

#[tokio::test]
async fn a_misspelt_filter_is_refused_wherever_there_are_filters() {
    let world = World::new().await;
    let (build, device) = fleet(&world).await;
    let start = json!({"upgrade_all": true});
    let batch = world.post(OPERATOR, &build, start).await.ok(201)["batch"].clone();
    let shown = format!("batch-upgrade-operation/{}/", batch.as_str().unwrap());
    let shown = world.get(OPERATOR, &shown).await.ok(200);
    let id = |path: &str| match path {
        path if path.contains("/build/") => build.split('/').nth(1).unwrap().to_owned(),
        path if path.contains("/device/") => device.clone(),
        path if path.contains("/batch-upgrade-operation/") => batch.as_str().unwrap().to_owned(),
        path if path.contains("/organization/") => world.acme.id.to_string(),
        _ => shown["upgradeoperations"][0]["id"].as_str().unwrap().to_owned(),
    };
    let all = documented();
    assert!(all.len() >= 20, "{all:?}");
    for (path, names) in all {
        // Without it, events have no end.
        let first = if path.ends_with("/events/") { "since=0&" } else { "" };
        let url = path.replace("{id}", &id(&path));
        let ask = async |query: String| {
            let answer = world.get(ADMIN, &format!("{url}?{query}")).await;
            assert!(answer.status.as_u16() < 405, "{url}?{query}: {}", answer.status);
            (answer.status.as_u16(), answer.json())
        };
        let (status, told) = ask(format!("{first}sttaus=failed")).await;
        assert_eq!(status, 400, "{path}: {told}");
        let message = told["sttaus"][0].as_str().unwrap();
        assert!(message.starts_with("Unknown parameter. There are: "), "{path}: {told}");
        for name in names {
            assert!(message.contains(&name), "{path}: {name} is not named: {message}");
            let one = if name == "since" { first.to_owned() } else { format!("{first}{name}=1") };
            let (_, told) = ask(one).await;
            let refused = told[&name][0].as_str().unwrap_or_default();
            assert!(!refused.starts_with("Unknown"), "{path}: {name} is documented: {told}");
        }
        if !path.ends_with("/events/") {
            assert_ne!(ask("format=json".into()).await.0, 400, "{path}");
        }
    }
}

#[tokio::test]
async fn a_misspelt_condition_starts_nothing() {
    let world = World::new().await;
    let (path, _) = fleet(&world).await;
    for name in ["tagged", "Tags", "grup", "upgrade-all", "locations", "canary", "max_concurrent"] {
        let told = world.get(OPERATOR, &format!("{path}?upgrade_all=true&{name}=x")).await.ok(400);
        let message = told[name][0].as_str().unwrap();
        assert!(message.starts_with("Unknown parameter. There are: "), "{told}");
        assert!(message.contains(" upgrade_all, "), "{told}");
        let told = json!({name: ["Unknown field."]});
        let body = json!({"upgrade_all": true, name: "x"});
        world.post(OPERATOR, &path, body).await.is(400, told.clone());
        let build = path.split('/').nth(1).unwrap();
        let body = json!({"build": build, "upgrade_all": true, name: "x"});
        world.post(OPERATOR, "batch-upgrade-operation/", body).await.is(400, told);
    }
    assert_eq!(batches(&world).await, 0);
}

#[tokio::test]
async fn an_empty_list_is_nobody() {
    let world = World::new().await;
    let (path, _) = fleet(&world).await;
    for name in ["tag", "tags", "device", "devices", "model", "models", "boards", "from_versions"] {
        let body = json!({"upgrade_all": true, name: []});
        let refused = world.post(OPERATOR, &path, body).await.ok(400);
        assert!(refused[name][0].as_str().unwrap().contains("empty"), "{refused}");
        // What a router tells may have commas.
        let split = ["tag", "tags", "device", "devices"].contains(&name);
        for blank in ["", ",", "%20"].into_iter().filter(|text| split || *text != ",") {
            let query = format!("{path}?upgrade_all=true&{name}={blank}");
            assert_eq!(
                world.get(OPERATOR, &query).await.status,
                StatusCode::BAD_REQUEST,
                "{query}"
            );
        }
    }
    for name in ["group", "location", "organization"] {
        world.get(OPERATOR, &format!("{path}?upgrade_all=true&{name}=")).await.ok(400);
    }
    assert_eq!(batches(&world).await, 0);
}

#[tokio::test]
async fn changes_refuse_what_they_do_not_know() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let operation = world.upgrade(device, &image).await;
    let firmware = format!("device/{device}/modem-firmware/");
    for (path, body) in [
        (firmware.clone(), json!({"image": image, "upgrade_option": {}})),
        ("device-firmware/".into(), json!({"device": device, "image": image, "slots": "x"})),
        (format!("upgrade-operation/{operation}/"), json!({"stauts": "success"})),
        (format!("device/{device}/"), json!({"tag": ["x"]})),
        ("category/".into(), json!({"name": "x", "organisation": "acme"})),
        ("token/".into(), json!({"name": "x", "expire": "2030-01-01T00:00:00Z"})),
        ("users/mqtt-token/".into(), json!({"org": "acme"})),
    ] {
        let answer = match path.as_str() {
            path if path.starts_with("device/") || path.starts_with("upgrade-") => {
                world.patch(OPERATOR, path, body).await
            }
            path => world.post(OPERATOR, path, body).await,
        };
        let told = answer.ok(400);
        let messages: Vec<_> = told.as_object().unwrap().values().collect();
        assert_eq!(messages, [&json!(["Unknown field."])], "{path}: {told}");
    }
    let build = world.build().await;
    let parts: [Part<'_>; 3] =
        [("type", "", b"telit-uxfp"), ("board", "", b"glinet,gl-x3000"), ("file", "x.bin", b"x")];
    let told = world.multipart(OPERATOR, &format!("build/{build}/image/"), &parts).await.ok(400);
    assert_eq!(told, json!({"board": ["Unknown field."]}));
}

/// As clients do: read the whole, change something in it, send the whole back.
#[tokio::test]
async fn what_was_read_is_taken_back() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let operation = world.upgrade(device, &image).await;
    let build = world.build().await;
    let category =
        world.get(OPERATOR, &format!("build/{build}/")).await.ok(200)["category"].clone();
    let group = world.post(OPERATOR, "group/", json!({"name": "north"})).await.id(201);
    let user = world.post(ADMIN, "user/", json!({"username": "eve"})).await.id(201);
    let members = format!("organization/{}/member/", world.acme.id);
    let member = json!({"username": "eve", "role": "viewer"});
    world.post(ADMINISTRATOR, &members, member).await.ok(201);
    for (token, path) in [
        (OPERATOR, format!("category/{}/", category.as_str().unwrap())),
        (OPERATOR, format!("build/{build}/")),
        (OPERATOR, format!("group/{group}/")),
        (OPERATOR, format!("device/{device}/modem-firmware/")),
        (ADMIN, format!("user/{user}/")),
        (ADMINISTRATOR, format!("organization/{}/", world.acme.id)),
        (ADMINISTRATOR, format!("{members}{user}/")),
    ] {
        let whole = world.get(token, &path).await.ok(200);
        world.put(token, &path, whole.clone()).await.ok(200);
        world.patch(token, &path, whole).await.ok(200);
    }
    let path = format!("upgrade-operation/{operation}/");
    let whole = world.get(OPERATOR, &path).await.ok(200);
    world.patch(OPERATOR, &path, whole.clone()).await.ok(200);
    // As a script that has begun.
    let (mut begun, mut misspelt) = (whole.clone(), whole);
    (begun["status"], begun["progress_percent"]) = (json!("in-progress"), json!(65));
    assert_eq!(world.patch(OPERATOR, &path, begun).await.ok(200)["progress_percent"], 65);
    misspelt["stauts"] = json!("success");
    let told = world.patch(OPERATOR, &path, misspelt).await.ok(400);
    assert_eq!(told, json!({"stauts": ["Unknown field."]}));
}

#[tokio::test]
async fn what_never_changes_is_said_to() {
    let world = World::new().await;
    let group = world.post(OPERATOR, "group/", json!({"name": "north"})).await.id(201);
    let told = json!({"organization": ["This field cannot be changed."]});
    let body = json!({"organization": "rival"});
    world.patch(OPERATOR, &format!("group/{group}/"), body).await.is(400, told);
    let device = world.device(&["one", "two"]).await;
    let path = format!("device/{device}/modem-firmware/");
    let image = world.image().await;
    let made = world.put(OPERATOR, &path, json!({"image": image, "slot": "two"})).await.ok(201);
    assert_eq!(made["slot"], "two");
    world.put(OPERATOR, &path, json!({"image": image, "slot": "three"})).await.ok(400);
}
