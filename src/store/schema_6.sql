-- Drills: what was rehearsed, and what it came to.
CREATE TABLE drill (
    id      TEXT NOT NULL PRIMARY KEY,
    journey TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended   INTEGER,
    state   TEXT NOT NULL
);
CREATE INDEX drill_by_time ON drill (started, id);
