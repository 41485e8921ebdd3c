-- What the daemons' configurations consist of, by their fingerprints: a JSON object of the fingerprints of their parts by names.
-- When one was last said to run.
CREATE TABLE IF NOT EXISTS configuration (
    fingerprint text COLLATE "C" PRIMARY KEY,
    parts       text NOT NULL,
    seen        bigint NOT NULL
);
