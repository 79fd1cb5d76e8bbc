"""What stands beside the list of runs, in a real browser: counts follow it, and times are chosen by a form."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from tasks_app.clock import database_now
from tasks_app.models import Status, TaskRun
from tests.browser.conftest import OpenPage
from tests.engine.test_verbs import stored
from tests.plugins.processes import WebFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LATER = 20_000
"""Milliseconds within which it is counted again in any case."""


def fails(run: TaskRun) -> None:
    """As a worker elsewhere would record it."""
    ended: dict[str, Any] = {"status": Status.FAILED, "failure": "error", "failure_message": "ValueError: no"}
    TaskRun.objects.filter(pk=run.pk).update(**ended, finished_at=database_now())


def test_a_tabs_count_follows_a_run_that_fails_elsewhere(web: WebFactory, open_page: OpenPage) -> None:
    first, second, third = stored(3, status=Status.RUNNING)
    watched = open_page(web(OPEN_ACCESS=1))
    page = watched.page
    page.goto(f"{watched.address}/runs/")
    count = page.locator("#tab-failed .num")
    expect(count).to_have_text("0")
    tab = page.locator("#tab-failed")
    tab.focus()
    tab.evaluate("tab => { window.focused = tab }")

    fails(first)
    expect(count).to_have_text("1", timeout=LATER)
    expect(page.locator("#tab-running .num")).to_have_text("2")
    fails(second)
    expect(count).to_have_text("2", timeout=LATER)

    assert page.evaluate("document.activeElement === window.focused && window.focused.isConnected")
    page.keyboard.press("Enter")
    expect(page.locator("#matching")).to_have_text("2 failed runs")
    page.locator(".pick").first.check()
    expect(page.locator("#all-told")).to_have_text("All 2 that match the filter")
    page.locator(".pick").first.uncheck()
    fails(third)
    expect(page.locator("#matching")).to_have_text("3 failed runs", timeout=LATER)
    assert watched.trouble == []


def test_a_count_that_did_not_arrive_is_asked_for_again(web: WebFactory, open_page: OpenPage) -> None:
    stored(2, status=Status.FAILED)
    watched = open_page(web(OPEN_ACCESS=1))
    page = watched.page
    page.route("**/runs/counts/*", lambda route: route.abort(), times=1)

    page.goto(f"{watched.address}/runs/")

    expect(page.locator("#tab-failed .num")).to_have_text("2")


def test_times_are_chosen_by_the_form(web: WebFactory, open_page: OpenPage) -> None:
    now = timezone.localtime()
    for hours in (1, 3, 5):
        at = now - timedelta(hours=hours)
        stored(status=Status.SUCCESSFUL, queue_name=f"q{hours}", enqueued_at=at, run_after=at)
    watched = open_page(web(OPEN_ACCESS=1))
    page = watched.page
    page.goto(f"{watched.address}/runs/?state=successful")
    rows = page.locator("table.runs tbody tr")
    expect(rows).to_have_count(3)

    page.get_by_text("Choose times").click()
    page.get_by_label("From").fill(f"{now - timedelta(hours=4):%Y-%m-%dT%H:%M}")
    page.get_by_label("Before").fill(f"{now - timedelta(hours=2):%Y-%m-%dT%H:%M}")
    page.get_by_role("button", name="Show").click()

    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("q3")
    expect(page).to_have_url(re.compile(r"state=successful&since=\S+&until="))
    page.get_by_role("link", name=re.compile("^Remove filter: until")).click()
    expect(rows).to_have_count(2)
    assert watched.trouble == []
