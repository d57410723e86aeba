-- A token of scope `report` is kept as one for reading that names a device.
ALTER TABLE api_tokens ADD COLUMN device TEXT REFERENCES devices (id) ON DELETE CASCADE;
CREATE INDEX api_tokens_by_device ON api_tokens (device) WHERE device IS NOT NULL;
