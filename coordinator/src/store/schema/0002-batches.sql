-- Batches, and what devices are selected by.

CREATE TABLE device_groups (
    id           TEXT PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    created      INTEGER NOT NULL,
    modified     INTEGER NOT NULL,
    UNIQUE (organization, name)
) STRICT;
CREATE INDEX device_groups_by_created ON device_groups (created);

CREATE TABLE locations (
    id           TEXT PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    created      INTEGER NOT NULL,
    modified     INTEGER NOT NULL,
    UNIQUE (organization, name)
) STRICT;
CREATE INDEX locations_by_created ON locations (created);

ALTER TABLE devices ADD COLUMN device_group TEXT REFERENCES device_groups (id) ON DELETE SET NULL;
ALTER TABLE devices ADD COLUMN location TEXT REFERENCES locations (id) ON DELETE SET NULL;
CREATE INDEX devices_by_group ON devices (device_group, created) WHERE device_group IS NOT NULL;
CREATE INDEX devices_by_location ON devices (location, created) WHERE location IS NOT NULL;

CREATE TABLE device_tags (
    device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    tag    TEXT NOT NULL,
    PRIMARY KEY (device, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_tags_by_tag ON device_tags (tag, device);

CREATE TABLE batches (
    id               TEXT PRIMARY KEY,
    organization     TEXT NOT NULL REFERENCES organizations (id),
    build            TEXT REFERENCES builds (id) ON DELETE SET NULL,
    device_group     TEXT REFERENCES device_groups (id) ON DELETE SET NULL,
    location         TEXT REFERENCES locations (id) ON DELETE SET NULL,
    upgrade_options  TEXT NOT NULL DEFAULT '{}',
    strategy         TEXT NOT NULL,       -- JSON
    retry_of         TEXT REFERENCES batches (id) ON DELETE SET NULL,
    course           TEXT NOT NULL CHECK (course IN
        ('preparing', 'open', 'paused', 'cancelling', 'expiring', 'finished')),
    reason           TEXT,                -- JSON: why it is paused, or was stopped
    start_at         INTEGER,
    expires_at       INTEGER NOT NULL,
    wave             INTEGER,             -- the newest one that was opened, from 0
    forgiven_failures INTEGER NOT NULL DEFAULT 0,
    forgiven_decided INTEGER NOT NULL DEFAULT 0,
    forgiven_wave    INTEGER,
    -- Of its operations; the triggers below keep them.
    idle             INTEGER NOT NULL DEFAULT 0,
    in_progress      INTEGER NOT NULL DEFAULT 0,
    success          INTEGER NOT NULL DEFAULT 0,
    failed           INTEGER NOT NULL DEFAULT 0,
    aborted          INTEGER NOT NULL DEFAULT 0,
    cancelled        INTEGER NOT NULL DEFAULT 0,
    charged          INTEGER NOT NULL DEFAULT 0,
    unproved         INTEGER NOT NULL DEFAULT 0,
    granted          INTEGER NOT NULL DEFAULT 0, -- in an attempt's hands
    -- The same rule as `Counts::status`.
    status           TEXT NOT NULL GENERATED ALWAYS AS (CASE
        WHEN idle + in_progress > 0 THEN
            CASE WHEN in_progress + success + failed + aborted + cancelled > 0
                THEN 'in-progress' ELSE 'idle' END
        WHEN failed > 0 THEN 'failed'
        WHEN aborted > 0 THEN 'aborted'
        WHEN cancelled > 0 THEN 'cancelled'
        WHEN success > 0 THEN 'success'
        ELSE 'idle' END) VIRTUAL,
    created          INTEGER NOT NULL,
    modified         INTEGER NOT NULL,
    finished_at      INTEGER
) STRICT;
CREATE INDEX batches_by_organization ON batches (organization, created);
CREATE INDEX batches_of_organization_by_modified ON batches (organization, modified);
CREATE INDEX batches_by_created ON batches (created);
CREATE INDEX batches_by_modified ON batches (modified);
CREATE INDEX batches_by_build ON batches (build, created);
CREATE INDEX batches_by_status ON batches (status, created);
CREATE INDEX batches_unfinished ON batches (id) WHERE course <> 'finished';

-- Operations of a batch by their wave; -1: in none.
CREATE TABLE batch_waves (
    batch       TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    n           INTEGER NOT NULL,
    opened_at   INTEGER,
    last_result INTEGER,
    idle        INTEGER NOT NULL DEFAULT 0,
    in_progress INTEGER NOT NULL DEFAULT 0,
    success     INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    aborted     INTEGER NOT NULL DEFAULT 0,
    cancelled   INTEGER NOT NULL DEFAULT 0,
    charged     INTEGER NOT NULL DEFAULT 0,
    unproved    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, n)
) STRICT, WITHOUT ROWID;

-- `wave` NULL: in no wave that is open, so nobody is given leave. `held`: not told to its device yet.
ALTER TABLE operations ADD COLUMN wave INTEGER;
ALTER TABLE operations ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operations ADD COLUMN deferred INTEGER NOT NULL DEFAULT 0; -- was in a wave before
ALTER TABLE operations ADD COLUMN charged INTEGER NOT NULL DEFAULT 0; -- fails the batch
ALTER TABLE operations ADD COLUMN unproved INTEGER NOT NULL DEFAULT 0; -- a success by word alone
-- It was overdue in this attempt when its batch was resumed: it is no failure any more.
ALTER TABLE operations ADD COLUMN forgiven INTEGER NOT NULL DEFAULT 0;
-- When it would be overdue if nothing were heard of it since its grant; 0: it is, whatever it says. NULL: it is
-- in nobody's hands, or forgiven.
ALTER TABLE operations ADD COLUMN overdue_from INTEGER;
CREATE INDEX operations_in_hand ON operations (batch, overdue_from)
    WHERE grant_open AND status IN ('idle', 'in-progress');
CREATE INDEX operations_in_nobodys_hands ON operations (batch, wave, deferred)
    WHERE batch IS NOT NULL AND status IN ('idle', 'in-progress') AND NOT grant_open;
CREATE INDEX operations_between_attempts ON operations (batch, heard_at)
    WHERE attempts_granted > 0 AND status IN ('idle', 'in-progress') AND NOT grant_open;

-- The last one has ended, and with it the batch: nobody sees one without the other.
CREATE TRIGGER batch_ends AFTER UPDATE OF idle, in_progress ON batches
WHEN NEW.idle + NEW.in_progress = 0 AND OLD.idle + OLD.in_progress > 0
    AND NEW.course IN ('open', 'paused', 'cancelling', 'expiring')
BEGIN
    UPDATE batches SET course = 'finished', finished_at = modified WHERE id = NEW.id;
END;

CREATE TRIGGER batch_counts_new AFTER INSERT ON operations WHEN NEW.batch IS NOT NULL
BEGIN
    UPDATE batches SET
        idle = idle + (NEW.status = 'idle'),
        in_progress = in_progress + (NEW.status = 'in-progress'),
        success = success + (NEW.status = 'success'),
        failed = failed + (NEW.status = 'failed'),
        aborted = aborted + (NEW.status = 'aborted'),
        cancelled = cancelled + (NEW.status = 'cancelled'),
        charged = charged + NEW.charged,
        unproved = unproved + NEW.unproved,
        granted = granted + NEW.grant_open
    WHERE id = NEW.batch;
    INSERT INTO batch_waves (batch, n, idle, in_progress, success, failed, aborted, cancelled,
        charged, unproved)
    SELECT NEW.batch, coalesce(NEW.wave, -1), NEW.status = 'idle', NEW.status = 'in-progress',
        NEW.status = 'success', NEW.status = 'failed', NEW.status = 'aborted',
        NEW.status = 'cancelled', NEW.charged, NEW.unproved
    WHERE EXISTS (SELECT 1 FROM batches WHERE id = NEW.batch)
    ON CONFLICT (batch, n) DO UPDATE SET
        idle = idle + excluded.idle,
        in_progress = in_progress + excluded.in_progress,
        success = success + excluded.success,
        failed = failed + excluded.failed,
        aborted = aborted + excluded.aborted,
        cancelled = cancelled + excluded.cancelled,
        charged = charged + excluded.charged,
        unproved = unproved + excluded.unproved;
END;

CREATE TRIGGER batch_counts_change AFTER UPDATE OF status, wave, charged, unproved ON operations
WHEN NEW.batch IS NOT NULL
    AND (NEW.status <> OLD.status OR NEW.wave IS NOT OLD.wave OR NEW.charged <> OLD.charged
        OR NEW.unproved <> OLD.unproved)
BEGIN
    UPDATE batches SET
        idle = idle + (NEW.status = 'idle') - (OLD.status = 'idle'),
        in_progress = in_progress + (NEW.status = 'in-progress') - (OLD.status = 'in-progress'),
        success = success + (NEW.status = 'success') - (OLD.status = 'success'),
        failed = failed + (NEW.status = 'failed') - (OLD.status = 'failed'),
        aborted = aborted + (NEW.status = 'aborted') - (OLD.status = 'aborted'),
        cancelled = cancelled + (NEW.status = 'cancelled') - (OLD.status = 'cancelled'),
        charged = charged + NEW.charged - OLD.charged,
        unproved = unproved + NEW.unproved - OLD.unproved,
        -- What was forgiven as overdue has turned out bad: that is no news.
        forgiven_failures = forgiven_failures + NEW.forgiven * (NEW.charged - OLD.charged),
        forgiven_decided = forgiven_decided + NEW.forgiven * (NEW.charged - OLD.charged),
        modified = max(modified, NEW.modified)
    WHERE id = NEW.batch;
    UPDATE batch_waves SET
        idle = idle - (OLD.status = 'idle'),
        in_progress = in_progress - (OLD.status = 'in-progress'),
        success = success - (OLD.status = 'success'),
        failed = failed - (OLD.status = 'failed'),
        aborted = aborted - (OLD.status = 'aborted'),
        cancelled = cancelled - (OLD.status = 'cancelled'),
        charged = charged - OLD.charged,
        unproved = unproved - OLD.unproved
    WHERE batch = OLD.batch AND n = coalesce(OLD.wave, -1);
    INSERT INTO batch_waves (batch, n, idle, in_progress, success, failed, aborted, cancelled,
        charged, unproved, last_result)
    SELECT NEW.batch, coalesce(NEW.wave, -1), NEW.status = 'idle', NEW.status = 'in-progress',
        NEW.status = 'success', NEW.status = 'failed', NEW.status = 'aborted',
        NEW.status = 'cancelled', NEW.charged, NEW.unproved, NEW.finished_at
    WHERE EXISTS (SELECT 1 FROM batches WHERE id = NEW.batch)
    ON CONFLICT (batch, n) DO UPDATE SET
        idle = idle + excluded.idle,
        in_progress = in_progress + excluded.in_progress,
        success = success + excluded.success,
        failed = failed + excluded.failed,
        aborted = aborted + excluded.aborted,
        cancelled = cancelled + excluded.cancelled,
        charged = charged + excluded.charged,
        unproved = unproved + excluded.unproved,
        last_result = CASE WHEN excluded.last_result IS NULL THEN last_result
            ELSE max(coalesce(last_result, 0), excluded.last_result) END;
END;

CREATE TRIGGER batch_grants_change AFTER UPDATE OF grant_open ON operations
WHEN NEW.batch IS NOT NULL AND NEW.grant_open <> OLD.grant_open
BEGIN
    UPDATE batches SET granted = granted + NEW.grant_open - OLD.grant_open WHERE id = NEW.batch;
END;

CREATE TRIGGER batch_counts_gone AFTER DELETE ON operations WHEN OLD.batch IS NOT NULL
BEGIN
    UPDATE batches SET
        idle = idle - (OLD.status = 'idle'),
        in_progress = in_progress - (OLD.status = 'in-progress'),
        success = success - (OLD.status = 'success'),
        failed = failed - (OLD.status = 'failed'),
        aborted = aborted - (OLD.status = 'aborted'),
        cancelled = cancelled - (OLD.status = 'cancelled'),
        charged = charged - OLD.charged,
        unproved = unproved - OLD.unproved,
        granted = granted - OLD.grant_open
    WHERE id = OLD.batch;
    UPDATE batch_waves SET
        idle = idle - (OLD.status = 'idle'),
        in_progress = in_progress - (OLD.status = 'in-progress'),
        success = success - (OLD.status = 'success'),
        failed = failed - (OLD.status = 'failed'),
        aborted = aborted - (OLD.status = 'aborted'),
        cancelled = cancelled - (OLD.status = 'cancelled'),
        charged = charged - OLD.charged,
        unproved = unproved - OLD.unproved
    WHERE batch = OLD.batch AND n = coalesce(OLD.wave, -1);
END;
