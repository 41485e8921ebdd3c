-- What the store holds that the target `store_file` damages.
INSERT INTO meta VALUES ('key', zeroblob(32)), ('hold:chat', 1790000000000), ('spent:2026-11-21:sms:login', 7);
INSERT INTO journey VALUES (1, 'sms', '{}'), (2, 'mail', NULL);
INSERT INTO span VALUES (1, 1790000000000, 60000, 500, 0, 0), (1, 1790030000000, 0, 1, 2, 0), (2, 1790000000000, 60000, 9, 4, 1);
WITH RECURSIVE nth(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM nth WHERE n < 500)
    INSERT INTO run SELECT 1, 1790000000000 + n * 60000, n % 3, 250000, NULL FROM nth;
WITH RECURSIVE nth(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM nth WHERE n < 60)
    INSERT INTO ledger SELECT CAST(printf('%016d', n) AS BLOB), 1, 1790000000000, 1790000000000, 1790000900000, n % 2 FROM nth;
INSERT INTO condition VALUES ('channel: sms', '{}'), ('journeyman: clock', '{"phase":"firing"}');
INSERT INTO incident VALUES ('i1', 'sms', 1790000000000, 1790000060000, 'critical', '["down"]', 'not received', 3, 1, NULL);
INSERT INTO incident_journey VALUES ('i1', 1);
