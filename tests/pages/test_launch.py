"""SUBMIT: the buttons Short, Medium and Long."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tasks_app.models import Status, TaskRun
from tests.pages.conftest import RunFactory

HTMX = {"HX-Request": "true"}
ROW = re.compile(r'<tr id="run-([0-9a-f]{8})"')


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_button_enqueues_one_run_of_the_person_who_pressed_it(client: Client, mara: User, kind: int) -> None:
    response = client.post("/launch/create_task/", {"type": kind})

    run = TaskRun.objects.get()
    assert (response.status_code, response["Location"]) == (302, "/")
    assert (run.task_path, run.kwargs) == ("tasks_app.tasks.practice.create_task", {"type": kind})
    assert (run.owner, run.status) == (mara, Status.READY)


def test_with_htmx_the_answer_adds_exactly_one_row_and_starts_the_poll(client: Client, run: RunFactory) -> None:
    run()
    response = client.post("/launch/create_task/", {"type": 1}, headers=HTMX)

    answer = response.content.decode()
    new = TaskRun.objects.newest()[0]
    assert ROW.findall(answer) == [new.short_id]
    assert '<tbody hx-swap-oob="afterbegin:#runs-rows">' in answer
    assert re.search(r'<div id="runs-poll"[^>]* hx-get="/runs/changes/"[^>]* hx-swap-oob="true">', answer)


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
