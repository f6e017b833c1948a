-- +goose Up
CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE classes (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    code       TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL -- all times: microseconds since 1970, UTC
) STRICT, WITHOUT ROWID;

-- class is '' for an instructor; folded is the name for comparison.
CREATE TABLE users (
    id         TEXT PRIMARY KEY,
    class      TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('learner', 'instructor')),
    name       TEXT NOT NULL,
    folded     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    UNIQUE (class, role, folded)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    hash       BLOB PRIMARY KEY, -- SHA-256 of the secret
    kind       TEXT NOT NULL,
    user       TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    lab        TEXT REFERENCES labs (id) ON DELETE CASCADE,
    label      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user);
CREATE INDEX sessions_lab ON sessions (lab);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE labs (
    id         TEXT PRIMARY KEY,
    owner      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    exercise   TEXT NOT NULL,
    shape      TEXT NOT NULL, -- lab.Lab as JSON
    manifests  TEXT NOT NULL,
    phase      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    instance   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (owner, name)
) STRICT, WITHOUT ROWID;

-- What a learner has reached stays when the lab is gone.
CREATE TABLE progress (
    user      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    exercise  TEXT NOT NULL,
    task      TEXT NOT NULL,
    check_id  TEXT NOT NULL,
    status    TEXT NOT NULL,
    passed_at INTEGER, -- when it first passed, NULL if never
    at        INTEGER NOT NULL,
    PRIMARY KEY (user, exercise, task, check_id)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE progress;
DROP TABLE sessions;
DROP TABLE labs;
DROP TABLE users;
DROP TABLE classes;
DROP TABLE settings;
