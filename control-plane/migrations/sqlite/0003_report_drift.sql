-- What on a host is not as it was applied: what and how in one column, which statuses of many hosts read, and the
-- differences and what was found, which are long, in another. JSON; NULL if nothing has drifted.
ALTER TABLE reports ADD COLUMN drift TEXT;
ALTER TABLE reports ADD COLUMN drift_details TEXT;
