-- An incident is of any number of journeys, channels and parts of the daemon; what is needed to go on with it is kept while it is open.

CREATE TABLE incident_2 (
    id        TEXT PRIMARY KEY,
    subject   TEXT NOT NULL,
    since     INTEGER NOT NULL,
    resolved  INTEGER,
    severity  TEXT NOT NULL,
    detectors TEXT NOT NULL,
    summary   TEXT NOT NULL,
    bad_runs  INTEGER NOT NULL,
    members   INTEGER NOT NULL,
    state     TEXT
) WITHOUT ROWID;
INSERT INTO incident_2
    SELECT incident.id, name, since, resolved, severity, detectors, summary, bad_runs, 1, NULL FROM incident
    JOIN journey ON journey.id = journey;

CREATE TABLE incident_journey (
    incident TEXT NOT NULL,
    journey  INTEGER NOT NULL,
    PRIMARY KEY (incident, journey)
) WITHOUT ROWID;
INSERT INTO incident_journey SELECT id, journey FROM incident;

DROP TABLE incident;
ALTER TABLE incident_2 RENAME TO incident;
CREATE INDEX incident_by_time ON incident (since);
CREATE INDEX incident_of_journey ON incident_journey (journey);

-- The alerts of channels and of the daemon's parts; those of journeys stand beside the journeys.
CREATE TABLE condition (
    subject TEXT PRIMARY KEY,
    state   TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE silence (
    id    TEXT PRIMARY KEY,
    until INTEGER NOT NULL,
    state TEXT NOT NULL
) WITHOUT ROWID;

-- A slot in maintenance keeps the verdict that it had, beside being left out. What was excluded before has none.
ALTER TABLE span ADD COLUMN excluded INTEGER NOT NULL DEFAULT 0;
