-- Members of a batch whose modems have an older upgrade still: it gives way once the batch is launched, and
-- not before, for a batch that is not made to its end takes nothing from anybody.
CREATE TABLE batch_takeovers (
    device   TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    slot     TEXT NOT NULL,
    batch    TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    image    TEXT NOT NULL,
    retry_of TEXT,
    asker    TEXT NOT NULL,             -- for the operation's log
    PRIMARY KEY (device, slot, batch)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_takeovers_by_batch ON batch_takeovers (batch);

ALTER TABLE batches ADD COLUMN takeovers INTEGER NOT NULL DEFAULT 0; -- rows above; triggers keep it
CREATE TRIGGER batch_takeover_new AFTER INSERT ON batch_takeovers
BEGIN
    UPDATE batches SET takeovers = takeovers + 1 WHERE id = NEW.batch;
END;
CREATE TRIGGER batch_takeover_over AFTER DELETE ON batch_takeovers
BEGIN
    UPDATE batches SET takeovers = takeovers - 1 WHERE id = OLD.batch;
END;

-- As before; who is to join still is not the last.
DROP TRIGGER batch_ends;
CREATE TRIGGER batch_ends AFTER UPDATE OF idle, in_progress, takeovers ON batches
WHEN NEW.idle + NEW.in_progress + NEW.takeovers = 0
    AND OLD.idle + OLD.in_progress + OLD.takeovers > 0
    AND NEW.course IN ('open', 'paused', 'cancelling', 'expiring')
BEGIN
    UPDATE batches SET course = 'finished', finished_at = modified WHERE id = NEW.id;
END;
