"""What every page is held to, in a real browser, with everything in it that there can be."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from playwright.sync_api import Page as Tab
from playwright.sync_api import Route, expect

from tasks_app import audit, wording
from tasks_app.clock import database_now
from tasks_app.models import Cluster, CountedTo, FailureGroup, ScheduleRules, Status, TaskRun, Workflow
from tests.browser.conftest import Watched, is_poll
from tests.centre.conftest import Centre, OpenCentre, Show, Shown, troubles
from tests.centre.full import told
from tests.centre.looks import LOOKS, barriers, wrong_on_paper
from tests.centre.pages import LIVE, NEWS, OURS, PAGES, Page
from tests.pages.conftest import begun, made
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def on(pages: tuple[Page, ...]) -> Any:
    """Each of these pages, which stays open for the next test that is on it."""
    return pytest.mark.parametrize("shown", pages, indirect=True, scope="module", ids=str)


@on(PAGES)
def test_it_keeps_nobody_out_in_either_theme_at_any_width_or_on_paper(shown: Shown) -> None:
    expect(shown.tab.locator("h1").first).to_be_visible()
    found = shown.troubles()

    found += barriers(shown)
    if shown.page.is_ours and shown.page.who:
        found += wrong_on_paper(shown)

    shown.reset()
    shown.forget()  # axe does what the policy forbids
    assert found == []


@on(OURS)
def test_every_live_page_is_held_to_its_news(shown: Shown) -> None:
    """A page that polls stands in `LIVE`, says how fresh it is, and has the words for when no answer comes, or no more.

    One that does not poll offers no pace to do it at.
    """
    polls = shown.page in LIVE
    for part in ("[data-poll]", "#fresh time", "#refresh button"):
        assert (shown.tab.locator(part).count() > 0) is polls, part
    if polls:
        for part in ("#stale", *(f"[data-over={why}] .btn" for why in ("out", "gone", "refused"))):
            assert shown.tab.locator(part).count() == 1, part


@on(LIVE)
def test_a_page_that_is_not_answered_says_so_until_it_is(shown: Shown) -> None:
    tab, stale = shown.tab, shown.tab.locator("#stale")

    leave_unanswered(tab)

    expect(stale).to_contain_text("The database does not answer. Trying again")
    expect(tab.locator("[data-poll]")).to_have_class(re.compile("is-stale"))
    expect(tab.locator("#fresh .fresh")).to_have_class(re.compile("fresh--broken"))
    tab.unroute_all()
    tab.locator("#stale-now").click()
    expect(stale).to_be_hidden()
    expect(tab.locator(".is-stale, .fresh--broken")).to_have_count(0)
    assert [each for each in shown.troubles() if "503" not in each] == []
    shown.forget()


def leave_unanswered(tab: Tab) -> None:
    """From now on; what it asked for at this very moment may still be answered, so it is asked until it says so."""
    tab.route(is_poll, lambda route: route.fulfill(status=503))

    def says_so() -> bool:
        tab.keyboard.press("r")
        return tab.locator("#stale").is_visible()

    wait_until(says_so, what="word of it")


@on(OURS)
def test_it_says_the_same_without_a_script(shown: Shown, show: Show) -> None:
    without = show(shown.page, has_script=False)
    assert without.troubles() == []
    without.tab.evaluate(LOOKS)
    said, said_without = shown.tab.evaluate("said()"), without.tab.evaluate("said()")

    if said != said_without:  # a minute has ended in between, or there were news
        without = show(shown.page, has_script=False)
        without.tab.evaluate(LOOKS)
        said, said_without = show(shown.page).tab.evaluate("said()"), without.tab.evaluate("said()")

    assert len(said) >= 3
    assert said == said_without


@on(OURS)
def test_j_and_k_go_to_every_row(shown: Shown) -> None:
    walked, back = shown.tab.evaluate(WALK_ROWS)

    assert walked == list(range(len(walked)))
    assert back == max(len(walked) - 2, 0 if walked else -1)
    assert walked or shown.page.name.partition("-")[0] not in HAVE_ROWS or shown.page.name in WITHOUT_ROWS


HAVE_ROWS = {
    "home", "runs", "failures", "failure", "queues", "workers", "schedules", "workflows", "workflow", "stats", "logs",
    "audit", "launch",
}  # fmt: skip
WITHOUT_ROWS = {"runs-none", "launch-task", "launch-forbidden"}

WALK_ROWS = """() => {
  const kinds = "table:not(.grid) > tbody > tr, .log [id^=line-], li:has(> * > .task, > * > * > .task)";
  const rows = [...document.querySelectorAll(`main :is(${kinds})`)].filter((row) => row.checkVisibility());
  const at = () => rows.findIndex((row) => row.contains(document.activeElement));
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  document.activeElement.blur();
  const walked = rows.map(() => (press("j"), at()));
  press("k");
  const back = at();
  document.activeElement.blur();
  scrollTo(0, 0);
  return [walked, back];
}"""


@on(OURS)
def test_every_control_is_reached_and_seen_by_keyboard(shown: Shown) -> None:
    tab = shown.tab
    expect(tab.locator("[hx-trigger^=load]")).to_have_count(0)
    tab.evaluate(UNFOLD)

    for _ in range(tab.evaluate("beginWalk()") + 2):
        tab.keyboard.press("Tab")
    found = tab.evaluate("endWalk()")
    for number in range(tab.evaluate("countMenus()")):
        count = tab.evaluate("(number) => beginMenu(number)", number)
        for key in ("Enter", *["Tab"] * count, "Escape"):
            tab.keyboard.press(key)
        found += tab.evaluate("(number) => endMenu(number)", number)

    assert found == []
    assert shown.troubles() == []


UNFOLD = """
for (const each of document.querySelectorAll("details:not(.menu)")) each.open = true;
document.querySelector(".pick")?.click(); // which brings the bar with what can be done to it
"""


# News


def something_happens(centre: Centre) -> None:
    """News for every page that can have any: a run is sent, one goes on, somebody does something, a line is logged."""
    mara = centre.full.operator
    made(mara, 0, queue_name="mail")
    made(mara, 5, **begun(status=Status.SUCCESSFUL, finished_at=4))
    made(mara, 5, **begun(status=Status.FAILED, finished_at=4, failure="error", failure_message="ValueError: no"))
    for run in TaskRun.objects.running():
        TaskRun.objects.filter(pk=run.pk).update(progress={"done": 5, "total": 9, "message": uuid.uuid4().hex})
    TaskRun.objects.filter(pk=centre.full.ids["bulk"]).update(run_after=F("run_after") + timedelta(seconds=1))
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


@pytest.mark.parametrize("page", NEWS, ids=str)
def test_focus_stays_where_it_is_when_news_comes(show: Show, centre: Centre, page: Page) -> None:
    shown = show(page)
    live = shown.tab.locator("[data-poll]")
    focused = live.locator("a[href]:visible, summary:visible, button:visible, [tabindex]:visible").first
    focused.focus()
    focused.evaluate("each => { window.focused = each; each.dataset.mark = 'kept' }")

    something_happens(centre)
    shown.take_news()

    assert shown.tab.evaluate("document.activeElement === window.focused && window.focused.isConnected")
    assert shown.troubles() == []


def test_a_line_that_j_went_to_keeps_the_focus_when_news_comes(show: Show, centre: Centre) -> None:
    shown = show(Page("logs", "/logs/?level=WARNING"))
    for _ in range(2):
        shown.tab.keyboard.press("j")
    line = shown.tab.evaluate("(window.focused = document.activeElement).id")
    assert line.startswith("line-")

    something_happens(centre)
    shown.take_news()

    assert shown.tab.evaluate("document.activeElement === window.focused && window.focused.isConnected")


def test_a_page_whose_run_is_deleted_says_so_and_asks_no_more(show: Show, centre: Centre) -> None:
    run = made(centre.full.operator, 5, **begun())
    shown = show(Page("run-deleted", run.get_absolute_url()))
    tab, says = shown.tab, shown.tab.locator("[data-over=gone]")
    TaskRun.objects.filter(pk=run.pk).update(status=Status.SUCCESSFUL, finished_at=Now())
    TaskRun.objects.filter(pk=run.pk).delete_runs()

    tab.keyboard.press("r")

    expect(says).to_contain_text("This run is no longer there.")
    expect(tab.locator("#run-live")).to_have_class(re.compile("is-stale"))
    expect(tab.locator("#fresh .fresh")).to_have_class(re.compile("fresh--broken"))
    asks_no_more(shown, 404)
    says.get_by_role("link", name="All runs").click()
    tab.wait_for_url("**/runs/")


def test_a_page_whose_reader_has_logged_out_in_another_tab_says_so(show: Show, centre: Centre) -> None:
    shown = show(Page("audit-paused", "/audit/?verb=pause"))
    tab, says = shown.tab, shown.tab.locator("[data-over=out]")
    other = tab.context.new_page()
    other.goto(f"{centre.address}/keys/")
    other.locator(".top__side summary").click()
    try:
        other.get_by_role("button", name="Log out").click()
        other.wait_for_url("**/login/")
        other.close()

        tab.keyboard.press("r")

        expect(says).to_contain_text("You have been logged out.")
        expect(tab.locator("#audit tbody tr")).not_to_have_count(0)
        asks_no_more(shown, 401)
        says.get_by_role("link", name="Log in again").click()
        tab.wait_for_url("**/login/?next=/audit/%3Fverb%3Dpause")
    finally:
        centre.let_in(tab.context, "mara")


@pytest.mark.parametrize(
    ("status", "said"), [(400, "This page is not kept up to date any more."), (403, "This page is not for you to see")]
)
def test_a_page_that_is_refused_its_news_says_so_and_keeps_what_it_has(show: Show, status: int, said: str) -> None:
    shown = show(Page("audit", "/audit/"))
    tab = shown.tab
    tab.route(is_poll, lambda route: route.fulfill(status=status, body="<section>Refused</section>"))

    tab.keyboard.press("r")

    expect(tab.get_by_text(said)).to_be_visible()
    expect(tab.locator("#audit tbody tr")).not_to_have_count(0)
    asks_no_more(shown, status)
    tab.unroute_all()


def test_counts_that_are_refused_are_not_asked_for_again(show: Show) -> None:
    tab = show(Page("keys", "/keys/")).tab
    tab.route("**/runs/counts/*", lambda route: route.fulfill(status=403))

    shown = show(Page("runs", "/runs/"))

    expect(tab.locator("[data-over=gone]")).to_be_visible()
    expect(tab.locator("#facet-counts h2").first).to_be_visible()
    expect(tab.locator("#missed")).to_be_hidden()
    tab.evaluate("document.querySelector('#missed-now').click()")
    tab.evaluate("void 0")
    assert sum("/runs/counts/" in url for url in shown.watched.requests) == 1
    tab.unroute_all()


def asks_no_more(shown: Shown, status: int) -> None:
    """However often it is told to; and all that the console has is the browser's word of the one answer."""
    for _ in range(3):
        shown.tab.keyboard.press("r")
    shown.tab.evaluate("void 0")  # what it asked for was told before this is answered
    assert shown.watched.polls == 1
    (trouble,) = shown.troubles()
    assert trouble.startswith(f"Failed to load resource: the server responded with a status of {status}")


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


def test_counts_that_do_not_come_are_told_of_and_asked_for_again(visit: OpenCentre, centre: Centre) -> None:
    page = visit("/keys/", has_clock=True).page
    missed = page.locator("#missed")
    for address in ("**/runs/counts/*", "**/runs/facets/*"):
        page.route(address, lambda route: route.fulfill(status=503))

    page.goto(f"{centre.address}/runs/")

    expect(missed).to_be_visible()
    expect(page.locator("#tab-failed .num")).to_have_count(0)
    page.unroute("**/runs/counts/*")
    page.clock.run_for(20_000)
    expect(page.locator("#tab-failed .num")).to_have_text(re.compile(r"\d"))
    expect(missed).to_be_visible()
    page.unroute("**/runs/facets/*")
    page.locator("#missed-now").click()
    expect(page.locator("#facet-counts h2").first).to_be_visible()
    expect(missed).to_be_hidden()


def test_a_page_that_asks_for_no_news_asks_again_what_was_not_answered(visit: OpenCentre) -> None:
    page = visit("/audit/", has_clock=True, refresh=0).page
    leave_unanswered(page)
    expect(page.locator("#stale-retry")).to_contain_text("Trying again")

    page.unroute_all()
    page.clock.run_for(5_000)

    expect(page.locator("#stale")).to_be_hidden()


@pytest.mark.parametrize("kind", ["ago", "elapsed"])
def test_a_time_goes_on_by_itself_and_has_its_whole_date(visit: OpenCentre, centre: Centre, kind: str) -> None:
    mara = centre.full.operator
    made(mara, 5, **begun(status=Status.SUCCESSFUL, finished_at=4))
    made(mara, 5, queue_name="mail")
    watched = visit("/", refresh=0)
    time = watched.page.locator(f"#runs .c-time time[data-tick={kind}]").first
    before = time.inner_text()

    expect(time).not_to_have_text(before)

    assert seconds_in(time.inner_text()) > seconds_in(before)
    at = time.get_attribute("datetime")
    assert at and time.get_attribute("title") == wording.moment(datetime.fromisoformat(at))
    assert watched.polls == 0


def seconds_in(told: str) -> int:
    """Of a text as `1 min 5 s` or `5 s ago`."""
    units = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h|d)\b", told))


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
    rows = page.locator("main .task:visible")
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


def polls_within(watched: Watched, seconds: int) -> int:
    """How often it asks while so much time goes by for it."""
    before = watched.polls
    watched.page.clock.run_for(1000 * seconds)
    watched.page.evaluate("void 0")  # what it asked for was told before this is answered
    return watched.polls - before


HIDE = """(is) => {
  Object.defineProperty(document, "hidden", {get: () => is, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def comes_back(watched: Watched) -> None:
    wait_until(lambda: polls_within(watched, 1), what="the next poll")


@pytest.mark.parametrize("path", ["/", "/queues/", "/audit/", "/logs/"])
def test_it_asks_for_nothing_while_nobody_looks(visit: OpenCentre, path: str) -> None:
    watched = visit(path, has_clock=True)
    comes_back(watched)

    watched.page.evaluate(HIDE, True)
    assert polls_within(watched, 60) == 0
    watched.page.evaluate(HIDE, False)

    comes_back(watched)


def test_it_asks_for_nothing_while_rows_are_ticked_and_says_so(visit: OpenCentre) -> None:
    watched = visit("/runs/", has_clock=True)
    comes_back(watched)
    pick, fresh = watched.page.locator(".pick").first, watched.page.locator("#fresh .fresh")

    pick.check()
    assert polls_within(watched, 60) == 0
    expect(fresh).to_have_class("fresh fresh--paused")
    expect(watched.page.get_by_text("Updates paused")).to_be_visible()
    pick.uncheck()

    comes_back(watched)
    expect(fresh).to_have_class("fresh")


def test_tabs_are_counted_now_and_then_though_their_list_has_no_news(visit: OpenCentre, centre: Centre) -> None:
    watched = visit("/runs/?state=cancelled", has_clock=True)
    page, count = watched.page, watched.page.locator("#tab-failed .num")
    expect(count).to_have_text(re.compile(r"\d"))
    before, tab = int(count.inner_text()), page.locator("#tab-failed")
    tab.focus()
    tab.evaluate("tab => { window.focused = tab }")
    made(centre.full.operator, 5, **begun(status=Status.FAILED, finished_at=4, failure="error"))

    page.clock.fast_forward(35_000)

    expect(count).to_have_text(str(before + 1))
    assert page.evaluate("document.activeElement === window.focused && window.focused.isConnected")
    asked = len(watched.requests)
    page.locator("#facets").hover()
    with page.expect_request("**/runs/counts/*"):
        page.clock.fast_forward(35_000)
    assert not [url for url in watched.requests[asked:] if "/runs/facets/" in url], "nothing moves under the hand"
    page.locator("h1").hover()
    with page.expect_request("**/runs/facets/*"):
        page.clock.fast_forward(5_000)


def test_with_refresh_off_only_what_is_opened_is_asked_for(visit: OpenCentre, centre: Centre) -> None:
    watched = visit("/runs/?since=90d", has_clock=True, refresh=0, viewport={"width": 800, "height": 900})
    page = watched.page
    expect(page.locator("#tab-failed .num")).to_have_text(re.compile(r"\d"))
    mail = page.locator("#facet-queue li", has_text="mail").locator(".num")
    expect(mail).to_have_text(re.compile(r"\d"))
    before, asked = int(mail.text_content() or ""), len(watched.requests)
    made(centre.full.operator, 5, queue_name="mail")

    page.evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    page.clock.run_for(120_000)
    page.evaluate("void 0")
    assert watched.requests[asked:] == []

    page.get_by_role("button", name="Filters").click()
    expect(mail).to_be_visible()
    expect(mail).to_have_text(str(before + 1))


def test_how_often_it_asks_is_chosen_and_remembered(visit: OpenCentre, centre: Centre) -> None:
    watched = visit("/audit/", has_clock=True)
    page = watched.page

    page.locator("#refresh summary").click()
    paces = ["Refresh off", *(f"Every {seconds} s" for seconds in (1, 2, 5, 15, 30)), "Every minute"]
    expect(page.locator("#refresh button")).to_have_text(paces)
    page.get_by_role("button", name="Refresh off").click()
    expect(page.locator("body")).to_have_attribute("data-every", "0")
    assert page.url == f"{centre.address}/audit/"
    page.goto(f"{centre.address}/")
    expect(page.locator("#refresh summary")).to_contain_text("Refresh off")
    assert polls_within(watched, 120) == 0
    page.locator("#refresh summary").click()
    page.get_by_role("button", name="Every 1 s").click()
    expect(page.locator("body")).to_have_attribute("data-every", "1")

    comes_back(watched)
    assert troubles(watched) == []
