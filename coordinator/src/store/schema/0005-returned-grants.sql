-- A grant whose tool was not started may come back, and its attempt be granted anew.
ALTER TABLE operations ADD COLUMN grants_returned INTEGER NOT NULL DEFAULT 0; -- when it was asked for
ALTER TABLE operations ADD COLUMN grant_unused INTEGER NOT NULL DEFAULT 0; -- closed, and not counted
