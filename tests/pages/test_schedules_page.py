"""WATCH and STEER: the schedules as pages."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule
from pytest_django import DjangoAssertNumQueries

from tasks_app import schedules, timetable, wording
from tasks_app.clock import database_now
from tasks_app.engine import firing
from tasks_app.engine.connect import connect
from tasks_app.engine.schedule_call import read_literals
from tasks_app.engine.timing import Timing
from tasks_app.models import AuditEntry, ScheduleRules, Status, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
TASK = "tasks_app.tasks.practice.create_task"
FILLED_IN = {
    "task": TASK, "name": "nightly", "arg-type": "1", "given": "", "schedule_type": "D", "minutes": "", "cron": "",
    "next_run": "2031-03-30T02:30:00", "initial-next_run": "", "repeats": "-1", "initial-repeats": "-1",
    "time_zone": "Europe/Berlin", "missed": "once", "overlap": "skip", "cluster": "", "intended_date_kwarg": "",
}  # fmt: skip


def make(**columns: Any) -> Schedule:
    given = {"func": TASK, "kwargs": "{'type': 1}", "name": "nightly", "schedule_type": "D", **columns}
    given.setdefault("next_run", timezone.now() + timedelta(hours=2))
    return Schedule.objects.create(**given)


def page(client: Client, address: str = "/schedules/") -> str:
    response = client.get(address)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def steer(client: Client, made: Schedule, do: str, **given: str) -> str:
    """The page that it leads to."""
    response = client.post(f"/schedules/{made.pk}/steer/", {"do": do, **given}, follow=True)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def add(client: Client, **given: str) -> Any:
    return client.post("/schedules/new/", {**FILLED_IN, **given})


def said(response: Any) -> str:
    assert response.status_code == 422, "It was accepted."
    return html.unescape(response.content.decode())


# The list


def test_a_row_tells_what_when_and_how_it_went(operators_client: Client, run: RunFactory) -> None:
    made = make(schedule_type="C", cron="*/5 * * * *")
    run(60, schedule=made, schedule_name="nightly", **SITUATIONS["successful"])
    text = row_of(page(operators_client), made)

    for told in ("nightly", "create_task", "type=1", "Every fifth minute", "*/5 * * * *", "Run now", "s on average"):
        assert told in text
    assert len(next_ones(text)) == timetable.TOLD


@pytest.mark.parametrize("address", ["/schedules/", "/schedules/{}/"])
def test_the_strip_tells_of_its_last_runs(operators_client: Client, run: RunFactory, address: str) -> None:
    """Oldest first, each with its end, when it was sent by the viewer's clock and how long it took."""
    made, another = make(), make(name="another")
    run(3, schedule=another, schedule_name="another", **SITUATIONS["cancelled"])
    runs = [
        run(900 - 100 * number, schedule=made, schedule_name="nightly", **SITUATIONS[word])
        for number, word in enumerate(("successful", "failed", "cancelled", "running", "ready"))
    ]
    operators_client.cookies["time_zone"] = "Asia/Kolkata"
    text = part_of(page(operators_client, address.format(made.pk)), made)

    strip = re.search(r'<ol class="outcomes"[^>]*>(.*?)</ol>', text, re.DOTALL)
    assert strip
    ends = ("Successful, {}, 10.0 s", "Failed (error), {}, 10.0 s", "Cancelled, {}, 10.0 s", "Running, {}", "Ready, {}")
    kolkata = ZoneInfo("Asia/Kolkata")
    moments = [one.enqueued_at.astimezone(kolkata) for one in runs]
    assert re.findall(r'<li><a class="status status--(\w+)" href="/runs/([^/]+)/" title="([^"]*)">', strip[1]) == [
        (one.status.lower(), str(one.pk), said.format(f"{at.day} {at:%B %Y, %H:%M:%S} IST"))
        for one, said, at in zip(runs, ends, moments, strict=True)
    ]


# Every day at 02:30 in Berlin; in the night to the 30th of March that is left out, and it runs at 03:00.
NIGHTS = [
    datetime(2031, 3, day, hour, minute, tzinfo=UTC)
    for day, hour, minute in ((29, 1, 30), (30, 1, 0), (31, 0, 30))
] + [datetime(2031, 4, day, 0, 30, tzinfo=UTC) for day in (1, 2)]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        (
            "Europe/Berlin",
            ["Sat 29 March 2031, 02:30", "Sun 30 March 2031, 03:00", "Mon 31 March 2031, 02:30",
             "Tue 1 April 2031, 02:30", "Wed 2 April 2031, 02:30"],
        ),
        (
            "America/New_York",
            ["Fri 28 March 2031, 21:30", "Sat 29 March 2031, 21:00", "Sun 30 March 2031, 20:30",
             "Mon 31 March 2031, 20:30", "Tue 1 April 2031, 20:30"],
        ),
        (
            "Asia/Kolkata",
            ["Sat 29 March 2031, 07:00", "Sun 30 March 2031, 06:30", "Mon 31 March 2031, 06:00",
             "Tue 1 April 2031, 06:00", "Wed 2 April 2031, 06:00"],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("address", ["/schedules/", "/schedules/{}/"])
def test_the_next_five_are_told_by_the_viewers_clock(
    operators_client: Client, address: str, zone: str, told: list[str]
) -> None:
    made = make(next_run=NIGHTS[0])
    made.rules.change(time_zone="Europe/Berlin")
    another = make(name="another", next_run=NIGHTS[0] + timedelta(minutes=5))
    another.rules.pause()
    operators_client.cookies["time_zone"] = zone

    text = part_of(page(operators_client, address.format(made.pk)), made)

    found = next_ones(text)
    assert [datetime.fromisoformat(at) for at, _, _ in found] == NIGHTS
    assert [said for _, _, said in found] == told
    assert [title for _, title, _ in found] == [
        f"{at.day} {at:%B %Y, %H:%M:%S %Z}" for at in (night.astimezone(ZoneInfo(zone)) for night in NIGHTS)
    ]
    assert "Every day at 02:30" in text  # by its own clock


def row_of(text: str, made: Schedule) -> str:
    found = re.search(rf'<tr id="schedule-{made.pk}">.*?</tr>', text, re.DOTALL)
    assert found
    return found[0]


def part_of(text: str, made: Schedule) -> str:
    """Its row of the list, or all of its own page but for the form."""
    found = re.search(r'<article class="stack" id="schedule".*?</article>', text, re.DOTALL)
    return found[0] if found else row_of(text, made)


def next_ones(text: str) -> list[tuple[str, str, str]]:
    """The moments that it says it will fire at: each with what it says when pointed at, and with its text."""
    return re.findall(r'<time datetime="([^"]+)" title="([^"]+)">([^<]*\d\d:\d\d)</time>', text)


def test_the_strip_has_the_newest_of_many(operators_client: Client, run: RunFactory) -> None:
    made = make()
    for number in range(25):
        run(100 + number, schedule=made, schedule_name="nightly", **SITUATIONS["successful"])
    newest = run(50, schedule=made, schedule_name="nightly", **SITUATIONS["failed"])

    line = schedules.one(made.pk)

    assert line
    assert len(line.outcomes) == schedules.OUTCOMES
    assert line.last
    assert (line.last.id, line.failed) == (str(newest.pk), 1)
    assert line.average == pytest.approx(10, abs=0.1)


def test_what_keeps_it_from_firing_is_told(operators_client: Client) -> None:
    broken, done = make(name="broken"), make(name="done", repeats=0)
    overdue = make(name="overdue", next_run=timezone.now() - timedelta(minutes=3))
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tasks_app_schedulerules SET error = 'No such <b>task</b>.', broken_version ="
            " (SELECT xmin::text FROM django_q_schedule WHERE id = schedule_id) WHERE schedule_id = %s", [broken.pk]
        )  # fmt: skip
    ScheduleRules.objects.filter(schedule=done).update(last_due=timezone.now())
    states = {line.name: (line.state, line.is_overdue) for line in schedules.look(query()).lines}

    assert states == {"broken": ("broken", False), "done": ("done", False), "overdue": ("active", True)}
    text = operators_client.get("/schedules/").content.decode()
    said = {
        each.name: [word for word in ("No such &lt;b&gt;task&lt;/b&gt;.", "no cluster has fired it") if word in row]
        for each in (broken, done, overdue)
        for row in [row_of(text, each)]
    }
    assert said == {
        "broken": ["No such &lt;b&gt;task&lt;/b&gt;."], "done": [], "overdue": ["no cluster has fired it"],
    }  # fmt: skip
    for each, word in ((broken, "Broken"), (done, "Done"), (overdue, "Overdue")):
        assert f"</svg>{word}</span>" in row_of(text, each)
    assert re.search(r'<small class="trouble">.*?No such', row_of(text, broken), re.DOTALL)
    assert next_ones(row_of(text, broken)) == next_ones(row_of(text, done)) == []
    assert "not planned" in row_of(text, broken)
    assert "It cannot be fired." in page(operators_client, f"/schedules/{broken.pk}/")
    assert "It is done" in page(operators_client, f"/schedules/{done.pk}/")
    assert "no cluster has fired it" in page(operators_client, f"/schedules/{overdue.pk}/")


def query(**given: str) -> Any:
    from django.http import QueryDict

    made = QueryDict(mutable=True)
    made.update(given)
    return made


def names(**given: str) -> list[str | None]:
    return [line.name for line in schedules.look(query(**given)).lines]


def test_the_list_is_filtered_and_searched(operators_client: Client) -> None:
    soon = make(name="soon", next_run=timezone.now() + timedelta(minutes=1))
    make(name="Later")
    make(name="done", repeats=0)
    soon.rules.pause()

    assert names() == ["soon", "Later", "done"]
    assert names(state="paused") == ["soon"]
    assert names(state="active") == ["Later"]
    assert names(state="done") == ["done"]
    assert names(q="LATE") == ["Later"]
    assert names(q="create_task", state="broken") == []
    assert "Nothing matches" in page(operators_client, "/schedules/?q=nothing")


def test_pages_lose_none_of_the_same_moment(operators_client: Client) -> None:
    at = timezone.now() + timedelta(hours=1)
    for number in range(60):
        make(name=f"n{number}", next_run=at)
    seen: list[str | None] = []
    given: dict[str, str] = {}
    for _ in range(3):
        found = schedules.look(query(**given))
        seen += [line.name for line in found.lines]
        given = dict([found.later[1:].split("=")]) if found.later else {}
    assert sorted(map(str, seen)) == sorted(f"n{number}" for number in range(60))
    assert not given

    back = schedules.look(query(**dict([str(found.earlier)[1:].split("=")])))
    assert [line.name for line in back.lines] == seen[25:50]


@pytest.mark.parametrize("bad", ["state=pink", "older=10**9", "newer=x", "q=%00", "q=" + "x" * 200_000, "seen=forged"])
def test_bad_input_in_the_url_is_corrected(operators_client: Client, bad: str) -> None:
    make()
    assert operators_client.get(f"/schedules/?{bad}").status_code == 200
    assert operators_client.get(f"/schedules/?{bad}", headers=HTMX).status_code == 200


def test_a_poll_without_news_costs_one_query(
    operators_client: Client, run: RunFactory, django_assert_num_queries: DjangoAssertNumQueries,
) -> None:  # fmt: skip
    made = make()
    for address in ("/schedules/", f"/schedules/{made.pk}/"):
        found = re.search(r'data-poll hx-get="([^"]+)"', operators_client.get(address).content.decode())
        assert found
        poll = html.unescape(found[1])
        with django_assert_num_queries(1):
            assert operators_client.get(poll, headers=HTMX).status_code == 204
        run(1, schedule=made, schedule_name="nightly")
        answer = operators_client.get(poll, headers=HTMX)
        assert answer.status_code == 200
        assert "<main" not in answer.content.decode()


def test_a_page_of_them_costs_few_queries(
    operators_client: Client, run: RunFactory, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        made = make(name=f"n{number}")
        made.rules.pause(why="x")
        run(5, schedule=made, schedule_name="n")
    with django_assert_max_num_queries(10):
        page(operators_client)
    with django_assert_max_num_queries(10):
        page(operators_client, f"/schedules/{made.pk}/")


def test_the_runs_of_a_schedule_are_found_by_their_index(run: RunFactory) -> None:
    made = make()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,"
            " enqueued_at, finished_at, attempt, max_attempts, attempts, schedule_id) SELECT gen_random_uuid(), 'a.b',"
            " '[]', '{}', 'q', 0, 'SUCCESSFUL', now(), now(), now(), 0, 1, '[]', CASE WHEN n %% 3 > 0 THEN %s END"
            " FROM generate_series(1, 20000) AS n", [made.pk],
        )  # fmt: skip
        cursor.execute("ANALYZE tasks_app_taskrun")
        statement = schedules.LOOK.format(where="true", way="ASC", long=300, outcomes=20)
        cursor.execute(f"EXPLAIN {statement}", {"never": schedules.NEVER, "most": 26})
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "run_schedule_newest" in plan
    assert "Seq Scan on tasks_app_taskrun" not in plan


def test_who_is_no_operator_finds_nothing(client: Client) -> None:
    made = make()
    for address in ("/schedules/", f"/schedules/{made.pk}/", "/schedules/new/", "/schedules/preview/"):
        assert client.get(address).status_code == 404
    assert client.post(f"/schedules/{made.pk}/steer/", {"do": "delete"}).status_code == 404
    assert Schedule.objects.exists()


@pytest.mark.parametrize("pk", [0, 2**31, 10**30])
def test_what_is_not_there_is_not_found(operators_client: Client, pk: int) -> None:
    assert operators_client.get(f"/schedules/{pk}/").status_code == 404
    assert operators_client.post(f"/schedules/{pk}/steer/", {"do": "run"}).status_code == 404


def test_nothing_yet_says_what_a_schedule_is(operators_client: Client) -> None:
    assert "No schedule yet" in page(operators_client)


# Steering


def test_run_now_makes_a_run_of_ones_own(operators_client: Client, operator: User) -> None:
    made = make()
    due = made.next_run

    assert "nightly has <a" in steer(operators_client, made, "run", back="one")

    run = TaskRun.objects.get()
    assert (run.schedule_id, run.owner, run.kwargs) == (made.pk, operator, {"type": 1})
    made.refresh_from_db()
    assert made.next_run == due
    entry = AuditEntry.objects.get(verb="run now")
    assert (entry.subject, entry.runs, entry.address) == ("schedule nightly", [run.pk], "127.0.0.1")


def test_pausing_with_an_end_and_resuming(operators_client: Client) -> None:
    made = make()
    assert "is paused. It goes on by itself at" in steer(operators_client, made, "pause", minutes="60", why="Paper.")
    rules = ScheduleRules.objects.get()
    assert rules.paused_until
    assert timedelta(minutes=59) < rules.paused_until - database_now() < timedelta(minutes=61)
    text = page(operators_client, f"/schedules/{made.pk}/")
    assert "It is paused</b> by operator since" in text
    assert f"Paper. It goes on by itself at {wording.moment(rules.paused_until)}." in text
    row = row_of(page(operators_client), made)
    assert "</svg>Paused</span>" in row
    assert f"Paper. Goes on at {wording.day_or_time(rules.paused_until, database_now())}." in row

    assert "goes on" in steer(operators_client, made, "resume")
    assert not ScheduleRules.objects.get().is_paused(database_now())
    assert "</svg>Active</span>" in row_of(page(operators_client), made)


def test_a_pause_that_is_over_is_no_more_on_the_row(operators_client: Client) -> None:
    made = make(schedule_type="I", minutes=10, next_run=timezone.now() + timedelta(minutes=4))
    end = timezone.now() + timedelta(minutes=60)
    made.rules.pause(why="Paper.", until=end)

    row = row_of(page(operators_client), made)
    moments = [datetime.fromisoformat(at) for at, _, _ in next_ones(row)]
    # What falls due in the pause is not what comes next.
    assert [at - made.next_run for at in moments] == [timedelta(minutes=60 + 10 * n) for n in range(5)]
    assert all(at >= end for at in moments)
    poll = poll_of(page(operators_client))
    assert operators_client.get(poll, headers=HTMX).status_code == 204

    ScheduleRules.objects.update(paused_at=timezone.now() - timedelta(hours=2), paused_until=timezone.now())

    answer = operators_client.get(poll, headers=HTMX)
    assert answer.status_code == 200
    row = row_of(answer.content.decode(), made)
    assert "</svg>Active</span>" in row
    assert "Paper." not in row
    assert datetime.fromisoformat(next_ones(row)[0][0]) == made.next_run


def poll_of(text: str) -> str:
    found = re.search(r'data-poll hx-get="([^"]+)"', text)
    assert found
    return html.unescape(found[1])


def test_the_end_of_a_pause_is_told_by_the_viewers_clock(operators_client: Client) -> None:
    made = make()
    operators_client.cookies["time_zone"] = "Asia/Tokyo"
    tomorrow = (timezone.now() + timedelta(days=1)).replace(microsecond=0, second=0)
    assert "Or until a date and time, in Asia/Tokyo" in page(operators_client)

    steer(operators_client, made, "pause", until=f"{tomorrow:%Y-%m-%dT%H:%M}")

    assert ScheduleRules.objects.get().paused_until == tomorrow - timedelta(hours=9)


@pytest.mark.parametrize(
    ("do", "given", "told"),
    [
        ("pause", {"minutes": "7"}, "A pause lasts until"),
        ("pause", {"until": "yesterday"}, "A pause lasts until"),
        ("pause", {"until": "2001-01-01T00:00"}, "The end of a pause lies ahead"),
        ("explode", {}, "can be run now, paused, resumed and deleted"),
        ("", {}, "can be run now, paused, resumed and deleted"),
    ],
)
def test_bad_input_gets_a_sentence(operators_client: Client, do: str, given: dict[str, str], told: str) -> None:
    made = make()
    assert told in steer(operators_client, made, do, **given)
    assert not ScheduleRules.objects.get().is_paused(database_now())


def test_steering_needs_its_permission(tobias: User) -> None:
    tobias.is_staff = True
    tobias.save()
    client = Client()
    client.force_login(tobias)
    made = make()

    assert "needs the permission to change schedules" in page(client)
    for do in ("run", "pause", "delete"):
        assert "You may not do that" in steer(client, made, do)
    assert "You may not save it" in said(client.post(f"/schedules/{made.pk}/", FILLED_IN))
    assert "You may not save it" in said(add(client))
    assert Schedule.objects.count() == 1
    assert not TaskRun.objects.exists()

    tobias.user_permissions.add(*Permission.objects.filter(codename__in=("change_schedule", "add_schedule")))
    assert "is paused" in steer(client, made, "pause")
    assert "You may not do that" in steer(client, made, "delete")
    assert add(client, name="another").status_code == 302


# The form


def test_a_schedule_is_made_with_the_tasks_own_form(operators_client: Client) -> None:
    assert TASK in page(operators_client, "/schedules/new/")
    assert 'name="arg-type"' in page(operators_client, f"/schedules/new/?task={TASK}")

    response = add(operators_client)

    made = Schedule.objects.get()
    assert response["Location"] == f"/schedules/{made.pk}/"
    assert (made.func, made.name, read_literals(made.args, made.kwargs)) == (TASK, "nightly", ([], {"type": 1}))
    assert (made.rules.time_zone, made.rules.overlap) == ("Europe/Berlin", "skip")
    assert made.next_run == datetime(2031, 3, 30, 1, 0, tzinfo=UTC)  # 02:30 is left out in that night
    text = page(operators_client, response["Location"])
    assert "Every day at 02:30" in text
    assert [said for _, _, said in next_ones(text)][:3] == [
        "Sun 30 March 2031, 01:00", "Mon 31 March 2031, 00:30", "Tue 1 April 2031, 00:30",
    ]  # fmt: skip
    assert 'value="2031-03-30T02:30:00"' in text
    assert AuditEntry.objects.filter(verb="add", subject="schedule nightly").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"schedule_type": "C", "cron": "61 * * * *"}, "The cron expression '61 * * * *' cannot be read"),
        ({"schedule_type": "C", "cron": ""}, "needs a cron expression"),
        ({"schedule_type": "C", "cron": "0 0 30 2 *"}, "no day '30' in the month '2'"),
        ({"schedule_type": "I", "minutes": "0"}, "at least 1"),
        ({"schedule_type": "I"}, "at least 1"),
        ({"schedule_type": "I", "minutes": "-5"}, "Say how many minutes, at least 1 and at most 32 767."),
        ({"schedule_type": "I", "minutes": "99999"}, "Say how many minutes, at least 1 and at most 32 767."),
        ({"repeats": "-2"}, "Say how many more times, or -1 for ever."),
        ({"schedule_type": "sometimes"}, "Choose one of the list."),
        ({"next_run": ""}, "When is it to run first?"),
        ({"next_run": "30 February"}, "Give a date and a time"),
        ({"name": "x" * 101}, "At most 100 characters."),
        ({"name": "a\0b"}, "A NUL character cannot be kept. Leave it out."),
        ({"arg-type": "many"}, "whole number"),
        ({"time_zone": "Mars/Olympus"}, "Choose one of the list."),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(operators_client: Client, given: dict[str, str], told: str) -> None:
    assert told in said(add(operators_client, **given))
    assert not Schedule.objects.exists()


def test_what_another_type_would_need_is_left_out(operators_client: Client) -> None:
    assert add(operators_client, minutes="0", cron="not cron").status_code == 302
    made = Schedule.objects.get()
    assert (made.schedule_type, made.minutes, made.cron) == ("D", None, None)


def test_a_name_is_taken_once(operators_client: Client) -> None:
    make()
    assert "There is a schedule of this name already." in said(add(operators_client))
    assert Schedule.objects.count() == 1


def test_only_registered_tasks_can_be_named(operators_client: Client) -> None:
    for path in ("os.system", "tests.outcomes.succeeds", "tasks_app.tasks.upkeep.prune_runs", "\0", "x" * 100_000):
        assert "Choose the task that it runs." in html.unescape(add(operators_client, task=path).content.decode())
    assert not Schedule.objects.exists()


def test_a_schedule_is_changed_as_it_is_shown(operators_client: Client) -> None:
    made = make(kwargs="{'type': 2, 'q_options': {'timeout': 30}}", minutes=None)
    before = made.next_run
    shown = operators_client.get(f"/schedules/{made.pk}/").context
    form, call = shown["form"], shown["call"]
    posted = {name: form[name].value() for name in form.fields}
    posted |= {f"initial-{name}": form[name].initial for name in ("next_run", "repeats")}
    posted |= {name: call[name].value() for name in call.fields}
    posted = {name: "" if value is None else value for name, value in posted.items()}

    answer = operators_client.post(f"/schedules/{made.pk}/", {**posted, "name": "weekly", "arg-type": "3"})

    assert answer.status_code == 302, answer.content.decode()
    made.refresh_from_db()
    assert (made.name, made.next_run) == ("weekly", before)
    assert read_literals(made.args, made.kwargs) == ([], {"type": 3, "q_options": {"timeout": 30}})
    assert AuditEntry.objects.filter(verb="change", subject="schedule weekly").exists()


def test_what_no_form_may_call_keeps_its_arguments_and_can_be_retimed(operators_client: Client) -> None:
    made = make(func="tasks_app.tasks.upkeep.prune_runs", kwargs="", name="prune")
    assert "No form changes what it is called with" in page(operators_client, f"/schedules/{made.pk}/")
    given = {**FILLED_IN, "name": "prune", "schedule_type": "I", "minutes": "30"}
    assert operators_client.post(f"/schedules/{made.pk}/", given).status_code == 302
    made.refresh_from_db()
    assert (made.func, made.minutes) == ("tasks_app.tasks.upkeep.prune_runs", 30)


def test_a_plain_function_can_be_paused_but_not_run_or_changed(operators_client: Client) -> None:
    made = make(func="math.sqrt", args="2", kwargs="")
    assert "is no registered task" in steer(operators_client, made, "run")
    assert "code alone can change it" in said(operators_client.post(f"/schedules/{made.pk}/", FILLED_IN))
    assert "is paused" in steer(operators_client, made, "pause")


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\u202egnp.exe", "\x1b[31mred", "x" * 100])
def test_hostile_texts_are_shown_and_do_nothing(operators_client: Client, text: str) -> None:
    made = make(name=text, kwargs=repr({"type": 1}))
    made.rules.pause(why=text)
    for address in ("/schedules/", f"/schedules/{made.pk}/"):
        answer = operators_client.get(address).content.decode()
        assert "<script>alert" not in answer
        assert "\u202e" not in re.sub(r'value="[^"]*"', "", answer)
        assert "\x1b" not in re.sub(r'value="[^"]*"', "", answer)


# The preview


def preview(client: Client, **given: str) -> str:
    response = client.get("/schedules/preview/", {"repeats": "-1", "time_zone": "UTC", **given}, headers=HTMX)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def test_the_preview_tells_words_and_five_moments(operators_client: Client) -> None:
    text = preview(operators_client, schedule_type="C", cron="0 8 * * 1-5")
    assert "At 08:00 on Monday through Friday" in text
    assert text.count("<li>") == timetable.TOLD

    text = preview(operators_client, schedule_type="M", next_run="2031-01-31T09:00", repeats="3")
    assert "Every month on the 31st, or the last day at 09:00" in text
    assert [found[:6] for found in re.findall(r'datetime="2031-(\d\d-\d\d)', text)] == ["01-31", "02-28", "03-31"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"schedule_type": "C", "cron": "x"}, "has five fields"),
        ({"schedule_type": "C", "cron": "0 22-2 * * *"}, "Hours are 0 to 23"),
        ({"schedule_type": "D"}, "run first"),
        ({"schedule_type": "Z"}, "How often: Choose one of the list."),
        ({}, "How often: This has to be filled in."),
        ({"schedule_type": "I", "minutes": "-5", "next_run": "2031-01-31T09:00"}, "Say how many minutes, at least 1"),
        (
            {"schedule_type": "D", "next_run": "2031-01-31T09:00", "time_zone": "Mars"},
            "Time zone: Choose one of the list.",
        ),
        ({"schedule_type": "D", "next_run": "2031-01-31T09:00", "schedule": "9" * 50}, "There is no such schedule."),
    ],
)
def test_the_preview_says_what_is_wrong(operators_client: Client, given: dict[str, str], told: str) -> None:
    assert told in preview(operators_client, **given)


def test_the_preview_keeps_the_wall_clock_of_a_time_that_is_left_out(operators_client: Client) -> None:
    given = {"next_run": "2031-03-30T02:30", "time_zone": "Europe/Berlin"}
    text = preview(operators_client, schedule_type="D", **given)
    assert "Every day at 02:30" in text
    assert re.findall(r'datetime="2031-([^"+]+)', text)[:3] == ["03-30T01:00:00", "03-31T00:30:00", "04-01T00:30:00"]
    assert "Once, on 30 March 2031 at 03:00" in preview(operators_client, schedule_type="O", **given)


@pytest.mark.parametrize(
    ("kind", "missed", "told", "moments"),
    [
        ("O", "once", "it fires as soon as it is saved", 0),
        ("O", "skip", "it will never fire", 0),
        ("D", "once", "it fires as soon as it is saved", 5),
        ("D", "skip", "it is skipped, as missed ones are", 5),
    ],
)
def test_the_preview_says_what_becomes_of_a_time_that_is_over(
    operators_client: Client, kind: str, missed: str, told: str, moments: int
) -> None:
    text = preview(operators_client, schedule_type=kind, next_run="2020-01-01T00:00", missed=missed)
    assert told in text
    ahead = [datetime.fromisoformat(at) for at, _, _ in next_ones(text)]
    assert len(ahead) == moments
    assert all(at > database_now() for at in ahead)
    assert "no repeats are left" not in text


def test_the_preview_counts_a_time_that_fires_at_once_among_its_repeats(operators_client: Client) -> None:
    given = {"schedule_type": "D", "next_run": "2020-01-01T00:00", "repeats": "3"}
    counts = [len(next_ones(preview(operators_client, missed=missed, **given))) for missed in ("once", "skip")]
    assert counts == [2, 3]
    none = preview(operators_client, **{**given, "repeats": "0"})
    assert "It does not fire: no repeats are left." in none
    assert "as soon as it is saved" not in none


@pytest.mark.parametrize("is_saved", [False, True])
def test_to_look_is_no_error_whatever_is_still_missing(operators_client: Client, is_saved: bool) -> None:
    address = f"/schedules/{make().pk}/" if is_saved else "/schedules/new/"
    answer = operators_client.post(address, {**FILLED_IN, "arg-type": "", "do": "preview"})
    assert answer.status_code == 200
    assert "Every day at 02:30" in answer.content.decode()


def test_what_never_fired_does_not_look_done(operators_client: Client, transactional_db: None) -> None:
    made = make(name="late", schedule_type="O", next_run=timezone.now() - timedelta(hours=1))
    made.rules.change(missed="skip")
    with connect("test") as db:
        assert firing.fire(db)

    row = row_of(page(operators_client), made)
    assert "</svg>Skipped</span>" in row
    assert "was over by more than a minute" in row
    text = page(operators_client, f"/schedules/{made.pk}/")
    assert "It never fired" in text
    assert "It is done" not in text
    assert "It never fired" in page(operators_client, f"/admin/django_q/schedule/{made.pk}/change/")
    made.refresh_from_db()
    made.name = "renamed"
    made.save()
    assert "</svg>Never fired</span>" in row_of(page(operators_client), made)


def test_cron_takes_no_next_run(operators_client: Client) -> None:
    """The page has no such field for it; what was typed there for another type, even nonsense, is left out."""
    for name, next_run in (("good", "2031-03-30T02:30"), ("bad", "30 February")):
        given = {"name": name, "schedule_type": "C", "cron": "30 2 * * *", "next_run": next_run}
        assert add(operators_client, **given).status_code == 302
    for made in Schedule.objects.all():
        assert made.next_run - timezone.now() < timedelta(days=1, hours=1)
    given = {"schedule_type": "C", "cron": "30 2 * * *", "name": made.name, "next_run": "2031-03-30T02:30"}
    assert operators_client.post(f"/schedules/{made.pk}/", {**FILLED_IN, **given}).status_code == 302
    assert Schedule.objects.get(pk=made.pk).next_run - timezone.now() < timedelta(days=1, hours=1)


def test_the_button_preview_saves_nothing(operators_client: Client) -> None:
    answer = add(operators_client, do="preview", next_run="2031-04-01T02:30")
    assert answer.status_code == 200
    assert "Every day at 02:30" in answer.content.decode()
    assert not Schedule.objects.exists()


def test_moments_are_told_by_the_viewers_clock(operators_client: Client) -> None:
    operators_client.cookies["time_zone"] = "America/New_York"
    text = preview(operators_client, schedule_type="C", cron="0 12 1 7 *", time_zone="Europe/Berlin")
    assert "1 July" in text
    assert "06:00" in text


def test_the_next_moments_are_those_at_which_it_fires() -> None:
    """Fired again and again, it falls due when the page said it would."""
    made = make(schedule_type="M", next_run=datetime(2026, 1, 31, 9, 0, tzinfo=UTC))
    now = datetime(2026, 1, 30, tzinfo=UTC)
    told = timetable.moments(Timing("M", "UTC"), made.next_run, now)
    due, plan, fired = made.next_run, None, []
    for _ in range(5):
        fired.append(due)
        following = Timing("M", "UTC").after(due, due, plan)
        plan = Timing("M", "UTC").plan(due, following, plan)
        assert following
        due = following
    assert told == fired
    assert [at.day for at in told] == [31, 28, 31, 30, 31]


def test_a_zone_is_chosen_remembered_and_taken_back(operators_client: Client) -> None:
    assert "Times in UTC" in page(operators_client, "/schedules/")
    operators_client.post("/time-zone/", {"zone": "Asia/Tokyo"})
    assert "Times in Asia/Tokyo" in page(operators_client, "/schedules/")
    assert operators_client.post("/time-zone/", {"zone": "Mars"}).status_code == 400
    operators_client.post("/time-zone/", {"zone": ""})
    assert "Times in UTC" in page(operators_client, "/schedules/")
    operators_client.cookies["time_zone"] = "../../etc/passwd"
    assert "Times in UTC" in page(operators_client, "/schedules/")


def test_a_fired_time_is_seen(operators_client: Client, transactional_db: None) -> None:
    made = make(schedule_type="H", next_run=timezone.now() - timedelta(seconds=1))
    with connect("test") as db:
        assert firing.fire(db)
    line = schedules.one(made.pk)
    assert line
    assert [(run.status, run.state) for run in line.outcomes] == [(Status.READY, "ready")]
