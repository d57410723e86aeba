//! The database's schema and its versions.
//!
//! `PRAGMA user_version` counts the migrations that were applied. They only ever grow; a released
//! one is never edited.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// A new one goes to the end: a database knows how many it has seen, and not which.
const MIGRATIONS: &[(&str, &str)] = &[
    ("schema", include_str!("schema.sql")),
    ("0002-batches", include_str!("schema/0002-batches.sql")),
    ("0003-accounts", include_str!("schema/0003-accounts.sql")),
    ("0004-retention", include_str!("schema/0004-retention.sql")),
    ("0005-returned-grants", include_str!("schema/0005-returned-grants.sql")),
    ("0006-report-tokens", include_str!("schema/0006-report-tokens.sql")),
    ("0007-takeovers", include_str!("schema/0007-takeovers.sql")),
    ("0008-restored", include_str!("schema/0008-restored.sql")),
    ("0009-deletions", include_str!("schema/0009-deletions.sql")),
    ("0010-lists", include_str!("schema/0010-lists.sql")),
    ("0011-members", include_str!("schema/0011-members.sql")),
    ("0012-takeovers-by-image", include_str!("schema/0012-takeovers-by-image.sql")),
    ("0013-left-out", include_str!("schema/0013-left-out.sql")),
    ("0014-audit-objects", include_str!("schema/0014-audit-objects.sql")),
];

/// Brings the database up to this program's schema, each step in a transaction of its own.
///
/// # Errors
/// [`StoreError::NewerSchema`] where a newer program has been here: reading it by guesswork could
/// lose what that program knows.
pub(super) fn migrate(conn: &mut Connection, now: u64) -> Result<(), StoreError> {
    let known = MIGRATIONS.len();
    let found = version(conn)?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (step, (_, sql)) in MIGRATIONS.iter().enumerate().skip(found) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", step + 1)?;
        tx.commit()?;
    }
    conn.execute(
        "INSERT OR IGNORE INTO meta (id, epoch, created) VALUES (1, ?1, ?2)",
        (uuid::Uuid::new_v4().simple().to_string(), now),
    )?;
    Ok(())
}

/// Whether [`migrate`] has something to do.
pub(super) fn is_older(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(version(conn)? < MIGRATIONS.len())
}

fn version(conn: &Connection) -> rusqlite::Result<usize> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_keep_their_places_and_new_ones_come_last() {
        let names: Vec<_> = MIGRATIONS.iter().map(|(name, _)| *name).collect();
        let known = [
            "schema",
            "0002-batches",
            "0003-accounts",
            "0004-retention",
            "0005-returned-grants",
            "0006-report-tokens",
            "0007-takeovers",
            "0008-restored",
            "0009-deletions",
            "0010-lists",
            "0011-members",
            "0012-takeovers-by-image",
            "0013-left-out",
            "0014-audit-objects",
        ];
        assert_eq!(names, known);
    }
}
