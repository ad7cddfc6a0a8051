-- How hosts are told of a deployment's release: the same for many hosts, so that an assignment is a narrow row. The id is
-- made of the content. used_at: when the planner last counted on it.
CREATE TABLE descriptions (
    id BIGINT PRIMARY KEY NOT NULL,
    deployment BYTEA NOT NULL,
    workspace TEXT NOT NULL,
    name TEXT NOT NULL,
    release_name TEXT NOT NULL,
    depends_on TEXT NOT NULL,
    on_remove TEXT NOT NULL,
    reason TEXT,
    used_at BIGINT NOT NULL
);
CREATE INDEX descriptions_by_deployment ON descriptions (deployment);

-- What a rendering came to, by all that it depends on: what was rendered once is known.
CREATE TABLE renderings (
    outcome BYTEA PRIMARY KEY NOT NULL,
    bundle BYTEA NOT NULL
);
CREATE INDEX renderings_by_bundle ON renderings (bundle);
INSERT INTO renderings (outcome, bundle)
    SELECT outcome, (array_agg(bundle))[1] FROM assignments WHERE outcome IS NOT NULL AND bundle IS NOT NULL GROUP BY outcome;

-- One row per deployment and host that has it, or has yet to remove it: the hosts' feed. Without a bundle it is a
-- tombstone. Hosts of a deployment lie side by side, because a change to it moves them together.
CREATE TABLE narrow_assignments (
    deployment BYTEA NOT NULL,
    host BYTEA NOT NULL,
    description BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    bundle BYTEA,
    PRIMARY KEY (deployment, host)
);

-- Numbers below zero cannot be those of a content.
CREATE TEMPORARY TABLE described AS
    SELECT -ROW_NUMBER() OVER () AS id, * FROM (
        SELECT DISTINCT
            decode(replace(CASE WHEN reason = 'pruned' THEN id ELSE deployment_uid END, '-', ''), 'hex') AS deployment,
            workspace, deployment AS name, release_name, depends_on, on_remove, reason
        FROM assignments) AS told;
INSERT INTO descriptions (id, deployment, workspace, name, release_name, depends_on, on_remove, reason, used_at)
    SELECT id, deployment, workspace, name, release_name, depends_on, on_remove, reason, 0 FROM described;
INSERT INTO narrow_assignments (deployment, host, description, revision, bundle)
    SELECT d.deployment, decode(replace(a.host_uid, '-', ''), 'hex'), d.id, a.revision,
        CASE WHEN a.present THEN a.bundle END
    FROM assignments a JOIN described d
        ON d.deployment = decode(replace(CASE WHEN a.reason = 'pruned' THEN a.id ELSE a.deployment_uid END, '-', ''), 'hex')
        AND d.workspace = a.workspace AND d.name = a.deployment AND d.release_name = a.release_name
        AND d.depends_on = a.depends_on AND d.on_remove = a.on_remove AND d.reason IS NOT DISTINCT FROM a.reason;
DROP TABLE described;

-- Reports are found by deployment without a join.
ALTER TABLE reports ADD COLUMN deployment BYTEA;
UPDATE reports SET deployment =
    (SELECT decode(replace(a.deployment_uid, '-', ''), 'hex') FROM assignments a WHERE a.id = reports.assignment_id);
DELETE FROM reports WHERE deployment IS NULL;
CREATE INDEX reports_by_deployment ON reports (deployment);
DROP INDEX reports_by_assignment;

DROP TABLE assignments;
ALTER TABLE narrow_assignments RENAME TO assignments;
CREATE INDEX assignments_by_revision ON assignments (revision);
CREATE INDEX assignments_leaving ON assignments (revision) WHERE bundle IS NULL;
