-- When the database was restored from a backup, the last time: what devices were granted after that backup
-- it does not know.
ALTER TABLE meta ADD COLUMN restored_at INTEGER;
