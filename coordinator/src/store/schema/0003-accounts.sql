-- Accounts: logins, tokens that end by themselves, what was changed and from where, identities that
-- two boards share, and answers to repeated requests.

ALTER TABLE organizations ADD COLUMN modified INTEGER NOT NULL DEFAULT 0;
UPDATE organizations SET modified = created;

ALTER TABLE users ADD COLUMN modified INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN last_login INTEGER;
ALTER TABLE users ADD COLUMN login_day INTEGER NOT NULL DEFAULT 0; -- days since 1970
ALTER TABLE users ADD COLUMN logins INTEGER NOT NULL DEFAULT 0;    -- on that day
UPDATE users SET modified = created;
CREATE INDEX users_by_created ON users (created);
CREATE INDEX memberships_by_organization ON memberships (organization);

ALTER TABLE api_tokens ADD COLUMN kind TEXT NOT NULL DEFAULT 'named'
    CHECK (kind IN ('named', 'login'));
ALTER TABLE api_tokens ADD COLUMN idle_ms INTEGER;       -- ends when it was not used for so long
CREATE INDEX api_tokens_by_user ON api_tokens (user, created);

ALTER TABLE enrolment_tokens ADD COLUMN idle_ms INTEGER; -- as above
ALTER TABLE enrolment_tokens ADD COLUMN used INTEGER NOT NULL DEFAULT 0; -- devices that came with it
CREATE INDEX enrolment_tokens_by_organization ON enrolment_tokens (organization, created);

ALTER TABLE audit ADD COLUMN peer TEXT;                  -- the address that it came from
ALTER TABLE audit ADD COLUMN before TEXT;                -- JSON, as `after`; never a secret
ALTER TABLE audit ADD COLUMN after TEXT;
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE INDEX audit_by_organization ON audit (organization, id);
CREATE INDEX audit_by_subject ON audit (subject, id);

ALTER TABLE devices ADD COLUMN duplicate_since INTEGER;  -- two boards use this identity: jobs held
ALTER TABLE devices ADD COLUMN duplicate_reason TEXT;
ALTER TABLE devices ADD COLUMN sightings TEXT NOT NULL DEFAULT '{}'; -- JSON: boots and boards seen
CREATE INDEX devices_by_duplicate ON devices (duplicate_since) WHERE duplicate_since IS NOT NULL;

-- Requests that carry an Idempotency-Key.
CREATE TABLE repeats (
    user    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key     TEXT NOT NULL,
    route   TEXT NOT NULL,              -- SHA-256 of method and path with its query
    digest  BLOB NOT NULL,              -- of the body
    done    INTEGER NOT NULL DEFAULT 0, -- its change is committed
    status  INTEGER,                    -- of the answer; NULL: not answered yet
    body    BLOB,
    created INTEGER NOT NULL,
    PRIMARY KEY (user, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX repeats_by_created ON repeats (created);
