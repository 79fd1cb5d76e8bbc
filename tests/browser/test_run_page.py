"""A person launches a task, watches it, ends it and sends it again, with a real browser, web server and worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from playwright.sync_api import expect

from tasks_app.models import Status, TaskRun
from tests import outcomes
from tests.browser.conftest import OpenPage, Watched
from tests.pages.conftest import SITUATIONS, attempt, made
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SLOW: dict[str, Any] = {"PRACTICE_UNIT_SECONDS": 10}


def test_a_task_is_launched_watched_ended_and_sent_again(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster(**SLOW)
    address = web(OPEN_ACCESS=1, **SLOW)
    watched = open_page(address)
    page = watched.page
    page.goto(f"{address}/launch/")

    page.get_by_role("link", name="create_task").click()
    page.get_by_label("Type").fill("3")
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#run-title .status--running")).to_be_visible(timeout=20_000)
    told: set[str] = set()

    def moves() -> bool:
        page.wait_for_timeout(50)
        told.add(page.locator("#run-progress .big").text_content() or "")
        return len(told) >= 3

    expect(page.locator("#run-progress .big")).to_be_visible(timeout=20_000)
    wait_until(moves, what="a figure that moves")

    page.locator("#cancel-run").click()
    page.get_by_role("button", name="Cancel it").click()
    expect(page.locator("#run-title .status--cancelled")).to_be_visible(timeout=20_000)
    expect(page.locator("#cancel-run")).to_be_focused()
    page.go_back()  # once: ending it was no step of its own
    expect(page.get_by_role("button", name="Launch")).to_be_visible()
    page.go_forward()

    page.get_by_role("link", name="Run again with changes").click()
    expect(page.get_by_label("Type")).to_have_value("3")
    page.get_by_label("Type").fill("1")
    page.get_by_role("button", name="Run again").click()

    expect(page.locator("#run-changes")).to_have_text("type 3 → 1")
    expect(page.locator("#run-title .status--successful")).to_be_visible(timeout=30_000)
    expect(page.locator("#run-result")).to_have_text("true")
    past = TaskRun.objects.cancelled().get()
    assert TaskRun.objects.successful().get().again_of_id == past.pk
    assert watched.trouble == []


def test_lines_arrive_and_the_reader_stays_at_the_end(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    address = web(OPEN_ACCESS=1)
    run = TaskRun.objects.get(pk=outcomes.talks.enqueue(str(gate), lines=800).id)
    watched = open_page(address)
    page = watched.page
    page.goto(f"{address}/runs/{run.pk}/")
    expect(page.locator("#run-why")).to_contain_text("No live worker takes from the queue default.")

    qcluster(WORKERS=1)

    lines = page.locator("#run-log-lines > li")
    expect(lines).to_have_count(803, timeout=20_000)
    distance = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)(document.querySelector('#run-log-box'))"
    assert page.evaluate(distance) < 8
    page.evaluate("document.querySelector('#run-log-box').scrollTop = 50")
    gate.touch()
    expect(page.locator("#run-title .status--successful")).to_be_visible(timeout=20_000)
    expect(lines).to_have_count(804, timeout=20_000)
    assert page.evaluate("document.querySelector('#run-log-box').scrollTop") == 50
    assert (
        page.evaluate("new Set([...document.querySelectorAll('#run-log-lines > li')].map(line => line.id)).size") == 804
    )

    page.get_by_role("link", name="Errors").click()
    expect(lines).to_have_count(1)
    assert "level=error" in page.url
    assert TaskRun.objects.get().status == Status.SUCCESSFUL
    assert watched.trouble == []


TRACEBACK = """Traceback (most recent call last):
  File "/app/shop/tasks.py", line 41, in sell
    fetch()
  File "/app/.venv/lib/python3.11/site-packages/httpx/_client.py", line 9, in fetch
    raise Timeout
Timeout: no answer <in> 30 s"""


def test_what_is_copied_is_of_use_elsewhere(web: WebFactory, open_page: OpenPage) -> None:
    tries = [attempt(1, 1, 2, message="Timeout: no", traceback=TRACEBACK), attempt(2, 3, 12)]
    shown = made(None, **{**SITUATIONS["failed"], "attempt": 2, "attempts": tries, "priority": 5})
    watched = open_page(web(OPEN_ACCESS=1))
    page = watched.page
    page.goto(f"{watched.address}/runs/{shown.pk}/")

    page.locator("#attempt-1-1 > summary").click()
    page.get_by_role("button", name="Copy the traceback of attempt 1").click()
    assert pasted(watched).strip() == TRACEBACK

    page.goto(f"{watched.address}/runs/{shown.pk}/")
    page.locator("#run-more > summary").click()
    page.get_by_role("button", name="Copy as Python").click()
    call_command("shell", command=pasted(watched), no_imports=True)

    sent = TaskRun.objects.ready().get()
    assert (sent.task_path, sent.args, sent.kwargs, sent.priority) == (shown.task_path, [], {"type": 3}, 5)
    assert watched.trouble == []


def pasted(watched: Watched) -> str:
    """What the last button has copied."""
    page = watched.page
    expect(page.locator("[data-copy].is-copied")).to_be_visible()
    page.goto(f"{watched.address}/launch/tasks_app.tasks.practice.create_task/")
    page.locator("main form").last.evaluate("e => e.insertAdjacentHTML('afterend', '<textarea id=paste></textarea>')")
    page.locator("#paste").press("Control+V")
    return str(page.locator("#paste").input_value())
