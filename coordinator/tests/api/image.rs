use axum::body::Body;
use axum::http::{Method, header};
use serde_json::{Value, json};
use shared::hex::sha256;
use shared::manifest::Manifest;

use crate::world::*;

fn parts(content: &[u8]) -> Vec<Part<'_>> {
    vec![("type", "", b"telit-uxfp"), ("file", "fn 990.bin", content)]
}

#[tokio::test]
async fn upload_list_download_delete() {
    let world = World::new().await;
    let build = world.build().await;
    let content = b"0123456789".repeat(150_000);
    let (manifest, signature) = signed_as(&content, world.of(&build).await);
    let mut parts = parts(&content);
    parts.push(("boards", "", br#"["glinet,gl-x3000"]"#));
    parts.push(("manifest", "", &manifest));
    parts.push(("signature", "", &signature));
    let created = world.multipart(OPERATOR, &format!("build/{build}/image/"), &parts).await.ok(201);
    let id = created["id"].as_str().unwrap().to_owned();
    let base = "https://mu.example/api/v1/modem-upgrader";
    let expected = json!({
        "id": id,
        "created": NOW_TEXT,
        "modified": NOW_TEXT,
        "file": format!("{base}/firmware-image/{id}/download/"),
        "type": "telit-uxfp",
        "boards": ["glinet,gl-x3000"],
        "build": build,
        "size": 1_500_000,
        "sha256": sha256(&content),
        "signed_by": "abababababababab",
    });
    assert_eq!(created, expected);
    let path = format!("build/{build}/image/{id}/");
    world.get(VIEWER, &path).await.is(200, expected.clone());
    let listing = json!({"count": 1, "next": null, "previous": null, "results": [expected]});
    for query in ["type=telit-uxfp", "organization=acme&ordering=-type"] {
        world.get(VIEWER, &format!("build/{build}/image/?{query}")).await.is(200, listing.clone());
    }
    let none = world.get(VIEWER, &format!("build/{build}/image/?organization=rival")).await.ok(200);
    assert_eq!(none["count"], 0);

    for download in [format!("{path}download/"), format!("firmware-image/{id}/download/")] {
        let file = world.get(VIEWER, &download).await;
        assert_eq!(file.headers[header::ETAG], format!("\"{}\"", sha256(&content)));
        assert_eq!(
            file.headers[header::CONTENT_DISPOSITION],
            "attachment; filename=\"fn_990.bin\""
        );
        assert!(file.bytes == content);
        let range = request(Method::GET, VIEWER, &download).header(header::RANGE, "bytes=-15");
        let part = world.send(range.body(Body::empty()).unwrap()).await;
        assert_eq!(part.status.as_u16(), 206);
        assert_eq!(part.headers[header::CONTENT_RANGE], "bytes 1499985-1499999/1500000");
        assert_eq!(part.bytes, b"567890123456789");
        let range = request(Method::GET, VIEWER, &download).header(header::RANGE, "bytes=1500000-");
        assert_eq!(world.send(range.body(Body::empty()).unwrap()).await.status.as_u16(), 416);
        let head =
            world.send(request(Method::HEAD, VIEWER, &download).body(Body::empty()).unwrap());
        let head = head.await;
        assert_eq!(head.headers[header::CONTENT_LENGTH], "1500000");
        assert!(head.bytes.is_empty());
        world.get("", &download).await.ok(401);
        world.get(RIVAL, &download).await.ok(404);
    }
    assert!(world.get(VIEWER, &format!("image/{id}/manifest/")).await.bytes == manifest);
    assert!(world.get(VIEWER, &format!("image/{id}/signature/")).await.bytes == signature);

    let other = world.build().await;
    world.get(VIEWER, &format!("build/{other}/image/{id}/")).await.ok(404);
    world.delete(VIEWER, &path).await.ok(403);
    assert_eq!(world.delete(OPERATOR, &path).await.ok(204), Value::Null);
    world.get(OPERATOR, &path).await.ok(404);
    assert!(world.artifacts().is_empty(), "{:?}", world.artifacts());
}

#[tokio::test]
async fn a_file_that_two_images_name_goes_with_the_last() {
    let world = World::new().await;
    let mut paths = Vec::new();
    for build in [world.build().await, world.build().await] {
        let path = format!("build/{build}/image/");
        let id = world.multipart(OPERATOR, &path, &parts(b"same")).await.id(201);
        paths.push(format!("{path}{id}/"));
    }
    assert_eq!(world.artifacts().len(), 1);
    world.delete(OPERATOR, &paths[0]).await.ok(204);
    assert_eq!(world.get(OPERATOR, &format!("{}download/", paths[1])).await.bytes, b"same");
    let build = paths[1].split("image").next().unwrap();
    world.delete(OPERATOR, build).await.ok(204);
    assert!(world.artifacts().is_empty());
}

#[tokio::test]
async fn a_refused_upload_leaves_nothing_behind() {
    let world = World::new().await;
    let build = world.build().await;
    let path = format!("build/{build}/image/");
    let content = b"firmware".as_slice();
    let of_build = world.of(&build).await;
    let signed = |content, change: fn(&mut Manifest)| {
        signed_as(content, |manifest| {
            of_build(manifest);
            change(manifest);
        })
    };
    let other = signed(b"other", |_| {});
    let wrong_tool = signed(content, |manifest| manifest.tool.profile = "other".into());
    let wrong_category = signed(content, |manifest| manifest.category = "LM960".into());
    let wrong_block = signed(content, |manifest| manifest.blocks = vec![sha256(b"x")]);
    let good = signed(content, |_| {});
    let file = ("file", "f.bin", content);
    let tool: Part<'_> = ("type", "", b"telit-uxfp");
    let cases: Vec<(&str, Vec<Part<'_>>)> = vec![
        ("file", vec![tool]),
        ("type", vec![file]),
        ("type", vec![file, ("type", "", b"../x")]),
        ("file", vec![tool, ("file", "f.bin", b"")]),
        ("boards", vec![tool, file, ("boards", "", b"[1]")]),
        ("signature", vec![tool, file, ("manifest", "", &good.0)]),
        ("manifest", vec![tool, file, ("signature", "", &good.1)]),
        ("signature", vec![tool, file, ("manifest", "", &good.0), ("signature", "", b"junk")]),
        ("manifest", vec![tool, file, ("manifest", "", b"{}"), ("signature", "", &good.1)]),
        ("manifest", vec![tool, file, ("manifest", "", &other.0), ("signature", "", &other.1)]),
        ("manifest", vec![tool, file, ("manifest", "", &wrong_tool.0), ("signature", "", &good.1)]),
        (
            "manifest",
            vec![tool, file, ("manifest", "", &wrong_category.0), ("signature", "", &good.1)],
        ),
        (
            "manifest",
            vec![tool, file, ("manifest", "", &wrong_block.0), ("signature", "", &good.1)],
        ),
    ];
    for (index, (field, parts)) in cases.iter().enumerate() {
        let refused = world.multipart(OPERATOR, &path, parts).await.ok(400);
        assert!(refused[*field].is_array(), "case {index}: {refused}");
        assert!(world.artifacts().is_empty(), "case {index}");
    }
    assert_eq!(world.get(OPERATOR, &path).await.ok(200)["count"], 0);
    let json = world.post(OPERATOR, &path, json!({"file": "x"})).await;
    assert_eq!(json.status.as_u16(), 415);
    let unknown = "build/6f9619ff-8b86-4011-b42d-00c04fc964ff/image/";
    let answer = world.multipart(OPERATOR, unknown, &[tool, file]).await;
    answer.is(404, json!({"detail": "Not found."}));
    world.multipart(RIVAL, &path, &[tool, file]).await.ok(404);
    world.multipart(VIEWER, &path, &[tool, file]).await.ok(403);
}

#[tokio::test]
async fn one_image_a_type() {
    let world = World::new().await;
    let path = format!("build/{}/image/", world.build().await);
    world.multipart(OPERATOR, &path, &parts(b"one")).await.ok(201);
    let taken = world.multipart(OPERATOR, &path, &parts(b"two")).await.ok(400);
    assert!(taken["type"].is_array());
    assert_eq!(world.artifacts().len(), 1, "the second file is gone");
}

#[tokio::test]
async fn size_and_quota_hold() {
    let world = World::new().await;
    let path = format!("build/{}/image/", world.build().await);
    let large = vec![0; usize::try_from(FILE_LIMIT).unwrap() + 1];
    let refused = world.multipart(OPERATOR, &path, &parts(&large)).await.ok(413);
    assert!(refused["detail"].as_str().unwrap().contains(&FILE_LIMIT.to_string()));
    for n in 0..4 {
        let mut content = vec![0; usize::try_from(FILE_LIMIT).unwrap()];
        content[0] = n;
        let path = format!("build/{}/image/", world.build().await);
        world.multipart(OPERATOR, &path, &parts(&content)).await.ok(201);
    }
    let full = world.multipart(OPERATOR, &path, &parts(b"more")).await.ok(507);
    assert!(full["error"].as_str().unwrap().contains("quota"), "{full}");
    assert_eq!(world.artifacts().len(), 4);
}

#[tokio::test]
async fn a_manifest_can_follow_once() {
    let world = World::new().await;
    let build = world.build().await;
    let path = format!("build/{build}/image/");
    let id = world.multipart(OPERATOR, &path, &parts(b"firmware")).await.id(201);
    let complete = format!("image/{id}/manifest/");
    world.get(OPERATOR, &complete).await.ok(404);
    let of_build = world.of(&build).await;
    let (manifest, signature) = signed_as(b"firmware", &of_build);
    let good: [Part<'_>; 2] = [("manifest", "", &manifest), ("signature", "", &signature)];
    let refused = world.multipart(OPERATOR, &complete, &good[..1]).await.ok(400);
    assert!(refused["signature"].is_array());
    world.multipart(RIVAL, &complete, &good).await.ok(404);
    world.multipart(VIEWER, &complete, &good).await.ok(403);
    for _ in 0..2 {
        let image = world.multipart(OPERATOR, &complete, &good).await.ok(200);
        assert_eq!(image["signed_by"], "abababababababab");
    }
    let (manifest, signature) = signed_as(b"firmware", |manifest| {
        of_build(manifest);
        manifest.sequence = 8;
    });
    let other: [Part<'_>; 2] = [("manifest", "", &manifest), ("signature", "", &signature)];
    assert!(world.multipart(OPERATOR, &complete, &other).await.ok(409)["error"].is_string());
}

#[tokio::test]
async fn an_image_that_an_upgrade_needs_stays() {
    let world = World::new().await;
    let image = world.image().await;
    let build = world.app.store.image(image.parse().unwrap()).await.unwrap().unwrap().build;
    let operation = world.upgrade(world.device(&["main"]).await, &image).await;
    let path = format!("build/{build}/");
    assert!(
        world.delete(OPERATOR, &format!("{path}image/{image}/")).await.ok(409)["error"].is_string()
    );
    assert!(world.delete(OPERATOR, &path).await.ok(409)["error"].is_string());
    world
        .post(OPERATOR, &format!("upgrade-operation/{operation}/cancel/"), json!({}))
        .await
        .ok(200);
    world.delete(OPERATOR, &path).await.ok(204);
    let kept = world.get(OPERATOR, &format!("upgrade-operation/{operation}/")).await.ok(200);
    assert_eq!(kept["image"], Value::Null);
}

#[tokio::test]
async fn a_file_that_a_restored_backup_lacks_comes_back_by_the_same_upload() {
    let world = World::new().await;
    let build = world.build().await;
    let path = format!("build/{build}/image/");
    let made = world.multipart(OPERATOR, &path, &parts(b"firmware")).await.ok(201);
    world.multipart(OPERATOR, &path, &parts(b"firmware")).await.ok(400);
    for file in world.artifacts() {
        std::fs::remove_file(file).unwrap();
    }
    world.multipart(OPERATOR, &path, &parts(b"another")).await.ok(400);
    assert_eq!(world.multipart(OPERATOR, &path, &parts(b"firmware")).await.ok(201), made);
    let id = made["id"].as_str().unwrap();
    let file = world.get(VIEWER, &format!("firmware-image/{id}/download/")).await;
    assert_eq!((file.status.as_u16(), file.bytes.as_slice()), (200, &b"firmware"[..]));
}
