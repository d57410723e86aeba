//! Databases of older programs, with data in them, come up to this program's schema.

use std::path::Path;

use rusqlite::Connection;

use super::*;
use crate::clock::Clock;
use crate::store::audit::AuditList;

/// A database of schema 1, as `sqlite3 … .dump` writes it.
const SCHEMA_1: &str = include_str!("../../../tests/fixture/schema-1.sql");

fn old(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(SCHEMA_1).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    conn
}

fn open(path: &Path) -> Store {
    Store::open(path, Clock::manual(NOW).0).unwrap()
}

fn schema(path: &Path) -> Vec<(String, String)> {
    let conn = Connection::open(path).unwrap();
    let sql = "SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn version(path: &Path) -> u32 {
    let conn = Connection::open(path).unwrap();
    conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

/// Every row of the tables there were, without the columns that came later.
fn content(path: &Path, tables: &[(String, String)]) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut content = Vec::new();
    for (table, columns) in tables {
        let sql = format!("SELECT {columns} FROM {table} ORDER BY 1, 2");
        let mut statement = conn.prepare(&sql).unwrap();
        let count = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..count).map(|column| row.get_ref(column).map(|v| format!("{v:?}")));
            Ok(format!("{table}: {}", values.collect::<Result<Vec<_>, _>>()?.join("|")))
        });
        content.extend(rows.unwrap().map(Result::unwrap));
    }
    content
}

fn tables(conn: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT t.name, group_concat(c.name, ', ') FROM sqlite_schema t
               JOIN pragma_table_info(t.name) c WHERE t.type = 'table' GROUP BY t.name";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_database_of_schema_1_comes_up_with_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let (migrated, fresh) = (dir.path().join("old"), dir.path().join("new"));
    let conn = old(&migrated);
    let tables = tables(&conn);
    drop(conn);
    let before = content(&migrated, &tables);
    assert!(tables.len() >= 15 && before.len() >= 20, "there is something to lose: {before:?}");

    let store = open(&migrated);
    drop(open(&fresh));
    assert_eq!(schema(&migrated), schema(&fresh));
    assert_eq!(version(&migrated), version(&fresh));
    assert_eq!(content(&migrated, &tables), before);

    let found = newest(&store).await;
    let mut states: Vec<_> = found.iter().map(|op| (op.status, op.is_granted())).collect();
    states.sort_by_key(|(status, _)| status.as_str());
    let known = [(Status::Idle, false), (Status::InProgress, true), (Status::Success, false)];
    assert_eq!(states, known);
    for operation in &found {
        assert!(store.desired(operation.device, None).await.unwrap().is_some());
    }
    let conn = Connection::open(&migrated).unwrap();
    assert!(!conn.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
    let owned = "SELECT count(*), sum(f.organization IS d.organization)
                 FROM device_firmware f JOIN devices d ON d.id = f.device";
    let owned = conn.query_row(owned, [], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)));
    let (all, right) = owned.unwrap();
    assert!(all > 0 && right == all, "{right} of {all} firmware rows know whose they are");
}

#[tokio::test]
async fn entries_of_older_programs_are_found_by_what_they_are_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let entries = [
        (format!("/api/v1/modem-upgrader/x/{one}/pause/"), "NULL".to_owned()),
        ("/api/v1/modem-upgrader/x/".to_owned(), format!("'{{\"id\":\"{one}\"}}'")),
        (one.to_string(), "'\"text\"'".to_owned()),
        (format!("/a \"strange\\ path/{other}/{one}/"), "'[1]'".to_owned()),
    ];
    let conn = old(&path);
    let upgrades =
        [include_str!("../schema/0002-batches.sql"), include_str!("../schema/0003-accounts.sql")];
    conn.execute_batch(&upgrades.concat()).unwrap();
    conn.pragma_update(None, "user_version", 3).unwrap();
    for (subject, after) in &entries {
        let sql = format!(
            "INSERT INTO audit (at, actor, action, subject, after) VALUES (1, 'x', 'POST', ?1, {after})"
        );
        conn.execute(&sql, [subject]).unwrap();
    }
    drop(conn);
    let store = open(&path);
    for (id, count) in [(one, 4), (other, 1), (Uuid::nil(), 0)] {
        let wanted = AuditList { subject: Some(id.to_string()), ..AuditList::newest(100) };
        let found = store.audit_entries(wanted).await.unwrap();
        assert_eq!((found.count, found.rows.len() as u64), (count, count), "{id}");
    }
}

#[test]
fn names_of_older_programs_are_trimmed_unless_the_name_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let conn = old(&path);
    let versions = |conn: &Connection| {
        let mut statement = conn.prepare("SELECT version FROM builds ORDER BY 1").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    conn.execute_batch(
        "DELETE FROM images; DELETE FROM builds WHERE rowid > (SELECT min(rowid) FROM builds);
         UPDATE builds SET version = 'v1 ';
         INSERT INTO builds SELECT 'b', category, 'v2', modem_model, '', 1, 1 FROM builds;
         INSERT INTO builds SELECT 'c', category, ' v2', modem_model, '', 1, 1 FROM builds LIMIT 1",
    )
    .unwrap();
    assert_eq!(versions(&conn), [" v2", "v1 ", "v2"]);
    drop(conn);
    drop(open(&path));
    assert_eq!(versions(&Connection::open(&path).unwrap()), [" v2", "v1", "v2"]);
}

#[test]
fn who_only_looks_is_told_that_it_would_migrate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(old(&path));
    assert!(Store::is_older(&path).unwrap());
    assert_eq!(version(&path), 1, "nothing was done");
    open(&path).stop();
    assert!(!Store::is_older(&path).unwrap());
}

#[test]
fn a_migration_that_fails_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(old(&path));
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE retention (x)").unwrap();
    drop(conn);
    let refused = Store::open(&path, Clock::manual(NOW).0).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|said| said.contains("retention")));
    Connection::open(&path).unwrap().execute("DROP TABLE retention", []).unwrap();
    drop(open(&path));
    assert!(version(&path) > 1);
}
