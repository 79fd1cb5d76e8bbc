"""STEER: the verbs on one run and on many, and what the audit has of them."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, connections, transaction
from django_tasks.exceptions import InvalidTaskError

from config.local import BASE_DIR
from tasks_app import belongings
from tasks_app.audit import Actor
from tasks_app.clock import database_now
from tasks_app.engine import acts
from tasks_app.ids import new_id
from tasks_app.models import AuditEntry, RunLog, Status, TaskRun, Workflow
from tests import outcomes
from tests.engine.test_cluster import finished, running
from tests.plugins.processes import ClusterFactory, database_url
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

HELD = {"claimed_by": "c1:1:1:host", "attempt": 1}
ENDINGS = (Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED)


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture
def mara() -> User:
    return User.objects.create_user("mara")


def stored(count: int = 1, **fields: Any) -> list[TaskRun]:
    """Runs as the engine would leave them."""
    now = database_now()
    values = {"task_path": "tests.outcomes.succeeds", "enqueued_at": now, "run_after": now, "max_attempts": 3, **fields}
    if values.get("status") in ENDINGS:
        values = {"finished_at": now, **values}
    if values.get("status") == Status.RUNNING:
        values = {**HELD, "claimed_at": now, "started_at": now, **values}
    return TaskRun.objects.bulk_create([TaskRun(id=new_id(), **values) for _ in range(count)])


def one(**fields: Any) -> TaskRun:
    return stored(**fields)[0]


def situations() -> dict[str, TaskRun]:
    later = {"run_after": database_now() + timedelta(hours=1)}
    kinds: dict[str, dict[str, Any]] = {
        "ready": {},
        "scheduled": later,
        "claimed": HELD,
        "running": {"status": Status.RUNNING},
        **{str(status).lower(): {"status": status} for status in ENDINGS},
    }
    return {name: one(**fields) for name, fields in kinds.items()}


def rows() -> dict[uuid.UUID, dict[str, Any]]:
    return {run.pk: {**vars(run), "_state": None} for run in TaskRun.objects.all()}


def changed_since(before: dict[uuid.UUID, dict[str, Any]]) -> set[uuid.UUID]:
    return {pk for pk, row in before.items() if rows().get(pk) != row}


class Ear:
    """Hears the NOTIFYs of committed transactions."""

    def __init__(self) -> None:
        self.connection = psycopg.connect(database_url(), autocommit=True)
        self.connection.execute("LISTEN dumbwaiter")

    def heard(self) -> list[str]:
        return [hint.payload for hint in self.connection.notifies(timeout=0.2)]


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    ear.connection.close()


VERBS: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "cancel": (lambda runs: runs.cancel(), {"ready", "scheduled", "claimed", "running"}),
    "retry": (lambda runs: runs.retry(), {"failed", "cancelled"}),
    "retry the successful too": (
        lambda runs: runs.retry(successful_too=True),
        {"successful", "failed", "cancelled"},
    ),
    "delete": (lambda runs: runs.delete_runs(), {"successful", "failed", "cancelled"}),
    "set priority": (lambda runs: runs.set_priority(7), {"ready", "scheduled"}),
    "move": (lambda runs: runs.move_to("other"), {"ready", "scheduled"}),
    "run at": (lambda runs: runs.run_at(), {"scheduled"}),
    "run at later": (lambda runs: runs.run_at(datetime(2199, 1, 1, tzinfo=UTC)), {"ready", "scheduled"}),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_the_runs_that_it_is_legal_for_and_no_others(verb: str) -> None:
    runs = situations()
    names = {run.pk: name for name, run in runs.items()}
    before = rows()
    act, legal = VERBS[verb]

    tally = act(TaskRun.objects.all())

    entry = AuditEntry.objects.get()
    assert {names[pk] for pk in entry.runs} == legal
    assert (entry.count, tally.changed, tally.left) == (len(legal), len(legal), len(runs) - len(legal))
    assert entry.act == tally.act
    assert {names[pk] for pk in changed_since(before)} == (set() if "retry" in verb else legal)
    assert TaskRun.objects.exclude(pk__in=before).count() == (len(legal) if "retry" in verb else 0)


@pytest.mark.parametrize("verb", VERBS)
def test_done_twice_it_changes_nothing_more_and_says_so(verb: str) -> None:
    situations()
    act, _ = VERBS[verb]
    everything = TaskRun.objects.filter(pk__in=list(rows()))
    act(everything)
    before = rows()

    again = act(everything)

    assert again.changed == 0
    assert rows() == before
    assert AuditEntry.objects.count() == 1


def test_what_stays_is_told_in_a_sentence() -> None:
    situations()

    assert str(TaskRun.objects.all().cancel()) == "4 runs were cancelled. 3 have ended already."
    assert str(TaskRun.objects.all().set_priority(3)) == (
        "0 runs were given the priority 3. 5 have ended already. 2 are held by workers."
    )
    assert (
        str(TaskRun.objects.filter(status=Status.RUNNING).delete_runs()) == "0 runs were deleted. 1 has not ended yet."
    )


def test_the_audit_has_who_what_where_and_why(mara: User) -> None:
    run = one()
    before = database_now()

    TaskRun.objects.all().set_priority(-3, by=Actor(mara, "mara", "192.0.2.7"), why="It can wait.")

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.actor_name, entry.address) == (mara, "mara", "192.0.2.7")
    assert (entry.verb, entry.runs, entry.details) == ("set priority", [run.pk], {"priority": -3})
    assert (entry.reason, entry.count) == ("It can wait.", 1)
    assert before < entry.at < database_now()


def test_a_hostile_reason_is_kept_as_far_as_it_can_be() -> None:
    run = one()

    run.cancel("\x00\ud800" + "x" * 10_000)

    assert AuditEntry.objects.get().reason.startswith("\\x00\\ud800xxx")
    run.refresh_from_db()
    assert (run.failure_message or "").startswith("\\x00\\ud800xxx")


def test_many_runs_are_taken_in_batches_under_one_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "BATCH", 10)
    stored(25)
    ended = stored(2, status=Status.FAILED)

    tally = TaskRun.objects.all().cancel()

    assert (tally.changed, tally.left) == (25, len(ended))
    entries = AuditEntry.objects.filter(act=tally.act)
    assert sum(entry.count for entry in entries) == 25
    assert 3 <= len(entries) <= 4
    assert TaskRun.objects.cancelled().count() == 25


def test_no_batch_takes_longer_the_further_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the id where the last one ended, never by counting to there."""
    monkeypatch.setattr(acts, "BATCH", 10)
    stored(30)
    asked: list[str] = []

    def listen(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        asked.append(sql)
        return run(sql, *rest)

    with connection.execute_wrapper(listen):
        TaskRun.objects.all().cancel()

    assert not any("OFFSET" in sql for sql in asked)
    assert sum("LIMIT 10" in sql for sql in asked) == 4


def test_any_queryset_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "BATCH", 2)
    newest = sorted(stored(8), key=lambda run: (run.enqueued_at, run.pk))[-3:]
    talked = newest[0]
    RunLog.objects.bulk_create(
        RunLog(run=talked, attempt=1, at=database_now(), level=20, text="line") for _ in range(5)
    )

    assert TaskRun.objects.newest()[:3].set_priority(1).changed == 3
    assert set(TaskRun.objects.filter(priority=1)) == set(newest)
    assert TaskRun.objects.filter(log__level=20).set_priority(2).changed == 1
    assert TaskRun.objects.none().cancel().changed == 0
    assert (TaskRun.objects.filter(priority=1) | TaskRun.objects.filter(priority=2)).distinct().cancel().changed == 3
    assert TaskRun.objects.filter(priority=0).union(TaskRun.objects.filter(priority=1)).cancel().changed == 5


def test_a_batch_that_the_database_refuses_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "BATCH", 10)
    runs = sorted(stored(30), key=lambda run: run.pk)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""CREATE FUNCTION no_such_run() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.id = '{runs[15].pk}' THEN RAISE 'the disk is full'; END IF; RETURN NEW; END $$;
            CREATE TRIGGER no_such_run BEFORE UPDATE ON tasks_app_taskrun FOR EACH ROW EXECUTE FUNCTION no_such_run()"""
        )
    try:
        tally = TaskRun.objects.all().cancel()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION no_such_run CASCADE")

    assert (tally.changed, tally.troubles) == (20, ["10 runs could not be taken: the disk is full."])
    assert set(TaskRun.objects.ready()) == set(runs[10:20])
    assert AuditEntry.objects.count() == 2


def test_an_act_that_is_rolled_back_leaves_no_entry_and_no_files_less() -> None:
    run = one(status=Status.FAILED)
    default_storage.save(f"runs/{run.pk}/a.txt", ContentFile(b"a"))

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert run.delete_run()
        raise ZeroDivisionError

    assert TaskRun.objects.filter(pk=run.pk).exists()
    assert not AuditEntry.objects.exists()
    assert default_storage.exists(f"runs/{run.pk}/a.txt")


def test_django_s_own_delete_is_refused() -> None:
    run = one(status=Status.FAILED)

    with pytest.raises(TypeError, match="delete_runs"):
        TaskRun.objects.all().delete()
    with pytest.raises(TypeError, match="delete_run"):
        run.delete()

    assert TaskRun.objects.count() == 1


def test_no_statement_reads_the_whole_table() -> None:
    """Whatever it is done to; with the lines of logs, too."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,
                 enqueued_at, finished_at, attempt, max_attempts, attempts)
               SELECT gen_random_uuid(), 'a.b', '[]', '{}', 'default', 0, (ARRAY['READY', 'FAILED'])[1 + i % 2], now(),
                 now(), now(), 1, 1, '[]' FROM generate_series(1, 50000) AS i"""
        )
        cursor.execute("INSERT INTO tasks_app_runlog (run_id, attempt, at, level, text)"
                       " SELECT id, 1, now(), 20, '' FROM tasks_app_taskrun")  # fmt: skip
        cursor.execute("ANALYZE tasks_app_taskrun; ANALYZE tasks_app_runlog")
    plans: list[str] = []

    def explain(run: Callable[..., Any], sql: str, params: Any, *rest: Any) -> Any:
        if re.search(r"tasks_app_(taskrun|runlog)", sql):
            with psycopg.connect(database_url()) as other:
                rows = psycopg.ClientCursor(other).execute(f"EXPLAIN {sql}", params).fetchall()
                plans.append("\n".join(row[0] for row in rows))
        return run(sql, params, *rest)

    pks = [run.pk for runs in (TaskRun.objects.ready(), TaskRun.objects.failed()) for run in runs[:500]]
    for verb in ("set priority", "move", "run at later", "retry", "cancel", "delete"):
        with connection.execute_wrapper(explain):
            assert VERBS[verb][0](TaskRun.objects.filter(pk__in=pks)).changed >= 500, verb

    assert len(plans) > 20
    for plan in plans:
        assert not re.search("Seq Scan on tasks_app_(taskrun|runlog)", plan), plan


# Locks


class Locker:
    """Another session that holds runs in an open transaction."""

    def __init__(self, *runs: TaskRun) -> None:
        self.connection = psycopg.connect(database_url())
        for run in runs:
            self.connection.execute("SELECT 1 FROM tasks_app_taskrun WHERE id = %s FOR UPDATE", [run.pk])

    def let_go(self) -> None:
        self.connection.commit()
        self.connection.close()


def somebody_waits() -> bool:
    """For a lock of this database; asked anew, as a transaction sees the same activity at each look."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(database_url()) as other:
        return other.execute(query).fetchall() != [(0,)]


def in_thread(act: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(act())
        except Exception as error:
            answers.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, answers


def test_runs_that_somebody_has_locked_hold_up_no_others_and_are_not_forgotten() -> None:
    runs = stored(10)
    locker = Locker(runs[3], runs[7])

    thread, answers = in_thread(lambda: TaskRun.objects.all().cancel())
    wait_until(lambda: TaskRun.objects.cancelled().count() == 8, what="the others")
    locker.let_go()
    thread.join(10)

    assert answers[0].changed == 10
    assert TaskRun.objects.cancelled().count() == 10


def test_what_a_worker_took_meanwhile_is_told_to_stop() -> None:
    """Locked by a claim that is not committed yet: the cancel comes after it, and sees it."""
    first, second = stored(2)
    claim = Locker(first)
    claim.connection.execute(
        "UPDATE tasks_app_taskrun SET claimed_by = 'c1:1:1:host', attempt = 1 WHERE id = %s", [first.pk]
    )

    thread, answers = in_thread(lambda: TaskRun.objects.all().cancel(why="Not needed."))
    wait_until(lambda: TaskRun.objects.cancelled().filter(pk=second.pk).exists())
    claim.let_go()
    thread.join(10)

    first.refresh_from_db()
    assert (first.status, first.failure_message) == (Status.READY, "Not needed.")
    assert first.cancel_requested_at
    assert answers[0].changed == 2


def test_a_change_of_what_a_worker_took_meanwhile_is_not_made() -> None:
    first, _ = stored(2)
    claim = Locker(first)
    claim.connection.execute(
        "UPDATE tasks_app_taskrun SET claimed_by = 'c1:1:1:host', attempt = 1 WHERE id = %s", [first.pk]
    )

    thread, answers = in_thread(lambda: TaskRun.objects.all().move_to("other"))
    wait_until(lambda: TaskRun.objects.filter(queue_name="other").exists())
    claim.let_go()
    thread.join(10)

    assert str(answers[0]) == "1 run was moved to the queue other. 1 is held by a worker."


def test_no_deadlock_with_finishes_in_another_order() -> None:
    """A worker's batch of finishes has locked one run and waits for another; a cancel has them in its batch, too."""
    runs = sorted(stored(4), key=lambda run: run.pk)
    worker, other = Locker(runs[3]), Locker(runs[0])

    thread, answers = in_thread(lambda: TaskRun.objects.all().cancel())
    wait_until(lambda: TaskRun.objects.cancelled().count() == 2)
    other.let_go()
    # Had the cancel locked the first one while it waited for the last, this would end one of the two.
    worker.connection.execute("SELECT 1 FROM tasks_app_taskrun WHERE id = %s FOR UPDATE", [runs[0].pk])
    worker.let_go()
    thread.join(10)

    assert answers[0].changed == 4


# Cancel


def test_whoever_cancels_is_told_in_the_run(mara: User) -> None:
    said = {}
    for why, by in (("", None), ("Not needed.", None), ("", mara), ("not needed", Actor(mara, "mara"))):
        run = one()
        assert run.cancel(why, by=by)
        run.refresh_from_db()
        said[why, bool(by)] = run.failure_message

    assert list(said.values()) == [
        "Cancelled.",
        "Not needed.",
        "Cancelled by mara.",
        "Cancelled by mara: not needed.",
    ]


def test_workers_of_held_runs_are_told(ear: Ear) -> None:
    held, _ = one(**HELD), one()

    TaskRun.objects.all().cancel()

    assert ear.heard() == [f"cancel {held.pk}"]


def test_a_cluster_ends_what_is_cancelled_in_bulk(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=2)
    going = [running(outcomes.sleeps.enqueue(300)) for _ in range(2)]
    outcomes.succeeds.enqueue_many([[number] for number in range(50)])

    tally = TaskRun.objects.unfinished().cancel(why="All of it.")

    assert tally.changed == 52
    wait_until(lambda: TaskRun.objects.cancelled().count() == 52, what="the end of all")
    assert {run.pk for run in going} <= set(AuditEntry.objects.filter(act=tally.act).values_list("runs", flat=True)[0])


# Retry


def test_a_retry_is_a_run_of_its_own(mara: User) -> None:
    otto = User.objects.create_user("otto")
    old = one(
        status=Status.FAILED, args=[1], kwargs={"a": {"b": [2]}}, queue_name="q", priority=7, max_attempts=9,
        timeout=1.5, limit_key="some.limit", owner=otto, unique_key="u", idempotency_key="i", attempt=2,
        failure="error", failure_message="no", attempts=[{"reason": "error"}], return_value=None,
        expires_at=database_now(), schedule_id=77, schedule_name="nightly", about="shop.order:7",
    )  # fmt: skip

    new = old.retry(by=mara)

    assert new and new.pk != old.pk
    same = ("task_path", "args", "kwargs", "queue_name", "priority", "max_attempts", "timeout", "limit_key", "about")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
    assert (new.status, new.retry_of_id, new.owner, new.attempt, new.attempts) == ("READY", old.pk, mara, 0, [])
    assert new.run_after == new.enqueued_at > old.enqueued_at
    for name in (
        "unique_key", "unique_until", "idempotency_key", "workflow_id", "step", "schedule_id", "schedule_name",
        "expires_at", "failure", "failure_message", "finished_at", "claimed_by",
    ):  # fmt: skip
        assert getattr(new, name) is None, name
    assert rows()[old.pk]["status"] == Status.FAILED


def test_of_code_a_retry_belongs_to_whom_the_run_belonged(mara: User) -> None:
    new = one(status=Status.FAILED, owner=mara).retry()
    assert new and new.owner == mara


def test_a_double_click_makes_one_retry_and_answers_with_it(mara: User) -> None:
    old = one(status=Status.FAILED)

    first, second = old.retry(by=mara), old.retry(by=mara)

    assert first and first == second
    assert TaskRun.objects.filter(retry_of=old).count() == 1
    assert str(TaskRun.objects.failed().retry()) == "0 runs were sent once more. 1 has a retry that has not ended."


def test_once_a_retry_has_ended_there_can_be_another() -> None:
    old = one(status=Status.FAILED)
    first = old.retry()
    TaskRun.objects.filter(retry_of=old).update(status=Status.FAILED, finished_at=database_now())

    second = old.retry()

    assert first and second and first != second


def test_of_many_only_the_newest_of_a_line_of_retries_is_sent_once_more() -> None:
    old = one(status=Status.FAILED)
    for tries in (1, 2, 3):
        assert str(TaskRun.objects.failed().retry()).startswith("1 run was sent once more.")
        TaskRun.objects.ready().update(status=Status.FAILED, finished_at=database_now())
        assert TaskRun.objects.count() == 1 + tries
    assert TaskRun.objects.filter(retry_of=old).count() == 1
    assert str(TaskRun.objects.filter(pk=old.pk).retry()) == "0 runs were sent once more. 1 was sent once more before."


def test_many_who_ask_at_the_same_moment_get_one_retry() -> None:
    old = stored(20, status=Status.FAILED)
    for _ in range(5):
        started = threading.Barrier(4)

        def ask(ids: frozenset[uuid.UUID], started: threading.Barrier = started) -> Any:
            started.wait(10)
            return TaskRun.objects.filter(pk__in=ids).retry()

        ids = frozenset(run.pk for run in old)
        asking = [in_thread(partial(ask, ids)) for _ in range(4)]
        for thread, _ in asking:
            thread.join(20)
        assert sum(answers[0].changed for _, answers in asking) == 20
        old = list(TaskRun.objects.ready())
        assert len(old) == 20
        TaskRun.objects.ready().update(status=Status.CANCELLED)


def test_a_retry_is_seen_by_who_waited_for_its_locks() -> None:
    """Both have begun before either has committed: the second finds the first one's retry all the same."""
    old = one(status=Status.FAILED)
    with transaction.atomic():
        assert old.retry()
        thread, answers = in_thread(lambda: TaskRun.objects.get(pk=old.pk).retry())
        wait_until(somebody_waits, what="the second to wait")
    thread.join(10)

    assert TaskRun.objects.filter(retry_of=old).count() == 1
    assert answers == [TaskRun.objects.get(retry_of=old)]


def test_the_retries_of_an_act_are_not_retried_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cluster may fail them before the act is done."""
    monkeypatch.setattr(acts, "BATCH", 3)
    old = stored(10, status=Status.FAILED)
    walked = acts.walk

    def with_a_fast_cluster(*args: Any) -> Iterator[list[uuid.UUID]]:
        for batch in walked(*args):
            yield batch
            TaskRun.objects.ready().update(status=Status.FAILED, finished_at=database_now())

    monkeypatch.setattr(acts, "walk", with_a_fast_cluster)

    assert TaskRun.objects.failed().retry().changed == len(old)
    assert TaskRun.objects.count() == 2 * len(old)


def test_a_unique_run_may_be_retried_beside_another_that_has_its_key() -> None:
    old = one(status=Status.FAILED, unique_key="k")
    standing = one(unique_key="k")

    new = old.retry()

    assert new and new.unique_key is None
    assert rows()[standing.pk]["unique_key"] == "k"


def test_what_waited_for_results_in_vain_is_not_sent_without_them() -> None:
    now = database_now()
    workflow = Workflow.objects.create(name="w", size=1, shape=[], enqueued_at=now, status=Status.FAILED)
    flow = {"workflow": workflow, "previous": {"0": "x"}, "status": Status.CANCELLED}
    waiting, begun = one(is_waiting=True, step=0, **flow), one(step=1, **flow)

    assert str(TaskRun.objects.all().retry()) == "1 run was sent once more. 1 never got the results that it waited for."
    assert not waiting.retry()
    assert begun.retry()


def test_each_queue_is_told_once(ear: Ear) -> None:
    for queue in ("a", "b"):
        stored(3, status=Status.FAILED, queue_name=queue)

    TaskRun.objects.all().retry()

    assert sorted(ear.heard()) == ["a", "b"]


def test_a_cluster_runs_the_retries(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster(WORKERS=2)
    ledger = tmp_path / "ledger"
    for number in range(20):
        stored(status=Status.CANCELLED, task_path="tests.outcomes.writes_ledger", args=[str(ledger), number, 0])

    assert TaskRun.objects.cancelled().retry().changed == 20

    wait_until(lambda: TaskRun.objects.successful().count() == 20, what="the end of the retries")
    assert sorted(map(int, ledger.read_text().split())) == list(range(20))


# Set priority, move to, run at


@pytest.mark.parametrize("priority", [-101, 101, True, 1.5, "7", None, 10**30])
def test_a_bad_priority_is_refused(priority: Any) -> None:
    run = one()
    with pytest.raises(InvalidTaskError, match="from -100 to 100"):
        run.set_priority(priority)


@pytest.mark.parametrize("queue", ["", "x" * 101, "a\x00b", "\ud800", None, 7])
def test_a_bad_queue_is_refused(queue: Any) -> None:
    with pytest.raises(InvalidTaskError, match="A queue's name has"):
        one().move_to(queue)


NAIVE = datetime.fromisoformat("2030-01-01")
BEYOND = datetime.max.replace(tzinfo=ZoneInfo("America/Lima"))


@pytest.mark.parametrize("moment", [NAIVE, "2030-01-01", BEYOND])
def test_a_bad_moment_is_refused(moment: Any) -> None:
    with pytest.raises(InvalidTaskError, match=r"moment"):
        one().run_at(moment)


def test_what_is_due_keeps_its_place_when_it_is_to_run_now() -> None:
    due, later = one(), one(run_after=database_now() + timedelta(days=1))

    tally = TaskRun.objects.all().run_at()

    assert str(tally) == "1 run was made due now. 1 is due already."
    assert rows()[due.pk]["run_after"] == due.run_after
    assert due.run_after < rows()[later.pk]["run_after"] <= database_now()


def test_a_moment_that_is_over_is_now() -> None:
    later = one(run_after=database_now() + timedelta(days=1))

    assert later.run_at(datetime(1999, 1, 1, tzinfo=UTC))

    assert abs(rows()[later.pk]["run_after"] - database_now()) < timedelta(seconds=30)


def test_a_moved_run_keeps_its_place_by_its_time_and_its_new_queue_is_told(ear: Ear) -> None:
    moved = one()

    assert moved.move_to("other")

    assert rows()[moved.pk]["run_after"] == moved.run_after
    assert ear.heard() == ["other"]


def test_a_cluster_takes_a_scheduled_run_as_soon_as_it_is_to_run_now(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)
    tomorrow = outcomes.succeeds.using(run_after=database_now() + timedelta(days=1))
    result = tomorrow.enqueue(5)

    assert TaskRun.objects.get(pk=result.id).run_at()

    assert finished(result).status == Status.SUCCESSFUL


# Delete


def test_a_run_goes_with_its_log_and_its_files() -> None:
    gone, stays = stored(2, status=Status.SUCCESSFUL)
    for run in (gone, stays):
        RunLog.objects.create(run=run, attempt=1, at=database_now(), level=20, text="line")
        for name in ("a.txt", "deep/er/b.txt"):
            default_storage.save(f"runs/{run.pk}/{name}", ContentFile(b"made"))
        default_storage.save(f"uploads/{run.pk}/c.txt", ContentFile(b"sent"))

    assert gone.delete_run()

    assert [line.run_id for line in RunLog.objects.all()] == [stays.pk]
    for place in ("runs", "uploads"):
        assert default_storage.listdir(place) == ([str(stays.pk)], [])
    assert default_storage.exists(f"runs/{stays.pk}/deep/er/b.txt")


def test_what_was_sent_with_it_stays_for_its_retries() -> None:
    old = one(status=Status.FAILED)
    default_storage.save(f"uploads/{old.pk}/c.txt", ContentFile(b"sent"))
    assert old.retry()
    assert str(TaskRun.objects.failed().delete_runs()) == ("0 runs were deleted. 1 has a retry that has not ended.")
    TaskRun.objects.ready().cancel()

    assert old.delete_run()
    assert default_storage.exists(f"uploads/{old.pk}/c.txt")


def test_a_workflow_that_goes_on_keeps_its_runs() -> None:
    now = database_now()
    flow = Workflow.objects.create(name="w", size=1, shape=[], enqueued_at=now, status=Status.RUNNING)
    run = one(status=Status.SUCCESSFUL, workflow=flow, step=0)

    assert str(TaskRun.objects.all().delete_runs()) == (
        "0 runs were deleted. 1 belongs to a workflow that has not ended."
    )
    Workflow.objects.update(status=Status.SUCCESSFUL)
    assert run.delete_run()


def test_a_unique_key_that_is_taken_for_a_time_stays_taken() -> None:
    run = one(status=Status.SUCCESSFUL, unique_key="k", unique_until=database_now() + timedelta(hours=1))

    assert str(TaskRun.objects.all().delete_runs()) == "0 runs were deleted. 1 keeps its unique key for a time yet."
    TaskRun.objects.update(unique_until=database_now())
    assert run.delete_run()


def test_files_that_cannot_be_removed_are_logged_and_hold_up_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = stored(2, status=Status.SUCCESSFUL)
    for run in runs:
        default_storage.save(f"runs/{run.pk}/a.txt", ContentFile(b"made"))
    removed = belongings._remove_folder

    def broken(folder: str) -> bool:
        if str(runs[0].pk) in folder:
            raise PermissionError("no")
        return removed(folder)

    monkeypatch.setattr(belongings, "_remove_folder", broken)

    assert TaskRun.objects.all().delete_runs().changed == 2

    assert f"the files in runs/{runs[0].pk} cannot be removed now" in caplog.text
    assert default_storage.listdir("runs")[0] == [str(runs[0].pk)]


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    run = one(status=Status.SUCCESSFUL)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept.txt").write_text("kept")
    folder = Path(default_storage.path(f"runs/{run.pk}"))
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(precious)
    (folder / "file").symlink_to(precious / "kept.txt")

    assert run.delete_run()

    assert not folder.exists()
    assert (precious / "kept.txt").read_text() == "kept"


def test_the_example_of_the_readme_does_what_it_says(mara: User, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (BASE_DIR / "README.md").read_text()
    lines = re.search(r"```python\n(stuck = .*?)```", readme, re.DOTALL)
    assert lines
    failed = stored(13, status=Status.FAILED, task_path="shop.tasks.greet")
    failed[0].retry()
    mail = one(queue_name="mail")

    exec(lines[1], {"TaskRun": TaskRun, "request": SimpleNamespace(user=mara)})

    said = capsys.readouterr().out
    assert said == "12 runs were sent once more. 1 has a retry that has not ended.\n"
    assert lines[1].split("# ")[1].startswith("12 runs were sent once more. 1 has a retry")
    mail.refresh_from_db()
    assert (mail.priority, mail.status, mail.failure_message) == (20, Status.CANCELLED, "Wrong list.")
    assert AuditEntry.objects.filter(actor=mara, reason="The mail server is back.", count=12).exists()


def test_a_retry_that_came_just_before_keeps_its_run_from_being_deleted() -> None:
    """The delete has begun, and waits for the locks of the retry: it finds it all the same."""
    old = one(status=Status.FAILED)
    default_storage.save(f"uploads/{old.pk}/c.txt", ContentFile(b"sent"))
    with transaction.atomic():
        assert old.retry()
        thread, answers = in_thread(lambda: TaskRun.objects.get(pk=old.pk).delete_run())
        wait_until(somebody_waits, what="the delete to wait")
    thread.join(10)

    assert answers == [False]
    assert TaskRun.objects.filter(pk=old.pk).exists()
    assert default_storage.exists(f"uploads/{old.pk}/c.txt")
