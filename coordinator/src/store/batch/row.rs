//! A batch's row: to [`Batch`].

use rusqlite::Row;

use crate::batch::{Batch, Counts, Forgiven};
use crate::store::column::Cells;

/// In the order in which [`batch`] takes them.
pub(super) const COLUMNS: &str =
    "t.id, t.organization, o.slug, t.build, t.device_group, t.location,
    t.upgrade_options, t.strategy, t.retry_of, t.course, t.reason, t.start_at, t.expires_at, t.wave,
    t.forgiven_failures, t.forgiven_decided, t.forgiven_wave, t.idle, t.in_progress, t.success,
    t.failed, t.aborted, t.cancelled, t.charged, t.unproved, t.granted, t.takeovers,
    t.left_out, t.created, t.modified, t.finished_at";
pub(super) const FROM: &str = "batches t JOIN organizations o ON o.id = t.organization";

/// A row that begins with [`COLUMNS`].
pub(super) fn batch(row: &Row<'_>) -> rusqlite::Result<Batch> {
    let mut cells = Cells::of(row);
    Ok(Batch {
        id: cells.parsed()?,
        organization: cells.parsed()?,
        organization_slug: cells.parsed()?,
        build: cells.parsed_opt()?,
        group: cells.parsed_opt()?,
        location: cells.parsed_opt()?,
        upgrade_options: cells.json()?,
        strategy: cells.json()?,
        retry_of: cells.parsed_opt()?,
        course: cells.parsed()?,
        reason: cells.json_opt()?,
        start_at: cells.plain()?,
        expires_at: cells.plain()?,
        wave: cells.plain()?,
        forgiven: Forgiven {
            failures: cells.plain()?,
            decided: cells.plain()?,
            wave: cells.plain()?,
        },
        counts: counts(&mut cells)?,
        granted: cells.plain()?,
        takeovers: cells.plain()?,
        left_out: cells.plain()?,
        created: cells.plain()?,
        modified: cells.plain()?,
        finished_at: cells.plain()?,
    })
}

/// The eight counters, in the order of the table.
pub(super) fn counts(cells: &mut Cells<'_>) -> rusqlite::Result<Counts> {
    Ok(Counts {
        idle: cells.plain()?,
        in_progress: cells.plain()?,
        success: cells.plain()?,
        failed: cells.plain()?,
        aborted: cells.plain()?,
        cancelled: cells.plain()?,
        charged: cells.plain()?,
        unproved: cells.plain()?,
    })
}
