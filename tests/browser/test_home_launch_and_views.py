"""A person sees that work has no worker, sends some elsewhere and keeps the list of it, all of it really running."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.plugins.processes import ClusterFactory, WebFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SHORT: dict[str, Any] = {"PRACTICE_UNIT_SECONDS": 1}


def test_home_tells_that_nobody_takes_from_a_queue_until_somebody_does(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    watched = open_page(web(OPEN_ACCESS=1, **SHORT))
    page = watched.page
    page.locator("#practice").get_by_role("button", name="Short").click()
    banner = page.get_by_role("status").filter(has_text="No live worker takes from the queue default.")
    waiting = page.locator("#health dl > div").filter(has_text="Waiting")
    expect(banner).to_contain_text("1 run waits there")
    expect(page.locator("#health-says")).to_have_text("No worker is running")
    expect(waiting).to_contain_text(re.compile("Waiting *1 *oldest"))
    watched.stay()

    qcluster(**SHORT)

    expect(banner).to_have_count(0)
    expect(watched.rows.first).to_contain_text("Successful")
    expect(page.locator("#health-says")).to_have_text("All quiet")
    expect(waiting.get_by_role("link")).to_have_text("0")
    assert watched.stayed
    waiting.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Queues", exact=True)).to_be_visible()
    assert watched.trouble == []


def test_a_task_is_launched_into_a_queue_and_the_view_of_it_is_kept(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_page(web(OPEN_ACCESS=1))
    page = watched.page
    page.keyboard.press("g")
    page.keyboard.press("n")
    page.get_by_label("Search the tasks").fill("seconds")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="create_task").click()
    page.get_by_label("Type").fill("2")
    page.get_by_text("Queue, priority, time").click()
    page.get_by_label("Queue").fill("reports")
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#run-why")).to_contain_text("No live worker takes from the queue reports.")

    page.goto(f"{watched.address}/runs/?queue=reports")
    rows = page.locator("table.runs tbody tr")
    expect(rows).to_have_count(1)
    views = page.locator("summary", has_text="Saved views")
    views.click()
    page.get_by_label("Save this view as").fill("Reports")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Kept as “Reports”.")).to_be_visible()

    page.goto(f"{watched.address}/runs/?state=failed")
    views.click()
    page.get_by_role("link", name="Reports", exact=True).click()
    expect(page).to_have_url(re.compile(r"/runs/\?queue=reports$"))
    expect(rows).to_have_count(1)
    views.click()
    page.get_by_label("New name").fill("Monthly")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_text("The view is named “Monthly” now.")).to_be_visible()
    views.click()
    expect(page.get_by_role("link", name="Monthly", exact=True)).to_be_visible()
    page.get_by_label("Rename or delete").select_option(label="Monthly")
    page.locator(".views").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The view “Monthly” is deleted.")).to_be_visible()
    expect(page.get_by_role("link", name="Monthly", exact=True)).to_have_count(0)
    assert watched.trouble == []
