//! The audit log: who changed what, when, and from where. Rows are only ever added.
//!
//! An [`Entry`] says who and from where, the verb itself what was before and after
//! ([`Tx::tell`]). Neither ever holds a secret or its digest.

use std::collections::BTreeSet;

use rusqlite::Row;
use serde::Serialize;
use serde_json::{Value, json};
use shared::ids::{OrganizationId, OrganizationSlug, UserId};
use uuid::Uuid;

use super::column::{json_opt, parsed_opt};
use super::listing::{Found, Order, Rows, Where, list};
use super::{Never, Store, StoreError, Tx};

/// A change that somebody made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// `user:<name>`, `device:<id>`, `command line` on the server's machine, or [`SYSTEM`].
    pub actor: String,
    /// Of a user, whose name may be another one's later.
    pub actor_id: Option<UserId>,
    /// A slug, where the change is one organization's.
    pub organization: Option<String>,
    /// What was done, for instance `POST` or `enrol`.
    pub action: String,
    /// To what: a path of the API, or an id.
    pub subject: String,
    pub detail: Option<String>,
    /// The address that it came from.
    pub peer: Option<String>,
    /// What was asked for, where the change alone does not tell: it stands in `after`, as `asked`.
    pub asked: Option<Value>,
}

/// The coordinator, by itself.
const SYSTEM: &str = "system";

impl Entry {
    /// What the coordinator does by itself, to what has this id.
    pub fn system(action: &str, subject: impl std::fmt::Display) -> Self {
        Self {
            actor: SYSTEM.into(),
            action: action.into(),
            subject: subject.to_string(),
            ..Self::default()
        }
    }
}

/// What a verb says of its change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    pub organization: Option<OrganizationId>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Told {
    /// Of something of `organization`'s, or of everybody's.
    pub fn of(organization: Option<OrganizationId>) -> Self {
        Self { organization, ..Self::default() }
    }

    #[must_use]
    pub fn before(self, value: impl Serialize) -> Self {
        Self { before: Some(json!(value)), ..self }
    }

    #[must_use]
    pub fn after(self, value: impl Serialize) -> Self {
        Self { after: Some(json!(value)), ..self }
    }
}

/// An [`Entry`] with its place and its time in unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub id: u64,
    pub at: u64,
    pub entry: Entry,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// Which entries, in what order.
#[derive(Debug, Clone)]
pub struct AuditList {
    /// Only of these organizations; `None`: all, what is no organization's among them.
    pub of: Option<Vec<OrganizationSlug>>,
    pub organization: Option<OrganizationSlug>,
    pub actor: Option<String>,
    pub action: Option<String>,
    /// A path; or the id of what the entries are about.
    pub subject: Option<String>,
    /// Unix milliseconds: not before, and before.
    pub since: Option<u64>,
    pub until: Option<u64>,
    /// Of the column `id`.
    pub order: Order,
    pub rows: Rows,
}

impl AuditList {
    pub const NEWEST_FIRST: Order = Order { column: "id", descending: true };

    /// The newest entries.
    pub fn newest(limit: u32) -> Self {
        Self {
            of: None,
            organization: None,
            actor: None,
            action: None,
            subject: None,
            since: None,
            until: None,
            order: Self::NEWEST_FIRST,
            rows: Rows { offset: 0, limit },
        }
    }
}

impl Store {
    /// Records what changes nothing here and is to be known nevertheless.
    pub async fn record_audit(&self, entry: Entry, told: Told) -> Result<(), StoreError> {
        let store = self.on_record(entry);
        let recorded = store.write::<_, Never, _>(|tx| {
            tx.tell(told);
            Ok(())
        });
        Ok(recorded.await?)
    }

    /// The newest entries, newest first.
    pub async fn audit(&self, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        Ok(self.audit_entries(AuditList::newest(limit)).await?.rows)
    }

    pub async fn audit_entries(&self, wanted: AuditList) -> Result<Found<Recorded>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            if let Some(of) = wanted.of {
                filter.any_of("t.organization", of);
            }
            filter.and_if("t.organization = ?", wanted.organization);
            filter.and_if("t.actor = ?", wanted.actor);
            filter.and_if("t.action = ?", wanted.action);
            let object = wanted.subject.as_deref().and_then(id);
            // The join's order is this one: few entries are about one thing, and many are an organization's.
            let from = match object {
                Some(_) => "audit_objects g CROSS JOIN audit t ON t.id = g.audit",
                None => "audit t",
            };
            match object {
                Some(object) => filter.and("g.object = ?", object.to_string()),
                None => filter.and_if("t.subject = ?", wanted.subject),
            };
            for (condition, time) in [("t.at >= ?", wanted.since), ("t.at < ?", wanted.until)] {
                if let Some(time) = time {
                    filter.and(condition, i64::try_from(time).unwrap_or(i64::MAX));
                }
            }
            list(conn, ("t.*", from), &filter, wanted.order, wanted.rows, recorded)
        })
        .await
    }
}

/// Within the transaction of the change itself.
pub(super) fn record(tx: &Tx<'_>, entry: &Entry, told: Option<Told>) -> rusqlite::Result<()> {
    let mut told = told.unwrap_or_default();
    let objects = objects(&entry.subject, &told);
    told.before = told.before.map(short);
    told.after = told.after.map(short);
    if let (Some(Value::Object(after)), Some(asked)) = (&mut told.after, &entry.asked) {
        // Whole: a request is bounded, and without it nobody can tell who was selected.
        after.insert("asked".into(), asked.clone());
    }
    let text = |value: Option<Value>| value.map(|value| value.to_string());
    tx.prepare_cached(
        "INSERT INTO audit
             (at, actor, organization, action, subject, detail, peer, before, after, actor_id)
         VALUES (?1, ?2, coalesce(?3, (SELECT slug FROM organizations WHERE id = ?4)),
             ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute((
        tx.now,
        &entry.actor,
        &entry.organization,
        told.organization.map(|id| id.to_string()),
        &entry.action,
        &entry.subject,
        &entry.detail,
        &entry.peer,
        text(told.before),
        text(told.after),
        entry.actor_id.map(|id| id.to_string()),
    ))?;
    let audit = tx.last_insert_rowid();
    let sql = "INSERT INTO audit_objects (object, audit) VALUES (?1, ?2)";
    let mut insert = tx.prepare_cached(sql)?;
    for object in objects {
        insert.execute((object.to_string(), audit))?;
    }
    Ok(())
}

/// Where what is told has the ids of what it is about.
const IDS: [&str; 3] = ["id", "device", "upgrade_operation"];

/// What an entry is about: a batch that was made is not in the path that made it.
fn objects(subject: &str, told: &Told) -> BTreeSet<Uuid> {
    let values = [&told.before, &told.after].into_iter().flatten();
    let ids = values.flat_map(|value| IDS.map(|name| value.get(name)?.as_str()));
    ids.flatten().chain(subject.split('/')).filter_map(id).collect()
}

fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

/// Bytes of a text, or items of a list, that the log keeps.
const LONGEST: usize = 512;

/// Long texts, changelogs say, are not kept twice. What is cut says so.
fn short(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > LONGEST => {
            let cut = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            json!(format!("{}… ({} bytes)", &text[..cut], text.len()))
        }
        Value::Array(items) => {
            let count = items.len();
            let rest = (count > LONGEST).then(|| json!(format!("… ({count} items)")));
            items.into_iter().take(LONGEST).map(short).chain(rest).collect()
        }
        Value::Object(map) => map.into_iter().map(|(name, value)| (name, short(value))).collect(),
        other => other,
    }
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    Ok(Recorded {
        id: row.get("id")?,
        at: row.get("at")?,
        entry: Entry {
            actor: row.get("actor")?,
            actor_id: parsed_opt(row, "actor_id")?,
            organization: row.get("organization")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            detail: row.get("detail")?,
            peer: row.get("peer")?,
            asked: None,
        },
        before: json_opt(row, "before")?,
        after: json_opt(row, "after")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let long = json!({"a": ["ü".repeat(LONGEST)], "b": 1});
        let cut = short(long);
        assert_eq!(cut["b"], 1);
        let text = cut["a"][0].as_str().unwrap();
        assert!(text.len() < LONGEST + 64 && text.ends_with("(1024 bytes)"), "{text}");
    }

    #[tokio::test]
    async fn a_list_that_is_cut_says_so_and_what_was_asked_is_whole() {
        let f = crate::store::fixture::Fixture::new().await;
        let many = json!({ "devices": (0..LONGEST + 1).collect::<Vec<_>>() });
        let entry = Entry { asked: Some(many.clone()), ..Entry::system("upgrade", "batch") };
        f.store.record_audit(entry, Told::default().after(many.clone())).await.unwrap();
        let after = f.store.audit(1).await.unwrap().remove(0).after.unwrap();
        assert_eq!(after["asked"], many);
        let kept = after["devices"].as_array().unwrap();
        assert_eq!((kept.len(), &kept[LONGEST]), (LONGEST + 1, &json!("… (513 items)")));
    }
}
