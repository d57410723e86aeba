use axum::body::Body;
use axum::http::{Method, header};
use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn its_life_in_the_api() {
    let world = World::new().await;
    let created = world
        .post(
            OPERATOR,
            "category/",
            json!({"name": "FN990A", "description": "Telit", "organization": "acme"}),
        )
        .await
        .ok(201);
    let id = created["id"].as_str().unwrap().to_owned();
    let expected = json!({
        "id": id,
        "created": NOW_TEXT,
        "modified": NOW_TEXT,
        "name": "FN990A",
        "description": "Telit",
        "organization": world.acme.id,
    });
    assert_eq!(created, expected);
    let path = format!("category/{id}/");
    world.get(OPERATOR, &path).await.is(200, expected.clone());
    let listing = json!({"count": 1, "next": null, "previous": null, "results": [expected]});
    world.get(VIEWER, "category/").await.is(200, listing);

    let patched = world.patch(OPERATOR, &path, json!({"description": ""})).await.ok(200);
    assert_eq!((&patched["name"], &patched["description"]), (&json!("FN990A"), &json!("")));
    let put = world.put(OPERATOR, &path, json!({"name": "FN990"})).await.ok(200);
    assert_eq!((&put["name"], &put["organization"]), (&json!("FN990"), &json!(world.acme.id)));
    world
        .put(OPERATOR, &path, json!({}))
        .await
        .is(400, json!({"name": ["This field is required."]}));

    assert_eq!(world.delete(OPERATOR, &path).await.ok(204), Value::Null);
    world.get(OPERATOR, &path).await.is(404, json!({"detail": "Not found."}));
}

#[tokio::test]
async fn others_see_only_what_is_shared() {
    let world = World::new().await;
    let ours = world.post(OPERATOR, "category/", json!({"name": "ours"})).await.id(201);
    let shared = world.post(ADMIN, "category/", json!({"name": "shared"})).await.ok(201);
    assert_eq!(shared["organization"], Value::Null);
    let shared = shared["id"].as_str().unwrap();

    let listing = world.get(RIVAL, "category/").await.ok(200);
    assert_eq!((&listing["count"], &listing["results"][0]["id"]), (&json!(1), &json!(shared)));
    for answer in [
        world.get(RIVAL, &format!("category/{ours}/")).await,
        world.patch(RIVAL, &format!("category/{ours}/"), json!({"name": "mine"})).await,
        world.delete(RIVAL, &format!("category/{ours}/")).await,
    ] {
        answer.is(404, json!({"detail": "Not found."}));
    }
    world.get(RIVAL, &format!("category/{shared}/")).await.ok(200);
    world.delete(RIVAL, &format!("category/{shared}/")).await.ok(403);
    world.patch(OPERATOR, &format!("category/{shared}/"), json!({"name": "mine"})).await.ok(403);
    world
        .patch(OPERATOR, &format!("category/{ours}/"), json!({"organization": null}))
        .await
        .ok(403);
    let taken =
        world.post(OPERATOR, "category/", json!({"name": "x", "organization": "rival"})).await;
    taken.is(400, json!({"organization": ["Invalid pk \"rival\" - object does not exist."]}));
    let by_slug = world.get(ADMIN, "category/?organization=acme").await.ok(200);
    assert_eq!((&by_slug["count"], &by_slug["results"][0]["name"]), (&json!(1), &json!("ours")));
}

#[tokio::test]
async fn a_name_is_taken_once_an_organization() {
    let world = World::new().await;
    for token in [ADMIN, OPERATOR, RIVAL] {
        world.post(token, "category/", json!({"name": "FN990A"})).await.ok(201);
        let again = world.post(token, "category/", json!({"name": "FN990A"})).await.ok(400);
        assert!(again["name"].is_array(), "{again}");
    }
}

#[tokio::test]
async fn pages_and_order() {
    let world = World::new().await;
    for n in 0..12 {
        world.post(OPERATOR, "category/", json!({"name": format!("c{n:02}")})).await.ok(201);
    }
    let first = world.get(OPERATOR, "category/?ordering=-name").await.ok(200);
    assert_eq!((&first["count"], &first["previous"]), (&json!(12), &Value::Null));
    assert_eq!(first["results"].as_array().unwrap().len(), 10);
    assert_eq!(first["results"][0]["name"], "c11");
    let next = "https://mu.example/api/v1/modem-upgrader/category/?ordering=-name&page=2";
    assert_eq!(first["next"], next);
    let second =
        world.get(OPERATOR, next.strip_prefix("https://mu.example").unwrap()).await.ok(200);
    assert_eq!(second["results"].as_array().unwrap().len(), 2);
    assert_eq!((&second["next"], &second["results"][1]["name"]), (&Value::Null, &json!("c00")));
    let previous = "https://mu.example/api/v1/modem-upgrader/category/?ordering=-name";
    assert_eq!(second["previous"], previous);
    let small = world.get(OPERATOR, "category/?page_size=5&page=3").await.ok(200);
    assert_eq!(small["results"].as_array().unwrap().len(), 2);
    for page in ["3", "0", "x"] {
        let bad = world.get(OPERATOR, &format!("category/?page={page}")).await;
        bad.is(404, json!({"detail": "Invalid page."}));
    }
}

#[tokio::test]
async fn what_is_malformed_is_named() {
    let world = World::new().await;
    for (body, field) in [
        (json!({"name": 5}), "name"),
        (json!({"name": null}), "name"),
        (json!({"name": " "}), "name"),
        (json!({"name": "x".repeat(65)}), "name"),
        (json!({"name": "a", "description": []}), "description"),
        (json!({"name": "a", "organization": 7}), "organization"),
        (json!({"name": "a", "organization": "not/a/slug"}), "organization"),
        (json!(["name"]), "non_field_errors"),
    ] {
        let refused = world.post(ADMIN, "category/", body.clone()).await.ok(400);
        assert!(refused[field][0].is_string(), "{body}: {refused}");
        assert_eq!(refused.as_object().unwrap().len(), 1, "{refused}");
    }
    let send = |content_type: &'static str, body: Vec<u8>| {
        let request =
            request(Method::POST, ADMIN, "category/").header(header::CONTENT_TYPE, content_type);
        world.send(request.body(Body::from(body)).unwrap())
    };
    let broken = send("application/json", b"{\"name\":".to_vec()).await.ok(400);
    assert!(broken["error"].as_str().unwrap().starts_with("JSON parse error"));
    send("text/plain", b"{}".to_vec()).await.ok(415);
    let large = send("application/json", vec![b' '; (1 << 20) + 1]).await.ok(413);
    assert!(large["detail"].is_string());
    let id = world.get(ADMIN, "category/nonsense/").await;
    id.is(400, json!({"id": ["Must be a valid UUID."]}));
    let unknown = "category/6f9619ff-8b86-4011-b42d-00c04fc964ff/";
    world.get(ADMIN, unknown).await.is(404, json!({"detail": "Not found."}));
}

#[tokio::test]
async fn who_has_several_organizations_says_whose_it_is() {
    let world = World::new().await;
    let me = world.get(OPERATOR, "user/me/").await.ok(200);
    let id = me["id"].as_str().unwrap();
    let role = |organization: &str| json!({"organization": organization, "role": "operator"});
    let both = json!({"memberships": [role("acme"), role("rival")]});
    world.patch(ADMIN, &format!("user/{id}/"), both).await.ok(200);
    let refused = json!({"organization": ["Name an organization."]});
    for path in ["category/", "group/"] {
        world.post(OPERATOR, path, json!({"name": "two"})).await.is(400, refused.clone());
        let named = json!({"name": "two", "organization": "acme"});
        assert_eq!(
            world.post(OPERATOR, path, named).await.ok(201)["organization"],
            json!(world.acme.id)
        );
    }
    let shared = json!({"name": "shared", "organization": null});
    world.post(OPERATOR, "category/", shared.clone()).await.ok(403);
    let made = world.post(ADMIN, "category/", shared).await.ok(201);
    assert_eq!(made["organization"], Value::Null);
    let said_nothing = world.post(ADMIN, "category/", json!({"name": "mine"})).await.ok(201);
    assert_eq!(said_nothing["organization"], Value::Null, "a superuser's is shared");
}
