//! The document against the routes, and against what is checked in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::http::{Method, Request, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use coordinator::api::BASE;
use coordinator::api::document::shapes::meaning;
use coordinator::api::document::{DOCUMENT, PAGE, operations};
use coordinator::operation::Status;
use shared::stages::Phase;
use tower::ServiceExt;

use crate::batch::Fleet;
use crate::world::*;

const METHODS: [(&str, Method); 5] = [
    ("get", Method::GET),
    ("put", Method::PUT),
    ("post", Method::POST),
    ("patch", Method::PATCH),
    ("delete", Method::DELETE),
];

/// The methods of each documented path, with the statuses that they answer.
static DOCUMENTED: LazyLock<BTreeMap<String, BTreeMap<&str, BTreeSet<String>>>> =
    LazyLock::new(|| {
        let mut document = coordinator::api::openapi();
        let mut paths = BTreeMap::new();
        for (path, item) in &mut document.paths.paths {
            let methods: &mut BTreeMap<_, _> = paths.entry(path.clone()).or_default();
            for (method, operation) in operations(item) {
                methods.insert(method, operation.responses.responses.keys().cloned().collect());
            }
        }
        paths
    });

/// Fails where an answer is of a status that the document does not have. No document has a defect, 500.
pub async fn only_documented(request: Request<Body>, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().as_str().to_lowercase();
    let response = next.run(request).await;
    let methods = path.as_ref().and_then(|path| DOCUMENTED.get(path));
    if let Some(path) = path.as_ref().filter(|path| path.starts_with(BASE)) {
        assert!(methods.is_some(), "{path} is not in the document, or is called otherwise there");
    }
    if let Some(statuses) = methods.and_then(|methods| methods.get(method.as_str())) {
        let status = response.status();
        let known =
            status == StatusCode::INTERNAL_SERVER_ERROR || statuses.contains(status.as_str());
        assert!(known, "{method} {}: {status} is not documented", path.unwrap_or_default());
    }
    response
}

/// Every path that the router knows, as it tells a debugger; the page's own files left out.
fn routed(world: &World) -> BTreeSet<String> {
    let told = format!("{:?}", world.router);
    let quoted = told.split('"').skip(1).step_by(2);
    let paths = quoted.filter(|text| text.starts_with('/'));
    let own = |path: &&str| path.starts_with(PAGE) || *path == DOCUMENT;
    let fallback = |path: &&str| *path == "/" || path.contains("__private__");
    paths.filter(|path| !own(path) && !fallback(path)).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_every_path_of_it_is_a_route() {
    let world = World::new().await;
    let routed = routed(&world);
    assert!(routed.contains("/healthz") && routed.len() > 40, "{routed:?}");
    assert_eq!(routed, DOCUMENTED.keys().cloned().collect());
}

#[tokio::test]
async fn the_document_has_every_method_of_every_route() {
    let world = World::new().await;
    for (path, known) in &*DOCUMENTED {
        let path = path.replace(['{', '}'], "");
        for (name, method) in METHODS {
            let request = Request::builder().method(method).uri(&path).body(Body::empty()).unwrap();
            let answer = world.router.clone().oneshot(request).await.unwrap();
            let taken = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(taken, known.contains_key(name), "{name} {path}");
        }
    }
}

#[test]
fn the_document_says_what_lists_are_ordered_by() {
    let mut document = coordinator::api::openapi();
    let mut said = 0;
    for (path, item) in &mut document.paths.paths {
        for (_, operation) in operations(item) {
            let parameters = operation.parameters.iter().flatten();
            for ordering in parameters.filter(|parameter| parameter.name == "ordering") {
                let text = ordering.description.as_deref().unwrap_or_default();
                assert!(text.starts_with("One of "), "{path}: {text}");
                said += 1;
            }
        }
    }
    assert!(said > 10, "{said}");
}

#[test]
fn each_status_and_phase_of_an_operation_is_explained() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/batches.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("### Of one operation").unwrap();
    for status in Status::ALL {
        assert!(section.contains(&format!("| `{status}` | ")), "{status}");
    }
    for phase in Phase::ALL.iter().copied().chain([Phase::Unknown]) {
        let row = format!("| `{}` | {} |", phase.as_str(), meaning(phase));
        assert!(section.contains(&row), "{row}");
    }
}

#[test]
fn the_document_is_as_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let now = coordinator::api::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(before == now, "docs/openapi.json is out of date: run this test with UPDATE_GOLDEN=1");
}

#[tokio::test]
async fn it_is_served_with_a_page_that_loads_nothing_from_elsewhere() {
    let world = World::new().await;
    let document = world.get("", DOCUMENT).await.ok(200);
    assert_eq!(document["openapi"], "3.1.0");
    let page = world.get("", &format!("{PAGE}/")).await;
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"));
    let text = String::from_utf8(page.bytes).unwrap();
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    for file in text.split('"').filter(|text| text.ends_with(".js") || text.ends_with(".css")) {
        let file = file.trim_start_matches("./");
        assert_eq!(world.get("", &format!("{PAGE}/{file}")).await.status, 200, "{file}");
    }
    let script = world.get("", &format!("{PAGE}/swagger-initializer.js")).await;
    assert!(String::from_utf8(script.bytes).unwrap().contains(DOCUMENT));
    let answer = world.get(ADMIN, "category/").await;
    assert_eq!(
        answer.headers["content-security-policy"],
        "default-src 'none'; frame-ancestors 'none'"
    );
    assert_eq!(answer.headers["cache-control"], "no-store");
}

/// The names of the fields of a shape.
fn fields(shape: &str) -> BTreeSet<String> {
    let document = serde_json::to_value(coordinator::api::openapi()).unwrap();
    let properties = &document["components"]["schemas"][shape]["properties"];
    properties.as_object().unwrap().keys().cloned().collect()
}

fn keys(shown: &serde_json::Value) -> BTreeSet<String> {
    shown.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn operations_batches_and_devices_have_the_fields_of_the_document_and_no_others() {
    let fleet = Fleet::new(1).await;
    let batch = fleet.start(serde_json::json!({})).await;
    let world = &fleet.world;
    for (path, listed, whole) in [
        ("upgrade-operation/", "OperationView", "OperationView"),
        ("batch-upgrade-operation/", "BatchView", "BatchDetail"),
        ("device/", "DeviceView", "DeviceDetail"),
    ] {
        let listing = world.get(VIEWER, path).await.ok(200);
        let row = &listing["results"][0];
        assert_eq!(keys(row), fields(listed), "{path}");
        let id = row["id"].as_str().unwrap();
        let shown = world.get(VIEWER, &format!("{path}{id}/")).await.ok(200);
        assert_eq!(keys(&shown), fields(whole), "{path}{{id}}/");
        if path.starts_with("batch") {
            assert_eq!(id, batch);
            assert_eq!(keys(&shown["upgradeoperations"][0]), fields("OperationView"));
            assert_eq!(keys(&shown["tally"]), fields("TallyView"));
            assert_eq!(keys(&shown["waves"][0]), fields("WaveView"));
        }
    }
}
