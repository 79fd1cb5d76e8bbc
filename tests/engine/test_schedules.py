"""RUN: Django-Q2's schedules, fired by real clusters, each time once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Group, User
from django.db import DatabaseError, connection, transaction
from django.http import QueryDict
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import Schedule
from django_q.tasks import schedule
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog, schedules
from tasks_app.clock import database_now
from tasks_app.engine import firing as schedule_firing
from tasks_app.engine.connect import connect
from tasks_app.engine.link import Link
from tasks_app.engine.timing import Timing
from tasks_app.models import Missed, Overlap, ScheduleRules, Status, TaskRun
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SUCCEEDS = "tests.outcomes.succeeds"


class Undone(Exception):
    pass


def fired(number: int = 1, **of: Any) -> list[TaskRun]:
    """So many runs of schedules, oldest first, once there are as many."""

    def found() -> list[TaskRun] | None:
        runs = list(TaskRun.objects.exclude(schedule_name=None).filter(**of).order_by("enqueued_at", "id"))
        return runs if len(runs) >= number else None

    return wait_until(found, what=f"{number} runs of schedules") or []


def in_seconds(seconds: float) -> datetime:
    return database_now() + timedelta(seconds=seconds)


def test_a_schedule_fires_and_its_run_is_its_history(qcluster: ClusterFactory) -> None:
    qcluster()
    hourly = schedule(SUCCEEDS, 1, "two", name="nightly", schedule_type=Schedule.HOURLY, key=[3])

    run = fired()[0]

    assert (run.schedule_id, run.schedule_name, run.task_path) == (hourly.pk, "nightly", SUCCEEDS)
    assert (run.args, run.kwargs, run.queue_name, run.owner) == ([1, "two"], {"key": [3]}, "default", None)
    wait_until(lambda: TaskRun.objects.successful().filter(pk=run.pk).exists(), what="the end of the run")
    due = hourly.next_run
    hourly.refresh_from_db()
    assert hourly.next_run == due + timedelta(hours=1)
    assert (hourly.repeats, hourly.task) == (-1, run.pk.hex)
    assert list(hourly.runs.all()) == [run]


def test_fires_within_a_second_of_its_time(qcluster: ClusterFactory) -> None:
    """By the database's clock; the best of three, since a machine can stand still for a moment."""
    qcluster()
    delays = []
    for seconds in (1.4, 1.8, 2.6):
        due = in_seconds(seconds)
        one = schedule(SUCCEEDS, schedule_type=Schedule.DAILY, next_run=due)
        delays.append((fired(schedule=one)[0].enqueued_at - due).total_seconds())

    assert min(delays) >= 0
    assert min(delays) < 0.5


def test_a_new_schedule_for_now_does_not_wait_for_a_heartbeat(qcluster: ClusterFactory) -> None:
    qcluster()
    delays = []
    for _ in range(5):
        asked = database_now()
        one = schedule(SUCCEEDS, schedule_type=Schedule.DAILY)
        delays.append((fired(schedule=one)[0].enqueued_at - asked).total_seconds())

    assert sorted(delays)[2] < 0.4


def test_many_schedules_and_three_clusters_fire_each_once(qcluster: ClusterFactory) -> None:
    clusters = [qcluster(wait=False, WORKERS=1) for _ in range(3)]
    for cluster in clusters:
        cluster.wait_for_output("is ready")
    due = in_seconds(2)
    Schedule.objects.bulk_create(
        Schedule(name=str(number), func=SUCCEEDS, schedule_type=Schedule.HOURLY, next_run=due) for number in range(500)
    )

    runs = fired(500)

    wait_until(lambda: not Schedule.objects.filter(next_run=due).exists(), what="every schedule to have moved on")
    assert Counter(run.schedule_name for run in runs) == Counter(str(number) for number in range(500))
    assert min(run.enqueued_at for run in runs) >= due
    assert sorted(run.enqueued_at for run in runs)[250] - due < timedelta(seconds=2)
    assert TaskRun.objects.count() == 500


def test_sentinels_killed_while_they_fire_lose_and_repeat_nothing(qcluster: ClusterFactory) -> None:
    clusters = [qcluster(WORKERS=1) for _ in range(2)]
    Schedule.objects.bulk_create(
        Schedule(name=str(number), func=SUCCEEDS, schedule_type="OH"[number % 2], next_run=timezone.now(), repeats=-1)
        for number in range(1_500)
    )

    for done, cluster in zip((1, 300, 600, 900), clusters * 2, strict=True):
        wait_until(lambda done=done: TaskRun.objects.count() >= done, what=f"{done} runs")  # type: ignore[misc]
        for sentinel in cluster.titled("sentinel"):
            sentinel.kill()

    runs = fired(1_500)
    wait_until(lambda: not Schedule.objects.filter(next_run__lte=timezone.now()).exists(), what="nothing to be due")
    assert Counter(run.schedule_name for run in runs) == Counter(str(number) for number in range(1_500))
    assert (TaskRun.objects.count(), Schedule.objects.count()) == (1_500, 750)


def test_a_broken_row_is_flagged_and_stops_nobody(qcluster: ClusterFactory) -> None:
    cluster = qcluster()
    broken = {
        "cannot be read as plain values": {"args": "__import__('os').system('true')"},
        "not written as x=1": {"kwargs": "[1, 2]"},
        "cannot take hook": {"hook": "math.sqrt"},
        "cannot be read: '61' is no minute": {"schedule_type": "C", "cron": "61 * * * *"},
        "no type of schedule": {"schedule_type": "ZZ"},
        "nested too deep": {"args": "[" * 199 + "]" * 199, "kwargs": "x=1"},
        "NUL": {"args": r"'a\x00b'"},
    }
    rows = Schedule.objects.bulk_create(
        Schedule(**{"func": SUCCEEDS, "schedule_type": "H", "next_run": timezone.now() - timedelta(hours=1), **columns})
        for columns in broken.values()
    )
    good = schedule(SUCCEEDS, name="good", schedule_type=Schedule.HOURLY)

    fired(schedule=good)
    wait_until(lambda: ScheduleRules.objects.exclude(error=None).count() == len(rows), what="the flags")
    for row, sentence in zip(rows, broken, strict=True):
        assert sentence in (row.rules.error or ""), row.rules.error
    assert TaskRun.objects.count() == 1
    assert cluster.output.count("cannot be fired") == len(rows)

    # Mended even by hand in the database, it is tried again.
    Schedule.objects.filter(pk=rows[0].pk).update(args="'mended'")
    assert fired(schedule=rows[0])[0].args == ["mended"]
    wait_until(lambda: ScheduleRules.objects.get(pk=rows[0].pk).error is None, what="the flag to be gone")


def test_many_are_saved_while_a_cluster_fires_them(qcluster: ClusterFactory) -> None:
    """A row is there for the clusters before its rules are: neither side ends the other in a deadlock."""
    cluster = qcluster()
    for number in range(60):
        schedule(SUCCEEDS, name=f"number {number}", schedule_type=Schedule.HOURLY, next_run=in_seconds(-1))

    wait_until(lambda: TaskRun.objects.filter(status=Status.SUCCESSFUL).count() == 60, what="a run of each")
    assert TaskRun.objects.values("schedule_id").distinct().count() == 60
    assert "deadlock" not in cluster.output


def test_the_time_that_was_intended_is_given_to_the_task(qcluster: ClusterFactory) -> None:
    qcluster()
    due = in_seconds(-5)
    schedule(SUCCEEDS, schedule_type=Schedule.HOURLY, next_run=due, intended_date_kwarg="day", other=1)

    assert fired()[0].kwargs == {"day": due.isoformat(), "other": 1}


# The rest needs no process: what a sentinel does at a time that is due, in the test's own.


@pytest.fixture
def fire(transactional_db: None) -> Iterator[Callable[[], bool]]:
    with connect("test") as db:
        yield lambda: schedule_firing.fire(db)


def make(**columns: Any) -> Schedule:
    """An hourly schedule that was due a second ago."""
    rules = {name: columns.pop(name) for name in ("time_zone", "missed", "overlap") if name in columns}
    values = {"func": SUCCEEDS, "schedule_type": "H", "next_run": in_seconds(-1)}
    made = Schedule.objects.create(**{**values, **columns})
    if rules:
        made.rules.change(**rules)
    return made


def test_repeats_are_counted_down_and_then_nothing_fires(fire: Callable[[], bool]) -> None:
    twice = make(repeats=2)

    for left in (1, 0):
        assert fire()
        twice.refresh_from_db()
        assert twice.repeats == left
        Schedule.objects.update(next_run=in_seconds(-1))
    assert not fire()
    assert twice.runs.count() == 2


KINDS = {
    "D": ["03-29 02:30", "03-30 02:30"],
    "W": ["04-04 02:30", "04-11 02:30"],
    "BW": ["04-11 02:30", "04-25 02:30"],
    "M": ["04-28 02:30", "05-28 02:30"],
    "BM": ["05-28 02:30", "07-28 02:30"],
    "Q": ["06-28 02:30", "09-28 02:30"],
    "Y": ["03-28 02:30", "03-28 02:30"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_time_that_is_left_out_is_put_off_on_that_day_only(fire: Callable[[], bool], kind: str) -> None:
    """Given by code, which names the zone afterwards, and fired as late as any cluster comes to it."""
    berlin = ZoneInfo("Europe/Berlin")
    made = make(schedule_type=kind, next_run=datetime(2021, 3, 28, 2, 30, tzinfo=berlin), time_zone="Europe/Berlin")
    assert Schedule.objects.get().next_run == datetime(2021, 3, 28, 1, 0, tzinfo=UTC)
    made.name = "saved once more"
    made.save()

    found, plan = [], ScheduleRules.objects.get().plan
    due = Schedule.objects.get().next_run
    timing = Timing(kind, "Europe/Berlin")
    for _ in range(2):
        following = timing.after(due, due, plan)
        assert following
        plan, due = timing.plan(due, following, plan), following
        found.append(f"{due.astimezone(berlin):%m-%d %H:%M}")
    assert found == KINDS[kind]
    assert fire()
    local = Schedule.objects.get().next_run.astimezone(berlin)
    assert (local.hour, local.minute) == (2, 30) or local.strftime("%m-%d") == "03-28"


def test_the_moment_after_a_gap_can_be_meant_itself(fire: Callable[[], bool]) -> None:
    """Somebody takes 02:30 back and says 03:00, which is the same moment on that day."""
    berlin = ZoneInfo("Europe/Berlin")
    made = make(schedule_type="D", next_run=datetime(2031, 3, 30, 2, 30, tzinfo=berlin), time_zone="Europe/Berlin")
    made.next_run = datetime(2031, 3, 30, 3, 0, tzinfo=berlin)
    made.save()

    after = made.calculate_next_run()
    assert after and after.astimezone(berlin).strftime("%d %H:%M") == "31 03:00"


def test_a_schedule_for_once_whose_time_was_skipped_does_not_look_done(fire: Callable[[], bool]) -> None:
    make(schedule_type="O", next_run=in_seconds(-3600), missed=Missed.SKIP)
    make(schedule_type="H", repeats=1, name="has run")

    assert fire()

    assert [run.schedule_name for run in TaskRun.objects.all()] == ["has run"]
    lines = {line.name: line for line in schedules.look(QueryDict()).lines}
    assert {name: (line.state, line.has_fired) for name, line in lines.items()} == {
        None: ("done", False), "has run": ("done", True),
    }  # fmt: skip
    assert "was over by more than a minute before a cluster could fire it" in (lines[None].skipped or "")


@pytest.mark.parametrize(("repeats", "kept"), [(-1, False), (1, True), (3, True)])
def test_a_schedule_for_once_deletes_itself_or_is_done(fire: Callable[[], bool], repeats: int, kept: bool) -> None:
    make(schedule_type="O", repeats=repeats, name="just once")

    assert fire()
    assert not fire()
    assert list(Schedule.objects.values_list("repeats", flat=True)) == ([0] if kept else [])
    run = TaskRun.objects.get()
    assert (run.schedule_name, run.schedule_id is not None) == ("just once", kept)


def test_repeats_of_zero_never_fire(fire: Callable[[], bool]) -> None:
    make(repeats=0)
    make(repeats=0, schedule_type="O")
    make(next_run=None)

    assert not fire()


def test_missed_times_are_run_once(fire: Callable[[], bool]) -> None:
    due = in_seconds(-3 * 3600 - 60)
    hourly = make(next_run=due)

    assert fire()
    assert not fire()
    hourly.refresh_from_db()
    assert hourly.next_run == due + timedelta(hours=4)
    assert TaskRun.objects.count() == 1


@pytest.mark.parametrize(("late", "runs"), [(30, 1), (90, 0)])
def test_missed_times_are_skipped_if_so_wished(fire: Callable[[], bool], late: float, runs: int) -> None:
    due = in_seconds(-late)
    hourly = make(next_run=due, missed=Missed.SKIP)

    assert fire()
    hourly.refresh_from_db()
    assert hourly.next_run == due + timedelta(hours=1)
    assert TaskRun.objects.count() == runs
    assert bool(hourly.rules.skipped) == (runs == 0)
    assert runs or "was over by more than a minute" in str(hourly.rules.skipped)


@pytest.mark.parametrize(("overlap", "runs"), [(Overlap.ALLOW, 2), (Overlap.SKIP, 1)])
def test_overlap(fire: Callable[[], bool], overlap: Overlap, runs: int) -> None:
    one = make(overlap=overlap, repeats=5)
    assert fire()
    Schedule.objects.update(next_run=in_seconds(-1))

    assert fire()  # its first run still waits

    assert one.runs.count() == runs
    one.refresh_from_db()
    assert one.repeats == 5 - runs
    assert one.next_run > timezone.now()
    assert ("its last run has not ended" in (one.rules.skipped or "")) == (runs == 1)
    TaskRun.objects.update(status=Status.SUCCESSFUL)
    Schedule.objects.update(next_run=in_seconds(-1))
    assert fire()
    assert one.runs.count() == runs + 1
    assert ScheduleRules.objects.get().skipped is None


def test_the_wall_clock_is_that_of_its_zone_and_a_short_month_moves_nothing(fire: Callable[[], bool]) -> None:
    monthly = make(schedule_type="M", next_run=datetime(2026, 1, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")))
    monthly.rules.change(time_zone="Europe/Berlin")
    assert fire()
    plan = ScheduleRules.objects.get().plan

    assert plan and plan["began"] == "2026-01-31T02:30:00"
    monthly.refresh_from_db()
    monthly.name = "saved again, without fractions of a second"
    monthly.save()
    Schedule.objects.update(repeats=1)
    assert (ScheduleRules.objects.get().plan or {})["began"] == "2026-01-31T02:30:00"


def test_a_transaction_cut_short_fires_nothing_and_the_next_does(fire: Callable[[], bool]) -> None:
    """What kill -9 leaves behind at any point: a transaction that never ended."""
    one = make()
    with connect("killed") as dying, suppress(Undone), dying.transaction():
        assert schedule_firing.fire(dying)
        assert not fire()  # nobody else fires what is being fired
        raise Undone

    assert TaskRun.objects.count() == 0
    assert fire()
    assert one.runs.count() == 1


def test_what_somebody_edits_is_fired_when_they_are_done(fire: Callable[[], bool]) -> None:
    one = make()
    with transaction.atomic():
        edited = Schedule.objects.select_for_update().get()
        assert not fire()
        edited.args = "'edited'"
        edited.save()

    assert fire()
    assert one.runs.get().args == ["edited"]


def test_who_deletes_a_schedule_that_is_just_fired_waits_for_that(fire: Callable[[], bool]) -> None:
    one = make(name="nightly")

    def delete() -> None:
        try:
            Schedule.objects.get(pk=one.pk).delete()
        finally:
            connection.close()

    deleting = threading.Thread(target=delete)
    with connect("firing") as firing, firing.transaction():
        assert schedule_firing.fire(firing)
        deleting.start()
        waiting = (
            "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database()"
        )
        with connect("watching") as watching:
            wait_until(lambda: watching.execute(waiting).fetchone(), what="the deletion to wait")
    deleting.join()

    run = TaskRun.objects.get()
    assert (run.schedule_id, run.schedule_name) == (None, "nightly")
    assert not (Schedule.objects.exists() or ScheduleRules.objects.exists())


def test_a_row_written_back_as_it_was_does_not_fire_a_second_time(fire: Callable[[], bool]) -> None:
    one = make()
    stale = Schedule.objects.get()
    assert fire()

    stale.name = "renamed"
    stale.save()

    assert fire()
    assert one.runs.count() == 1
    assert "was fired for" in (ScheduleRules.objects.get().skipped or "")


def test_a_schedule_that_is_done_is_not_brought_back_by_saving_it(fire: Callable[[], bool]) -> None:
    make(schedule_type="O")
    stale = Schedule.objects.get()
    assert fire()

    with pytest.raises(InvalidTaskError, match="is gone"):
        stale.save()


def test_the_history_outlives_its_schedule(fire: Callable[[], bool]) -> None:
    one = make(name="nightly")
    assert fire()

    one.delete()

    run = TaskRun.objects.get()
    assert (run.schedule_id, run.schedule_name) == (None, "nightly")
    assert not ScheduleRules.objects.exists()


def test_what_only_the_database_refuses_is_flagged_alone(fire: Callable[[], bool]) -> None:
    """No such row is known, so one is made up: a trigger that refuses a name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION no_bad() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN IF NEW.schedule_name = 'bad' THEN RAISE 'not this one'; END IF; RETURN NEW; END$$"
        )
        cursor.execute(
            "CREATE TRIGGER no_bad BEFORE INSERT ON tasks_app_taskrun FOR EACH ROW EXECUTE FUNCTION no_bad()"
        )
    try:
        bad = make(name="bad")
        good = [make(name=f"good {number}") for number in range(3)]
        assert fire()
        assert not fire()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION no_bad CASCADE")

    assert {run.schedule_id for run in TaskRun.objects.all()} == {one.pk for one in good}
    assert "not this one" in (ScheduleRules.objects.get(pk=bad.pk).error or "")


@pytest.mark.parametrize(
    ("columns", "queue"),
    [({}, "default"), ({"cluster": "images"}, "images"), ({"kwargs": "q_options={'cluster': 'pdf'}"}, "pdf")],
)
def test_the_cluster_of_a_schedule_is_its_queue(fire: Callable[[], bool], columns: Any, queue: str) -> None:
    make(**columns)

    assert fire()
    assert TaskRun.objects.get().queue_name == queue


def test_a_run_has_the_options_of_its_task(fire: Callable[[], bool]) -> None:
    make(func="tests.outcomes.swallows_its_time_limit", name="own")
    make(func="tests.outcomes.swallows_its_time_limit", kwargs="timeout=7", name="given")
    make(func="tests.outcomes.plain", args="21", name="plain")

    assert fire()
    told = {run.schedule_name: (run.max_attempts, run.timeout) for run in TaskRun.objects.all()}
    assert told == {"own": (2, 0.2), "given": (2, 7), "plain": (3, None)}


def test_a_sentinel_that_has_not_loaded_the_task_knows_its_options_from_the_saving(
    fire: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(func="tests.outcomes.swallows_its_time_limit")
    monkeypatch.setattr(catalog, "loaded", lambda path: None)

    assert fire()
    run = TaskRun.objects.get()
    assert (run.max_attempts, run.timeout) == (2, 0.2)


def test_run_now_is_a_run_beside_the_times(fire: Callable[[], bool]) -> None:
    due = in_seconds(3600)
    one = make(next_run=due, overlap=Overlap.SKIP, repeats=2)
    somebody = User.objects.create_user("mara")

    run = TaskRun.objects.get(pk=one.rules.run_now(somebody))

    one.refresh_from_db()
    assert (run.schedule_id, run.owner, one.next_run, one.repeats) == (one.pk, somebody, due, 2)
    Schedule.objects.update(next_run=in_seconds(-1))
    assert fire()
    assert one.runs.get() == run  # it has not ended, so the schedule's own time was skipped


@pytest.mark.parametrize("task", [SUCCEEDS, "tests.wishful.reminds_of_all"])
def test_its_runs_are_about_the_object_that_it_was_given(fire: Callable[[], bool], task: str) -> None:
    crew, other = (Group.objects.create(name=name) for name in ("crew", "other"))
    hourly = schedule(task, 7, schedule_type="H", next_run=in_seconds(-1), about=crew)
    once = schedule(task, 8, next_run=in_seconds(-1), about=other)
    make(func=task, args="9")

    assert fire()
    hourly.rules.change(missed=Missed.SKIP)
    TaskRun.objects.update(status=Status.SUCCESSFUL)
    now = hourly.rules.run_now()
    hourly.rules.change(about=None)
    TaskRun.objects.update(status=Status.SUCCESSFUL)
    last = hourly.rules.run_now()

    told = dict(TaskRun.objects.exclude(pk__in=[now, last]).values_list("args__0", "about"))
    assert told == {7: f"auth.group:{crew.pk}", 8: f"auth.group:{other.pk}", 9: None}
    assert TaskRun.objects.get(pk=now).about == f"auth.group:{crew.pk}"
    assert TaskRun.objects.get(pk=last).about is None
    assert not Schedule.objects.filter(pk=once.pk).exists()


NO_RULES = """
CREATE FUNCTION no_rules() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no rules'; END $$;
CREATE TRIGGER no_rules BEFORE INSERT ON tasks_app_schedulerules FOR EACH ROW EXECUTE FUNCTION no_rules()
"""


def test_a_schedule_is_there_with_its_rules_or_not_at_all() -> None:
    """A cluster that found it alone would fire it without the options of its task."""
    with connection.cursor() as cursor:
        cursor.execute(NO_RULES)
        try:
            with pytest.raises(DatabaseError, match="no rules"):
                schedule(SUCCEEDS)
        finally:
            cursor.execute("DROP FUNCTION no_rules CASCADE")

    assert not Schedule.objects.exists()


def test_q_clusters_option_scheduler_turns_firing_off(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    link = Link("default", "host", ["default"], 1)
    try:
        assert link.beat(busy=0, workers=1).fire_in == 0
        monkeypatch.setattr(Conf, "SCHEDULER", False)
        assert link.beat(busy=0, workers=1).fire_in is None
    finally:
        link.sign_off([], [])
