-- Times are unix milliseconds, ids UUIDs as text, secrets SHA-256 digests.

CREATE TABLE meta (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    epoch   TEXT NOT NULL,              -- of every generation; a new one after a restore
    created INTEGER NOT NULL
) STRICT;

-- Who ------------------------------------------------------------------------------------------

CREATE TABLE organizations (
    id      TEXT PRIMARY KEY,
    slug    TEXT NOT NULL UNIQUE,       -- part of MQTT topics: never changes
    name    TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    superuser INTEGER NOT NULL DEFAULT 0,
    password  TEXT,                     -- argon2; NULL: tokens only
    active    INTEGER NOT NULL DEFAULT 1,
    epoch     INTEGER NOT NULL DEFAULT 1, -- of its MQTT tokens; revocation raises it
    created   INTEGER NOT NULL
) STRICT;

CREATE TABLE memberships (
    user         TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    organization TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    role         TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'administrator')),
    PRIMARY KEY (user, organization)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_tokens (
    id        TEXT PRIMARY KEY,
    user      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name      TEXT NOT NULL,
    digest    BLOB NOT NULL UNIQUE,
    scope     TEXT NOT NULL CHECK (scope IN ('read', 'write')),
    created   INTEGER NOT NULL,
    expires   INTEGER,
    last_used INTEGER
) STRICT;

CREATE TABLE enrolment_tokens (
    id           TEXT PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    digest       BLOB NOT NULL UNIQUE,
    auto_accept  INTEGER NOT NULL,
    uses_left    INTEGER,               -- NULL: without limit
    created      INTEGER NOT NULL,
    expires      INTEGER,
    last_used    INTEGER
) STRICT;

CREATE TABLE audit (
    id           INTEGER PRIMARY KEY,
    at           INTEGER NOT NULL,
    actor        TEXT NOT NULL,         -- "user:<name>", "device:<id>", "coordinator"
    organization TEXT,
    action       TEXT NOT NULL,
    subject      TEXT NOT NULL,
    detail       TEXT
) STRICT;
CREATE INDEX audit_by_time ON audit (at);

-- Firmware -------------------------------------------------------------------------------------

CREATE TABLE categories (
    id           TEXT PRIMARY KEY,
    organization TEXT REFERENCES organizations (id) ON DELETE CASCADE, -- NULL: shared
    name         TEXT NOT NULL,
    description  TEXT NOT NULL DEFAULT '',
    created      INTEGER NOT NULL,
    modified     INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX categories_by_name ON categories (coalesce(organization, ''), name);
CREATE INDEX categories_by_created ON categories (created);

CREATE TABLE builds (
    id          TEXT PRIMARY KEY,
    category    TEXT NOT NULL REFERENCES categories (id) ON DELETE CASCADE,
    version     TEXT NOT NULL,
    modem_model TEXT NOT NULL DEFAULT '',
    changelog   TEXT NOT NULL DEFAULT '',
    created     INTEGER NOT NULL,
    modified    INTEGER NOT NULL,
    UNIQUE (category, version)
) STRICT;
CREATE INDEX builds_by_version ON builds (version);
CREATE INDEX builds_by_model ON builds (modem_model);
CREATE INDEX builds_by_created ON builds (created);

CREATE TABLE images (
    id        TEXT PRIMARY KEY,
    build     TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    type      TEXT NOT NULL,            -- the upgrade tool
    boards    TEXT NOT NULL DEFAULT '[]',
    file_name TEXT NOT NULL,
    size      INTEGER NOT NULL,
    sha256    TEXT NOT NULL,            -- of the file; names it in the artifact store
    manifest  BLOB,                     -- the exact signed bytes
    signature TEXT,                     -- signify text
    signed_by TEXT,                     -- key number, lowercase hex
    sequence  INTEGER,
    created   INTEGER NOT NULL,
    modified  INTEGER NOT NULL,
    UNIQUE (build, type),
    CHECK ((manifest IS NULL) = (signature IS NULL))
) STRICT;
CREATE INDEX images_by_file ON images (sha256);
CREATE INDEX images_by_created ON images (created);

-- Devices --------------------------------------------------------------------------------------

CREATE TABLE devices (
    id             TEXT PRIMARY KEY,
    organization   TEXT NOT NULL REFERENCES organizations (id),
    name           TEXT NOT NULL,
    board          TEXT NOT NULL DEFAULT '',
    public_key     BLOB NOT NULL UNIQUE,
    mac            TEXT,
    serial         TEXT,
    state          TEXT NOT NULL CHECK (state IN ('accepted', 'pending', 'revoked')),
    replacement_of TEXT REFERENCES devices (id),
    epoch          INTEGER NOT NULL DEFAULT 1, -- of its tokens; revocation raises it
    generation     INTEGER NOT NULL DEFAULT 1, -- of what is desired of it
    deactivated    INTEGER NOT NULL DEFAULT 0,
    online         INTEGER NOT NULL DEFAULT 0,
    session        TEXT,                -- of the presence that set `online`
    last_seen      INTEGER,
    inventory      TEXT,
    inventory_at   INTEGER,
    created        INTEGER NOT NULL,
    modified       INTEGER NOT NULL
) STRICT;
CREATE INDEX devices_by_organization ON devices (organization, created);
CREATE INDEX devices_by_created ON devices (created);
CREATE INDEX devices_of_organization_by_modified ON devices (organization, modified);
CREATE INDEX devices_by_modified ON devices (modified);
CREATE INDEX devices_of_organization_by_last_seen ON devices (organization, last_seen);
CREATE INDEX devices_by_last_seen ON devices (last_seen);
CREATE INDEX devices_by_state ON devices (state);
CREATE INDEX devices_by_replaced ON devices (replacement_of) WHERE replacement_of IS NOT NULL;
CREATE INDEX devices_by_name ON devices (name);
CREATE INDEX devices_by_mac ON devices (organization, mac) WHERE mac IS NOT NULL;
CREATE INDEX devices_by_serial ON devices (organization, serial) WHERE serial IS NOT NULL;

CREATE TABLE modems (
    device    TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    slot      TEXT NOT NULL,
    model     TEXT,
    imei      TEXT,
    versions  TEXT NOT NULL DEFAULT '{}',
    condition TEXT,
    modified  INTEGER NOT NULL,
    PRIMARY KEY (device, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX modems_by_model ON modems (model);
CREATE INDEX modems_by_imei ON modems (imei);

CREATE TABLE device_firmware (
    id        TEXT PRIMARY KEY,
    device    TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    slot      TEXT NOT NULL,
    image     TEXT REFERENCES images (id) ON DELETE SET NULL,
    installed INTEGER NOT NULL DEFAULT 0,
    evidence  TEXT CHECK (evidence IN ('versions', 'reported')), -- why `installed` is what it is
    created   INTEGER NOT NULL,
    modified  INTEGER NOT NULL,
    UNIQUE (device, slot)
) STRICT;
CREATE INDEX device_firmware_by_image ON device_firmware (image);
CREATE INDEX device_firmware_by_created ON device_firmware (created);
CREATE INDEX device_firmware_by_modified ON device_firmware (modified);
-- Also where the image goes with its build or category: what has no image is not installed.
CREATE TRIGGER device_firmware_without_image AFTER UPDATE OF image ON device_firmware
WHEN NEW.image IS NULL AND NEW.installed
BEGIN
    UPDATE device_firmware SET installed = 0, evidence = NULL WHERE id = NEW.id;
END;

-- Operations -----------------------------------------------------------------------------------

CREATE TABLE operations (
    id               TEXT PRIMARY KEY,
    organization     TEXT NOT NULL REFERENCES organizations (id),
    device           TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    slot             TEXT NOT NULL,
    image            TEXT REFERENCES images (id) ON DELETE SET NULL,
    batch            TEXT,
    retry_of         TEXT REFERENCES operations (id) ON DELETE SET NULL,
    superseded_by    TEXT REFERENCES operations (id) ON DELETE SET NULL
        DEFERRABLE INITIALLY DEFERRED,
    upgrade_options  TEXT NOT NULL DEFAULT '{}',
    allow_volatile_staging INTEGER NOT NULL DEFAULT 0,
    status           TEXT NOT NULL
        CHECK (status IN ('idle', 'in-progress', 'success', 'failed', 'aborted', 'cancelled')),
    phase            TEXT,              -- finer than `status`; NULL: nothing was heard yet
    attempt          INTEGER NOT NULL DEFAULT 0, -- the last one heard of
    progress_percent INTEGER NOT NULL DEFAULT 0,
    failure          TEXT,              -- JSON
    late_result      TEXT,              -- JSON: what came after the terminal status
    evidence         TEXT CHECK (evidence IN ('versions', 'reported')), -- of the result
    log              TEXT NOT NULL DEFAULT '',
    stream           TEXT,              -- the journal that this operation listens to
    last_seq         INTEGER NOT NULL DEFAULT 0, -- the newest milestone that was applied
    tick_attempt     INTEGER NOT NULL DEFAULT 0, -- order of the newest tick, with tick_n
    tick_n           INTEGER NOT NULL DEFAULT 0,
    detail           TEXT,              -- what the newest tick says for people
    stalled          INTEGER NOT NULL DEFAULT 0,
    fetched          INTEGER NOT NULL DEFAULT 0, -- bytes of the image over the network
    attempts_granted INTEGER NOT NULL DEFAULT 0,
    granted_attempt  INTEGER,
    granted_stream   TEXT,
    granted_at       INTEGER,
    grant_open       INTEGER NOT NULL DEFAULT 0, -- the modem may be in the attempt's hands
    dark_expected_ms INTEGER,
    dark_longest_ms  INTEGER,
    heard_at         INTEGER,           -- the last word of its stream
    deadline         INTEGER,
    finished_at      INTEGER,
    created          INTEGER NOT NULL,
    modified         INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX operations_one_a_slot ON operations (device, slot)
    WHERE status IN ('idle', 'in-progress');
CREATE INDEX operations_by_device ON operations (device, created);
CREATE INDEX operations_by_organization ON operations (organization, created);
CREATE INDEX operations_by_created ON operations (created);
CREATE INDEX operations_of_organization_by_modified ON operations (organization, modified);
CREATE INDEX operations_by_modified ON operations (modified);
CREATE INDEX operations_by_status ON operations (status, created);
CREATE INDEX operations_by_image ON operations (image, created);
CREATE INDEX operations_by_batch ON operations (batch, created) WHERE batch IS NOT NULL;
CREATE INDEX operations_unfinished ON operations (coalesce(deadline, 0))
    WHERE status IN ('idle', 'in-progress');

CREATE TABLE milestones (
    operation TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    stream    TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    received  INTEGER NOT NULL,
    body      TEXT NOT NULL,            -- JSON, as it came
    PRIMARY KEY (operation, stream, seq)
) STRICT, WITHOUT ROWID;

-- Events that were refused, kept for whoever has to find out why.
CREATE TABLE dead_letters (
    id        INTEGER PRIMARY KEY,
    device    TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    operation TEXT,
    stream    TEXT,
    seq       INTEGER,
    reason    TEXT NOT NULL,
    received  INTEGER NOT NULL,
    body      TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_device ON dead_letters (device, id);
