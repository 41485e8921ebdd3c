-- Times are milliseconds since the Unix epoch; durations are microseconds; tokens are 16 bytes, so they sort by time.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE journey (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    alert TEXT
);

-- Slots of one verdict at equal distances: what every objective is computed from.
CREATE TABLE span (
    journey INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    PRIMARY KEY (journey, start)
) WITHOUT ROWID;

-- One small row a run; evidence is beside it, for the runs that have any.
CREATE TABLE run (
    journey INTEGER NOT NULL,
    slot    INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    why     INTEGER NOT NULL,
    latency INTEGER NOT NULL,
    late_by INTEGER,
    PRIMARY KEY (journey, slot)
) WITHOUT ROWID;

CREATE TABLE evidence (
    token   BLOB PRIMARY KEY,
    journey INTEGER NOT NULL,
    slot    INTEGER NOT NULL,
    is_good INTEGER NOT NULL,
    report  TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX evidence_of_run ON evidence (journey, slot, is_good);

CREATE TABLE ledger (
    token      BLOB PRIMARY KEY,
    journey    INTEGER NOT NULL,
    slot       INTEGER NOT NULL,
    recorded   INTEGER NOT NULL,
    keep_until INTEGER NOT NULL,
    settled    INTEGER
) WITHOUT ROWID;

CREATE TABLE incident (
    id        TEXT PRIMARY KEY,
    journey   INTEGER NOT NULL,
    since     INTEGER NOT NULL,
    resolved  INTEGER,
    severity  TEXT NOT NULL,
    detectors TEXT NOT NULL,
    summary   TEXT NOT NULL,
    bad_runs  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX incident_by_time ON incident (since);

CREATE TABLE outbox (
    id           TEXT PRIMARY KEY,
    incident     TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    notifier     TEXT NOT NULL,
    instead_of   TEXT,
    created      INTEGER NOT NULL,
    notification TEXT NOT NULL,
    status       TEXT NOT NULL,
    attempt      INTEGER NOT NULL,
    not_before   INTEGER NOT NULL,
    error        TEXT,
    receipt      TEXT,
    at           INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX outbox_by_notifier ON outbox (notifier, status, incident, sequence);
