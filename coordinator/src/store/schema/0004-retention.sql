-- How far the past was cleared away: the last operation, in the order in which they ended.
CREATE TABLE retention (
    what        TEXT PRIMARY KEY,       -- 'milestones' or 'logs'
    finished_at INTEGER NOT NULL,
    operation   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX operations_by_end ON operations (finished_at, id) WHERE finished_at IS NOT NULL;
