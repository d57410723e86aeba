//! An operation's row: to and from [`Operation`]. Every column is written here and nowhere else.

use rusqlite::{Row, named_params};
use serde_json::Value;
use shared::failure::Failure;

use crate::operation::{Granted, Operation};
use crate::store::Tx;
use crate::store::column::{json, json_opt, parsed, parsed_opt, to_json, word};
use crate::store::note::Note;

pub(super) fn insert(tx: &Tx<'_>, op: &Operation) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO operations (id, organization, device, slot, image, batch, retry_of,
             upgrade_options, allow_volatile_staging, status, deadline, created, modified)
         SELECT ?1, d.organization, d.id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11
         FROM devices d WHERE d.id = ?2",
    )?
    .execute((
        op.id.to_string(),
        op.device.to_string(),
        op.slot.as_str(),
        op.image.map(|id| id.to_string()),
        op.batch.map(|id| id.to_string()),
        op.retry_of.map(|id| id.to_string()),
        Value::Object(op.upgrade_options.clone()).to_string(),
        op.allow_volatile_staging,
        op.status.as_str(),
        op.deadline,
        op.created,
    ))?;
    Ok(())
}

/// Writes everything of an operation that can change, and passes it on.
pub(in crate::store) fn save(tx: &Tx<'_>, op: &Operation) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE operations SET superseded_by = :superseded_by, status = :status, phase = :phase,
             attempt = :attempt, progress_percent = :percent, detail = :detail,
             stalled = :stalled, fetched = :fetched, failure = :failure, evidence = :evidence,
             late_result = :late_result, log = :log, stream = :stream, last_seq = :last_seq,
             tick_attempt = :tick_attempt, tick_n = :tick_n,
             attempts_granted = :attempts_granted, granted_attempt = :granted_attempt,
             granted_stream = :granted_stream, granted_at = :granted_at,
             grant_open = :grant_open, dark_expected_ms = :dark_expected,
             dark_longest_ms = :dark_longest, heard_at = :heard_at,
             finished_at = :finished_at, modified = :modified
         WHERE id = :id",
    )?
    .execute(named_params! {
        ":id": op.id.to_string(),
        ":superseded_by": op.superseded_by.map(|id| id.to_string()),
        ":status": op.status.as_str(),
        ":phase": op.phase.map(|phase| phase.as_str()),
        ":attempt": op.attempt,
        ":percent": op.progress_percent,
        ":detail": op.detail,
        ":stalled": op.stalled,
        ":fetched": op.fetched,
        ":failure": op.failure.as_ref().map(to_json).transpose()?,
        ":evidence": op.evidence.map(|evidence| evidence.as_str()),
        ":late_result": op.late_result.as_ref().map(to_json).transpose()?,
        ":log": op.log,
        ":stream": op.stream.map(|id| id.to_string()),
        ":last_seq": op.last_seq,
        ":tick_attempt": op.tick_attempt,
        ":tick_n": op.tick_n,
        ":attempts_granted": op.attempts_granted,
        ":granted_attempt": op.granted.map(|granted| granted.attempt),
        ":granted_stream": op.granted.map(|granted| granted.stream.to_string()),
        ":granted_at": op.granted.map(|granted| granted.at),
        ":grant_open": op.is_granted(),
        ":dark_expected": op.granted.map(|granted| granted.dark_expected_ms),
        ":dark_longest": op.granted.map(|granted| granted.dark_longest_ms),
        ":heard_at": op.heard_at,
        ":finished_at": op.finished_at,
        ":modified": op.modified,
    })?;
    tx.note(Note::Operation(Box::new(op.clone())));
    Ok(())
}

pub(super) fn operation(row: &Row<'_>) -> rusqlite::Result<Operation> {
    Ok(Operation {
        id: parsed(row, "id")?,
        organization: parsed(row, "organization_slug")?,
        device: parsed(row, "device")?,
        slot: parsed(row, "slot")?,
        image: parsed_opt(row, "image")?,
        batch: parsed_opt(row, "batch")?,
        retry_of: parsed_opt(row, "retry_of")?,
        superseded_by: parsed_opt(row, "superseded_by")?,
        upgrade_options: json(row, "upgrade_options")?,
        allow_volatile_staging: row.get("allow_volatile_staging")?,
        status: parsed(row, "status")?,
        phase: word(row, "phase")?,
        attempt: row.get("attempt")?,
        progress_percent: row.get("progress_percent")?,
        detail: row.get("detail")?,
        stalled: row.get("stalled")?,
        fetched: row.get("fetched")?,
        failure: json_opt::<Failure>(row, "failure")?,
        evidence: word(row, "evidence")?,
        late_result: json_opt(row, "late_result")?,
        log: row.get("log")?,
        stream: parsed_opt(row, "stream")?,
        last_seq: row.get("last_seq")?,
        tick_attempt: row.get("tick_attempt")?,
        tick_n: row.get("tick_n")?,
        attempts_granted: row.get("attempts_granted")?,
        granted: granted(row)?,
        heard_at: row.get("heard_at")?,
        deadline: row.get("deadline")?,
        finished_at: row.get("finished_at")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
    })
}

fn granted(row: &Row<'_>) -> rusqlite::Result<Option<Granted>> {
    let Some(stream) = parsed_opt(row, "granted_stream")? else { return Ok(None) };
    Ok(Some(Granted {
        attempt: row.get("granted_attempt")?,
        stream,
        at: row.get("granted_at")?,
        dark_expected_ms: row.get("dark_expected_ms")?,
        dark_longest_ms: row.get("dark_longest_ms")?,
        open: row.get("grant_open")?,
    }))
}
