-- Where a row is more than a small part of a page, its key belongs into a tree of its own: a search in the tree of the rows reads them
-- whole on its way down.
CREATE TABLE outbox_5 (
    id           TEXT NOT NULL PRIMARY KEY,
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
);
INSERT INTO outbox_5 SELECT * FROM outbox ORDER BY created, id;
DROP TABLE outbox;
ALTER TABLE outbox_5 RENAME TO outbox;
-- What is due next, and how much is owed since when, is seen without a look at the notices themselves.
CREATE INDEX outbox_by_notifier ON outbox (notifier, status, incident, sequence, not_before, created, id);

CREATE TABLE evidence_5 (
    token   BLOB NOT NULL PRIMARY KEY,
    journey INTEGER NOT NULL,
    slot    INTEGER NOT NULL,
    is_good INTEGER NOT NULL,
    report  TEXT NOT NULL
);
INSERT INTO evidence_5 SELECT * FROM evidence ORDER BY token;
DROP TABLE evidence;
ALTER TABLE evidence_5 RENAME TO evidence;
CREATE INDEX evidence_of_run ON evidence (journey, slot, is_good);

CREATE TABLE incident_5 (
    id        TEXT NOT NULL PRIMARY KEY,
    subject   TEXT NOT NULL,
    since     INTEGER NOT NULL,
    resolved  INTEGER,
    severity  TEXT NOT NULL,
    detectors TEXT NOT NULL,
    summary   TEXT NOT NULL,
    bad_runs  INTEGER NOT NULL,
    members   INTEGER NOT NULL,
    state     TEXT
);
INSERT INTO incident_5 SELECT * FROM incident ORDER BY since, id;
DROP TABLE incident;
ALTER TABLE incident_5 RENAME TO incident;
CREATE INDEX incident_by_time ON incident (since);
