-- Which hosts of a deployment have its newest release: whoever an opening lets, by the plan that hands it out. All others
-- have the release from_number, or nothing if there is none. Once the release is proven, both are the same. No row: all
-- have the newest.
CREATE TABLE gates (
    deployment_uid TEXT PRIMARY KEY NOT NULL,
    plan_id TEXT NOT NULL,
    to_number BIGINT NOT NULL,
    from_number BIGINT,
    openings TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX gates_by_revision ON gates (revision);
CREATE INDEX gates_by_plan ON gates (plan_id);

-- What was rolled back is not handed out again by itself: the digest of a release's inputs.
CREATE TABLE vetoes (
    deployment_uid TEXT NOT NULL,
    inputs_digest BLOB NOT NULL,
    number BIGINT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    vetoed_at BIGINT NOT NULL,
    PRIMARY KEY (deployment_uid, inputs_digest)
);

-- What was said of a deployment lately is read again and again while a release of it is handed out.
DROP INDEX reports_by_deployment;
CREATE INDEX reports_by_deployment ON reports (deployment, reported_at);
