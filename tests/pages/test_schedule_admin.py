"""STEER: schedules in the admin, narrowed to registered tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django_q.models import Schedule

from tasks_app.clock import database_now
from tasks_app.engine import firing
from tasks_app.engine.connect import connect
from tasks_app.engine.schedule_call import read_literals
from tasks_app.models import Missed, Overlap, ScheduleRules, Status, TaskRun
from tests.pages.conftest import RunFactory

LIST = "/admin/django_q/schedule/"
TASK = "tasks_app.tasks.practice.create_task"

pytestmark = pytest.mark.django_db

FILLED_IN: dict[str, Any] = {
    "name": "nightly",
    "task_path": TASK,
    "arguments": "",
    "keywords": '{"type": 1}',
    "intended_date_kwarg": "",
    "cluster": "",
    "schedule_type": "D",
    "minutes": "",
    "cron": "",
    "next_run": "2031-03-30T02:30:00",
    "initial-next_run": "",
    "repeats": "-1",
    "initial-repeats": "-1",
    "time_zone": "Europe/Berlin",
    "missed": "once",
    "overlap": "skip",
}


def add(client: Client, **fields: Any) -> Any:
    return client.post(f"{LIST}add/", {**FILLED_IN, **fields})


def errors(response: Any) -> str:
    assert response.status_code == 200, "It was accepted."
    return str(response.context["errors"])


def added(client: Client, **fields: Any) -> Schedule:
    response = add(client, **fields)
    assert response.status_code == 302, response.context["errors"]
    return Schedule.objects.get()


def save_as_shown(client: Client, made: Schedule, **changes: Any) -> Any:
    """Open its page, change something there and save it; `meanwhile` happens between the two."""
    meanwhile = changes.pop("meanwhile", None)
    page = f"{LIST}{made.pk}/change/"
    form = client.get(page).context["adminform"].form
    shown = {name: form[name].value() for name in form.fields}
    for name in ("next_run", "repeats"):
        shown[f"initial-{name}"] = form[name].initial
    posted = {name: "" if value is None else value for name, value in {**shown, **changes}.items()}
    if meanwhile:
        meanwhile()
    return client.post(page, posted)


def test_a_schedule_is_added_with_its_rules(operators_client: Client) -> None:
    made = added(operators_client, arguments="[]")

    assert (made.func, made.name, made.schedule_type, made.repeats) == (TASK, "nightly", "D", -1)
    assert read_literals(made.args, made.kwargs) == ([], {"type": 1})
    rules = made.rules
    assert (rules.time_zone, rules.missed, rules.overlap) == ("Europe/Berlin", Missed.RUN_ONCE, Overlap.SKIP)
    # 02:30 is left out in that night, so its first moment is the one after the gap: 03:00 in summer time.
    assert made.next_run == datetime(2031, 3, 30, 1, 0, tzinfo=UTC)


def test_arguments_of_every_kind_of_json_come_back_as_they_were(operators_client: Client) -> None:
    given = '{"type": [1, 2.5, null, true, "it\'s \\"quoted\\" \\\\u0000", {"deep": []}]}'
    made = added(operators_client, keywords=given)

    page = operators_client.get(f"{LIST}{made.pk}/change/")
    assert save_as_shown(operators_client, made, keywords=page.context["adminform"].form["keywords"].value()).url
    _, keywords = read_literals(made.args, made.kwargs)
    assert keywords == {"type": [1, 2.5, None, True, 'it\'s "quoted" \\u0000', {"deep": []}]}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"task_path": "os.system", "arguments": '["true"]', "keywords": ""}, "Choose one of the list."),
        ({"task_path": "tests.outcomes.succeeds"}, "Choose one of the list."),
        ({"keywords": '{"typo": 1}'}, "cannot be called with these arguments"),
        ({"keywords": ""}, "missing a required argument"),
        ({"arguments": '{"type": 1}'}, "as a list"),
        ({"keywords": "[1]"}, "as a mapping"),
        ({"keywords": "type=1"}, "This is no JSON."),
        ({"keywords": '{"type": NaN}'}, "cannot be read as plain values"),
        ({"keywords": '{"type": 1, "hook": "os.system"}'}, "cannot take hook"),
        ({"schedule_type": "C", "cron": "61 * * * *"}, "Minutes are 0 to 59"),
        ({"schedule_type": "C", "cron": "* * * * * *"}, "five fields"),
        ({"schedule_type": "I", "minutes": "0"}, "at least 1 minute"),
        ({"cron": "* * * * *"}, "Only a schedule of the type Cron"),
        ({"time_zone": "Mars/Olympus"}, "Choose one of the list."),
        ({"next_run": "soon"}, "Give a date and a time"),
        ({"next_run": ""}, "When is it to run first?"),
        ({"intended_date_kwarg": "day"}, "cannot be called with these arguments"),
    ],
)
def test_what_cannot_be_fired_is_refused_with_a_sentence(
    operators_client: Client, fields: dict[str, Any], sentence: str
) -> None:
    assert sentence in errors(add(operators_client, **fields)).replace("&#x27;", "'")
    assert not Schedule.objects.exists()


def test_cron_finds_its_first_time_by_its_own_clock(operators_client: Client) -> None:
    made = added(operators_client, schedule_type="C", cron="30 2 * * *", next_run="", time_zone="Asia/Tokyo")

    assert (made.next_run.hour, made.next_run.minute) == (17, 30)
    assert database_now() < made.next_run < database_now() + timedelta(days=1)


def test_saving_a_page_takes_back_nothing_that_a_cluster_did_meanwhile(
    operators_client: Client, transactional_db: None
) -> None:
    made = added(operators_client, repeats="3", time_zone="UTC")
    Schedule.objects.update(next_run=database_now() - timedelta(seconds=1))

    def fire() -> None:
        with connect("test") as db:
            assert firing.fire(db)

    assert save_as_shown(operators_client, made, name="renamed", meanwhile=fire).status_code == 302

    made.refresh_from_db()
    assert (made.name, made.repeats, TaskRun.objects.count()) == ("renamed", 2, 1)
    assert made.next_run > database_now()


def test_a_time_that_is_left_out_is_shown_as_it_was_given(operators_client: Client) -> None:
    made = added(operators_client, next_run="2031-03-30T02:30:00")
    shown = operators_client.get(f"{LIST}{made.pk}/change/").context["adminform"].form["next_run"]
    assert shown.initial == datetime.fromisoformat("2031-03-30T02:30")

    assert save_as_shown(operators_client, made, schedule_type="W").status_code == 302
    made = Schedule.objects.get()
    assert made.calculate_next_run() == datetime(2031, 4, 6, 0, 30, tzinfo=UTC)

    assert save_as_shown(operators_client, made, next_run="2031-03-30T03:00:00").status_code == 302
    made = Schedule.objects.get()
    assert made.next_run == datetime(2031, 3, 30, 1, 0, tzinfo=UTC)
    assert made.calculate_next_run() == datetime(2031, 4, 6, 1, 0, tzinfo=UTC)


def test_another_zone_keeps_the_wall_clock(operators_client: Client) -> None:
    made = added(operators_client, next_run="2031-07-01T09:00:00", time_zone="UTC")

    assert save_as_shown(operators_client, made, time_zone="Europe/Berlin").status_code == 302

    made.refresh_from_db()
    assert made.next_run == datetime(2031, 7, 1, 7, 0, tzinfo=UTC)


def test_saving_a_broken_row_clears_its_flag(operators_client: Client) -> None:
    (row,) = Schedule.objects.bulk_create([Schedule(func=TASK, schedule_type="H", args="1,", kwargs="}{")])
    ScheduleRules.objects.create(schedule=row, time_zone="UTC", error="It is broken.", broken_version="0")
    assert "It is broken." in operators_client.get(LIST).content.decode()

    assert save_as_shown(operators_client, row, keywords="{}").status_code == 302
    assert ScheduleRules.objects.get().error is None


def test_a_function_that_is_no_registered_task_can_only_be_looked_at_and_deleted(operators_client: Client) -> None:
    (row,) = Schedule.objects.bulk_create([Schedule(func="os.system", args="'true'", next_run=None)])
    page = f"{LIST}{row.pk}/change/"

    assert "os.system" in operators_client.get(page).content.decode()
    assert operators_client.post(page, {**FILLED_IN, "next_run": ""}).status_code == 403
    operators_client.post(LIST, {"action": "run_now", "_selected_action": str(row.pk)})
    assert not TaskRun.objects.exists()
    assert operators_client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Schedule.objects.exists()


def test_run_now(operators_client: Client, operator: User) -> None:
    made = added(operators_client)

    answer = operators_client.post(LIST, {"action": "run_now", "_selected_action": str(made.pk)}, follow=True)

    run = TaskRun.objects.get()
    assert (run.schedule_id, run.owner, run.kwargs) == (made.pk, operator, {"type": 1})
    assert f"/admin/tasks_app/taskrun/{run.pk}/change/" in answer.content.decode()


def test_the_list_tells_the_last_outcome_and_the_page_leads_to_the_history(
    operators_client: Client, run: RunFactory
) -> None:
    made = added(operators_client)
    of_it = run(schedule=made, schedule_name="nightly", status=Status.FAILED, failure="error")
    run()
    ScheduleRules.objects.update(last_run=of_it.pk)

    assert ">Failed</a>" in operators_client.get(LIST).content.decode()
    page = operators_client.get(f"{LIST}{made.pk}/change/").content.decode()
    history = f"/admin/tasks_app/taskrun/?schedule__id__exact={made.pk}"
    assert history in page
    assert list(operators_client.get(history).context["cl"].result_list) == [of_it]
    assert "nightly" in operators_client.get(f"/admin/tasks_app/taskrun/{of_it.pk}/change/").content.decode()


@pytest.mark.parametrize(
    ("permission", "seen", "may_add"), [(None, 403, 403), ("view_schedule", 200, 403), ("add_schedule", 403, 200)]
)
def test_permissions_are_djangos_own(permission: str | None, seen: int, may_add: int) -> None:
    clerk, client = User.objects.create_user("clerk", is_staff=True), Client()
    if permission:
        clerk.user_permissions.add(Permission.objects.get(codename=permission))
    client.force_login(clerk)
    made = Schedule.objects.create(func=TASK, kwargs="type=1", schedule_type="H")

    assert client.get(LIST).status_code == seen
    assert client.get(f"{LIST}{made.pk}/change/").status_code == seen
    assert client.get(f"{LIST}add/").status_code == may_add


def test_no_page_needs_what_the_policy_forbids(operators_client: Client) -> None:
    made = added(operators_client)
    for page in (LIST, f"{LIST}add/", f"{LIST}{made.pk}/change/", f"{LIST}{made.pk}/delete/"):
        html = operators_client.get(page).content.decode()
        assert " style=" not in html and "<style" not in html
        assert " onclick=" not in html and "<script>" not in html
