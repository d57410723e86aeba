-- How far the past was cleared away: the last operation, in the order in which they ended.
CREATE TABLE retention (
    what        TEXT PRIMARY KEY,       -- 'milestones' or 'logs'
    finished_at INTEGER NOT NULL,
    operation   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX operations_by_end ON operations (finished_at, id) WHERE finished_at IS NOT NULL;

-- Lists that grow are read from an index, and counted in it.
CREATE INDEX devices_of_organization_by_name ON devices (organization, name);
DROP INDEX devices_by_state;
CREATE INDEX devices_by_state ON devices (state, created);
CREATE INDEX devices_by_board ON devices (board, created);
CREATE INDEX devices_by_online ON devices (online, created);
CREATE INDEX audit_by_action ON audit (action, id);
