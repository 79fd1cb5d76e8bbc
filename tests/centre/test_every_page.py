"""What every page is held to, in a real browser, with everything in it that there can be."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from django.db.models import F
from django.db.models.functions import Now
from playwright.sync_api import Locator, Route, expect

from tasks_app import audit
from tasks_app.clock import database_now
from tasks_app.models import Cluster, CountedTo, FailureGroup, ScheduleRules, Status, TaskRun, Workflow
from tests.browser.conftest import Watched
from tests.centre.conftest import Centre, OpenCentre, troubles
from tests.centre.full import told
from tests.centre.pages import OURS, PAGES, Page
from tests.pages.conftest import begun, made
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
LOOKS = Path(__file__).with_name("looks.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def parametrised(pages: tuple[Page, ...]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=str)


def opened(visit: OpenCentre, centre: Centre, page: Page, **options: Any) -> Watched:
    watched = visit(page.path(centre.full), is_open=page.is_open, **options)
    expect(watched.page.locator("h1").first).to_be_visible()
    return watched


def is_expected(page: Page, trouble: str) -> bool:
    """The console tells the status of the page that is not there."""
    return page.name == "not-found" and "404" in trouble


@parametrised(PAGES)
def test_it_keeps_nobody_out_in_either_theme_at_any_width_or_on_paper(
    visit: OpenCentre, centre: Centre, page: Page
) -> None:
    watched = opened(visit, centre, page)
    found = [each for each in troubles(watched) if not is_expected(page, each)]
    watched.page.evaluate(AXE)  # which itself does what the policy forbids
    watched.page.evaluate(LOOKS)

    # What is drawn otherwise by day or by night is a colour, what is so on a narrow screen a place: each seen once.
    themes: tuple[tuple[Literal["light", "dark"], tuple[int, ...]], ...] = (("light", (1280,)), ("dark", (320, 375)))
    for scheme, widths in themes:
        watched.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width in widths:
            watched.page.set_viewport_size({"width": width, "height": 900})
            found += watched.page.evaluate("tooWide()") if page.is_ours else []
        found += [f"{scheme}: {each}" for each in watched.page.evaluate("(rules) => barriers(rules)", RULES)]
    if page.is_ours and page.name != "login":
        watched.page.set_viewport_size({"width": 1280, "height": 900})
        watched.page.emulate_media(media="print")
        found += watched.page.evaluate("wrongOnPaper()")

    assert found == []


@parametrised(OURS)
def test_every_control_is_reached_and_seen_by_keyboard(visit: OpenCentre, centre: Centre, page: Page) -> None:
    watched = opened(visit, centre, page)
    expect(watched.page.locator("[hx-trigger^=load]")).to_have_count(0)
    watched.page.evaluate("for (const each of document.querySelectorAll('details:not(.menu)')) each.open = true")
    watched.page.evaluate(LOOKS)
    whole = watched.page.evaluate("markControls()")
    reached: list[int] = []
    seen: set[int] = set()

    for _ in range(whole + 2 + watched.page.evaluate("partsOfDates()")):
        watched.page.keyboard.press("Tab")
        if (at := watched.page.evaluate("lookAtFocus()")) is not None:
            reached.append(at[0])
            seen |= {at[0]} if at[1] else set()  # a date's calendar has a mark of its own inside

    told = "(numbers) => tellControls(numbers)"
    assert watched.page.evaluate(told, [at for at in range(whole) if at not in reached]) == []
    assert watched.page.evaluate(told, sorted({*reached} - seen)) == []
    # In the order in which they stand, from wherever the page put the focus at first.
    once = list(dict.fromkeys(reached))
    assert sum(after < before for before, after in pairwise(once)) <= 1
    for number in range(watched.page.locator("details.menu").count()):
        opens_and_closes(watched, watched.page.locator("details.menu").nth(number))
    assert [each for each in troubles(watched) if not is_expected(page, each)] == []


def opens_and_closes(watched: Watched, menu: Locator) -> None:
    if not menu.locator("> summary").is_visible():
        return
    menu.locator("> summary").focus()
    watched.page.keyboard.press("Enter")
    expect(menu).to_have_attribute("open", "")
    watched.page.keyboard.press("Tab")
    assert menu.evaluate("menu => menu.contains(document.activeElement)")
    watched.page.keyboard.press("Escape")
    expect(menu).not_to_have_attribute("open", "")
    assert menu.evaluate("menu => menu.querySelector('summary') === document.activeElement")


def something_happens(centre: Centre) -> None:
    """News for every page that can have any: a run is sent, one goes on, somebody does something, a line is logged."""
    mara = centre.full.operator
    made(mara, 0, queue_name="mail")
    made(mara, 5, **begun(status=Status.SUCCESSFUL, finished_at=4))
    made(mara, 5, **begun(status=Status.FAILED, finished_at=4, failure="error", failure_message="ValueError: no"))
    for run in TaskRun.objects.running():
        TaskRun.objects.filter(pk=run.pk).update(progress={"done": 5, "total": 9, "message": uuid.uuid4().hex})
    audit.record("pause", subject="queue mail", by=mara, why="To have news.")
    FailureGroup.objects.update(last_at=Now(), count=F("count") + 1)
    CountedTo.objects.update(at=F("at") - timedelta(hours=2))  # nobody counts, and the page says so
    for cluster in Cluster.objects.alive():
        Cluster.objects.filter(pk=cluster.pk).update(report=told(database_now(), busy=1))
    ScheduleRules.objects.update(error="There is no task shop.tasks.gone.", noted_at=Now())
    Workflow.objects.update(cancel_requested_at=Now())
    with centre.log_file.open("a") as log:
        now = database_now().replace(tzinfo=None).isoformat(timespec="milliseconds")
        log.write(f"{now}Z INFO 4711 {uuid.uuid4().hex}\n")


HAS_NEWS = (
    *("home", "run-running", "runs", "runs-ready", "runs-running", "runs-failed", "runs-successful"),
    *("failures", "failure", "queues", "workers", "schedules", "schedule", "workflows", "workflow", "stats", "logs"),
    "audit",
)


@parametrised(tuple(page for page in OURS if page.name in HAS_NEWS))
def test_focus_stays_where_it_is_when_news_comes(visit: OpenCentre, centre: Centre, page: Page) -> None:
    watched = opened(visit, centre, page)
    live = watched.page.locator("[data-poll]")
    focused = live.locator("a[href]:visible, summary:visible, button:visible, [tabindex]:visible").first
    focused.focus()
    focused.evaluate("each => { window.focused = each; each.dataset.mark = 'kept' }")
    told = live.get_attribute("data-now") or ""

    something_happens(centre)

    expect(live).not_to_have_attribute("data-now", told)
    assert watched.page.evaluate("document.activeElement === window.focused && window.focused.isConnected")
    assert troubles(watched) == []


def test_a_tab_keeps_the_focus_when_its_count_arrives(visit: OpenCentre, centre: Centre) -> None:
    page = visit("/keys/").page
    held: list[Route] = []
    page.route("**/runs/counts/*", lambda route: held.append(route))
    with page.expect_request("**/runs/counts/*"):
        page.goto(f"{centre.address}/runs/")
    tab = page.locator("#tab-failed")
    tab.focus()
    tab.evaluate("tab => { window.focused = tab }")
    expect(tab.locator(".num")).to_have_count(0)

    held[0].continue_()

    expect(tab.locator(".num")).to_have_text(re.compile(r"\d"))
    assert page.evaluate("document.activeElement === window.focused && window.focused.isConnected")


def test_every_live_page_is_held_to_its_news(visit: OpenCentre, centre: Centre) -> None:
    """A page that polls stands in `HAS_NEWS`, unless it is of a run that waits or of nothing at all."""
    watched = opened(visit, centre, OURS[0])
    polling = []
    for page in (page for page in OURS if not page.is_open):
        watched.page.goto(f"{centre.address}{page.path(centre.full)}")
        if watched.page.locator("[data-poll]").count():
            polling.append(page.name)

    assert {name for name in polling if not name.startswith("run-")} == {*HAS_NEWS, "runs-none"} - {"run-running"}


# Keys


def test_the_slash_goes_to_the_search_and_the_question_mark_to_the_keys(visit: OpenCentre) -> None:
    page = visit("/audit/").page

    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("?/jg")
    expect(page.locator("main [type=search]")).to_have_value("?/jg")
    page.locator("h1").click()
    page.keyboard.press("?")

    page.wait_for_url("**/keys/")


def test_j_and_k_go_from_row_to_row_and_enter_opens_one(visit: OpenCentre) -> None:
    page = visit("/").page
    rows = page.locator("main table .task")
    focused = "document.activeElement.textContent"

    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(focused) == rows.nth(1).text_content()
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert page.evaluate(focused) == rows.nth(0).text_content()
    page.keyboard.press("Enter")

    page.wait_for_url("**/runs/*/")


def test_g_and_a_letter_lead_to_each_page_of_the_bar(visit: OpenCentre, centre: Centre) -> None:
    page = visit("/keys/").page
    places = page.evaluate(
        "[...document.querySelectorAll('a[data-key]')].map((link) => [link.dataset.key, link.getAttribute('href')])"
    )
    assert len(places) >= 4

    for key, path in places:
        page.goto(f"{centre.address}/keys/")
        if len(key) == 1 and key.isalpha():
            page.keyboard.press("g")
            page.keyboard.press(key)
            page.wait_for_url(f"{centre.address}{path}")


# Polls


def polls_after(watched: Watched, seconds: float) -> int:
    before = watched.polls
    watched.page.wait_for_timeout(1000 * seconds)
    return watched.polls - before


def comes_back(watched: Watched) -> None:
    before = watched.polls

    def polls() -> bool:
        watched.page.wait_for_timeout(50)
        return watched.polls > before

    wait_until(polls, what="the next poll")


@pytest.mark.parametrize("path", ["/", "/queues/", "/audit/", "/logs/"])
def test_it_asks_for_nothing_while_nobody_looks(visit: OpenCentre, path: str) -> None:
    watched = visit(path)
    comes_back(watched)
    hide = "(is) => { Object.defineProperty(document, 'hidden', {get: () => is, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')) }"

    watched.page.evaluate(hide, True)
    assert polls_after(watched, 3) == 0
    watched.page.evaluate(hide, False)

    comes_back(watched)


def test_it_asks_for_nothing_while_rows_are_ticked_and_says_so(visit: OpenCentre) -> None:
    watched = visit("/")
    comes_back(watched)
    tick = "document.querySelector('main').insertAdjacentHTML('beforeend', '<input type=checkbox class=pick checked>')"

    watched.page.evaluate(tick)
    assert polls_after(watched, 3) == 0
    expect(watched.page.locator(".fresh").first).to_have_class("fresh fresh--paused")
    watched.page.evaluate("document.querySelector('.pick').checked = false")

    comes_back(watched)
    expect(watched.page.locator(".fresh").first).to_have_class("fresh")


def test_how_often_it_asks_is_chosen_and_remembered(visit: OpenCentre, centre: Centre) -> None:
    watched = visit("/audit/")
    page = watched.page

    page.locator("#refresh summary").click()
    page.get_by_role("button", name="Refresh off").click()
    expect(page.locator("body")).to_have_attribute("data-every", "0")
    assert page.url == f"{centre.address}/audit/"
    page.goto(f"{centre.address}/")
    expect(page.locator("#refresh summary")).to_contain_text("Refresh off")
    assert polls_after(watched, 3) == 0
    page.locator("#refresh summary").click()
    page.get_by_role("button", name="Every 1 s").click()
    expect(page.locator("body")).to_have_attribute("data-every", "1")

    comes_back(watched)
    assert troubles(watched) == []


# No script


@parametrised(tuple(page for page in OURS if page.name in HAS_NEWS))
def test_it_says_the_same_without_a_script(visit: OpenCentre, centre: Centre, page: Page) -> None:
    watched = opened(visit, centre, page, java_script_enabled=False)

    assert [each for each in watched.trouble if not is_expected(page, each)] == []
    assert watched.page.locator("main").inner_text().strip()
