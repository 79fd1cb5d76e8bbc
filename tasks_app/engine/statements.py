"""Every statement with which the engine moves a run, each legal only from the states that its WHERE names.

What people do to runs stands in `verbs`.

A run is held by one worker as `claimed_by`, for one `attempt`. Whoever writes about a run names both, so a worker that
lost its claim changes nothing. All times are the server's: a worker gives only how many seconds after its claim a
thing happened, because the clocks of hosts differ.

Runs are joined by `run.id = ANY (ARRAY[other.id])`. It says the same as `=`, but the planner can use it only to look
each one up. With `=` it may read the whole table in the order of its key instead, and does when it believes it to be
almost empty: as after an ANALYZE that came while a large insert was not committed yet.
"""

CHANNEL = "dumbwaiter"
"""NOTIFY on it names a queue with new work, or says `cancel <run id>`. Only hints: all is found without them too."""

CANCEL_HINT = "cancel "

STEER_HINT = "steer"
"""NOTIFY: what somebody desires of a cluster has changed, or a schedule; it asks at once instead of in a second."""


def holder(claimed_by: str, whole_cluster: bool = False) -> dict[str, str]:
    """The range of `claimed_by` that one worker holds, or all the workers of a cluster, for an index to read."""
    if whole_cluster:
        return {"holder": f"{claimed_by}:", "beyond": f"{claimed_by};"}  # ";" follows ":" in ASCII
    return {"holder": claimed_by, "beyond": f"{claimed_by}\x01"}


# As plain as can be, because it may be parsed and planned anew for each run. Its own time, not the clock's: both
# columns have to be the same moment. Answered as a number, which psycopg reads ten times as fast as a time.
ENQUEUE = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, run_after,
  enqueued_at, attempt, max_attempts, timeout, attempts)
VALUES (%(id)s, %(task_path)s, %(args)s, %(kwargs)s, %(queue_name)s, %(priority)s, 'READY', %(owner)s,
  greatest(%(run_after)s::timestamptz, statement_timestamp()), statement_timestamp(), 0, %(max_attempts)s, %(timeout)s,
  '[]')
RETURNING extract(epoch FROM enqueued_at)::float8, pg_notify('dumbwaiter', queue_name)
"""

# The same for a run under a limit.
ENQUEUE_LIMITED = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, run_after,
  enqueued_at, attempt, max_attempts, timeout, attempts, limit_key)
VALUES (%(id)s, %(task_path)s, %(args)s, %(kwargs)s, %(queue_name)s, %(priority)s, 'READY', %(owner)s,
  greatest(%(run_after)s::timestamptz, statement_timestamp()), statement_timestamp(), 0, %(max_attempts)s, %(timeout)s,
  '[]', %(limit_key)s)
RETURNING extract(epoch FROM enqueued_at)::float8, pg_notify('dumbwaiter', 'limited ' || queue_name)
"""

# The same for many runs of one task, with one moment and one NOTIFY for all of them.
ENQUEUE_MANY = """
WITH now AS (SELECT clock_timestamp() AS at), run AS (
  INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id,
    run_after, enqueued_at, attempt, max_attempts, timeout, attempts)
  SELECT call.id, %(task_path)s, call.args::jsonb, call.kwargs::jsonb, %(queue_name)s, %(priority)s, 'READY', %(owner)s,
    greatest(%(run_after)s::timestamptz, now.at), now.at, 0, %(max_attempts)s, %(timeout)s, '[]'
  FROM now, unnest(%(id)s::uuid[], %(args)s::text[], %(kwargs)s::text[]) AS call(id, args, kwargs))
SELECT pg_notify('dumbwaiter', %(queue_name)s)
"""

ENQUEUE_MANY_LIMITED = """
WITH now AS (SELECT clock_timestamp() AS at), run AS (
  INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id,
    run_after, enqueued_at, attempt, max_attempts, timeout, attempts, limit_key)
  SELECT call.id, %(task_path)s, call.args::jsonb, call.kwargs::jsonb, %(queue_name)s, %(priority)s, 'READY', %(owner)s,
    greatest(%(run_after)s::timestamptz, now.at), now.at, 0, %(max_attempts)s, %(timeout)s, '[]', %(limit_key)s
  FROM now, unnest(%(id)s::uuid[], %(args)s::text[], %(kwargs)s::text[]) AS call(id, args, kwargs))
SELECT pg_notify('dumbwaiter', 'limited ' || %(queue_name)s)
"""

# A run that asks for more: to be the only one of its key, to be one however often it is sent, to expire, to be about
# something. Whoever has its key stands, committed or made by this very transaction; one that is not committed yet is
# waited for. Expiry counts from when the run may begin.
ENQUEUE_WITH_WISHES = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, run_after,
  enqueued_at, attempt, max_attempts, timeout, attempts, unique_key, unique_until, idempotency_key, expires_at,
  limit_key, about)
SELECT %(id)s, %(task_path)s, %(args)s, %(kwargs)s, %(queue_name)s, %(priority)s, 'READY', %(owner)s, due.at,
  statement_timestamp(), 0, %(max_attempts)s, %(timeout)s, '[]', %(unique_key)s,
  statement_timestamp() + make_interval(secs => %(unique_for)s), %(idempotency_key)s,
  coalesce(%(expires_at)s::timestamptz, due.at + make_interval(secs => %(expires_after)s)), %(limit_key)s, %(about)s
FROM (SELECT greatest(%(run_after)s::timestamptz, statement_timestamp()) AS at) AS due
ON CONFLICT DO NOTHING
RETURNING extract(epoch FROM enqueued_at)::float8, expires_at,
  pg_notify('dumbwaiter', CASE WHEN limit_key IS NULL THEN '' ELSE 'limited ' END || queue_name)
"""

# The same for many, in the order of their keys: two that want the same ones do not wait for each other crosswise.
ENQUEUE_MANY_WITH_WISHES = """
WITH run AS (
  INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, run_after,
    enqueued_at, attempt, max_attempts, timeout, attempts, unique_key, unique_until, expires_at,
    limit_key, about)
  SELECT call.id, %(task_path)s, call.args::jsonb, call.kwargs::jsonb, %(queue_name)s, %(priority)s, 'READY', %(owner)s,
    due.at, statement_timestamp(), 0, %(max_attempts)s, %(timeout)s, '[]', call.unique_key,
    statement_timestamp() + make_interval(secs => %(unique_for)s),
    coalesce(%(expires_at)s::timestamptz, due.at + make_interval(secs => %(expires_after)s)), %(limit_key)s, %(about)s
  FROM (SELECT greatest(%(run_after)s::timestamptz, statement_timestamp()) AS at) AS due,
    unnest(%(id)s::uuid[], %(args)s::text[], %(kwargs)s::text[], %(unique_key)s::text[])
      AS call(id, args, kwargs, unique_key)
  ON CONFLICT DO NOTHING RETURNING id)
SELECT id FROM run,
  pg_notify('dumbwaiter', CASE WHEN %(limit_key)s::text IS NULL THEN '' ELSE 'limited ' END || %(queue_name)s)
"""

# The run that has the key gets what the newest submission brings, unless a worker has it. Its place in line and the
# wait before another attempt stay, and so does the key's time.
REPLACE = """
UPDATE tasks_app_taskrun AS run
SET args = %(args)s, kwargs = %(kwargs)s, priority = %(priority)s, about = %(about)s,
  run_after = CASE WHEN run.attempt > 0 OR run.attempts <> '[]' OR run.unknown_since IS NOT NULL THEN run.run_after
    WHEN %(run_after)s::timestamptz > statement_timestamp() THEN %(run_after)s ELSE run.enqueued_at END,
  expires_at = CASE WHEN run.attempt > 0 OR run.attempts <> '[]' THEN run.expires_at
    ELSE coalesce(%(expires_at)s::timestamptz, greatest(%(run_after)s::timestamptz, statement_timestamp())
      + make_interval(secs => %(expires_after)s)) END
WHERE unique_key = %(unique_key)s AND status = 'READY' AND claimed_by IS NULL
RETURNING id, pg_notify('dumbwaiter', queue_name)
"""

# A key whose time is over. Only of runs that have ended, which no worker writes any more: a caller who does not commit
# for long holds up nobody's finish. An unfinished run keeps its key.
RELEASE_KEY = """
UPDATE tasks_app_taskrun SET unique_until = NULL
WHERE unique_key = ANY (%(unique_keys)s::text[]) AND unique_until <= clock_timestamp()
  AND status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
"""

IS_PAUSED = "(paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > clock_timestamp()))"
"""True of a queue's or task's row while nothing of it may be claimed."""

IS_POLICY = f"(max_running IS NOT NULL OR rate_count IS NOT NULL OR {IS_PAUSED})"
"""True of a task's row that says anything at all just now."""

IS_IN_TIME = "(expires_at IS NULL OR expires_at > clock_timestamp() OR attempt > 0 OR attempts <> '[]')"
"""True of a run that has not expired: only one that was never begun does."""

# From a queue without policy: who has not heard yet that it is paused or limited finds nothing here. A run of a task
# that somebody limited or paused since it was sent is put under its key instead of claimed, and comes back without a
# `claimed_at`; the claim of limited runs (`engine.limits`) goes on with it.
# The time of the statement, because an index is not searched by one that changes meanwhile: all that is scheduled would
# be read, again and again. What Python cannot read, such as a moment that is infinite, would stop the queue and not
# only the row that has it.
CLAIM = f"""
WITH next AS MATERIALIZED (
  SELECT id, EXISTS (SELECT FROM tasks_app_tasklimit WHERE key = task_path AND {IS_POLICY}) AS is_stray
  FROM tasks_app_taskrun
  WHERE queue_name = %(queue)s AND status = 'READY' AND claimed_by IS NULL AND run_after <= statement_timestamp()
    AND limit_key IS NULL AND is_waiting IS NULL AND {IS_IN_TIME}
    AND NOT EXISTS (SELECT FROM tasks_app_queue WHERE name = %(queue)s AND (max_running IS NOT NULL OR {IS_PAUSED}))
  ORDER BY priority DESC, run_after, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE tasks_app_taskrun AS run
SET claimed_by = CASE WHEN NOT is_stray THEN %(me)s END,
  claimed_at = CASE WHEN NOT is_stray THEN clock_timestamp() END, started_at = NULL, progress = NULL,
  attempt = least(run.attempt, 32766) + CASE WHEN is_stray THEN 0 ELSE 1 END,
  limit_key = CASE WHEN is_stray THEN run.task_path END
FROM next WHERE run.id = ANY (ARRAY[next.id])
RETURNING run.id, run.task_path, run.args, run.kwargs, run.queue_name, run.priority, run.attempt, run.max_attempts,
  run.timeout, greatest(least(run.enqueued_at, run.claimed_at), 'epoch'), run.claimed_at
"""  # noqa: S608  its parts are ours

# What nobody began in time, whatever it waited for, so many at once; one that was begun forgets when it would expire.
# A run that somebody is just writing to has its turn when that is done. Also tells in how many seconds the next one
# expires, if that is soon.
EXPIRE = """
WITH late AS MATERIALIZED (
  SELECT id, attempt = 0 AND attempts = '[]' AS is_over FROM tasks_app_taskrun
  WHERE status = 'READY' AND claimed_by IS NULL AND expires_at <= statement_timestamp()
  ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
run AS (
  UPDATE tasks_app_taskrun AS run
  SET status = CASE WHEN late.is_over THEN 'CANCELLED' ELSE run.status END,
    finished_at = CASE WHEN late.is_over THEN clock_timestamp() END,
    failure_message = CASE WHEN late.is_over THEN 'Not started by '
      || to_char(run.expires_at AT TIME ZONE 'UTC', 'HH24:MI:SS') || ' UTC, when it expired.'
      ELSE run.failure_message END,
    expires_at = CASE WHEN late.is_over THEN run.expires_at END
  FROM late WHERE run.id = ANY (ARRAY[late.id])
  RETURNING late.is_over)
SELECT count(*), count(*) FILTER (WHERE is_over),
  (SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM tasks_app_taskrun
    WHERE status = 'READY' AND claimed_by IS NULL
      AND expires_at > statement_timestamp() AND expires_at <= statement_timestamp() + interval '2 s'
    ORDER BY expires_at LIMIT 1)
FROM run
"""

REPORT = """
UPDATE tasks_app_taskrun
SET status = 'RUNNING', started_at = claimed_at + make_interval(secs => %(began)s),
  progress = coalesce(%(progress)s::jsonb, progress)
WHERE id = %(id)s AND attempt = %(attempt)s AND claimed_by = %(me)s AND status IN ('READY', 'RUNNING')
"""

# Status, result and release in one statement. The claim's holder stays written as the one who ended it: only READY and
# RUNNING runs are held. IS NOT DISTINCT FROM, because with "=" a planner with old statistics reads all that this worker
# holds for each of them, instead of the primary key. An attempt with a `retry_in` is not the end: the run is READY
# again, from that moment on.
FINISH = """
UPDATE tasks_app_taskrun AS run
SET status = CASE WHEN done.retry_in IS NULL OR run.cancel_requested_at IS NULL THEN done.status ELSE 'CANCELLED' END,
  claimed_by = CASE WHEN done.retry_in IS NULL OR run.cancel_requested_at IS NOT NULL THEN run.claimed_by END,
  started_at = CASE WHEN done.retry_in IS NULL OR run.cancel_requested_at IS NOT NULL
    THEN run.claimed_at + make_interval(secs => done.began) END,
  finished_at = CASE WHEN done.retry_in IS NULL OR run.cancel_requested_at IS NOT NULL
    THEN run.claimed_at + make_interval(secs => done.ended) END,
  run_after = CASE WHEN done.retry_in IS NULL THEN run.run_after
    ELSE run.claimed_at + make_interval(secs => done.ended + done.retry_in) END,
  progress = coalesce(done.progress::jsonb, run.progress), return_value = done.return_value::jsonb,
  failure = CASE WHEN done.retry_in IS NULL THEN done.failure END, unknown_since = NULL,
  failure_message = CASE WHEN done.status = 'CANCELLED' OR done.retry_in IS NOT NULL THEN run.failure_message
    ELSE done.message END,
  attempts = CASE WHEN done.entry IS NULL THEN run.attempts ELSE run.attempts || jsonb_build_array(
    done.entry::jsonb || jsonb_build_object('attempt', run.attempt, 'worker', run.claimed_by,
      'started_at', run.claimed_at + make_interval(secs => done.began),
      'ended_at', run.claimed_at + make_interval(secs => done.ended))) END
FROM json_to_recordset(%(done)s::json)
  AS done(id uuid, attempt int2, status text, began float8, ended float8, progress text, return_value text,
    failure text, message text, entry text, retry_in float8)
WHERE run.id = ANY (ARRAY[done.id]) AND run.attempt = done.attempt AND run.claimed_by IS NOT DISTINCT FROM %(me)s
  AND run.status IN ('READY', 'RUNNING')
RETURNING run.id
"""

# A task that this worker's code does not have, or cannot import: in a rolling deployment other code comes along, so the
# run goes back uncharged, due again after a growing wait, until it was looked for long enough.
NOT_FOUND = """
UPDATE tasks_app_taskrun AS run
SET status = held.becomes,
  claimed_by = CASE WHEN held.becomes <> 'READY' THEN run.claimed_by END,
  claimed_at = CASE WHEN held.becomes <> 'READY' THEN run.claimed_at END,
  started_at = CASE WHEN held.becomes = 'FAILED' THEN run.claimed_at END, progress = NULL,
  finished_at = CASE WHEN held.becomes <> 'READY' THEN held.now END,
  attempt = run.attempt - CASE WHEN held.becomes = 'FAILED' THEN 0 ELSE 1 END,
  run_after = CASE WHEN held.becomes = 'READY'
    THEN held.now + least(greatest(held.now - held.since, interval '1 s'), interval '15 s') ELSE run.run_after END,
  unknown_since = held.since,
  failure = CASE WHEN held.becomes = 'FAILED' THEN 'rejected' END,
  failure_message = CASE WHEN held.becomes = 'CANCELLED' THEN run.failure_message ELSE held.message END,
  attempts = CASE WHEN held.becomes <> 'FAILED' THEN run.attempts ELSE run.attempts || jsonb_build_array(
    held.entry::jsonb || jsonb_build_object('attempt', run.attempt, 'worker', run.claimed_by,
      'started_at', run.claimed_at, 'ended_at', held.now)) END
FROM (
  SELECT own.id, missing.message, missing.entry, now.at AS now, coalesce(own.unknown_since, now.at) AS since,
    CASE WHEN own.cancel_requested_at IS NOT NULL THEN 'CANCELLED'
      WHEN now.at - coalesce(own.unknown_since, now.at) < make_interval(secs => %(patience)s) THEN 'READY'
      ELSE 'FAILED' END AS becomes
  FROM (SELECT clock_timestamp() AS at) AS now,
    unnest(%(id)s::uuid[], %(attempt)s::int2[], %(message)s::text[], %(entry)s::text[])
      AS missing(id, attempt, message, entry)
  JOIN tasks_app_taskrun AS own ON own.id = ANY (ARRAY[missing.id]) AND own.attempt = missing.attempt
    AND own.claimed_by IS NOT DISTINCT FROM %(me)s AND own.status IN ('READY', 'RUNNING')) AS held
WHERE run.id = ANY (ARRAY[held.id]) AND run.claimed_by IS NOT DISTINCT FROM %(me)s
  AND run.status IN ('READY', 'RUNNING')
RETURNING run.id, run.status, run.run_after - clock_timestamp()
"""

LOG = """
INSERT INTO tasks_app_runlog (run_id, attempt, at, level, text)
SELECT * FROM
  unnest(%(run_id)s::uuid[], %(attempt)s::int2[], %(at)s::timestamptz[], %(level)s::int2[], %(text)s::text[])
"""

# After a finish that changed nothing: did an earlier try of the same finish go through, its answer lost on the way?
# A run that is to be tried again is held by nobody by then, but has the entry of this attempt.
ALREADY_DONE = """
SELECT (claimed_by = %(me)s AND attempt = %(attempt)s AND status = %(status)s)
  OR attempts @> jsonb_build_array(jsonb_build_object('attempt', %(attempt)s::int, 'worker', %(me)s::text,
    'reason', %(reason)s::text))
FROM tasks_app_taskrun WHERE id = %(id)s
"""

# Single runs that a worker took and has not begun: it has enough to do with the one before them.
RELEASE = """
WITH run AS (
  UPDATE tasks_app_taskrun AS run SET claimed_by = NULL, claimed_at = NULL, attempt = run.attempt - 1,
    status = CASE WHEN run.cancel_requested_at IS NULL THEN 'READY' ELSE 'CANCELLED' END,
    finished_at = CASE WHEN run.cancel_requested_at IS NOT NULL THEN clock_timestamp() END
  FROM unnest(%(id)s::uuid[], %(attempt)s::int2[]) AS owed(id, attempt)
  WHERE run.id = ANY (ARRAY[owed.id]) AND run.attempt = owed.attempt AND run.claimed_by IS NOT DISTINCT FROM %(me)s
    AND run.status = 'READY'
  RETURNING run.queue_name)
SELECT pg_notify('dumbwaiter', queue_name) FROM (SELECT DISTINCT queue_name FROM run) AS queue
"""

# The rest of a batch whose worker stands still, in the middle of it or before it heard what its claim got it, for the
# sentinel to give away. What the worker takes after that moment is another batch.
HOLDS_REST = """
SELECT 1 FROM tasks_app_taskrun WHERE claimed_by = %(holder)s AND status = 'READY' AND id <> ALL (%(begun)s::uuid[])
LIMIT 1
"""
RELEASE_REST = """
WITH run AS (
  UPDATE tasks_app_taskrun SET claimed_by = NULL, claimed_at = NULL, attempt = attempt - 1,
    status = CASE WHEN cancel_requested_at IS NULL THEN 'READY' ELSE 'CANCELLED' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN clock_timestamp() END
  WHERE claimed_by = %(holder)s AND status = 'READY' AND claimed_at < %(before)s AND id <> ALL (%(begun)s::uuid[])
  RETURNING id, queue_name)
SELECT id, pg_notify('dumbwaiter', queue_name) FROM run
"""

# All that a worker or a cluster holds, uncharged: it stops before it is done, or has not begun it. What had begun says
# so among its attempts, because it is going to be executed once more.
GIVE_BACK = """
WITH run AS (
  UPDATE tasks_app_taskrun
  SET status = CASE WHEN cancel_requested_at IS NULL THEN 'READY' ELSE 'CANCELLED' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN clock_timestamp() END,
    claimed_by = NULL, claimed_at = NULL, started_at = NULL, progress = NULL, attempt = attempt - 1,
    attempts = CASE WHEN status = 'READY' AND id <> ALL (%(begun)s::uuid[]) THEN attempts
      ELSE attempts || jsonb_build_array(jsonb_build_object(
        'reason', 'given_back', 'message', 'Its worker was stopped before it ended.', 'attempt', attempt,
        'worker', claimed_by, 'started_at', coalesce(started_at, claimed_at), 'ended_at', clock_timestamp())) END
  WHERE claimed_by >= %(holder)s AND claimed_by < %(beyond)s AND status IN ('READY', 'RUNNING')
    AND id <> ALL (%(but)s::uuid[])
  RETURNING id, queue_name)
SELECT id, 'READY', pg_notify('dumbwaiter', queue_name) FROM run
"""

# The sessions of a worker that lost its connection, or its life. One that waits for a lock does not notice that nobody
# listens to it: it would commit its claim when all that this worker held was given back, and nobody would know of it.
# Behind PgBouncer a name is that of the client which used the session last, so at worst an idle one is ended.
END_SESSIONS = """
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
WHERE application_name LIKE %(names)s AND datname = current_database() AND pid <> pg_backend_pid()
  AND pg_has_role(usesysid, 'USAGE')
"""

# Work whose worker died: the attempt was charged at the claim, so a task that kills its worker ends here some day.
# `begun` tells the runs that had begun from those that only lay ready beside them; NULL means nobody knows.
TAKE_FROM_LOST = """
WITH held AS MATERIALIZED (
  SELECT id, CASE WHEN cancel_requested_at IS NOT NULL THEN 'CANCELLED'
    WHEN attempt < max_attempts AND %(reason)s = 'worker_lost' THEN 'READY' ELSE 'FAILED' END AS becomes
  FROM tasks_app_taskrun
  WHERE claimed_by >= %(holder)s AND claimed_by < %(beyond)s AND status IN ('READY', 'RUNNING')
    AND (%(begun)s::uuid[] IS NULL OR id = ANY (%(begun)s) OR status = 'RUNNING')
  FOR UPDATE),
run AS (
  UPDATE tasks_app_taskrun AS run
  SET status = held.becomes,
    claimed_by = CASE WHEN held.becomes <> 'READY' THEN claimed_by END,
    started_at = CASE WHEN held.becomes <> 'READY' THEN coalesce(started_at, claimed_at) END,
    finished_at = CASE WHEN held.becomes <> 'READY' THEN clock_timestamp() END,
    failure = CASE WHEN held.becomes = 'FAILED' THEN %(reason)s END,
    failure_message = CASE WHEN held.becomes = 'FAILED' THEN %(message)s
      WHEN held.becomes = 'CANCELLED' THEN failure_message END,
    attempts = attempts || jsonb_build_array(jsonb_build_object(
      'reason', CASE WHEN held.becomes = 'CANCELLED' THEN 'cancelled' ELSE %(reason)s::text END,
      'message', %(message)s::text, 'attempt', attempt, 'worker', claimed_by,
      'started_at', coalesce(started_at, claimed_at), 'ended_at', clock_timestamp()))
  FROM held WHERE run.id = ANY (ARRAY[held.id])
  RETURNING run.id, run.status, run.queue_name, run.task_path)
SELECT id, status, task_path, CASE WHEN status = 'READY' THEN pg_notify('dumbwaiter', queue_name) END FROM run
"""

# A statement goes on in the database although its sender has died or was declared lost, so a claim may come true after
# all that its worker held was taken back. Whoever holds a run is a worker that this sentinel knows to be alive, or one
# of another cluster that is not gone.
HELD_BY_NOBODY = """
SELECT DISTINCT run.claimed_by, run.claimed_by >= %(holder)s AND run.claimed_by < %(beyond)s
FROM tasks_app_taskrun AS run
WHERE run.status IN ('READY', 'RUNNING') AND run.claimed_by IS NOT NULL
  AND CASE WHEN run.claimed_by >= %(holder)s AND run.claimed_by < %(beyond)s THEN run.claimed_by <> ALL (%(alive)s)
    ELSE EXISTS (SELECT FROM tasks_app_cluster AS gone
      WHERE left(replace(gone.id::text, '-', ''), 12) = split_part(run.claimed_by, ':', 1)
        AND (gone.lost_at IS NOT NULL OR gone.stopped_at IS NOT NULL)) END
"""

# A cluster that begins anew under another id is still wished to be what it was wished to be.
REGISTER = """
INSERT INTO tasks_app_cluster
  (id, name, queues, host, pid, workers, busy, desired_workers, desired_state, started_at, heartbeat_at, rescued)
SELECT %(id)s, %(name)s, %(queues)s::jsonb, %(host)s, %(pid)s, %(workers)s, 0, before.desired_workers,
  coalesce(before.desired_state, 'run'), clock_timestamp(), clock_timestamp(), 0
FROM (SELECT) AS new LEFT JOIN tasks_app_cluster AS before ON before.id = %(before)s
ON CONFLICT (id) DO UPDATE SET heartbeat_at = clock_timestamp(), pid = excluded.pid
"""

# One statement a second says "alive" and asks for what a lost NOTIFY would have told: is there work now, when do the
# next run and the next schedule fall due (in seconds, looked for up to two seconds ahead; 0 for a schedule that is
# overdue; a paused one not before it goes on), which runs held here are to be cancelled, are there news of workflows,
# and when does the next run expire. It also tells which of the queues are to be claimed from under limits; whether
# something could be claimed there is another question (`limits.OPENINGS`), asked only then. What the cluster tells of
# itself travels with it.
HEARTBEAT = f"""
WITH beat AS (
  UPDATE tasks_app_cluster SET heartbeat_at = clock_timestamp(), busy = %(busy)s, workers = %(workers)s,
    report = coalesce(%(report)s::jsonb, report)
  WHERE id = %(id)s AND lost_at IS NULL RETURNING desired_workers, desired_state, restart_at)
SELECT EXISTS (SELECT FROM beat),
  EXISTS (SELECT FROM unnest(%(queues)s::text[]) AS queue(name), LATERAL (
    SELECT FROM tasks_app_taskrun WHERE queue_name = queue.name AND status = 'READY' AND claimed_by IS NULL
      AND limit_key IS NULL AND is_waiting IS NULL AND run_after <= statement_timestamp()
    ORDER BY priority DESC, run_after, id LIMIT 1) AS ready
    WHERE NOT EXISTS (SELECT FROM tasks_app_queue AS own
      WHERE own.name = queue.name AND (max_running IS NOT NULL OR {IS_PAUSED}))),
  least((SELECT extract(epoch FROM run_after - clock_timestamp())::float8 FROM tasks_app_taskrun
    WHERE status = 'READY' AND claimed_by IS NULL AND is_waiting IS NULL AND run_after > enqueued_at
      AND queue_name = ANY(%(queues)s)
      AND run_after > statement_timestamp() AND run_after <= statement_timestamp() + interval '2 s'
    ORDER BY run_after LIMIT 1),
    (SELECT min(greatest(extract(epoch FROM paused_until - clock_timestamp()), 0))::float8 FROM tasks_app_queue
      WHERE name = ANY(%(queues)s) AND paused_until > clock_timestamp()
        AND paused_until <= clock_timestamp() + interval '2 s')),
  (SELECT array_agg(id) FROM tasks_app_taskrun
    WHERE claimed_by >= %(holder)s AND claimed_by < %(beyond)s AND status IN ('READY', 'RUNNING')
      AND cancel_requested_at IS NOT NULL),
  (SELECT desired_workers FROM beat), (SELECT desired_state FROM beat),
  (SELECT greatest(extract(epoch FROM greatest(next_run, paused_until) - clock_timestamp()), 0)::float8
    FROM django_q_schedule AS schedule LEFT JOIN tasks_app_schedulerules AS rules ON rules.schedule_id = schedule.id
    WHERE repeats <> 0 AND next_run <= clock_timestamp() + interval '2 s'
      AND (error IS NULL OR broken_version <> schedule.xmin::text)
      AND (paused_at IS NULL OR paused_until <= clock_timestamp() + interval '2 s')
    ORDER BY greatest(next_run, paused_until) LIMIT 1),
  clock_timestamp(), EXISTS (SELECT FROM tasks_app_workflownews ORDER BY id LIMIT 1),
  (SELECT greatest(extract(epoch FROM expires_at - statement_timestamp()), 0)::float8 FROM tasks_app_taskrun
    WHERE status = 'READY' AND claimed_by IS NULL AND expires_at <= statement_timestamp() + interval '2 s'
    ORDER BY expires_at LIMIT 1),
  EXISTS (SELECT FROM tasks_app_taskrun WHERE status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
    AND finished_at > coalesce((SELECT at FROM tasks_app_countedto ORDER BY id LIMIT 1), 'epoch')
    ORDER BY finished_at LIMIT 1),
  (SELECT array_agg(EXISTS (SELECT FROM tasks_app_queue AS own WHERE own.name = queue.name AND max_running IS NOT NULL)
      OR limited.is_there IS NOT NULL ORDER BY place)
    FROM unnest(%(queues)s::text[]) WITH ORDINALITY AS queue(name, place) LEFT JOIN LATERAL (
      SELECT true AS is_there FROM tasks_app_taskrun WHERE queue_name = queue.name AND limit_key IS NOT NULL
        AND status = 'READY' AND claimed_by IS NULL AND is_waiting IS NULL
      ORDER BY limit_key LIMIT 1) AS limited ON true),
  (SELECT restart_at FROM beat)
"""  # noqa: S608  its parts are ours

OTHER_CLUSTERS = """
SELECT id, host, heartbeat_at::text FROM tasks_app_cluster WHERE stopped_at IS NULL AND lost_at IS NULL AND id <> %(id)s
"""

DECLARE_LOST = """
UPDATE tasks_app_cluster SET lost_at = clock_timestamp(), busy = 0
WHERE id = %(id)s AND heartbeat_at = %(heartbeat_at)s::timestamptz AND stopped_at IS NULL AND lost_at IS NULL
RETURNING id
"""

COUNT_RESCUED = "UPDATE tasks_app_cluster SET rescued = %(rescued)s, rescue = %(rescue)s::jsonb WHERE id = %(id)s"

SIGN_OFF = "UPDATE tasks_app_cluster SET stopped_at = clock_timestamp(), busy = 0 WHERE id = %(id)s AND lost_at IS NULL"
