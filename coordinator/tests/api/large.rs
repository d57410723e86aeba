//! A batch of more operations than are read at a time, and than have their logs shown.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::changes::requests::batch;
use crate::world::*;

/// Adds so many operations that have ended to a batch of one.
fn add(world: &World, batch: &str, count: u32) {
    let conn = rusqlite::Connection::open(world.folder.path().join("db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    let mut columns = conn.prepare("SELECT name FROM pragma_table_info('operations')").unwrap();
    let columns = columns.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let columns: Vec<String> = columns.map(Result::unwrap).collect();
    let random = |bytes: u8| format!("lower(hex(randomblob({bytes})))");
    let id = [random(4), random(2), "'4000'".into(), "'8000'".into(), random(6)].join("||'-'||");
    let values = columns.iter().map(|column| match column.as_str() {
        "id" => id.as_str(),
        "status" => "'success'",
        "finished_at" => "t.created + n.i",
        other => other,
    });
    let values = values.collect::<Vec<_>>().join(", ");
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
         INSERT INTO operations ({}) SELECT {values} FROM n,
             (SELECT * FROM operations WHERE batch = ?1 ORDER BY rowid LIMIT 1) t",
        columns.join(", ")
    );
    assert_eq!(conn.execute(&sql, (batch, count)).unwrap(), count as usize);
}

async fn detail(world: &World, batch: &str) -> (Value, Vec<Value>) {
    let path = format!("batch-upgrade-operation/{batch}/");
    let mut detail = world.get(VIEWER, &path).await.ok(200);
    let Value::Array(operations) = detail["upgradeoperations"].take() else { panic!("{detail}") };
    (detail, operations)
}

#[tokio::test]
async fn every_operation_is_there_once_and_above_a_thousand_without_its_log() {
    let world = World::new().await;
    let batch = batch(&world).await;
    add(&world, &batch, 999);
    let (_, operations) = detail(&world, &batch).await;
    assert_eq!(operations.len(), 1000);
    assert!(operations.iter().all(|of| of["log"].as_str().unwrap().contains("requested by")));

    add(&world, &batch, 201);
    let (shown, operations) = detail(&world, &batch).await;
    assert_eq!(
        (&shown["tally"]["total"], &shown["tally"]["success"]),
        (&json!(1201), &json!(1200))
    );
    let ids: HashSet<_> = operations.iter().map(|of| of["id"].as_str().unwrap()).collect();
    assert_eq!((operations.len(), ids.len()), (1201, 1201));
    assert!(operations.iter().all(|of| of["log"] == "" && of["batch"] == json!(batch)));
    // The logs are where it says.
    let pages = shown["operations_url"].as_str().unwrap();
    let page = world.get(VIEWER, &format!("{pages}&page=13&page_size=100")).await.ok(200);
    assert_eq!((&page["count"], page["results"].as_array().unwrap().len()), (&json!(1201), 1));
    assert_ne!(page["results"][0]["log"], "");
}
