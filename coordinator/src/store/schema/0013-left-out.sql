-- Modems that were chosen for a batch and are no members of it, because something came between.
CREATE TABLE batch_left_out (
    batch   TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    device  TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    slot    TEXT NOT NULL,
    reason  TEXT NOT NULL,               -- JSON: batch::LeftOut
    created INTEGER NOT NULL,
    PRIMARY KEY (batch, device, slot)
) STRICT;
CREATE INDEX batch_left_out_by_created ON batch_left_out (batch, created);

ALTER TABLE batches ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0; -- rows above; the trigger keeps it
CREATE TRIGGER batch_left_out_new AFTER INSERT ON batch_left_out
BEGIN
    UPDATE batches SET left_out = left_out + 1 WHERE id = NEW.batch;
END;
