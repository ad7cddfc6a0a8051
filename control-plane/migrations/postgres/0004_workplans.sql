-- Plans: one row each, which every step of the plan moves on by its version. What the engine knows of it is JSON; what is
-- looked for has a column.
CREATE TABLE workplans (
    id TEXT PRIMARY KEY NOT NULL,
    workspace TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    version BIGINT NOT NULL,
    plan TEXT NOT NULL,
    events BIGINT NOT NULL,
    parent TEXT,
    parent_node TEXT,
    parent_attempt BIGINT,
    live BOOLEAN NOT NULL,
    due_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX workplans_by_time ON workplans (created_at, id);
CREATE INDEX workplans_due ON workplans (due_at) WHERE due_at IS NOT NULL;

-- Nodes. timer: when something happens by itself, by the plan's clock; due_at: the same by the wall clock, none while the
-- plan is paused. queue: where an attempt waits for somebody to take it.
CREATE TABLE workplan_nodes (
    plan_id TEXT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT,
    ready BOOLEAN NOT NULL,
    node TEXT NOT NULL,
    says TEXT NOT NULL,
    spec TEXT NOT NULL,
    timer BIGINT,
    due_at BIGINT,
    queue TEXT,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (plan_id, name)
);
CREATE INDEX workplan_nodes_by_state ON workplan_nodes (plan_id, state);
CREATE INDEX workplan_nodes_due ON workplan_nodes (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX workplan_nodes_queued ON workplan_nodes (queue, updated_at) WHERE queue IS NOT NULL;

-- Who waits for whom, and what became of it.
CREATE TABLE workplan_edges (
    plan_id TEXT NOT NULL,
    target TEXT NOT NULL,
    source TEXT NOT NULL,
    group_number BIGINT NOT NULL,
    condition TEXT NOT NULL,
    met BOOLEAN,
    PRIMARY KEY (plan_id, target, source, group_number, condition)
);
CREATE INDEX workplan_edges_by_source ON workplan_edges (plan_id, source);

CREATE TABLE workplan_attempts (
    plan_id TEXT NOT NULL,
    node TEXT NOT NULL,
    number BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'scheduled', 'running', 'complete', 'incomplete')),
    process_uid TEXT,
    code TEXT,
    failure_message TEXT,
    details TEXT,
    progress TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (plan_id, node, number)
);
CREATE UNIQUE INDEX workplan_attempts_live ON workplan_attempts (plan_id, node) WHERE state NOT IN ('complete', 'incomplete');
CREATE INDEX workplan_attempts_running ON workplan_attempts (process_uid) WHERE state = 'running';

-- What was answered to checks.
CREATE TABLE workplan_results (
    plan_id TEXT NOT NULL,
    node TEXT NOT NULL,
    number BIGINT NOT NULL,
    owner TEXT NOT NULL,
    data TEXT,
    failure_message TEXT,
    created_at BIGINT NOT NULL,
    finalized_at BIGINT,
    PRIMARY KEY (plan_id, node, number)
);

-- Every transition, for ever; applied in order they give the plan.
CREATE TABLE workplan_events (
    plan_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (plan_id, number)
);
CREATE FUNCTION workplan_events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'workplan_events is append-only'; END $$;
CREATE TRIGGER workplan_events_are_never_updated BEFORE UPDATE OR DELETE ON workplan_events
FOR EACH STATEMENT EXECUTE FUNCTION workplan_events_are_append_only();

-- Signals that were taken: the same request id is taken once.
CREATE TABLE workplan_signals (
    plan_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    signal TEXT NOT NULL,
    request TEXT NOT NULL,
    actor TEXT NOT NULL,
    version BIGINT NOT NULL,
    accepted_at BIGINT NOT NULL,
    PRIMARY KEY (plan_id, request_id)
);
