//! What is asked for: the dry run, and what is refused.

use super::*;

#[tokio::test]
async fn the_dry_run_tells_of_every_device() {
    let fleet = Fleet::new(2).await;
    let world = &fleet.world;
    let untrusting = world.device_with(&["main"], |known| {
        fit(known);
        known.keys.clear();
    });
    let untrusting = untrusting.await;
    let silent = world.device_with(&[], fit).await;
    let foreign = world.device_with(&["main"], |known| {
        fit(known);
        known.modems[0].model = "RM520N-GL".into();
    });
    let foreign = foreign.await;
    let off = world.device_with(&["main"], fit).await;
    let path = format!("device/{off}/");
    world.patch(ADMIN, &path, json!({"deactivated": true})).await.ok(200);

    let all = world.get(VIEWER, &format!("{}?upgrade_all=true", fleet.upgrade())).await.ok(200);
    assert_eq!((&all["count"], &all["excluded"]), (&json!(2), &json!(4)), "{all}");
    assert_eq!(all["devices"].as_array().unwrap().len(), 2);
    assert_eq!(all["device_modem_firmwares"], json!([]));
    let verdict = |device: DeviceId| {
        let verdicts = all["verdicts"].as_array().unwrap();
        verdicts.iter().find(|verdict| verdict["device"] == json!(device)).unwrap()
    };
    assert_eq!(verdict(fleet.devices[0])["will_upgrade"], true);
    for (device, reason) in [
        (untrusting, "key_not_trusted"),
        (silent, "modem_unknown"),
        (foreign, "wrong_model"),
        (off, "deactivated"),
    ] {
        assert_eq!(verdict(device)["reason"], reason);
        assert!(verdict(device)["detail"].as_str().unwrap().ends_with('.'));
    }
    let few = world.get(VIEWER, &fleet.upgrade()).await.ok(200);
    assert_eq!(few["count"], 0);
    assert_eq!(few["verdicts"][0]["reason"].as_str().map(|reason| reason.len() > 3), Some(true));
    let one = format!("{}?device={}", fleet.upgrade(), fleet.devices[0]);
    assert_eq!(world.get(VIEWER, &one).await.ok(200)["count"], 1, "named is enough");
    let page = format!("{}?upgrade_all=1&page_size=4", fleet.upgrade());
    let page = world.get(VIEWER, &page).await.ok(200);
    assert_eq!(page["verdicts"].as_array().unwrap().len(), 4);
    assert!(page["verdicts_next"].as_str().unwrap().contains("page=2"), "{page}");
    assert_eq!(page["count"], 2, "the counts are of all");
    world.get(RIVAL, &fleet.upgrade()).await.ok(404);
    let nobody = uuid::Uuid::new_v4();
    let path = format!("{}?device={nobody}", fleet.upgrade());
    assert!(world.get(VIEWER, &path).await.ok(400)["devices"].is_array());
}

#[tokio::test]
async fn devices_are_selected_by_what_operators_say_of_them() {
    let fleet = Fleet::new(3).await;
    let world = &fleet.world;
    let group = world.post(OPERATOR, "group/", json!({"name": "north"})).await.id(201);
    let location = world.post(OPERATOR, "location/", json!({"name": "Ulm"})).await.id(201);
    world.post(OPERATOR, "group/", json!({"name": "north"})).await.ok(400);
    world.post(VIEWER, "group/", json!({"name": "south"})).await.ok(403);
    let device = |n: usize| format!("device/{}/", fleet.devices[n]);
    let said = json!({"group": group, "tags": ["b", "a", "b"]});
    let shown = world.patch(OPERATOR, &device(0), said).await.ok(200);
    assert_eq!((&shown["group"], &shown["tags"]), (&json!(group), &json!(["a", "b"])));
    world.patch(OPERATOR, &device(1), json!({"location": location, "tags": ["c"]})).await.ok(200);
    let foreign = world.post(ADMIN, "group/", json!({"name": "x", "organization": "rival"})).await;
    let foreign = foreign.id(201);
    assert!(
        world.patch(OPERATOR, &device(2), json!({"group": foreign})).await.ok(400)["group"]
            .is_array()
    );
    world.get(RIVAL, &format!("group/{group}/")).await.ok(404);
    for (query, count) in [
        (format!("group={group}"), 1),
        (format!("location={location}"), 1),
        ("tag=a,c".into(), 2),
        ("model=FN990A28".into(), 3),
        ("model=FN980".into(), 0),
        ("board=glinet,gl-x3000".into(), 3),
        ("from_version=45.00.010".into(), 3),
        ("from_version=45.00.009".into(), 0),
        (format!("group={group}&tag=c"), 0),
    ] {
        let path = format!("{}?upgrade_all=true&{query}", fleet.upgrade());
        assert_eq!(world.get(VIEWER, &path).await.ok(200)["count"], count, "{query}");
    }
    for (query, count) in [("tag=a".into(), 1), (format!("group={group}"), 1)] {
        assert_eq!(world.get(VIEWER, &format!("device/?{query}")).await.ok(200)["count"], count);
    }
    let body = json!({"upgrade_all": true, "tags": ["c"], "strategy": quick()});
    let batch = world.post(OPERATOR, &fleet.upgrade(), body).await.ok(201);
    let shown = fleet.show(batch["batch"].as_str().unwrap()).await;
    assert_eq!(shown["upgradeoperations"][0]["device"], json!(fleet.devices[1]));
    world.delete(OPERATOR, &format!("group/{group}/")).await.ok(204);
    assert_eq!(world.get(VIEWER, &device(0)).await.ok(200)["group"], Value::Null);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_field() {
    let fleet = Fleet::new(1).await;
    let world = &fleet.world;
    let all = |strategy: Value| json!({"upgrade_all": true, "strategy": strategy});
    for strategy in [
        json!({"canary": 0}),
        json!({"canery": 5}),
        json!({"growth": "fast"}),
        json!({"gate": {"minimum": 9}}),
        json!({"window": "02:00-04:00"}),
        json!({"start_at": "tomorrow"}),
        json!({"start_at": "2020-01-01T00:00:00Z"}),
        json!({"growth": "x"}),
        json!({"gate": {"minimum": -1}}),
        json!({"failure_threshold": 3}),
        json!({"expires_at": "2020-01-01T00:00:00Z"}),
        json!(5),
    ] {
        let refused = world.post(OPERATOR, &fleet.upgrade(), all(strategy.clone())).await.ok(400);
        let said = refused["strategy"][0].as_str().unwrap_or_else(|| panic!("{refused}"));
        let field = strategy.as_object().and_then(|object| object.keys().next());
        assert!(field.is_none_or(|field| said.contains(field.as_str())), "{strategy}: {said}");
    }
    let options = json!({"upgrade_all": true, "upgrade_options": {"speed": "--help"}});
    assert!(
        world.post(OPERATOR, &fleet.upgrade(), options).await.ok(400)["upgrade_options"].is_array()
    );
    world.post(VIEWER, &fleet.upgrade(), all(json!({}))).await.ok(403);
    world.post(RIVAL, &fleet.upgrade(), all(json!({}))).await.ok(404);
    let nobody = json!({"upgrade_all": true, "models": ["other"]});
    assert!(world.post(OPERATOR, &fleet.upgrade(), nobody).await.ok(400)["error"].is_string());
    assert_eq!(world.get(VIEWER, "batch-upgrade-operation/").await.ok(200)["count"], 0);
    let unknown = json!({"build": uuid::Uuid::new_v4()});
    assert!(
        world.post(OPERATOR, "batch-upgrade-operation/", unknown).await.ok(400)["build"].is_array()
    );
}

#[tokio::test]
async fn two_at_once_do_not_take_each_others_modems() {
    let fleet = Fleet::new(3).await;
    let (path, body) = (fleet.upgrade(), json!({"upgrade_all": true}));
    let (one, two, three) = tokio::join!(
        fleet.world.post(OPERATOR, &path, body.clone()),
        fleet.world.post(OPERATOR, &path, body.clone()),
        fleet.world.post(OPERATOR, &path, body.clone()),
    );
    let (started, refused): (Vec<_>, Vec<_>) =
        [one, two, three].into_iter().partition(|answer| answer.status.is_success());
    assert_eq!((started.len(), refused.len()), (1, 2));
    for refused in refused {
        assert!(matches!(refused.status.as_u16(), 400 | 409), "{}", refused.json());
    }
    let batch = started[0].json()["batch"].as_str().unwrap().to_owned();
    assert_eq!(fleet.show(&batch).await["tally"]["idle"], 3);
    let listing = fleet.world.get(VIEWER, "upgrade-operation/").await.ok(200);
    assert_eq!(listing["count"], 3, "nothing was superseded");
}

#[tokio::test]
async fn pages_of_a_dry_run_are_of_one_look() {
    let fleet = Fleet::new(3).await;
    let world = &fleet.world;
    let page = async |n: u32| {
        let path = format!("{}?upgrade_all=1&page_size=1&page={n}", fleet.upgrade());
        world.get(VIEWER, &path).await.ok(200)
    };
    let first = page(1).await;
    assert_eq!(first["count"], 3);
    let off = first["verdicts"][0]["device"].as_str().unwrap();
    world.patch(ADMIN, &format!("device/{off}/"), json!({"deactivated": true})).await.ok(200);
    assert_eq!(first["devices"].as_array().unwrap().len(), 3, "all, for whoever knows no pages");
    let second = page(2).await;
    assert_eq!(second["count"], 3, "as on the first page");
    assert_eq!(second["devices"], json!([]));
    let other = format!("{}?upgrade_all=1&page_size=1&page=2&include_unsigned=0", fleet.upgrade());
    assert_eq!(world.get(VIEWER, &other).await.ok(200)["count"], 3, "the same question");
    let other = format!("{}?upgrade_all=0&page_size=1&page=2", fleet.upgrade());
    assert_eq!(world.get(VIEWER, &other).await.ok(200)["count"], 0, "another question");
    assert_eq!(page(1).await["count"], 2, "the first page looks");
    fleet.pass(181);
    world.patch(ADMIN, &format!("device/{off}/"), json!({"deactivated": false})).await.ok(200);
    assert_eq!(page(2).await["count"], 3, "it is old by now");
}

#[tokio::test]
async fn another_organization_than_the_builds_is_refused_and_not_passed_over() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    world.image().await;
    let builds = world.get(ADMIN, "build/").await.ok(200);
    let build = builds["results"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("build/{build}/upgrade/");
    let named = |organization: &str| json!({"organization": organization, "devices": [device], "upgrade_all": true});
    let refused = world.post(ADMIN, &path, named("rival")).await.ok(400);
    assert!(refused["organization"].is_array(), "{refused}");
    let own = world.post(ADMIN, &path, named("acme")).await.ok(400);
    assert!(own["error"].as_str().unwrap().starts_with("Nobody would be upgraded"), "{own}");
}
