-- What is due next, and how much is owed since when, is seen without a look at the notices themselves.
DROP INDEX outbox_by_notifier;
CREATE INDEX outbox_by_notifier ON outbox (notifier, status, incident, sequence, not_before, created);
