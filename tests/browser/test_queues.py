"""An operator pauses, limits and drains the queues, with a real browser, web server, workers and database."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from tasks_app.models import AuditEntry, TaskRun
from tests import outcomes
from tests.browser.conftest import OpenPage, Watched
from tests.flows import passes_gate
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SHORT: dict[str, Any] = {"PRACTICE_UNIT_SECONDS": 1}
WHY = "by mara: The disk is full. It goes on at "


def open_queues(open_page: OpenPage, address: str, **options: Any) -> Watched:
    watched = open_page(address, **options)
    watched.hurry()
    watched.page.goto(f"{address}/queues/")
    return watched


def default(page: Page) -> Locator:
    """The row of the queue `default`."""
    return page.locator("#queue-list tbody tr").filter(has=page.get_by_role("link", name="default", exact=True))


def in_an_hour() -> str:
    return (timezone.localtime() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")


def test_a_pause_holds_what_is_sent_and_tells_whose_it_is_and_why(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, mara: User
) -> None:
    qcluster(**SHORT)
    watched = open_page(web(**SHORT))
    watched.hurry()
    watched.log_in("mara")
    page, queue = watched.page, default(watched.page)
    page.get_by_role("link", name="Queues", exact=True).click()
    expect(queue).to_contain_text("2 workers take from it")

    queue.locator("summary", has_text="Pause").click()
    queue.get_by_label("Or until a date and time").fill(in_an_hour())
    queue.get_by_label("Why").fill("The disk is full.")
    queue.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_text("what is at hand ends, nothing else begins")).to_be_visible()
    expect(queue.locator(".status")).to_have_text("Paused")
    expect(queue).to_contain_text(WHY)
    watched.stay()

    other = watched.tab("/")
    expect(other.page.get_by_role("status").filter(has_text="The queue default is paused.")).to_contain_text(WHY)
    other.page.locator("#practice").get_by_role("button", name="Short").click()
    other.page.locator("#runs-rows").get_by_role("link", name="create_task").click()
    expect(other.page.locator("#run-why")).to_contain_text("The queue default is paused.")
    expect(other.page.locator("#run-why")).to_contain_text(WHY)
    other.stay()
    expect(queue.locator(".c-wait")).to_contain_text(re.compile("^1 waiting.*oldest"))
    assert watched.stayed

    queue.get_by_role("button", name="Resume").click()

    expect(queue).not_to_contain_text("Paused")
    expect(other.page.locator("#run-title .status--successful")).to_be_visible()
    expect(queue.locator(".c-wait")).to_contain_text("nothing waits")
    assert other.stayed
    assert watched.trouble == other.trouble == []


def test_a_limit_of_one_has_the_second_run_wait_for_the_first(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, tmp_path: Path
) -> None:
    qcluster()
    watched = open_queues(open_page, web(OPEN_ACCESS=1))
    page, queue = watched.page, default(watched.page)
    queue.get_by_label("Limit default").click()
    queue.get_by_label("At work at once").fill("1")
    queue.get_by_role("button", name="Set the limit").click()
    expect(page.get_by_text("at most 1 run is at work at once")).to_be_visible()
    watched.stay()

    gates = [tmp_path / "first", tmp_path / "second"]
    first, second = (passes_gate.enqueue(str(gate)).id for gate in gates)
    expect(queue.locator(".c-held")).to_contain_text("1 of 1")
    expect(queue.locator(".c-wait")).to_contain_text("1 waiting")
    queue.locator(".c-wait").get_by_role("link").click()
    page.locator("table.runs").get_by_role("link", name="passes_gate", exact=True).click()
    expect(page).to_have_url(re.compile(str(second)))
    expect(page.locator("#run-why")).to_contain_text("Its queue is at its limit. 1 of 1 are at work")
    expect(page.locator("#run-why").get_by_role("link").first).to_have_attribute("href", f"/runs/{first}/")
    watched.stay()
    other = watched.tab("/queues/")
    other.stay()

    gates[0].touch()
    expect(page.locator("#run-title .status--running")).to_be_visible()
    expect(default(other.page).locator(".c-wait")).to_contain_text("nothing waits")
    gates[1].touch()
    expect(page.locator("#run-title .status--successful")).to_be_visible()
    expect(default(other.page).locator(".c-held")).to_contain_text("0 of 1")

    assert watched.stayed and other.stayed
    earlier, later = TaskRun.objects.successful().order_by("started_at")
    assert (str(earlier.pk), str(later.pk)) == (first, second)
    assert earlier.finished_at and later.started_at
    assert later.started_at >= earlier.finished_at
    assert watched.trouble == other.trouble == []


def test_all_queues_are_drained_until_it_is_safe_and_go_on(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    qcluster()
    passes_gate.enqueue(str(gate))
    watched = open_queues(open_page, web(OPEN_ACCESS=1))
    page, queue = watched.page, default(watched.page)
    drained = page.locator("#drained")
    expect(queue.locator(".c-held")).to_contain_text("1 at work")

    page.locator("summary", has_text="Pause all").click()
    page.locator("#drain").get_by_label("Why").fill("Release 42.")
    page.get_by_role("button", name="Pause all queues").click()
    expect(drained).to_contain_text("1 run still ends: not safe to deploy yet.")
    expect(drained).to_contain_text("Release 42. It waits to be resumed.")
    expect(queue).to_contain_text("With all the others.")
    watched.stay()
    outcomes.succeeds.enqueue()
    expect(queue.locator(".c-wait")).to_contain_text("1 waiting")
    gate.touch()

    expect(drained).to_contain_text("Nothing is at work: safe to deploy.")
    expect(queue.locator(".c-wait")).to_contain_text("1 waiting")
    assert watched.stayed
    assert TaskRun.objects.successful().count() == 1

    drained.get_by_role("button", name="Resume them").click()
    expect(page.get_by_text("1 queue goes on.")).to_be_visible()
    expect(drained).to_have_count(0)
    expect(queue.locator(".c-wait")).to_contain_text("nothing waits")
    wait_until(lambda: TaskRun.objects.successful().count() == 2, what="the run that waited")
    assert watched.trouble == []


def test_a_task_is_paused_by_itself_without_javascript(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_queues(open_page, web(OPEN_ACCESS=1), java_script_enabled=False)
    page = watched.page
    page.get_by_label("Another task").select_option(label="tasks_app.tasks.practice.create_task")
    page.get_by_role("button", name="Steer it").click()
    task = page.locator("#limits tbody tr")

    task.locator("summary", has_text="Pause").click()
    task.get_by_label("Why").fill("It counts wrong.")
    task.get_by_role("button", name="Pause", exact=True).click()
    expect(task).to_contain_text("It counts wrong. It waits to be resumed.")
    page.goto(watched.address)
    page.locator("#practice").get_by_role("button", name="Short").click()
    page.locator("#runs-rows").get_by_role("link", name="create_task").click()
    page.goto(f"{watched.address}/queues/")
    task.get_by_role("button", name="Resume").click()

    expect(page.get_by_text("The task create_task goes on.")).to_be_visible()
    assert [entry.verb for entry in AuditEntry.objects.order_by("id")] == ["pause", "resume"]
    assert watched.trouble == []
