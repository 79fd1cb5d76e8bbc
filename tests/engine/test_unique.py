"""SUBMIT: of unique runs there is one, whoever sends them, however many at once."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, close_old_connections, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_task, schedule
from django_tasks.exceptions import InvalidTaskError
from django_tasks.signals import task_enqueued

from config.local import BASE_DIR
from tasks_app.backend import PostgresBackend, task
from tasks_app.clock import database_now
from tasks_app.engine import schedule_call, unique
from tasks_app.engine.connect import connect
from tasks_app.engine.link import Link
from tasks_app.models import ScheduleRules, Status, TaskRun
from tests import outcomes, wishful
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


class Undone(Exception):
    pass


def elsewhere(act: Callable[[], Any]) -> Any:
    """In another thread, so on another connection; raises what it raises."""

    def run() -> Any:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(30)


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    """By so many threads, each with its own connection, which all begin together; an exception is an answer."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait()
            return act(number)
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def blocked() -> int:
    """How many sessions wait for a transaction of another."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]


def finish(run_id: str, status: Status = Status.SUCCESSFUL) -> None:
    TaskRun.objects.filter(pk=run_id).update(status=status, finished_at=timezone.now())


def let_time_pass(**passed: float) -> None:
    """As if every run had been enqueued so much earlier."""
    TaskRun.objects.exclude(unique_until=None).update(unique_until=F("unique_until") - timedelta(**passed))


# One run a key


def test_the_second_of_a_key_answers_the_standing_run() -> None:
    first = wishful.reminds.enqueue("ada", "now")
    second = wishful.reminds.enqueue("ada", "again", number=2)

    run = TaskRun.objects.get()
    assert (second.id, run.args) == (first.id, ["ada", "now"])
    assert (first.was_standing, second.was_standing, second.was_replaced) == (False, True, False)
    assert second.args == ["ada", "now"]


def test_another_key_is_another_run() -> None:
    answers = [wishful.reminds.enqueue(customer) for customer in ("ada", "grace", ["ada"], None)]

    assert len({answer.id for answer in answers}) == TaskRun.objects.count() == 4
    assert not any(answer.was_standing for answer in answers)


def test_another_task_with_the_same_arguments_is_another_run() -> None:
    wishful.reminds.enqueue("ada")
    wishful.reminds_hourly.enqueue("ada")

    assert TaskRun.objects.count() == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0, -0.0),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        ((1, 2), [1, 2]),
        ({1: "x"}, {"1": "x"}),
        (b"ada", "ada"),
        ("\u00e9", "é"),
    ],
    ids=str,
)
def test_the_same_json_is_the_same_key(one: Any, other: Any) -> None:
    wishful.reminds.enqueue(one)
    wishful.reminds.enqueue(other)

    assert TaskRun.objects.count() == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, "1"), (1, True), (0, False), (None, "null"), (0, None), ([], {}), ("", None), ([1, 2], [2, 1]), (1, 1.5),
     ("é", "e\u0301"), ({"a": None}, {}), ("a", ["a"])],
    ids=str,
)  # fmt: skip
def test_other_json_is_another_key(one: Any, other: Any) -> None:
    wishful.reminds.enqueue(one)
    wishful.reminds.enqueue(other)

    assert TaskRun.objects.count() == 2


def test_a_key_does_not_depend_on_how_the_call_is_written() -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("ada",), {}), (("ada", "hello"), {}), ((), {"customer": "ada"}), ((), {"text": "hello", "customer": "ada"}),
    ]  # fmt: skip
    for args, kwargs in calls:
        wishful.reminds_of_all.enqueue(*args, **kwargs)
    assert TaskRun.objects.count() == 1

    wishful.reminds_of_all.enqueue("ada", more="x")
    wishful.reminds_of_all.enqueue("ada", "hello", more="x")
    assert TaskRun.objects.count() == 2


def test_without_an_argument_in_its_key_a_task_has_one_run() -> None:
    wishful.is_alone.enqueue(1)
    wishful.is_alone.enqueue(number=2)

    assert TaskRun.objects.count() == 1


def test_arguments_that_the_task_does_not_take_make_no_key() -> None:
    with pytest.raises(InvalidTaskError, match="reminds cannot be called with these arguments: missing"):
        wishful.reminds.enqueue()  # type: ignore[call-arg]

    assert not TaskRun.objects.exists()


@pytest.mark.parametrize("status", [Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED])
def test_a_key_is_free_once_its_run_has_ended(status: Status) -> None:
    first = wishful.reminds.enqueue("ada")
    TaskRun.objects.update(status=Status.RUNNING)
    assert wishful.reminds.enqueue("ada").id == first.id

    finish(first.id, status)

    assert wishful.reminds.enqueue("ada").id != first.id
    assert wishful.reminds.enqueue("ada").was_standing


def test_a_key_for_a_time_is_taken_whatever_became_of_the_run() -> None:
    first = wishful.reminds_hourly.enqueue("ada")
    finish(first.id)
    let_time_pass(minutes=59)
    assert wishful.reminds_hourly.enqueue("ada").id == first.id

    let_time_pass(minutes=1)

    second = wishful.reminds_hourly.enqueue("ada")
    assert (second.id != first.id, second.was_standing) == (True, False)
    assert wishful.reminds_hourly.enqueue("ada").id == second.id


def test_a_key_for_a_time_is_not_free_before_its_run_has_ended() -> None:
    first = wishful.reminds_hourly.enqueue("ada")
    let_time_pass(hours=2)

    assert wishful.reminds_hourly.enqueue("ada").id == first.id

    finish(first.id)
    assert wishful.reminds_hourly.enqueue("ada").id != first.id


def test_using_sets_another_time() -> None:
    wishful.reminds_hourly.using(unique_for=5, priority=3).enqueue("ada")

    run = TaskRun.objects.get()
    assert run.unique_until == run.enqueued_at + timedelta(seconds=5)
    assert run.priority == 3


def test_nobody_is_told_of_a_run_that_was_not_made() -> None:
    told = []

    def hear(task_result: Any, **_: Any) -> None:
        told.append(task_result.id)

    task_enqueued.connect(hear)
    try:
        ids = {wishful.reminds.enqueue("ada").id for _ in range(3)}
    finally:
        task_enqueued.disconnect(hear)

    assert set(told) == ids
    assert len(told) == 1


def test_a_run_that_asks_for_nothing_costs_what_it_did() -> None:
    with CaptureQueriesContext(connection) as queries:
        outcomes.succeeds.enqueue(1)

    (query,) = queries
    assert "unique" not in query["sql"] and "expires" not in query["sql"] and "idempotency" not in query["sql"]


def test_a_free_key_costs_one_statement() -> None:
    with CaptureQueriesContext(connection) as queries:
        wishful.reminds.enqueue("ada")

    assert len(queries) == 1


# Many at once


def test_ten_producers_make_one_run_a_key() -> None:
    def produce(number: int) -> list[tuple[str, bool]]:
        answers = [wishful.reminds.enqueue(key, str(number)) for key in range(30)]
        return [(answer.id, answer.was_standing) for answer in answers]

    answers = at_once(10, produce)

    assert TaskRun.objects.count() == 30
    for of_key in zip(*answers, strict=True):
        assert len({run_id for run_id, _ in of_key}) == 1
        assert [was_standing for _, was_standing in of_key].count(False) == 1


def test_of_a_task_that_ends_at_once_no_two_ever_run(qcluster: ClusterFactory) -> None:
    """Producers and workers as fast as they can: a key is taken and free again all the time."""
    qcluster()

    def produce(_: int) -> Counter[str]:
        return Counter(wishful.is_alone.enqueue().id for _ in range(100))

    answers = at_once(4, produce)

    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert sum(answers, Counter()).keys() == {str(run.pk) for run in TaskRun.objects.all()}
    wait_until(lambda: not TaskRun.objects.unfinished().exists(), what="the end of all runs")
    runs = TaskRun.objects.successful().order_by("claimed_at")
    assert all(before.finished_at <= after.claimed_at for before, after in pairwise(runs))  # type: ignore[operator]


@pytest.mark.parametrize("commits", [True, False])
def test_a_producer_waits_for_another_to_commit_or_roll_back(commits: bool) -> None:
    answer: dict[str, Any] = {}

    def second() -> None:
        answer["second"] = elsewhere(lambda: wishful.reminds.enqueue("ada", "second"))

    other = threading.Thread(target=second)
    try:
        with transaction.atomic():
            first = wishful.reminds.enqueue("ada", "first")
            other.start()
            wait_until(blocked, what="the second producer to wait")
            if not commits:
                raise Undone
    except Undone:
        pass
    other.join(20)

    run = TaskRun.objects.get()
    assert run.args == ["ada", "first" if commits else "second"]
    assert answer["second"].id == str(run.pk)
    assert answer["second"].was_standing is commits
    assert (first.id == str(run.pk)) is commits


def test_two_of_one_key_in_one_transaction_are_one_run() -> None:
    with transaction.atomic():
        first = wishful.reminds.enqueue("ada")
        second = wishful.reminds.enqueue("ada")
        assert (second.id, second.was_standing) == (first.id, True)

    assert TaskRun.objects.count() == 1


def test_the_same_keys_in_opposite_orders_fail_one_of_the_two_cleanly() -> None:
    meet = threading.Barrier(2)

    def produce(number: int) -> str:
        keys = ["ada", "grace"][:: 1 if number else -1]
        with transaction.atomic():
            wishful.reminds.enqueue(keys[0])
            meet.wait()
            wishful.reminds.enqueue(keys[1])
        return "done"

    answers = at_once(2, produce)

    assert sorted(isinstance(answer, OperationalError) for answer in answers) == [False, True]
    assert "done" in answers
    assert TaskRun.objects.count() == 2


def test_many_in_opposite_orders_wait_for_each_other_in_one() -> None:
    def produce(number: int) -> list[str]:
        keys = list(range(500))[:: 1 if number % 2 else -1]
        with transaction.atomic():
            return dict(zip(keys, wishful.reminds.enqueue_many([[key] for key in keys]), strict=True))  # type: ignore[return-value]

    answers = at_once(4, produce)

    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert TaskRun.objects.count() == 500


def test_a_repeatable_read_is_told_to_do_it_again() -> None:
    with pytest.raises(OperationalError, match="could not serialize"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        TaskRun.objects.exists()  # from here on it sees nothing new
        first = elsewhere(lambda: wishful.reminds.enqueue("ada"))
        wishful.reminds.enqueue("ada")

    again = wishful.reminds.enqueue("ada")
    assert (again.id, again.was_standing) == (first.id, True)


# In place of the standing one


def test_replace_gives_the_standing_run_what_is_new(tmp_path: Path) -> None:
    path, later = str(tmp_path / "ledger"), timezone.now() + timedelta(hours=1)
    first = wishful.writes_newest.enqueue(path, 1)
    before = TaskRun.objects.get()

    second = wishful.writes_newest.using(priority=5, run_after=later).enqueue(path, 2)

    run = TaskRun.objects.get()
    assert (second.id, second.was_standing, second.was_replaced, second.args) == (first.id, True, True, [path, 2])
    assert (run.args, run.priority, run.run_after, run.enqueued_at) == ([path, 2], 5, later, before.enqueued_at)
    wishful.writes_newest.enqueue(path, 3)
    run.refresh_from_db()
    assert (run.args, run.run_after, run.state) == ([path, 3], run.enqueued_at, "ready")


def test_a_replaced_run_is_executed_once_with_what_is_newest(qcluster: ClusterFactory, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    soon = database_now() + timedelta(seconds=2)
    answers = [wishful.writes_newest.using(run_after=soon).enqueue(str(path), number) for number in range(5)]
    qcluster()

    wait_until(lambda: TaskRun.objects.successful().exists(), what="the end of the run")

    assert len({answer.id for answer in answers}) == 1
    assert path.read_text() == "4\n"


def test_ten_producers_replace_one_run() -> None:
    def produce(number: int) -> list[bool]:
        return [wishful.writes_newest.enqueue("path", 100 * number + each).was_replaced for each in range(20)]

    answers = at_once(10, produce)

    assert [was_replaced for answer in answers for was_replaced in answer].count(False) == 1
    assert TaskRun.objects.get().args[1] % 100 == 19


@pytest.mark.parametrize("status", [Status.READY, Status.RUNNING])
def test_a_run_that_a_worker_has_is_not_replaced(tmp_path: Path, status: Status) -> None:
    path = str(tmp_path / "ledger")
    first = wishful.writes_newest.enqueue(path, 1)
    TaskRun.objects.update(status=status, claimed_by="c1:1:1:host", attempt=1)

    second = wishful.writes_newest.enqueue(path, 2)

    assert (second.id, second.was_standing, second.was_replaced) == (first.id, True, False)
    assert TaskRun.objects.get().args == [path, 1]


def test_replace_keeps_the_wait_before_another_attempt(tmp_path: Path) -> None:
    path, later = str(tmp_path / "ledger"), database_now() + timedelta(minutes=5)
    at = database_now().isoformat()
    tried = {"attempt": 1, "reason": "error", "worker": "c:1:1:h", "started_at": at, "ended_at": at}
    wishful.writes_newest.enqueue(path, 1)
    TaskRun.objects.update(attempt=1, run_after=later, attempts=[tried])

    assert wishful.writes_newest.enqueue(path, 2).was_replaced

    run = TaskRun.objects.get()
    assert (run.args, run.run_after) == ([path, 2], later)


def test_a_replacement_that_is_rolled_back_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger")
    wishful.writes_newest.enqueue(path, 1)

    with pytest.raises(Undone), transaction.atomic():
        assert wishful.writes_newest.enqueue(path, 2).was_replaced
        raise Undone

    assert TaskRun.objects.get().args == [path, 1]


# Kept through whatever happens to the run


def test_a_running_run_has_its_key_until_it_ends(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster()
    gate, path = tmp_path / "gate", tmp_path / "ledger"
    first = wishful.waits_alone.enqueue(str(gate), str(path), 1)
    wait_until(path.exists, what="the run to begin")

    assert wishful.waits_alone.enqueue(str(gate), str(path), 2).id == first.id

    gate.touch()
    wait_until(lambda: not TaskRun.objects.unfinished().exists(), what="its end")
    third = wishful.waits_alone.enqueue(str(gate), str(path), 3)
    wait_until(lambda: TaskRun.objects.successful().filter(pk=third.id).exists(), what="the end of the next")
    assert path.read_text() == "1\n3\n"


def test_a_run_that_is_to_be_tried_again_keeps_its_key(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster()
    path = str(tmp_path / "ledger")
    first = wishful.asks_for_another_try_alone.enqueue(path)
    wait_until(lambda: TaskRun.objects.filter(status=Status.READY, attempt=1, claimed_by=None).exists(), what="a wait")

    assert wishful.asks_for_another_try_alone.enqueue(path).id == first.id


def test_a_run_whose_worker_was_lost_keeps_its_key(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster()
    gate, path = tmp_path / "gate", tmp_path / "ledger"
    first = wishful.dies_once_alone.enqueue(str(path), str(gate))
    wait_until(lambda: path.exists() and path.read_text() == "1\n2\n", what="the second attempt")

    assert wishful.dies_once_alone.enqueue(str(path), str(gate)).id == first.id

    gate.touch()
    wait_until(lambda: TaskRun.objects.successful().exists(), what="its end")
    assert TaskRun.objects.count() == 1


# Many in one call


def test_enqueue_many_answers_standing_runs_too() -> None:
    standing = wishful.reminds.enqueue("b")

    ids = wishful.reminds.enqueue_many([["c"], ["b"], ["a"], {"customer": "c"}, ["a", "other text"]])

    assert ids[1] == standing.id
    assert (ids[3], ids[4]) == (ids[0], ids[2])
    assert TaskRun.objects.count() == len(set(ids)) == 3
    assert [TaskRun.objects.get(pk=run_id).args for run_id in ids[:3]] == [["c"], ["b"], ["a"]]


def test_enqueue_many_replaces_with_the_last_of_each_key(tmp_path: Path) -> None:
    standing = wishful.writes_newest.enqueue("a", 0)

    ids = wishful.writes_newest.enqueue_many([["a", 1], ["b", 2], ["a", 3], ["b", 4], ["b", 5]])

    assert ids == [standing.id, ids[1], standing.id, ids[1], ids[1]]
    assert sorted(TaskRun.objects.values_list("args", flat=True)) == [["a", 3], ["b", 5]]


def test_enqueue_many_frees_keys_whose_time_is_over() -> None:
    before = wishful.reminds_hourly.enqueue_many([[number] for number in range(5)])
    for run_id in before:
        finish(run_id)
    let_time_pass(hours=2)

    after = wishful.reminds_hourly.enqueue_many([[number] for number in range(5)])

    assert not set(before) & set(after)
    assert TaskRun.objects.count() == 10


def test_thousands_are_sent_twice_in_good_time() -> None:
    calls = [[number] for number in range(6_000)]
    first = wishful.reminds.enqueue_many(calls)

    with CaptureQueriesContext(connection) as queries:
        assert wishful.reminds.enqueue_many(calls) == first

    assert len(queries) < 10
    assert TaskRun.objects.count() == 6_000


# Other doors


def test_async_task_answers_the_standing_run() -> None:
    first = async_task("tests.wishful.reminds", "ada")
    second = async_task(wishful.reminds, "ada", "other text")

    assert second == first == TaskRun.objects.get().pk.hex


def test_a_schedule_skips_a_time_at_which_its_key_is_taken(qcluster: ClusterFactory) -> None:
    standing = wishful.reminds.using(run_after=database_now() + timedelta(hours=1)).enqueue("ada")
    hourly = schedule("tests.wishful.reminds", "ada", name="reminder", schedule_type="H", repeats=3)
    other = schedule("tests.wishful.reminds", "grace", name="another", schedule_type="H", repeats=3)
    qcluster()

    wait_until(lambda: ScheduleRules.objects.get(schedule=hourly).skipped, what="a skipped time")
    wait_until(lambda: TaskRun.objects.successful().filter(schedule=other).exists(), what="a run of the other schedule")

    hourly.refresh_from_db()
    other.refresh_from_db()
    said = hourly.rules.skipped or ""
    assert said.endswith("its task is unique, and a run with its key is there.")
    assert (hourly.repeats, other.repeats) == (3, 2)
    assert hourly.next_run > database_now()
    assert not TaskRun.objects.filter(schedule=hourly).exists()
    assert hourly.rules.run_now() == TaskRun.objects.get(pk=standing.id).pk
    finish(standing.id)
    new = hourly.rules.run_now()
    assert (str(new) != standing.id, TaskRun.objects.get(pk=new).schedule_id) == (True, hourly.pk)


def fire() -> bool:
    link = Link("default", "host", ["default"], 1)
    link.connection = connect("test")
    link.connection.execute("SET lock_timeout = '2s'")
    try:
        return link.fire_schedules()
    finally:
        link.connection.close()


@pytest.mark.parametrize("is_loaded", [True, False])
def test_the_keys_of_schedules_are_those_of_enqueue(monkeypatch: pytest.MonkeyPatch, is_loaded: bool) -> None:
    """Also where no task is imported, as in a sentinel."""
    schedule("tests.wishful.reminds_of_all", "ada", schedule_type="H", answer=1.0)
    schedule("tests.wishful.reminds_hourly", "ada", schedule_type="H")
    if not is_loaded:
        monkeypatch.setattr(schedule_call, "catalog", SimpleNamespace(loaded=lambda path: None))

    assert fire()

    made = {run.name: run for run in TaskRun.objects.all()}
    assert wishful.reminds_of_all.enqueue("ada", answer=1).id == str(made["reminds_of_all"].pk)
    hourly = made["reminds_hourly"]
    assert wishful.reminds_hourly.enqueue("ada").id == str(hourly.pk)
    assert hourly.unique_until == hourly.enqueued_at + timedelta(hours=1)


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize("task", ["runs_on_its_day", "runs_with_more"])
def test_the_intended_time_is_part_of_a_key(monkeypatch: pytest.MonkeyPatch, is_loaded: bool, task: str) -> None:
    due = timezone.now() - timedelta(days=3)
    one = schedule(f"tests.wishful.{task}", "x", schedule_type="D", next_run=due, intended_date_kwarg="day")
    if not is_loaded:
        monkeypatch.setattr(schedule_call, "catalog", SimpleNamespace(loaded=lambda path: None))

    assert fire()
    assert not getattr(wishful, task).enqueue("x", day="another").was_standing
    assert getattr(wishful, task).enqueue("y", day=one.next_run.isoformat()).was_standing


def test_a_schedule_does_not_wait_for_somebody_who_does_not_commit() -> None:
    one = schedule("tests.wishful.reminds", "ada", name="one", schedule_type="H")
    schedule("tests.outcomes.succeeds", name="other", schedule_type="H")
    with pytest.raises(Undone), transaction.atomic():
        wishful.reminds.enqueue("ada")
        began = database_now()
        assert elsewhere(fire)
        assert not elsewhere(fire)
        assert database_now() - began < timedelta(seconds=3)
        raise Undone

    assert [run.schedule_name for run in TaskRun.objects.all()] == ["other"]
    assert fire()
    assert TaskRun.objects.get(schedule=one).args == ["ada"]
    assert not fire()


def test_two_schedules_of_one_key_fire_one_run() -> None:
    for number in range(3):
        schedule("tests.wishful.reminds", "ada", str(number), schedule_type="H")

    assert fire()

    assert TaskRun.objects.count() == 1
    assert ScheduleRules.objects.exclude(skipped=None).count() == 2
    assert Schedule.objects.filter(next_run__gt=timezone.now()).count() == 3


def test_whether_a_task_is_unique_can_be_asked() -> None:
    assert unique.is_unique(wishful.is_alone)
    assert not unique.is_unique(outcomes.succeeds)
    assert not unique.is_unique(outcomes.plain)


# When a task is defined


def takes(customer: str, when: Any = object()) -> None:  # noqa: B008  a default that is not JSON
    pass


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"unique_by": ("customers", "place")}, "unique_by names customers, place, which takes does not take."),
        ({"unique_by": "customer"}, "unique_by is True or a tuple of names of arguments, not 'customer'."),
        ({"unique_by": False}, "unique_by is True or a tuple of names of arguments, not False."),
        ({"unique_by": (1,)}, "unique_by is True or a tuple"),
        ({"unique_by": ("customer",), "unique_for": 0}, "unique_for must be a number of seconds above 0."),
        ({"unique_by": ("customer",), "unique_for": float("inf")}, "unique_for must be a number"),
        ({"unique_by": ("customer",), "unique_for": "3600"}, "unique_for must be a number"),
        ({"unique_for": 60}, "takes has unique_for or on_conflict, which need unique_by."),
        ({"on_conflict": "replace"}, "takes has unique_for or on_conflict, which need unique_by."),
        ({"unique_by": ("customer",), "on_conflict": "ignore"}, "on_conflict is skip or replace, not 'ignore'."),
        ({"unique_by": True}, "The arguments of tests.engine.test_unique.takes make no key"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidTaskError, match=sentence):
        task(**options)(takes)


def test_a_context_is_no_argument() -> None:
    with pytest.raises(InvalidTaskError, match="names context, which is_alone does not take"):
        task(unique_by=("context",), takes_context=True)(wishful.is_alone.func)  # type: ignore[arg-type]


def test_the_example_of_the_readme_does_what_it_says() -> None:
    example = re.search(
        r"### Once, and in time\n\n```python\n(.*?)```", (BASE_DIR / "README.md").read_text(), re.DOTALL
    )
    assert example

    exec(example[1], {"__name__": "shop.tasks"})

    run = TaskRun.objects.get()
    assert (run.task_path, run.args) == ("shop.tasks.remind", [7, "Two parcels are here"])
    assert run.expires_at


def test_the_standing_run_is_found_by_its_indexes() -> None:
    assert isinstance(wishful.reminds.get_backend(), PostgresBackend)
    TaskRun.objects.bulk_create(
        TaskRun(task_path="x", status=status, unique_key=f"{status}{number}", enqueued_at=now, run_after=now,
                unique_until=now if number % 2 else None)
        for now in [database_now()] for status in (Status.READY, Status.SUCCESSFUL) for number in range(5_000)
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tasks_app_taskrun")
    close_old_connections()

    plan = TaskRun.objects.standing(["READY7", "SUCCESSFUL7"]).explain()

    assert "run_unique_unfinished" in plan and "run_unique_for_a_time" in plan
    assert "Seq Scan" not in plan
