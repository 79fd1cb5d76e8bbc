"""SUBMIT: every keyword of Django-Q2's `async_task` and `schedule` means what it says, or is refused by its name."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django_q import tasks as django_q
from django_q.brokers import Broker, get_broker
from django_q.models import Schedule, Task
from django_q.tasks import AsyncTask, Chain, Iter, async_task, schedule
from django_tasks.exceptions import InvalidTaskError

from tasks_app import checks
from tasks_app.clock import database_now
from tasks_app.engine import q2_options
from tasks_app.engine.broker import PostgresBroker
from tasks_app.models import Status, TaskRun
from tests import outcomes
from tests.engine.test_unique import fire
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

PLAIN = "tests.outcomes.plain"

# Each keyword, with values that do what they say, and values that are refused.
OPTIONS: dict[str, tuple[list[Any], list[Any]]] = {
    "hook": ([None, ""], ["math.sqrt", print]),
    "group": ([None, ""], ["g", 1]),
    "save": ([None, True], [False, 0]),
    "sync": ([None, False], [True]),
    "cached": ([None, False, 0], [True, 60]),
    "ack_failure": ([None, True], [False]),
    "iter_count": ([None], [3]),
    "iter_cached": ([None], [True]),
    "chain": ([None, []], [[("math.sqrt", (4,))]]),
    "broker": ([None, PostgresBroker("default")], [Broker("default"), "default"]),
    "cluster": ([None, "", "images"], [7, "q" * 101, ["a"]]),
    "timeout": ([None, -1, 5, 0.5], [0, -2, float("nan"), float("inf"), "soon", True]),
    "task_name": ([None, ""], ["n"]),
    "q_options": ([{}, {"timeout": 5}], [{"tiemout": 5}, {"group": "g"}, {"save": False}, {"broker_name": "x"}]),
}


def keywords_of_async_task() -> set[str]:
    """As its own source names them."""
    source = inspect.getsource(async_task)
    listed = re.search(r"opt_keys = \((.*?)\)", source, re.DOTALL)
    assert listed
    return {*re.findall(r'"(\w+)"', listed[1]), *re.findall(r'keywords\.pop\("(\w+)"', source)}


def test_the_table_has_every_keyword() -> None:
    assert keywords_of_async_task() == OPTIONS.keys()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (works, _) in OPTIONS.items() for value in works], ids=str
)
def test_async_task_takes(name: str, value: Any) -> None:
    run_id = async_task(PLAIN, 21, **{name: value})

    run = TaskRun.objects.get(pk=run_id)
    timeout = value if name == "timeout" and value != -1 else 5 if value == {"timeout": 5} else None
    assert (run.args, run.kwargs, run.timeout) == ([21], {}, timeout)
    assert run.queue_name == ("images" if value == "images" else "default")


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, refused) in OPTIONS.items() for value in refused], ids=str
)
@pytest.mark.parametrize("inside", [False, True])
def test_async_task_refuses_by_name(name: str, value: Any, inside: bool) -> None:
    options = {"q_options": {name: value}} if inside and name != "q_options" else {name: value}
    said = {"cluster": "A queue's name", "timeout": "A timeout is", "broker": "take this broker"}.get(name, name)
    if name == "q_options":
        said = next(iter(value))

    with pytest.raises(InvalidTaskError, match=said) as refused:
        async_task(PLAIN, 1, **options)

    assert str(refused.value).endswith(".")
    assert not TaskRun.objects.exists()
    assert not Task.objects.exists()


def test_two_queues_for_one_run_are_refused() -> None:
    with pytest.raises(InvalidTaskError, match="was given two queues: images and, by its broker, mail"):
        async_task(PLAIN, 1, cluster="images", broker=get_broker("mail"))

    async_task(PLAIN, 1, cluster="mail", broker=get_broker("mail"))
    assert TaskRun.objects.get().queue_name == "mail"


def test_a_time_limit_of_async_task_holds_and_none_takes_that_of_the_task_away(qcluster: ClusterFactory) -> None:
    qcluster()
    stopped = async_task("tests.outcomes.sleeps", 30, timeout=0.3)
    slept = async_task("tests.outcomes.sleeps", 0.5, timeout=-1, cluster="default")
    own = async_task("tests.outcomes.sleeps_too_long")
    none = async_task("tests.outcomes.sleeps_too_long", timeout=-1, cluster="nobody's")

    def status(run_id: str) -> tuple[str, str | None]:
        run = TaskRun.objects.get(pk=run_id)
        return run.status, run.failure

    wait_until(lambda: TaskRun.objects.finished().count() == 3, what="three ends")
    assert status(stopped) == status(own) == ("FAILED", "timed_out")
    assert status(slept) == ("SUCCESSFUL", None)
    assert TaskRun.objects.get(pk=none).timeout is None


def test_a_cluster_takes_what_async_task_sends_to_it(qcluster: ClusterFactory) -> None:
    qcluster(wait=False, Q_CLUSTER_NAME="default").wait_for_output("is ready")
    there = async_task(PLAIN, 1, cluster="default")
    elsewhere = async_task(PLAIN, 1, cluster="elsewhere")

    wait_until(lambda: TaskRun.objects.successful().filter(pk=there).exists(), what="the run of this cluster")
    assert TaskRun.objects.get(pk=elsewhere).status == Status.READY


# Schedules

SCHEDULED: dict[str, tuple[list[Any], list[Any]]] = {
    "name": ([None, "nightly"], []),
    "hook": ([None, ""], ["math.sqrt"]),
    "schedule_type": (["O", "H", "D"], ["ZZ"]),
    "minutes": ([None], [5]),
    "repeats": ([-1, 3], []),
    "next_run": ([database_now], ["tomorrow", None]),
    "cron": ([None], ["* * * * *"]),
    "cluster": ([None, "images"], ["q" * 101]),
    "intended_date_kwarg": ([None], ["class", "a b"]),
}


def keywords_of_schedule() -> set[str]:
    return set(re.findall(r'kwargs\.pop\("(\w+)"', inspect.getsource(schedule)))


def test_the_table_has_every_keyword_of_schedule() -> None:
    assert keywords_of_schedule() == SCHEDULED.keys()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (works, _) in SCHEDULED.items() for value in works], ids=str
)
def test_schedule_takes(name: str, value: Any) -> None:
    value = value() if callable(value) else value
    made = schedule(PLAIN, 21, **{"schedule_type": "D", "next_run": database_now(), name: value})

    assert fire()

    run = TaskRun.objects.get()
    assert (run.args, run.kwargs, run.queue_name) == ([21], {}, "images" if value == "images" else "default")
    assert run.schedule_name == (value if name == "name" and value else str(made.pk))
    left = Schedule.objects.filter(pk=made.pk).values_list("repeats", flat=True).first()
    assert left == (None if value == "O" else 2 if value == 3 else -1)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, refused) in SCHEDULED.items() for value in refused], ids=str
)
def test_schedule_refuses(name: str, value: Any) -> None:
    with pytest.raises((InvalidTaskError, ValidationError)):
        schedule(PLAIN, 21, **{"schedule_type": "D", name: value})

    assert not Schedule.objects.exists()


def test_a_name_of_another_schedule_is_refused() -> None:
    schedule(PLAIN, 21, name="nightly")
    with pytest.raises(IntegrityError, match="There is a schedule nightly already"):
        schedule(PLAIN, 21, name="nightly")


def test_minutes_and_cron_go_with_their_types() -> None:
    every = schedule(PLAIN, 21, schedule_type="I", minutes=5)
    cron = schedule(PLAIN, 21, schedule_type="C", cron="30 2 * * *")

    assert every.next_run + timedelta(minutes=5) == every.calculate_next_run()
    assert (cron.next_run.hour, cron.next_run.minute) == (2, 30)


# What async_task would make of them when a schedule is fired; the names that it keeps for itself.
IN_SCHEDULES = {name: values for name, values in OPTIONS.items() if name not in {"broker", "cluster", "group"}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, (_, refused) in IN_SCHEDULES.items()
        for value in refused
        if value != {"broker_name": "x"}  # the queue, by an older name that only schedules know
    ],
    ids=str,
)
def test_a_schedule_refuses_options_of_async_task_by_name(name: str, value: Any) -> None:
    said = {"timeout": "A timeout is", "q_options": "A schedule "}.get(name, name)
    if (name == "timeout" and value == float("inf")) or value != value or callable(value):
        said = "cannot be read|A timeout is|hook"

    with pytest.raises(InvalidTaskError, match=said):
        schedule(PLAIN, 21, schedule_type="D", **{name: value})

    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    "q_options", [{"group": "g"}, {"cluster": "a", "broker_name": "b"}, {"grope": 0}, {"chain": [1]}]
)
def test_a_schedule_refuses_what_stands_in_q_options(q_options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTaskError, match="A schedule "):
        schedule(PLAIN, 21, schedule_type="D", q_options=q_options)


def test_a_schedule_refuses_two_queues_and_takes_one_said_twice() -> None:
    with pytest.raises(InvalidTaskError, match="cannot take cluster among its q_options: its queue is images"):
        schedule(PLAIN, 21, schedule_type="D", cluster="images", q_options={"cluster": "mail"})

    schedule(PLAIN, 21, schedule_type="D", cluster="mail", q_options={"cluster": "mail", "timeout": 5})
    schedule(PLAIN, 21, schedule_type="D", q_options={"broker_name": "mail"})
    assert fire()
    assert sorted((run.queue_name, run.timeout or 0) for run in TaskRun.objects.all()) == [("mail", 0), ("mail", 5)]


# Reading results


def test_result_and_fetch_read_runs(qcluster: ClusterFactory) -> None:
    qcluster()
    good, bad = async_task(PLAIN, 21), async_task("tests.outcomes.fails", "on purpose")

    assert django_q.result(good, wait=20_000) == 42
    assert django_q.result(bad, wait=20_000) == "ValueError: on purpose"
    fetched, failed = django_q.fetch(good), django_q.fetch(bad)
    assert (fetched.id, fetched.func, fetched.args, fetched.success, fetched.result) == (good, PLAIN, (21,), True, 42)
    assert (failed.success, failed.result, failed.attempt_count) == (False, "ValueError: on purpose", 1)
    assert fetched.time_taken() >= 0
    one = AsyncTask(PLAIN, 4)
    one.run()
    assert one.result(wait=20_000) == 8


def test_there_is_no_result_before_the_end() -> None:
    run_id = async_task(PLAIN, 21)

    for unknown in (run_id, str(TaskRun.objects.get().pk), "nonsense", "0" * 32):
        assert django_q.result(unknown) is None
        assert django_q.fetch(unknown) is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda: django_q.result_group("g"), lambda: django_q.result_group("g", count=3),
        lambda: django_q.fetch_group("g"),
        lambda: django_q.count_group("g"), lambda: django_q.delete_group("g"), lambda: Iter(PLAIN, [1]).run(),
        lambda: Chain([(PLAIN, (1,)), (PLAIN, (2,))]).run(), lambda: Chain([(PLAIN, (1,))]).run(),
        lambda: django_q.async_iter(PLAIN, [1, 2]), lambda: django_q.async_chain([(PLAIN, (1,)), PLAIN]),
        lambda: django_q.result("x", cached=True), lambda: django_q.fetch("x", cached=True),
        lambda: django_q.result_group("g", cached=True), lambda: django_q.fetch_group("g", cached=True),
        lambda: django_q.count_group("g", cached=True), lambda: django_q.delete_group("g", cached=True),
        lambda: django_q.delete_cached("x"),
    ],
)  # fmt: skip
def test_what_would_read_what_stays_empty_says_so(ask: Any) -> None:
    with pytest.raises(InvalidTaskError, match=r"\.$"):
        ask()

    assert not TaskRun.objects.exists()


def test_queue_size_counts_runs() -> None:
    async_task(PLAIN, 21)

    assert django_q.queue_size() == 1


# Q_CLUSTER


def warnings(settings: Any, **options: Any) -> list[Any]:
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, **options}
    return checks.check_q_cluster()


def test_our_own_settings_are_heeded(settings: Any) -> None:
    assert checks.check_q_cluster() == []
    assert warnings(settings, scheduler=False, time_zone="UTC", ack_failures=True, cluster_name="x") == []


@pytest.mark.parametrize(
    "option",
    ["timeout", "retry", "max_attempts", "recycle", "max_rss", "save_limit", "bulk", "poll", "queue_limit", "orm",
     "redis", "sync", "cached", "error_reporter", "cpu_affinity", "a_typo"],
)  # fmt: skip
def test_an_option_that_would_be_ignored_is_named(settings: Any, option: str) -> None:
    (warning,) = warnings(settings, **{option: 7})

    assert (warning.id, warning.msg.endswith(f"is ignored here: {option}.")) == ("dumbwaiter.W001", True)


def test_another_number_of_workers_is_named(settings: Any) -> None:
    (warning,) = warnings(settings, workers=settings.WORKERS + 1)

    assert "workers: the setting WORKERS." in warning.hint


def test_options_of_an_alternative_cluster_are_named_too(settings: Any) -> None:
    (warning,) = warnings(settings, ALT_CLUSTERS={"mail": {"cluster_name": "mail", "recycle": 5}})

    assert "recycle" in warning.msg


def test_every_option_that_django_q2_reads_is_judged() -> None:
    conf = Path(inspect.getfile(get_broker)).parent.parent / "conf.py"
    known = set(re.findall(r'conf\.get\("(\w+)"', conf.read_text()))

    assert len(known) > 30
    assert known > checks.HONOURED - {"ALT_CLUSTERS", "name"}
    assert q2_options.KNOWN - {"task_name"} < keywords_of_async_task()
    assert outcomes.plain(2) == 4
