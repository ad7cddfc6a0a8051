-- What pipelines report of workloads: commits of their source, and builds. The newest of each are kept.
CREATE TABLE sources (
    workload_uid TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    report TEXT NOT NULL,
    actor TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (workload_uid, commit_id)
);
CREATE INDEX sources_by_time ON sources (workload_uid, seen_at);

CREATE TABLE builds (
    workload_uid TEXT NOT NULL,
    build_id TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'cancelled')),
    version TEXT,
    report TEXT NOT NULL,
    actor TEXT NOT NULL,
    began_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (workload_uid, build_id)
);
CREATE INDEX builds_by_time ON builds (workload_uid, began_at);

-- Tasks: what they belong to, and who does them. due_at: when somebody may take it, none if it waits for what comes from
-- outside. token: counts who took it, so that whoever was too slow is refused.
ALTER TABLE tasks ADD COLUMN workspace TEXT;
ALTER TABLE tasks ADD COLUMN parent TEXT;
ALTER TABLE tasks ADD COLUMN attempts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN error TEXT;
ALTER TABLE tasks ADD COLUMN due_at BIGINT;
ALTER TABLE tasks ADD COLUMN holder TEXT;
ALTER TABLE tasks ADD COLUMN token BIGINT NOT NULL DEFAULT 0;
CREATE INDEX tasks_by_parent ON tasks (parent) WHERE parent IS NOT NULL;
CREATE INDEX tasks_due ON tasks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_by_time ON tasks (created_at, id);
