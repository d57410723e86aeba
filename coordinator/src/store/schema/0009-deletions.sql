-- Images that are being deleted: nobody begins to use them, and what names them is parted from them.
ALTER TABLE images ADD COLUMN going INTEGER NOT NULL DEFAULT 0;
