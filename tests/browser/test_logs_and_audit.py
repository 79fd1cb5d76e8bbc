"""A person reads what the workers say and who did what, with a real browser, web server, worker and database."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from tasks_app.models import TaskRun
from tests import outcomes
from tests.browser.conftest import OpenPage
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SLOW: dict[str, Any] = {"PRACTICE_UNIT_SECONDS": 20}


def go_by_menu(page: Page, name: str) -> None:
    page.locator("summary", has_text="More").click()
    page.get_by_role("link", name=name, exact=True).click()


def test_lines_of_the_log_come_by_themselves_and_are_narrowed_and_move_no_reader(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    watched = open_page(web(OPEN_ACCESS=1))
    watched.hurry()
    page = watched.page
    lines = page.locator("#logs li[id]")
    go_by_menu(page, "Logs")
    expect(page.get_by_role("heading", name="No log on this host")).to_be_visible()
    watched.stay()

    qcluster(WORKERS=1)
    expect(lines.filter(has_text="cluster default is ready")).to_have_count(1)
    good = outcomes.succeeds.enqueue().id
    bad = outcomes.fails.enqueue(text="no such currency").id
    expect(lines.filter(has_text=f"run {good} finished")).to_have_count(1)
    expect(lines.filter(has_text=f"run {bad} finished")).to_have_count(1)
    assert watched.stayed

    page.get_by_role("navigation", name="Level").get_by_role("link", name="Warning").click()
    expect(page).to_have_url(re.compile(r"/logs/\?level=WARNING$"))
    expect(lines.filter(has_text="no such currency")).to_have_count(1)
    expect(lines.filter(has_text=good)).to_have_count(0)
    page.get_by_label("Search the log").fill("CURRENCY")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/logs/\?level=WARNING&q=CURRENCY$"))
    expect(lines).to_have_count(1)
    watched.stay()
    outcomes.fails.enqueue(text="no such colour")
    outcomes.fails.enqueue(text="another currency")
    expect(lines).to_have_count(2)
    expect(lines.first).to_contain_text("another currency")
    assert watched.stayed

    page.go_back()
    expect(page).to_have_url(re.compile(r"/logs/\?level=WARNING$"))
    expect(lines.filter(has_text="no such colour")).to_have_count(1)
    lines.filter(has_text=bad).get_by_role("link").click()
    expect(page.locator("#run-title")).to_contain_text("fails")
    page.goto(f"{watched.address}/logs/?q=nothing+like+it")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.get_by_role("link", name="Clear the filters").click()
    expect(page).to_have_url(re.compile(r"/logs/$"))

    for number in range(60):
        outcomes.succeeds.enqueue(number)
    wait_until(lambda: TaskRun.objects.unfinished().count() == 0, what="the ends of all")
    expect(lines).to_have_count(50)
    watched.wait_until_no_news()
    page.set_viewport_size({"width": 1280, "height": 500})
    page.mouse.wheel(0, 400)
    wait_until(lambda: page.evaluate("scrollY") == 400, what="the wheel")
    read = page.locator(f"#{lines.nth(25).get_attribute('id')}")
    before = read.bounding_box()
    watched.stay()
    run = outcomes.succeeds.enqueue().id
    expect(lines.filter(has_text=f"run {run} finished")).to_have_count(1)
    after = read.bounding_box()

    assert before and after
    assert abs(after["y"] - before["y"]) < 2  # who reads further down is not moved
    assert watched.stayed
    assert watched.trouble == []


def test_what_somebody_did_stands_there_with_who_when_from_where_and_why(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, mara: User
) -> None:
    qcluster(**SLOW)
    watched = open_page(web(**SLOW))
    watched.hurry()
    watched.log_in("mara")
    page = watched.page
    rows = page.locator("#audit tbody tr")
    go_by_menu(page, "Audit")
    expect(page.get_by_role("heading", name="Nobody has done anything yet")).to_be_visible()
    watched.stay()

    other = watched.tab("/queues/")
    steered = other.page.locator("#queue-list tbody tr")
    steered.locator("summary", has_text="Pause").click()
    steered.get_by_label("Why").fill("Out of paper.")
    steered.get_by_role("button", name="Pause", exact=True).click()
    paused = rows.filter(has_text="Out of paper.")
    for told in ("Pause", "queue default", "mara", "127.0.0.1"):
        expect(paused).to_contain_text(told)
    expect(paused.locator("time").first).to_have_attribute("title", re.compile(r"\d+ \w+ \d{4}, \d\d:\d\d:\d\d UTC"))

    steered.get_by_role("button", name="Resume").click()
    other.page.goto(watched.address)
    other.page.locator("#practice").get_by_role("button", name="Long").click()
    other.page.locator("#runs-rows").get_by_role("link", name="create_task").click()
    expect(other.page.locator("#run-title .status--running")).to_be_visible()
    other.page.locator("#cancel-run").click()
    other.page.get_by_role("textbox", name="Why").fill("Wrong list.")
    other.page.get_by_role("button", name="Cancel it").click()
    expect(other.page.locator("#run-title .status--cancelled")).to_be_visible()
    expect(other.page.locator("#run-deeds")).to_contain_text("Wrong list.")

    cancelled = rows.filter(has_text="Wrong list.")
    for told in ("Cancel", "mara", "127.0.0.1"):
        expect(cancelled).to_contain_text(told)
    expect(rows).to_have_count(3)
    assert watched.stayed
    page.set_viewport_size({"width": 360, "height": 740})
    for told in ("Cancel", "mara", "Wrong list.", "from 127.0.0.1"):
        expect(cancelled.get_by_text(told, exact=True)).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 720})

    page.locator("summary", has_text="Everything done").click()
    page.get_by_role("link", name="Cancel", exact=True).click()
    expect(page).to_have_url(re.compile(r"/audit/\?verb=cancel$"))
    expect(rows).to_have_count(1)
    page.get_by_label("Search by a person").fill("tobias")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"verb=cancel&q=tobias$"))
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.go_back()
    expect(rows).to_have_count(1)
    page.go_back()
    expect(rows).to_have_count(3)

    cancelled.locator(f"a[href='/runs/{TaskRun.objects.get().pk}/']").first.click()
    expect(page.locator("#run-why")).to_contain_text("Cancelled by mara: Wrong list.")
    page.go_back()
    expect(rows).to_have_count(3)
    assert watched.trouble == other.trouble == []
