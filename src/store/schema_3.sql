-- A run that has begun and has not ended: what is needed to go on with it. The row goes with the verdict.
CREATE TABLE unfinished (
    token BLOB PRIMARY KEY,
    slot  INTEGER NOT NULL,
    state TEXT NOT NULL
) WITHOUT ROWID;

-- What came, and was acknowledged, until something has followed from it.
CREATE TABLE arrival (
    id      INTEGER PRIMARY KEY,
    token   BLOB NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX arrival_by_token ON arrival (token);
