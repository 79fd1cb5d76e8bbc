"""SUBMIT: which schedules are taken, and which are refused with a sentence when they are saved."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import schedule
from django_tasks.exceptions import InvalidTaskError

from config.local import BASE_DIR
from tasks_app.checks import check_catch_up
from tasks_app.engine.schedule_call import BadSchedule, read_call
from tasks_app.engine.timing import CRON_NAMES
from tasks_app.models import ScheduleRules
from tests import outcomes

pytestmark = pytest.mark.django_db

SUCCEEDS = "tests.outcomes.succeeds"


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (None, None, ([], {})),
        ("", "", ([], {})),
        ("()", "{}", ([], {})),
        ("1, 'two'", "x=1, y=[2]", ([1, "two"], {"x": 1, "y": [2]})),
        ("'one'", "{'x': None}", (["one"], {"x": None})),
        ("[1, 2]", "x=-1", ([[1, 2]], {"x": -1})),
        ("(1, (2, 3))", "x=(1,)", ([1, [2, 3]], {"x": [1]})),
        ((1, "two"), {"x": {"y": 1}}, ([1, "two"], {"x": {"y": 1}})),
    ],
)
def test_arguments_are_read_as_django_q2_writes_them(args: Any, kwargs: Any, expected: Any) -> None:
    call = read_call(SUCCEEDS, None, args, kwargs, None)

    assert (call.args, call.kwargs) == expected


@pytest.mark.parametrize(
    "text",
    [
        "open('/etc/passwd')", "x", "1 +", "(1", "{1, 2}", "'a\\x00b'", "1e999", "datetime.datetime(2026, 1, 1)",
        "b'\\xff'",
        "(" * 100_000, "-" * 200_000 + "1", "1+" * 100_000 + "1", "'" + "x" * 1_000_001 + "'", "{(1, 2): 3}",
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_not_plain_json_is_refused(text: str) -> None:
    with pytest.raises(BadSchedule, match=r"\.$|:"):
        read_call(SUCCEEDS, None, text, None, None)
    for keywords in (f"x={text}", f"{{'x': {text}}}"):
        with pytest.raises(BadSchedule):
            read_call(SUCCEEDS, None, None, keywords, None)


@pytest.mark.parametrize("text", ["1, 2", "[1]", "**{}", "f(x=1)", "x=1); f(y=2", "*[1]", "{1: 2}", "1", "'x=1'"])
def test_keyword_arguments_that_are_none_are_not_taken_for_nothing(text: str) -> None:
    with pytest.raises(BadSchedule):
        read_call(SUCCEEDS, None, None, text, None)


@pytest.mark.parametrize("kind", ["I", "H", "D", "W", "BW", "M", "BM", "Q", "Y", "O"])
def test_every_type_is_taken(kind: str) -> None:
    made = schedule(SUCCEEDS, 1, schedule_type=kind, key="value", name="nightly")

    assert (made.rules.time_zone, made.rules.missed, made.rules.overlap) == ("UTC", "once", "allow")
    with pytest.raises(IntegrityError):
        schedule(SUCCEEDS, name="nightly")


def test_a_cron_schedule_begins_at_its_first_time() -> None:
    made = schedule(SUCCEEDS, schedule_type="C", cron="30 2 * * *")
    assert (made.next_run.hour, made.next_run.minute) == (2, 30)
    assert timedelta() < made.next_run - timezone.now() <= timedelta(days=1)

    made.cron = "45 * * * *"
    made.save()

    assert made.next_run.minute == 45
    later = made.next_run + timedelta(days=400)
    made.next_run = later
    made.save()
    assert Schedule.objects.get().next_run == later  # somebody's wish


def test_django_q2s_own_reckoning_is_ours() -> None:
    """Its library for cron would answer with 02:30 for the second time in that night."""
    made = schedule(SUCCEEDS, schedule_type="D", next_run=datetime(2026, 10, 24, 0, 30, tzinfo=UTC))
    made.rules.change(time_zone="Europe/Berlin")

    first = made.calculate_next_run()
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert made.calculate_next_run(first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_its_task_is_kept_under_its_own_path() -> None:
    assert schedule("tasks_app.tasks.create_task", type=1).func == "tasks_app.tasks.practice.create_task"


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"func": "tests.outcomes.missing"}, "There is no task tests.outcomes.missing."),
        ({"func": "no_such_module.task"}, "There is no task"),
        ({"func": ""}, "There is no task"),
        ({"func": "tests.outcomes.fails", "args": "1, 2"}, "fails cannot be called with these arguments: too many"),
        ({"func": "tests.outcomes.plain"}, "missing a required argument: 'number'"),
        ({"func": "tests.outcomes.progresses"}, "missing a required argument: 'gate'"),
        ({"func": "tests.outcomes.fails", "intended_date_kwarg": "day"}, "unexpected keyword argument 'day'"),
        ({"args": "object()"}, "The arguments cannot be read as plain values: object()"),
        ({"hook": "math.sqrt"}, "A schedule cannot take hook here"),
        ({"kwargs": "q_options={'group': 'g', 'sync': True}"}, "cannot take group, sync"),
        ({"kwargs": "task_name='n', save=False"}, "cannot take save, task_name"),
        ({"kwargs": "timeout=0"}, "A timeout is a number of seconds above 0"),
        ({"kwargs": "q_options=7"}, "q_options is a mapping"),
        ({"cluster": "q" * 101}, "A queue's name has 1 to 100 characters"),
        ({"schedule_type": "I", "minutes": 0}, "at least 1 minute"),
        ({"schedule_type": "D", "minutes": 5}, "Only a schedule of the type Minutes"),
        ({"schedule_type": "D", "cron": "* * * * *"}, "Only a schedule of the type Cron"),
        ({"schedule_type": "C", "cron": "0 22-2 * * *"}, "cannot be read: '22-2' is no hour. Hours are 0 to 23"),
        ({"schedule_type": "C", "cron": "0 0 * * * *"}, "has five fields"),
        ({"schedule_type": "C"}, "needs a cron expression"),
        ({"schedule_type": "ZZ"}, "There is no type of schedule"),
    ],
)
def test_what_cannot_be_fired_is_refused_with_a_sentence(columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidTaskError, match=re.escape(sentence)):
        Schedule.objects.create(**{"func": SUCCEEDS, **columns})

    assert not Schedule.objects.exists()


def test_schedule_refuses_it_too() -> None:
    with pytest.raises(InvalidTaskError, match="cannot take hook"):
        schedule(SUCCEEDS, hook="math.sqrt")
    with pytest.raises(InvalidTaskError, match="cannot be read as plain values"):
        schedule(SUCCEEDS, object())
    with pytest.raises(ValidationError):
        schedule(SUCCEEDS, schedule_type="C", cron="61 * * * *")
    with pytest.raises(InvalidTaskError, match="There is no task"):
        schedule(outcomes.plain, 1)


def test_a_schedule_whose_task_is_gone_can_still_be_put_off_or_renamed() -> None:
    (row,) = Schedule.objects.bulk_create([Schedule(func="tests.outcomes.removed")])
    later = timezone.now() + timedelta(days=1)

    row.next_run, row.name = later, "put off"
    row.save(update_fields=["next_run", "name"])

    assert Schedule.objects.get().next_run == later
    with pytest.raises(InvalidTaskError):
        row.save()


def test_its_rules_are_changed_by_name() -> None:
    made = schedule(SUCCEEDS, schedule_type="C", cron="30 2 * * *")

    made.rules.change(time_zone="Asia/Tokyo", missed="skip", overlap="skip")

    rules = ScheduleRules.objects.get()
    assert (rules.time_zone, rules.missed, rules.overlap) == ("Asia/Tokyo", "skip", "skip")
    assert Schedule.objects.get().next_run.astimezone(ZoneInfo("Asia/Tokyo")).hour == 2
    for wrong in ({"time_zone": "Mars"}, {"missed": "maybe"}, {"pause": True}):
        with pytest.raises(InvalidTaskError):
            rules.change(**wrong)
    assert ScheduleRules.objects.get().time_zone == "Asia/Tokyo"


def test_it_knows_the_object_that_it_is_about() -> None:
    crew = Group.objects.create(name="crew")

    made = schedule(SUCCEEDS, 7, name="about", about=crew)
    made.rules.change(overlap="skip")

    kept = Schedule.objects.get()
    assert (kept.args, kept.kwargs, made.rules.about) == ("(7,)", "{}", f"auth.group:{crew.pk}")
    assert ScheduleRules.objects.get().about == f"auth.group:{crew.pk}"
    with pytest.raises(InvalidTaskError, match="about is an object of a model, not a int"):
        made.rules.change(about=7)
    with pytest.raises(InvalidTaskError, match=r"save this auth\.Group first"):
        schedule(SUCCEEDS, about=Group())
    assert Schedule.objects.count() == 1


def test_an_argument_may_be_called_about() -> None:
    made = schedule(SUCCEEDS, about="cats")

    assert (made.kwargs, made.rules.about) == ("{'about': 'cats'}", None)
    with pytest.raises(InvalidTaskError, match="unexpected keyword argument 'about'"):
        schedule("tests.outcomes.fails", about="cats")


def cron_lines() -> list[str]:
    """Those that the README shows, and its names."""
    told = re.search(
        r"- \*\*Cron\*\*.*?\n- \*\*|- \*\*Cron\*\*.*?\n- ", (BASE_DIR / "README.md").read_text(), re.DOTALL
    )
    assert told
    return [line for line in re.findall(r"`([^`]+)`", told[0]) if line != "next_run"]


def test_the_cron_lines_of_the_readme_are_taken_by_every_door() -> None:
    lines = cron_lines()
    assert {line for line in lines if line.startswith("@")} == set(CRON_NAMES)
    assert len(lines) == len(CRON_NAMES) + 5

    for line in lines:
        assert schedule(SUCCEEDS, schedule_type="C", cron=line).next_run > timezone.now()
        assert Schedule.objects.create(func=SUCCEEDS, schedule_type="C", cron=line).next_run > timezone.now()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("60 * * * *", "'60' is no minute. Minutes are 0 to 59"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("0 24 * * *", "'24' is no hour. Hours are 0 to 23"),
        ("0 0 0 * *", "'0' is no day of the month. Days are 1 to 31, L for the last"),
        ("0 0 1 13 *", "'13' is no month. Months are 1 to 12, or jan to dec"),
        ("0 0 * * fri-sun", "'fri-sun' is no weekday. Weekdays are 0 to 7"),
        ("0 0 30 2 *", "no day '30' in the month '2'"),
        ("0 0 * * * *", "five fields, minute to weekday, or is one of @hourly"),
        ("@reboot", "is one of @hourly"),
        ("R R * * *", "'R' is no minute"),
    ],
)
def test_a_cron_line_that_cannot_be_read_says_what_could(line: str, sentence: str) -> None:
    for make in (schedule, lambda func, **columns: Schedule.objects.create(func=func, **columns)):
        with pytest.raises((ValidationError, InvalidTaskError)) as refused:
            make(SUCCEEDS, schedule_type="C", cron=line)
        assert sentence in str(refused.value).replace("\\'", "'")
    assert not Schedule.objects.exists()


def test_q_clusters_catch_up_is_refused(settings: Any) -> None:
    assert check_catch_up() == []
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "catch_up": True}
    assert [error.id for error in check_catch_up()] == ["dumbwaiter.E006"]


def test_the_example_of_the_readme_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its very lines, with the task `shop.tasks.greet` that the README adds before."""
    readme = (BASE_DIR / "README.md").read_text()
    lines = re.search(r"```python\n(from django_q\.tasks import schedule\n.*?)```", readme, re.DOTALL)
    assert lines
    shop = SimpleNamespace(tasks=SimpleNamespace(greet=outcomes.succeeds))
    monkeypatch.setattr("tasks_app.catalog.find", lambda path: {"shop.tasks.greet": shop.tasks.greet}[path])
    monkeypatch.setattr("tasks_app.catalog.path_of", lambda func: func)

    exec(lines[1], {})

    made = Schedule.objects.get()
    assert (made.name, made.rules.time_zone, made.rules.missed) == ("greetings", "Europe/Berlin", "skip")
    local: datetime = made.next_run.astimezone(ZoneInfo("Europe/Berlin"))
    assert (local.hour, local.minute, local.weekday() < 5) == (2, 30, True)
