-- Numbers between from_number and to_number that were taken back: a host that has one of them returns to from_number.
ALTER TABLE gates ADD COLUMN taken_back TEXT;

-- Looked at with every commit: the few of which not all hosts have the same release.
CREATE INDEX gates_unsettled ON gates (plan_id) WHERE from_number IS NULL OR from_number <> to_number;
