-- What an entry of the audit log is about: every id in its subject, and those of what it tells.
CREATE TABLE audit_objects (
    object TEXT NOT NULL,
    audit  INTEGER NOT NULL REFERENCES audit (id) ON DELETE CASCADE,
    PRIMARY KEY (object, audit)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_objects_by_audit ON audit_objects (audit);

INSERT OR IGNORE INTO audit_objects (object, audit)
    SELECT lower(part.value), a.id
    FROM audit a, json_each('[' || replace(json_quote(a.subject), '/', '","') || ']') part
    WHERE part.value GLOB '????????-????-????-????-????????????';
INSERT OR IGNORE INTO audit_objects (object, audit)
    SELECT lower(told.value), a.id
    FROM audit a, json_each(json_array(a.before, a.after)) what,
        json_each(iif(json_valid(what.value), what.value, '{}')) told
    WHERE told.key IN ('id', 'device', 'upgrade_operation')
        AND told.value GLOB '????????-????-????-????-????????????';

ALTER TABLE audit ADD COLUMN actor_id TEXT; -- of a user, whose name may be another one's later

-- The device whose place it took when it was accepted; `replacement_of` has the one that came with the hardware first.
ALTER TABLE devices ADD COLUMN replaced TEXT;

-- Names have nothing around them any more; what would be another one's name stays as it is, but for a tag that is there
-- twice then.
UPDATE OR IGNORE builds SET version = trim(version, char(9, 10, 11, 12, 13, 32, 133, 160))
    WHERE version <> trim(version, char(9, 10, 11, 12, 13, 32, 133, 160));
UPDATE builds SET modem_model = trim(modem_model, char(9, 10, 11, 12, 13, 32, 133, 160))
    WHERE modem_model <> trim(modem_model, char(9, 10, 11, 12, 13, 32, 133, 160));
UPDATE OR IGNORE categories SET name = trim(name, char(9, 10, 11, 12, 13, 32, 133, 160))
    WHERE name <> trim(name, char(9, 10, 11, 12, 13, 32, 133, 160));
UPDATE OR IGNORE device_groups SET name = trim(name, char(9, 10, 11, 12, 13, 32, 133, 160))
    WHERE name <> trim(name, char(9, 10, 11, 12, 13, 32, 133, 160));
UPDATE OR IGNORE locations SET name = trim(name, char(9, 10, 11, 12, 13, 32, 133, 160))
    WHERE name <> trim(name, char(9, 10, 11, 12, 13, 32, 133, 160));
UPDATE OR IGNORE device_tags SET tag = trim(tag, char(9, 10, 11, 12, 13, 32, 133, 160))
    WHERE tag <> trim(tag, char(9, 10, 11, 12, 13, 32, 133, 160));
DELETE FROM device_tags WHERE tag <> trim(tag, char(9, 10, 11, 12, 13, 32, 133, 160));
