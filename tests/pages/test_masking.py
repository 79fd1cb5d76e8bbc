"""WATCH: a secret in arguments or a result is on no page, in no file and in no log; and forms keep it."""

from __future__ import annotations

import html
import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import URLPattern, resolve
from django.utils import timezone
from django_q.models import Schedule

import tasks_app.tasks
from tasks_app import bulk, copied, export, urls
from tasks_app.clock import database_now
from tasks_app.engine.schedule_call import BadSchedule, read_call, read_literals
from tasks_app.jsonable import Cut
from tasks_app.masking import MASK, has_mask, is_secret, masked, masked_call, masked_source, masked_text, restored
from tasks_app.models import AuditEntry, Cluster, ScheduleRules, Status, TaskRun, Workflow
from tasks_app.signature import CallForm, form_of
from tasks_app.workflows import chain
from tests import secretive
from tests.figures import failed
from tests.pages.conftest import SITUATIONS, RunFactory, made

pytestmark = pytest.mark.django_db

CANARY = "hunter2canary"
SEARCHED = "hunter2"
TASK = "tests.secretive.signs_in"
HTMX = {"HX-Request": "true"}
SECRET_CALL: dict[str, Any] = {
    "url": "https://shop.example",
    "password": CANARY,
    "options": {"headers": [{"X-Api-Key": CANARY, "accept": "*"}], "AUTHORIZATION": {"basic": [CANARY]}},
}
RESULT = {"session": CANARY, "rows": [{"access-token": CANARY, "name": "mara"}], "url": "https://shop.example"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks stand in the app's package, as any module of tasks does."""
    monkeypatch.setattr(tasks_app.tasks, "secretive", secretive, raising=False)


# Values


@pytest.mark.parametrize(
    "key",
    ["password", "userPassword", "PASSWD", "client_secret", "token", "X-Api-Key", "apiKey", "API_KEY", "private-key",
     "privateKey", "Authorization", "credentials", "Set-Cookie", "session_id"],
)  # fmt: skip
def test_a_key_that_tells_of_a_secret_is_found_in_any_writing(key: str) -> None:
    assert is_secret(key)
    assert masked({"a": [{key: {"deep": 1}}]}) == {"a": [{key: MASK}]}


@pytest.mark.parametrize("key", ["", "url", "pass", "keyboard", "author", "api", "x" * 5000])
def test_other_keys_are_none(key: str) -> None:
    assert not is_secret(key)


def test_the_words_are_a_setting(settings: Any) -> None:
    settings.MASKED_KEYS = ["pin", "-"]
    assert masked({"card_pin": 1, "password": 2}) == {"card_pin": MASK, "password": 2}

    settings.MASKED_KEYS = []
    assert masked({"password": 2}) == {"password": 2}
    assert masked_call(TASK, ["u", "p"], {}) == (["u", "p"], {})


def test_an_argument_by_position_is_masked_by_its_parameter() -> None:
    assert masked_call(TASK, ["u", CANARY, {"token": 1}], {}) == (["u", MASK, {"token": MASK}], {})
    by_position = ["front", CANARY, "first", "second"]
    assert masked_call("tests.secretive.unlocks", by_position, {"vault": CANARY, "door": "x"}) == (
        ["front", MASK, MASK, MASK], {"vault": MASK, "door": "x"},
    )  # fmt: skip
    assert masked_call("tests.secretive.plain", ["u", CANARY], {}) == (["u", MASK], {})
    assert masked_call("nothing.at.all", ["u", "x"], {"token": 1}) == (["u", "x"], {"token": MASK})


@pytest.mark.parametrize(
    "value",
    [
        SECRET_CALL,
        [SECRET_CALL, {"password": None}, {"a": 'b"c\\', "token": 'x"y\\"]}', "z": [1, 2]}, "token"],
        {"cookie": [], "session": {}, "secret": [[{"a": "}"}], 2], "kept": {"x": [True, 1.50]}},
        {"to\\ken": 1, "token": 1},
        {},
        [],
    ],
)
def test_a_text_is_masked_as_its_value_is_and_wherever_it_is_cut_off(value: Any) -> None:
    with connection.cursor() as cursor:  # as PostgreSQL writes it
        cursor.execute("SELECT %s::jsonb::text", [json.dumps(value)])
        text = cursor.fetchone()[0]
    assert json.loads(masked_text(text)) == masked(value)

    for length in range(len(text)):
        told = masked(Cut(text[:length]))
        assert CANARY[:3] not in told
        assert 'x"y' not in told.replace("\\", "")


@pytest.mark.parametrize("value", [["u", CANARY], ["u", CANARY, {"token": 1}], [[1, {"a": [2]}], CANARY], ["u"], []])
def test_positions_are_masked_in_a_text_too(value: list[Any]) -> None:
    text = json.dumps(value)
    for length in range(len(text)):
        assert CANARY[:3] not in masked_call(TASK, Cut(text[:length]), {})[0]
    assert json.loads(masked_call(TASK, Cut(text), {})[0]) == masked_call(TASK, value, {})[0]


def test_every_first_argument_of_a_text_is_masked_where_it_is_a_secret() -> None:
    assert masked_call("tests.secretive.chooses", Cut('["a", "b", [1]]'), {})[0] == f'["{MASK}", "{MASK}", [1]]'
    assert masked_call("tests.secretive.chooses", Cut("[]"), {})[0] == "[]"


def test_what_cannot_be_read_is_left_out_from_the_key_on() -> None:
    assert masked_source(f"{{'url': 'x', 'password': '{CANARY}', oops") == f"{{'url': 'x', 'password {MASK}"
    assert masked_source("url=oops(") == "url=oops("


def test_a_mask_that_comes_back_is_what_stood_there_and_nothing_else() -> None:
    earlier = [{"host": "a", "token": 1}, {"host": "b", "token": 2}, {"token": 3}, {"token": 4}]
    shown = masked(earlier)
    assert restored(shown, earlier) == earlier
    assert restored([{"host": "c", "token": MASK}, *shown[1:]], earlier)[0] == {"host": "c", "token": 1}
    assert restored([shown[1], shown[0]], earlier) == [earlier[1], earlier[0]]  # its secret goes with each
    assert has_mask(restored([{"host": "c", "token": MASK}, shown[0]], earlier))
    assert has_mask(restored([shown[2]], earlier))  # one of two that look the same
    assert has_mask(restored({"new": {"token": MASK}}, {"token": 1}))
    assert restored({"note": MASK}, {}) == {"note": MASK}
    assert not has_mask({"note": MASK})


# Pages


class Scene:
    """Everything that has arguments, with a secret in them, and where it is shown."""

    def __init__(self, mara: User) -> None:
        options: dict[str, Any] = {"task_path": TASK, "kwargs": SECRET_CALL}
        self.runs = {}
        for state, situation in SITUATIONS.items():
            values = {**situation, **options}
            if state == "successful":
                values["return_value"] = RESULT
            self.runs[state] = made(mara, **values)
        by_position = {"args": ["https://shop.example", CANARY], "kwargs": {}}
        self.runs["by position"] = made(mara, **{**SITUATIONS["successful"], "task_path": TASK, **by_position})
        long = {"padding": "x" * 300_000, **SECRET_CALL, "password": CANARY * 20_000}
        self.runs["long"] = made(mara, **{**SITUATIONS["successful"], **options, "kwargs": long, "return_value": long})
        other = {**SECRET_CALL, "password": f"{CANARY}-2"}
        again = {**options, "kwargs": other, "again_of": self.runs["failed"]}
        self.runs["again"] = made(mara, **{**SITUATIONS["successful"], **again, "return_value": [RESULT]})
        order = bulk.Order(verb="cancel", query="state=ready")
        self.runs["bulk"] = made(mara, task_path=bulk.path(), kwargs=asdict(order))
        now = database_now()
        self.group = failed(now, 1, 2, task=TASK)
        same = {**options, "failure_group": self.group}
        for _ in range(3):
            made(mara, **{**SITUATIONS["failed"], **same})
        self.flow = chain(secretive.signs_in.step(**SECRET_CALL), secretive.signs_in.step(**SECRET_CALL)).enqueue(
            name="flow", owner=mara
        )
        Workflow.objects.filter(pk=self.flow.pk).update(status=Status.SUCCESSFUL, finished_at=now)
        self.flow.steps.update(status=Status.SUCCESSFUL, finished_at=now, return_value=RESULT, is_waiting=None)
        self.schedules = schedules()
        self.clusters(mara)

    def clusters(self, mara: User) -> None:
        now = database_now()
        report = {"state": "run", "size": 1, "renewed": None, "ended": 1, "failed": 0, "memory": 1, "python": "3.12",
                  "host": {"cores": 4, "memory": 2, "free": 1, "load": 0.4}}  # fmt: skip
        common = {"name": "default", "queues": ["default"], "workers": 1, "pid": 1, "started_at": now}
        line = {
            "number": 1,
            "pid": 4001,
            "does": "busy",
            "since": now.timestamp(),
            "ended": 1,
            "failed": 0,
            "memory": 1,
        }
        live = Cluster.objects.create(host="a", heartbeat_at=now, report={**report, "workers": [line]}, **common)
        lost = Cluster.objects.create(host="b", heartbeat_at=now, lost_at=now, rescued=1, **common)
        options: dict[str, Any] = {"task_path": TASK, "kwargs": SECRET_CALL}
        at_work = f"{live.pk.hex[:12]}:1:4001:a"
        self.at_work = made(mara, **{**SITUATIONS["running"], **options, "claimed_by": at_work})
        entry = {"attempt": 1, "worker": f"{lost.pk.hex[:12]}:1:1:b", "reason": "worker_lost", "message": "It died.",
                 "started_at": 1, "ended_at": 2}  # fmt: skip
        self.rescued = made(mara, **options, attempt=1, attempts=[entry])

    def addresses(self) -> list[str]:
        runs = [str(run.pk) for run in (*self.runs.values(), self.at_work, self.rescued)]
        of_runs = [
            f"/runs/{pk}/{part}"
            for pk in runs
            for part in ("", "again/", "delete/", "arguments.json", "result.json", "log.txt")
        ]  # fmt: skip
        admins = [f"/admin/tasks_app/taskrun/{pk}/change/" for pk in runs]
        admins += [f"/admin/django_q/schedule/{one.pk}/change/" for one in self.schedules]
        admins += [f"/admin/tasks_app/workflow/{self.flow.pk}/change/"]
        lists = ["taskrun", "workflow", "auditentry", "cluster"]
        return [
            "/", "/runs/", *(f"/runs/?state={state}" for state in ("failed", "ready", "running", "successful")),
            f"/runs/?q={SEARCHED}", "/runs/?size=200", "/runs/counts/", "/runs/facets/", "/runs/export.csv",
            "/runs/export.json", f"/runs/bulk/{self.runs['bulk'].pk}/", "/launch/", f"/launch/{TASK}/", *of_runs,
            "/failures/", f"/failures/{self.group.pk}/", "/queues/", "/schedules/", f"/schedules/new/?task={TASK}",
            *(f"/schedules/{one.pk}/" for one in self.schedules), "/schedules/preview/", "/workflows/",
            f"/workflows/{self.flow.pk}/", "/stats/", "/workers/", "/logs/", "/audit/", *admins,
            *(f"/admin/tasks_app/{name}/" for name in lists), "/admin/django_q/schedule/",
        ]  # fmt: skip


def schedules() -> list[Schedule]:
    """One with a form, one by position, one of a plain function, and those that nothing can read."""
    given = {"schedule_type": "D", "next_run": timezone.now()}
    named = Schedule.objects.create(func=TASK, name="named", kwargs=repr(SECRET_CALL), **given)
    odd = {"url": {1: ({"token": CANARY},), None: [2]}, "password": CANARY}
    literal = Schedule.objects.create(func=TASK, name="literal", kwargs=repr(odd), **given)
    by_position = Schedule.objects.create(func=TASK, name="by position", args=f"'u', '{CANARY}'", **given)
    plain = Schedule.objects.create(func="tests.secretive.plain", name="plain", args=f"'u', '{CANARY}'", **given)
    long = {"url": "x" * 5_000, "password": CANARY}
    too_long = Schedule.objects.create(func=TASK, name="too long", kwargs=repr(long), **given)
    broken = [Schedule.objects.create(func=TASK, name=name, kwargs=repr(SECRET_CALL), **given) for name in "ab"]
    Schedule.objects.filter(pk=broken[0].pk).update(kwargs=f"{{'password': '{CANARY}', oops")
    Schedule.objects.filter(pk=broken[1].pk).update(args=f"'u', '{CANARY}', oops(", kwargs="")
    for one in broken:
        one.refresh_from_db()
        with pytest.raises(BadSchedule) as raised:
            read_call(one.func, None, one.args, one.kwargs, None)
        assert CANARY not in str(raised.value)
        # As a sentinel writes it down, and says it in its log.
        ScheduleRules.objects.filter(pk=one.pk).update(error=str(raised.value), noted_at=database_now())
    return [named, by_position, plain, too_long, literal, *broken]


def text_of(response: Any) -> str:
    content = b"".join(response.streaming_content) if response.streaming else response.content
    return html.unescape(content.decode())


WITHOUT_ARGUMENTS = {
    *("activity", "theme", "refresh", "time-zone", "keys", "login", "logout", "healthz", "run-file", "smoke-test"),
    *("api-tasks", "api-run", "api-task"),  # the door of programs, which answers a result whole
    *("launch-create_task", "launch-make_thumbnails", "runs-steer", "runs-views", "runs-bulk", "bulk-undo"),
    *("run-cancel", "run-change", "run-retry", "failure-steer", "queue-steer", "schedule-steer", "workflow-steer"),
    *("limit-steer", "worker-steer", "bulk-stop"),
}
"""The names of addresses that show none, or lead back to a page that is looked at here."""


def may_launch(user: User) -> None:
    user.user_permissions.add(Permission.objects.get(codename="add_taskrun"))


def test_no_page_fragment_or_file_has_a_secret(
    mara: User, client: Client, operators_client: Client, settings: Any, tmp_path: Any
) -> None:
    settings.LOG_FILE = tmp_path / "qcluster.log"
    may_launch(mara)
    scene = Scene(mara)
    seen: set[str | None] = set()
    masks: set[str] = set()
    fragments = 0
    for who, browser in (("owner", client), ("operator", operators_client)):
        for address in scene.addresses():
            response = browser.get(address)
            assert response.status_code in ({200, 302, 403, 404} if who == "owner" else {200, 302}), address
            text = text_of(response)
            assert CANARY not in text, address
            if response.status_code == 200:
                seen.add(resolve(address.partition("?")[0]).url_name)
                if MASK in text or json.dumps(MASK)[1:-1] in text:
                    masks.add(address)
            for poll in set(re.findall(r'hx-get="([^"]*seen=[^"]*)"', text)):
                fragment = browser.get(re.sub("seen=[^&]*", "seen=old", poll), headers=HTMX)
                fragments += fragment.status_code == 200
                assert CANARY not in text_of(fragment), poll

    names = {route.name for route in urls.urlpatterns if isinstance(route, URLPattern)}
    assert names - seen <= WITHOUT_ARGUMENTS, names - seen
    assert fragments > 10
    # They show that something is there.
    for address in ("/", "/runs/", "/runs/export.csv", "/runs/export.json", "/schedules/", "/workers/",
                    f"/failures/{scene.group.pk}/", *(f"/runs/{run.pk}/arguments.json" for run in scene.runs.values()
                                                      if run.task_path == TASK)):  # fmt: skip
        assert address in masks, address
    for state in ("successful", "by position", "long", "again"):
        assert f"/runs/{scene.runs[state].pk}/" in masks


def test_what_is_done_to_runs_tells_no_secret(mara: User, operators_client: Client) -> None:
    scene = Scene(mara)
    ids = [str(run.pk) for run in scene.runs.values()][:5]
    for address, sent in (
        ("/runs/bulk/", {"verb": "cancel", "id": ids}),
        ("/runs/bulk/", {"verb": "retry", "all": "1", "query": "state=failed"}),
        ("/admin/tasks_app/taskrun/", {"action": "cancel_runs", "_selected_action": ids}),
        (f"/runs/{scene.runs['failed'].pk}/retry/", {}),
        (f"/runs/{scene.runs['ready'].pk}/cancel/", {"why": "no"}),
        (f"/runs/{scene.runs['failed'].pk}/again/", {"arg-url": "", "arg-options": "{oops"}),
        (f"/schedules/{scene.schedules[0].pk}/steer/", {"do": "run"}),
        (f"/schedules/{scene.schedules[0].pk}/", {"arg-url": "x", "do": "preview"}),
    ):
        response = operators_client.post(address, sent, follow=True)
        assert response.status_code in {200, 422}, address
        assert CANARY not in text_of(response), address
    told = [*AuditEntry.objects.values_list("subject", "details", "reason")]
    assert told
    assert CANARY not in repr(told)


def test_what_two_runs_differ_in_is_told_without_it(client: Client, mara: User) -> None:
    scene = Scene(mara)

    page = text_of(client.get(f"/runs/{scene.runs['again'].pk}/"))

    assert f"<li>password {MASK} → {MASK}</li>" in page


def test_a_copied_command_has_the_mask(run: RunFactory) -> None:
    told = copied.as_python(run(task_path=TASK, args=["u", CANARY], kwargs={"options": {"token": CANARY}}))

    assert told.endswith(f"signs_in.enqueue('u', '{MASK}', options={{'token': '{MASK}'}})")


def test_a_file_is_what_it_was_but_for_secrets(operators_client: Client, run: RunFactory) -> None:
    values = {"n": 2**70, "text": 'token": "x', "x": 1.50, "password": ["a", {"b": 1}], "z": None}
    run(task_path="a.b", kwargs=values)

    (found,) = json.loads(b"".join(operators_client.get("/runs/export.json").streaming_content))  # type: ignore[attr-defined]

    assert found["kwargs"] == {**values, "password": MASK}
    assert set(found) == set(export.COLUMNS)


# Forms


def sent_again(client: Client, past: TaskRun, **changes: str) -> tuple[str, Any]:
    """The page, and what comes of sending it as a browser has it, but for these changes."""
    response = client.get(f"/runs/{past.pk}/again/")
    form = response.context["form"]
    given = {name: str(form[name].value() or "") for name in form.fields if name != "former"}
    assert CANARY not in repr(given)
    answer = client.post(f"/runs/{past.pk}/again/", {**given, **{f"arg-{name}": v for name, v in changes.items()}})
    return text_of(response), answer


def test_a_secret_that_nobody_fills_in_stays(client: Client, mara: User, run: RunFactory) -> None:
    may_launch(mara)
    past = run(**{**SITUATIONS["failed"], "task_path": TASK, "kwargs": SECRET_CALL})

    page, answer = sent_again(client, past, url="https://other.example")

    assert re.search(
        r'<input type="password" name="arg-password" class="input" autocomplete="new-password"[^>]*>', page
    )
    assert "As before unless filled in." in page
    assert CANARY not in page
    again = TaskRun.objects.get(again_of=past)
    assert answer.status_code == 302
    assert again.kwargs == {**SECRET_CALL, "url": "https://other.example"}


def test_a_secret_that_is_filled_in_is_another(client: Client, mara: User, run: RunFactory) -> None:
    may_launch(mara)
    past = run(**{**SITUATIONS["failed"], "task_path": TASK, "args": ["u", CANARY], "kwargs": {}})

    sent_again(client, past, password="other")

    again = TaskRun.objects.get(again_of=past)
    assert again.kwargs == {"url": "u", "password": "other"}


def test_a_mask_in_a_mapping_is_what_it_was_or_is_refused(client: Client, mara: User, run: RunFactory) -> None:
    may_launch(mara)
    past = run(**{**SITUATIONS["failed"], "task_path": TASK, "kwargs": {**SECRET_CALL, "options": {"token": CANARY}}})

    page, _ = sent_again(client, past, options=json.dumps({"token": MASK, "more": 1}))
    _, refused = sent_again(client, past, options=json.dumps({"moved": {"token": MASK}}))

    assert f'{{"token": "{MASK}"}}' in page
    assert TaskRun.objects.get(again_of=past).kwargs["options"] == {"token": CANARY, "more": 1}
    assert refused.status_code == 422
    assert f"Write what belongs in place of {MASK}" in text_of(refused)


def test_a_new_launch_asks_for_it_and_does_not_show_the_default(client: Client, mara: User) -> None:
    may_launch(mara)
    page = text_of(client.get("/launch/tests.secretive.unlocks/"))
    assert secretive.DEFAULT not in page
    assert 'type="password" name="arg-pin_token"' in page
    assert "As before" not in page

    missing = client.post(f"/launch/{TASK}/", {"arg-url": "u", "arg-password": ""})
    client.post("/launch/tests.secretive.unlocks/", {"arg-door": "front", "arg-pin_token": ""})
    client.post(f"/launch/{TASK}/", {"arg-url": "u", "arg-password": "p"})

    assert missing.status_code == 422
    first, second = TaskRun.objects.order_by("enqueued_at")
    assert (first.kwargs, second.kwargs) == ({"door": "front"}, {"url": "u", "password": "p"})


def test_a_choice_and_a_value_of_another_kind_stay_too() -> None:
    past = {"token_kind": "a", "api_key": None}
    form = CallForm.from_call(secretive.chooses, [], past)
    assert re.findall('value="([^"]*)" selected', str(form["arg-token_kind"])) == [""]
    data = {name: str(form[name].value() or "") for name in form.fields}

    bound = CallForm.from_call(secretive.chooses, [], past, data)
    assert bound.is_valid(), bound.errors
    assert bound.call() == ([], past)
    odd = CallForm.from_call(secretive.signs_in, ["u", {"no": "text"}], {}, {"arg-url": "u", "given": "url,password"})
    assert odd.is_valid(), odd.errors
    assert odd.call() == ([], {"url": "u", "password": {"no": "text"}})
    assert not form_of(secretive.chooses)(data).is_valid()


def test_what_does_not_fit_is_kept_without_secrets() -> None:
    form = CallForm.from_call(secretive.signs_in, [], {"url": 5, "password": "x", "token": CANARY, "gone": 1})

    assert json.loads(form.former_text) == {"keywords": {"url": 5, "token": MASK, "gone": 1}}


def posted(page: Any, **changes: str) -> dict[str, str]:
    form, call = page.context["form"], page.context["call"]
    given = {name: str(call[name].value() or "") for name in call.fields if name != "former"}
    given |= {name: "" if (value := form[name].value()) is None else str(value) for name in form.fields}
    given |= {f"initial-{name}": str(form[name].initial) for name in ("next_run", "repeats")}
    return {**given, **changes}


def test_a_schedule_keeps_its_secret_through_its_own_page(operators_client: Client) -> None:
    made_one = schedules()[0]
    address = f"/schedules/{made_one.pk}/"

    kept = operators_client.post(address, posted(operators_client.get(address), **{"arg-url": "https://x.example"}))
    made_one.refresh_from_db()
    assert kept.status_code == 302
    assert read_literals(made_one.args, made_one.kwargs) == ([], {**SECRET_CALL, "url": "https://x.example"})

    operators_client.post(address, posted(operators_client.get(address), **{"arg-password": "other"}))
    made_one.refresh_from_db()
    assert read_literals(made_one.args, made_one.kwargs)[1]["password"] == "other"


def test_a_schedule_keeps_its_secret_through_the_admin(operators_client: Client) -> None:
    named, by_position = schedules()[:2]

    def save(one: Schedule, **changes: str) -> Any:
        address = f"/admin/django_q/schedule/{one.pk}/change/"
        form = operators_client.get(address).context["adminform"].form
        shown = {name: form[name].value() for name in form.fields}
        shown |= {f"initial-{name}": form[name].initial for name in ("next_run", "repeats")}
        given = {name: "" if value is None else value for name, value in {**shown, **changes}.items()}
        assert CANARY not in repr(given)
        answer = operators_client.post(address, given)
        one.refresh_from_db()
        return answer

    assert save(named, name="renamed").status_code == 302
    assert read_literals(named.args, named.kwargs) == ([], SECRET_CALL)
    assert save(by_position, arguments=f'["v", "{MASK}"]').status_code == 302
    assert read_literals(by_position.args, by_position.kwargs) == (["v", CANARY], {})
    refused = save(named, task_path="tests.secretive.unlocks", keywords=json.dumps({"door": "x", "password": MASK}))
    assert refused.status_code == 200
    assert "Write what belongs in place of" in text_of(refused)
    assert CANARY in named.kwargs


# What stands in a log


def test_a_schedule_that_cannot_be_read_is_logged_without_it() -> None:
    one = schedules()[-1]
    for args, kwargs in ((f"'{CANARY}', oops(", ""), ("", f"password='{CANARY}', oops("), ("", f"'token {CANARY}'")):
        with pytest.raises(BadSchedule) as raised:
            read_call(one.func, None, args, kwargs, None)
        assert CANARY not in str(raised.value)


def test_a_value_may_be_deeper_than_the_stack() -> None:
    value: Any = {"password": CANARY, "deepest": 1}
    for _ in range(5_000):
        value = {"in": [value]}

    found = masked(value)

    for _ in range(5_000):
        found = found["in"][0]
    assert found == {"password": MASK, "deepest": 1}
