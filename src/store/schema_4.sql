-- Starts of the daemon: when, until when it was known to live, and whether it was stopped in order.
CREATE TABLE boot (
    id      INTEGER PRIMARY KEY,
    started INTEGER NOT NULL,
    alive   INTEGER NOT NULL,
    ended   INTEGER NOT NULL
);
