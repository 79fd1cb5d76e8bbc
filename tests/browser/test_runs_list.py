"""One story of the list of runs, in a real browser: filter, search, turn the page, go back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tasks_app.clock import database_now
from tasks_app.models import Status, TaskRun
from tests.browser.conftest import OpenPage
from tests.plugins.processes import ClusterFactory, WebFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_runs_are_filtered_searched_and_paged(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    now = database_now()
    TaskRun.objects.bulk_create(
        TaskRun(
            task_path="shop.tasks.greet" if number % 3 else "shop.tasks.crawl",
            kwargs={"order": 48_000 + number},
            queue_name="default" if number % 2 else "mail",
            status=Status.FAILED,
            failure="error",
            failure_message="ValueError: no such order",
            attempt=1,
            enqueued_at=now,
            run_after=now,
            started_at=now,
            finished_at=now,
            claimed_by="c1:1:1:web-1",
        )
        for number in range(90)
    )
    qcluster(PRACTICE_UNIT_SECONDS=1)
    watched = open_page(web(OPEN_ACCESS=1, PRACTICE_UNIT_SECONDS=1))
    page = watched.page
    rows = page.locator("table.runs tbody tr")

    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect(page.locator("#tab-failed .num")).to_have_text("90")
    page.locator("#tab-failed").click()
    expect(page).to_have_url(re.compile(r"/runs/\?state=failed$"))
    expect(page.locator("#matching")).to_have_text("90 failed runs")
    expect(rows).to_have_count(50)

    page.locator("#facet-counts").get_by_role("link", name="crawl").click()
    expect(rows).to_have_count(30)
    expect(page.get_by_role("link", name="Remove filter: of crawl")).to_be_visible()
    page.locator("#facet-counts").get_by_role("link", name="mail").click()
    expect(rows).to_have_count(15)
    page.go_back()
    expect(rows).to_have_count(30)
    page.get_by_role("link", name="Clear filters").click()

    first = rows.first.get_attribute("id")
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(40)
    page.go_back()
    expect(rows.first).to_have_id(first or "")

    page.keyboard.press("/")
    page.keyboard.type("order 48042")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile(r"state=failed&q=order\+48042"))
    rows.first.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("was sent once more")).to_be_visible()

    page.goto(f"{watched.address}/runs/?size=25")
    expect(rows).to_have_count(25)
    first = rows.first.get_attribute("id")
    assert TaskRun.objects.filter(status=Status.READY).count() + TaskRun.objects.exclude(retry_of=None).count()
    other = open_page(watched.address)
    other.page.get_by_role("button", name=re.compile("^Short")).click()
    expect(rows.first).not_to_have_id(first or "")
    expect(rows.first).to_contain_text("Successful")
    expect(rows).to_have_count(25)

    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(rows.first.locator(".pick")).to_be_checked()
    page.get_by_text("Saved views").click()
    page.get_by_label("Save this view as").fill("Mine")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved views").click()
    expect(page.get_by_role("link", name="Mine")).to_be_visible()
    assert watched.trouble == []


def test_the_list_works_without_script(web: WebFactory, open_page: OpenPage) -> None:
    now = database_now()
    for queue in ("mail", "default"):
        TaskRun.objects.create(task_path="a.b", queue_name=queue, enqueued_at=now, run_after=now)
    watched = open_page(web(OPEN_ACCESS=1), java_script_enabled=False)
    page = watched.page

    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("link", name="Show all filters").click()
    page.get_by_role("link", name="mail").click()
    expect(page.locator("table.runs tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("is cancelled")).to_be_visible()
    assert TaskRun.objects.get(queue_name="mail").status == Status.CANCELLED
    assert watched.trouble == []
