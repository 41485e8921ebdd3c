-- A byte of each run less: its verdict, and eight times why, are one number. Both are read as before.
CREATE TABLE run_7 (
    journey INTEGER NOT NULL,
    slot    INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    latency INTEGER NOT NULL,
    late_by INTEGER,
    verdict INTEGER AS (outcome & 7) VIRTUAL,
    why     INTEGER AS (outcome >> 3) VIRTUAL,
    PRIMARY KEY (journey, slot)
) WITHOUT ROWID;
INSERT INTO run_7 SELECT journey, slot, verdict + 8 * why, latency, late_by FROM run ORDER BY journey, slot;
DROP TABLE run;
ALTER TABLE run_7 RENAME TO run;

-- From here on the evidence of good runs is deflated (src/store/sqlite/evidence.rs); what stands there from before stays as it is.
