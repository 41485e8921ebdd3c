-- Drills: what was rehearsed, and what it came to.
CREATE TABLE IF NOT EXISTS drill (
    id      text COLLATE "C" PRIMARY KEY,
    journey text COLLATE "C" NOT NULL,
    started bigint NOT NULL,
    ended   bigint,
    state   text NOT NULL
);
CREATE INDEX IF NOT EXISTS drill_by_time ON drill (started, id);
