"""SUBMIT: the buttons Short, Medium and Long."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

import tasks_app.tasks
from tasks_app.models import Status, TaskRun
from tasks_app.templatetags.dumbwaiter import with_code
from tests import secretive
from tests.pages.conftest import SITUATIONS, RunFactory

HTMX = {"HX-Request": "true"}
ROW = re.compile(r'<tr id="run-([0-9a-f]{8})"')


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_button_enqueues_one_run_of_the_person_who_pressed_it(client: Client, mara: User, kind: int) -> None:
    response = client.post("/launch/create_task/", {"type": kind})

    run = TaskRun.objects.get()
    assert (response.status_code, response["Location"]) == (302, "/")
    assert (run.task_path, run.kwargs) == ("tasks_app.tasks.practice.create_task", {"type": kind})
    assert (run.owner, run.status) == (mara, Status.READY)


def test_with_htmx_the_answer_has_the_parts_that_it_changed(client: Client, run: RunFactory) -> None:
    before = run()
    response = client.post("/launch/create_task/", {"type": 1}, headers=HTMX)

    answer = response.content.decode()
    new = TaskRun.objects.newest()[0]
    assert ROW.findall(answer) == [new.short_id, before.short_id]
    assert re.findall(r'id="([\w-]+)"[^>]* hx-swap-oob="(\w+)"', answer) == [
        ("practice-once", "true"), ("runs", "morph"), ("health", "morph"), ("lately", "morph"),
    ]  # fmt: skip
    poll = re.search(r'id="runs"[^>]* hx-get="(/\?seen=[^"]*)"', answer)
    assert poll
    assert client.get(poll[1], headers=HTMX).status_code == 204


@pytest.mark.parametrize("kind", ["0", "4", "-1", "1.5", "many", "", "9" * 400, "<b>"])
def test_another_type_is_refused_in_a_sentence(client: Client, kind: str) -> None:
    page = client.post("/launch/create_task/", {"type": kind})
    fragment = client.post("/launch/create_task/", {"type": kind}, headers=HTMX)

    assert (page.status_code, fragment.status_code) == (400, 400)
    assert b"There are three kinds to choose from" in page.content
    assert b"<!doctype" in page.content
    assert fragment.content.startswith(b'<p class="field__error" id="practice-error"')
    assert not TaskRun.objects.exists()


def test_a_launch_is_a_post(client: Client) -> None:
    assert client.get("/launch/create_task/").status_code == 405
    assert client.get("/launch/make_thumbnails/").status_code == 405


def test_a_launch_needs_the_token_of_a_page(mara: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(mara)

    response = client.post("/launch/create_task/", {"type": 1})

    assert response.status_code == 403
    assert b"sent from an old page" in response.content
    assert not TaskRun.objects.exists()


@pytest.mark.parametrize(("unit", "said"), [(10, "10 seconds"), (0.2, "0.2 seconds"), (600, "600 seconds")])
def test_a_button_tells_how_long_its_run_takes(client: Client, settings: Any, unit: float, said: str) -> None:
    settings.PRACTICE_UNIT_SECONDS = unit

    assert f"<small>{said}</small>" in client.get("/").content.decode()


# Any task, by the form that its signature makes

PATH = "tasks_app.tasks.practice.create_task"


def may_launch(user: User) -> None:
    user.user_permissions.add(Permission.objects.get(codename="add_taskrun"))


def once_of(page: str) -> str:
    found = re.search(r'name="once" value="(\w+)"', page)
    assert found
    return found[1]


def test_the_tasks_are_listed_with_what_they_do(client: Client, mara: User) -> None:
    may_launch(mara)
    page = client.get("/launch/").content.decode()

    assert f'href="/launch/{PATH}/"' in page
    assert "telling the progress, and answer true." in page
    assert "prune_runs" not in page  # internal


@pytest.mark.parametrize(("q", "found"), [("PRACTICE", True), ("progress create", True), ("nowhere", False)])
def test_a_task_is_found_by_words(client: Client, mara: User, q: str, found: bool) -> None:
    may_launch(mara)
    page = client.get("/launch/", {"q": q}).content.decode()

    assert (f'href="/launch/{PATH}/"' in page) is found
    assert ("Nothing matches" in page) is not found


def test_a_form_sends_a_run_with_options(client: Client, mara: User) -> None:
    may_launch(mara)
    page = client.get(f"/launch/{PATH}/").content.decode()
    assert 'name="arg-type"' in page

    sent = {"once": once_of(page), "arg-type": "2", "priority": "7", "queue": "slow"}
    response = client.post(f"/launch/{PATH}/", sent)

    run = TaskRun.objects.get()
    assert (response.status_code, response["Location"]) == (302, f"/runs/{run.pk}/")
    assert (run.args, run.kwargs, run.owner) == ([], {"type": 2}, mara)
    assert (run.priority, run.queue_name) == (7, "slow")


def test_a_form_sent_twice_makes_one_run_and_changed_it_makes_another(client: Client, mara: User) -> None:
    may_launch(mara)
    once = once_of(client.get(f"/launch/{PATH}/").content.decode())

    for kind in ("1", "1", "2"):
        client.post(f"/launch/{PATH}/", {"once": once, "arg-type": kind})

    assert [run.kwargs["type"] for run in TaskRun.objects.order_by("enqueued_at")] == [1, 2]


@pytest.mark.parametrize("sent", [{"arg-type": "many"}, {}, {"arg-type": "1", "priority": "500"}])
def test_a_wrong_form_comes_back_with_a_sentence(client: Client, mara: User, sent: dict[str, str]) -> None:
    may_launch(mara)
    response = client.post(f"/launch/{PATH}/", sent)

    assert response.status_code == 422
    assert b'class="field__error"' in response.content
    assert not TaskRun.objects.exists()


def test_nobody_launches_without_the_permission(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["failed"])
    for address in ("/launch/", f"/launch/{PATH}/", f"/runs/{shown.pk}/again/"):
        assert client.get(address).status_code == 403
    assert client.post(f"/launch/{PATH}/", {"arg-type": "1"}).status_code == 403

    assert TaskRun.objects.count() == 1
    assert b"That needs the permission to add runs." in client.get(f"/runs/{shown.pk}/").content


@pytest.mark.parametrize("path", ["no.such.task", "os.system", "tasks_app.tasks.upkeep.prune_runs", "x" * 5000])
def test_only_registered_tasks_are_there(client: Client, mara: User, path: str) -> None:
    may_launch(mara)

    assert client.get(f"/launch/{path}/").status_code == 404
    assert client.post(f"/launch/{path}/", {}).status_code == 404


def test_a_run_is_sent_again_with_changes_and_both_say_so(client: Client, mara: User, run: RunFactory) -> None:
    may_launch(mara)
    past = run(**{**SITUATIONS["failed"], "priority": 5})
    page = client.get(f"/runs/{past.pk}/again/").content.decode()
    assert re.search(r'name="arg-type" value="3"', page)
    assert re.search(r'name="priority" value="5"', page)

    response = client.post(f"/runs/{past.pk}/again/", {"once": once_of(page), "arg-type": "2", "priority": "5"})

    again = TaskRun.objects.get(again_of=past)
    assert response["Location"] == f"/runs/{again.pk}/"
    assert (again.kwargs, again.priority, again.retry_of) == ({"type": 2}, 5, None)
    told = client.get(response["Location"]).content.decode()
    assert "<li>type 3 → 2</li>" in told
    assert f"/runs/{past.pk}/" in told
    assert "Run again as" in client.get(f"/runs/{past.pk}/").content.decode()


def test_a_foreign_run_is_not_sent_again(client: Client, mara: User, tobias: User, run: RunFactory) -> None:
    may_launch(mara)

    assert client.get(f"/runs/{run(owner=tobias).pk}/again/").status_code == 404


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("Count to `n` and ``m``.", "Count to <code>n</code> and <code>m</code>."),
        ("`<b>` & <i>", "<code>&lt;b&gt;</code> &amp; &lt;i&gt;"),
        ("one ` alone, ``` three, ``", "one ` alone, ``` three, ``"),
        ("`\u202eturned`", "<code>[202e]turned</code>"),
        ("`" * 3001, "`" * 3001),
    ],
)
def test_code_in_a_docstring_is_drawn_as_code_and_does_no_harm(text: str, drawn: str) -> None:
    assert with_code(text) == drawn


def test_the_pages_of_tasks_draw_it(client: Client, mara: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_app.tasks, "secretive", secretive, raising=False)
    may_launch(mara)

    for address in ("/launch/", "/launch/tests.secretive.signs_in/"):
        page = client.get(address).content.decode()
        assert "Sign in at <code>url</code> with a &lt;password&gt;, or <code>nobody</code>." in page
