-- The fleet's clock (law 1): one row, updated first in every transaction that changes desired state.
CREATE TABLE clock (
    id BIGINT PRIMARY KEY NOT NULL CHECK (id = 1),
    revision BIGINT NOT NULL
);
INSERT INTO clock (id, revision) VALUES (1, 0);

-- Documents of every kind as they are declared now. Deleted deployments and hosts stay, with deleted_revision set,
-- until every host has confirmed the removal.
CREATE TABLE resources (
    uid TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    workspace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_revision BIGINT NOT NULL,
    deleted_revision BIGINT,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    spec TEXT NOT NULL
);
CREATE UNIQUE INDEX resources_live ON resources (kind, workspace, name) WHERE deleted_revision IS NULL;
CREATE INDEX resources_deleted ON resources (deleted_revision) WHERE deleted_revision IS NOT NULL;

-- Every write, for ever (law 10).
CREATE TABLE changes (
    revision BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    operation TEXT NOT NULL,
    kind TEXT NOT NULL,
    workspace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    uid TEXT NOT NULL,
    before_document TEXT,
    after_document TEXT,
    actor TEXT NOT NULL,
    reason TEXT,
    request_id TEXT NOT NULL,
    PRIMARY KEY (revision, ordinal)
);
CREATE INDEX changes_by_document ON changes (kind, workspace, name, revision);
CREATE FUNCTION changes_are_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'changes is append-only'; END $$;
CREATE TRIGGER changes_are_never_updated BEFORE UPDATE OR DELETE ON changes
FOR EACH STATEMENT EXECUTE FUNCTION changes_are_append_only();

-- Immutable resolutions of deployments.
CREATE TABLE releases (
    id TEXT PRIMARY KEY NOT NULL,
    deployment_uid TEXT NOT NULL,
    number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    inputs_digest BYTEA NOT NULL,
    inputs TEXT NOT NULL,
    UNIQUE (deployment_uid, number)
);

-- What releases render to, once per distinct content.
CREATE TABLE bundles (
    digest BYTEA PRIMARY KEY NOT NULL,
    body BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

-- One row per deployment and host that has it, or has yet to remove it: the hosts' feed.
CREATE TABLE assignments (
    id TEXT PRIMARY KEY NOT NULL,
    deployment_uid TEXT NOT NULL,
    host_uid TEXT NOT NULL,
    workspace TEXT NOT NULL,
    deployment TEXT NOT NULL,
    release_name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    present BOOLEAN NOT NULL,
    outcome BYTEA,
    bundle BYTEA,
    depends_on TEXT NOT NULL,
    on_remove TEXT NOT NULL,
    reason TEXT,
    CHECK (NOT present OR bundle IS NOT NULL)
);
CREATE INDEX assignments_by_host ON assignments (host_uid);
CREATE INDEX assignments_by_deployment ON assignments (deployment_uid, host_uid);
CREATE INDEX assignments_by_revision ON assignments (revision);
CREATE INDEX assignments_by_bundle ON assignments (bundle);

-- Why a host stays on an older release, or has none.
CREATE TABLE render_problems (
    deployment_uid TEXT NOT NULL,
    host_uid TEXT NOT NULL,
    revision BIGINT NOT NULL,
    problem TEXT NOT NULL,
    PRIMARY KEY (deployment_uid, host_uid)
);
CREATE INDEX render_problems_by_host ON render_problems (host_uid);

-- What was observed of hosts.
CREATE TABLE host_status (
    host_uid TEXT PRIMARY KEY NOT NULL,
    enrolled_at BIGINT,
    last_seen BIGINT,
    facts TEXT NOT NULL,
    orphans TEXT NOT NULL,
    report_seq BIGINT NOT NULL,
    acked_cursor BIGINT
);

-- What was observed of deployments on hosts.
CREATE TABLE reports (
    host_uid TEXT NOT NULL,
    assignment_id TEXT NOT NULL,
    release_name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    digest BYTEA,
    phase TEXT NOT NULL,
    message TEXT NOT NULL,
    healthy_since BIGINT,
    commit_id TEXT,
    push TEXT,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (host_uid, assignment_id)
);
CREATE INDEX reports_by_assignment ON reports (assignment_id);

-- Hosts whose facts changed: the planner looks at them again. Facts never take the clock.
CREATE TABLE fact_queue (
    host_uid TEXT PRIMARY KEY NOT NULL,
    queued_at BIGINT NOT NULL
);

-- How far each processor of the feed has come.
CREATE TABLE bookmarks (
    name TEXT PRIMARY KEY NOT NULL,
    revision BIGINT NOT NULL
);

-- Who leads; every write of a leader names the token (law 12).
CREATE TABLE leases (
    name TEXT PRIMARY KEY NOT NULL,
    holder TEXT NOT NULL,
    token BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE tasks (
    id TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    subject TEXT NOT NULL,
    payload TEXT NOT NULL,
    result TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX tasks_by_subject ON tasks (subject, kind);

-- Credentials, hashed: of people and pipelines (admin), of hosts, and one-time ones with which hosts join.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('admin', 'host', 'join')),
    name TEXT NOT NULL,
    host_uid TEXT,
    hash BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    used_by TEXT
);
CREATE INDEX tokens_by_host ON tokens (host_uid);

-- Answers of writes that carried an idempotency key.
CREATE TABLE idempotency_keys (
    actor TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_digest BYTEA NOT NULL,
    answer TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (actor, idempotency_key)
);
