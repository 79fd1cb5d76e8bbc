"""Every statement about workflows and their runs, in one order of locks: the workflow's row first, then its runs.

Nothing here waits for a run that somebody else has locked: with many of them that would end in a deadlock some day,
because a worker records a batch in an order of its own. What is passed over is looked at again (`LEAVE_NEWS`).

Each step is looked up by itself in the index (LATERAL): a join, planned while the table has no statistics yet, compares
each step with each run of the workflow, which for thousands of them takes half a minute.
"""

HINT = "workflow"
"""NOTIFY: a run of some workflow has ended, so something may follow from it."""

START = """
INSERT INTO tasks_app_workflow (id, name, status, on_failure, owner_id, size, shape, enqueued_at)
VALUES (%(id)s, %(name)s, 'READY', %(on_failure)s, %(owner)s, %(size)s, %(shape)s::jsonb, clock_timestamp())
RETURNING enqueued_at
"""

ENQUEUE = """
WITH run AS (
  INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, run_after,
    enqueued_at, attempt, max_attempts, timeout, attempts, workflow_id, step, previous, is_waiting,
    limit_key, about)
  SELECT call.id, task_path, args::jsonb, kwargs::jsonb, queue_name, priority, 'READY', %(owner)s,
    greatest(run_after, %(now)s), %(now)s, 0, max_attempts, timeout, '[]', %(workflow)s, step, previous::jsonb,
    CASE WHEN previous IS NOT NULL THEN true END, limit_key, about
  FROM unnest(%(id)s::uuid[], %(task_path)s::text[], %(args)s::text[], %(kwargs)s::text[], %(queue_name)s::text[],
      %(priority)s::int2[], %(run_after)s::timestamptz[], %(max_attempts)s::int2[], %(timeout)s::float8[],
      %(step)s::int[], %(previous)s::text[], %(limit_key)s::text[], %(about)s::text[])
    AS call(id, task_path, args, kwargs, queue_name, priority, run_after, max_attempts, timeout, step, previous,
      limit_key, about)
  RETURNING CASE WHEN limit_key IS NULL THEN '' ELSE 'limited ' END || queue_name AS hint, is_waiting)
SELECT pg_notify('dumbwaiter', hint) FROM (SELECT DISTINCT hint FROM run WHERE is_waiting IS NULL) AS queue
"""

# The next workflow with news that nobody else is at. Its news are read before it is locked, and the states of its runs
# afterwards, in another statement: so whatever the news were about can be seen by then.
TAKE = """
WITH RECURSIVE told AS (
  (SELECT workflow_id AS id FROM tasks_app_workflownews WHERE workflow_id > %(after)s ORDER BY workflow_id LIMIT 1)
  UNION ALL
  SELECT (SELECT workflow_id FROM tasks_app_workflownews WHERE workflow_id > told.id ORDER BY workflow_id LIMIT 1)
  FROM told WHERE told.id IS NOT NULL),
few AS MATERIALIZED (SELECT id FROM told WHERE id IS NOT NULL LIMIT 100),
taken AS MATERIALIZED (
  SELECT workflow.id, name, status, on_failure, shape, cancel_requested_at, message
  FROM few JOIN tasks_app_workflow AS workflow ON workflow.id = few.id
  ORDER BY workflow.id LIMIT 1 FOR UPDATE OF workflow SKIP LOCKED),
gone AS (
  DELETE FROM tasks_app_workflownews AS news
  WHERE workflow_id IN (SELECT id FROM taken)
    OR workflow_id IN (SELECT id FROM few WHERE NOT EXISTS (SELECT FROM tasks_app_workflow WHERE id = few.id)))
SELECT id, name, status, on_failure, shape, cancel_requested_at IS NOT NULL, message FROM taken
"""

LOCK = "SELECT id FROM tasks_app_workflow WHERE id = %(workflow)s FOR UPDATE SKIP LOCKED"

# One letter a run: `tasks_app.engine.flow` says which.
STATES = """
SELECT array_agg(step ORDER BY step), string_agg(CASE status WHEN 'SUCCESSFUL' THEN 'S' WHEN 'FAILED' THEN 'F'
  WHEN 'CANCELLED' THEN 'C' ELSE CASE WHEN claimed_by IS NULL THEN CASE WHEN is_waiting IS NULL THEN 'R'
      WHEN previous ? 'args' THEN 'A' ELSE 'W' END
    WHEN cancel_requested_at IS NULL THEN 'H' ELSE 'T' END END, '' ORDER BY step)
FROM tasks_app_taskrun WHERE workflow_id = %(workflow)s
"""

SIZES = """
SELECT step, octet_length(return_value::text) FROM tasks_app_taskrun
WHERE workflow_id = %(workflow)s AND step = ANY (%(steps)s)
"""

RESULTS = """
SELECT step, return_value::text FROM tasks_app_taskrun WHERE workflow_id = %(workflow)s AND step = ANY (%(steps)s)
"""

# Each step with the number of the value that it may ask for, from 1: many share one. Arguments that would be too large
# end the run here, lest they be met by a worker.
RELEASE = """
WITH next AS MATERIALIZED (
  SELECT id, run.previous ? 'args' AS asks, (%(values)s::text[])[number] AS value,
    run.previous ? 'args' AND octet_length(args::text) + octet_length(kwargs::text) + (%(sizes)s::int8[])[number]
      * (jsonb_array_length(previous->'args') + jsonb_array_length(previous->'kwargs')) > %(most)s AS is_too_large
  FROM unnest(%(steps)s::int[], %(numbers)s::int[]) AS picked(step, number), LATERAL (
    SELECT id, args, kwargs, previous FROM tasks_app_taskrun
    WHERE workflow_id = %(workflow)s AND step = picked.step AND status = 'READY' AND is_waiting
    ORDER BY workflow_id, step LIMIT 1 FOR UPDATE SKIP LOCKED) AS run),
run AS (
  UPDATE tasks_app_taskrun AS run
  SET is_waiting = NULL, run_after = greatest(run.run_after, clock_timestamp()),
    status = CASE WHEN is_too_large THEN 'FAILED' ELSE run.status END,
    finished_at = CASE WHEN is_too_large THEN clock_timestamp() END,
    failure = CASE WHEN is_too_large THEN 'rejected' END,
    failure_message = CASE WHEN is_too_large THEN %(said)s END,
    args = CASE WHEN is_too_large OR NOT next.asks OR run.previous->'args' = '[]' THEN run.args ELSE (
      SELECT jsonb_agg(CASE WHEN run.previous->'args' @> to_jsonb(place - 1) THEN next.value::jsonb ELSE given END
        ORDER BY place)
      FROM jsonb_array_elements(run.args) WITH ORDINALITY AS argument(given, place)) END,
    kwargs = CASE WHEN is_too_large OR NOT next.asks OR run.previous->'kwargs' = '[]' THEN run.kwargs
      ELSE run.kwargs || (SELECT jsonb_object_agg(name, next.value::jsonb)
        FROM jsonb_array_elements_text(run.previous->'kwargs') AS name) END
  FROM next WHERE run.id = ANY (ARRAY[next.id])
  RETURNING run.step, run.status,
    CASE WHEN run.limit_key IS NULL THEN '' ELSE 'limited ' END || run.queue_name AS hint)
SELECT step, status, CASE WHEN status = 'READY' THEN pg_notify('dumbwaiter', hint) END FROM run
"""

# What no worker holds ends at once.
CANCEL = """
WITH unheld AS MATERIALIZED (
  SELECT run.id, because.said
  FROM unnest(%(steps)s::int[], %(said)s::text[]) AS because(step, said), LATERAL (
    SELECT id FROM tasks_app_taskrun
    WHERE workflow_id = %(workflow)s AND step = because.step AND status = 'READY' AND claimed_by IS NULL
    ORDER BY workflow_id, step LIMIT 1 FOR UPDATE SKIP LOCKED) AS run)
UPDATE tasks_app_taskrun AS run
SET status = 'CANCELLED', finished_at = clock_timestamp(), failure_message = unheld.said,
  cancel_requested_at = coalesce(run.cancel_requested_at, clock_timestamp())
FROM unheld WHERE run.id = ANY (ARRAY[unheld.id])
RETURNING run.step
"""

# What a worker holds: it is told to stop, as it is of a run that is cancelled by itself.
TELL = """
WITH held AS MATERIALIZED (
  SELECT id FROM tasks_app_taskrun
  WHERE workflow_id = %(workflow)s AND step = ANY (%(steps)s) AND status IN ('READY', 'RUNNING')
    AND claimed_by IS NOT NULL AND cancel_requested_at IS NULL
  ORDER BY id FOR UPDATE SKIP LOCKED),
run AS (
  UPDATE tasks_app_taskrun AS run SET cancel_requested_at = clock_timestamp(), failure_message = %(said)s
  FROM held WHERE run.id = ANY (ARRAY[held.id])
  RETURNING run.id, run.step)
SELECT step, pg_notify('dumbwaiter', 'cancel ' || id) FROM run
"""

CAUSES = """
SELECT step, task_path, status FROM tasks_app_taskrun WHERE workflow_id = %(workflow)s AND step = ANY (%(steps)s)
"""

MOVE = """
UPDATE tasks_app_workflow SET status = %(status)s::text, message = %(message)s,
  finished_at = CASE WHEN %(status)s::text IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') THEN clock_timestamp() END
WHERE id = %(workflow)s
"""

# Of what this very transaction has ended, all that follows is known to it.
FORGET_OWN_NEWS = """
DELETE FROM tasks_app_workflownews
WHERE workflow_id = %(workflow)s AND xmin = pg_current_xact_id()::xid
"""

LEAVE_NEWS = "INSERT INTO tasks_app_workflownews (workflow_id) VALUES (%(workflow)s)"

WISH_CANCELLED = """
UPDATE tasks_app_workflow
SET message = CASE WHEN cancel_requested_at IS NULL THEN %(said)s ELSE message END,
  cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
WHERE id = %(workflow)s AND status IN ('READY', 'RUNNING')
RETURNING message
"""

TELL_SENTINELS = "SELECT pg_notify('dumbwaiter', 'workflow')"
