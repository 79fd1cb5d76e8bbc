"""A person ends a run from its page, with a real browser, web server, worker and database."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tasks_app.models import Status, TaskRun
from tests.browser.conftest import OpenPage, Watched
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SLOW: dict[str, Any] = {"PRACTICE_UNIT_SECONDS": 20}


def open_a_long_one(open_page: OpenPage, address: str, **options: Any) -> Watched:
    """The page of a run that has just been sent, from the button on."""
    watched = open_page(address, **options)
    watched.page.locator("#practice").get_by_role("button", name="Long").click()
    watched.page.locator("#runs-rows").get_by_role("link", name="create_task").click()
    return watched


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id")


def test_a_running_one_is_cancelled_from_its_page(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster(**SLOW)
    watched = open_a_long_one(open_page, web(OPEN_ACCESS=1, **SLOW))
    page = watched.page
    expect(page.locator("#run-title .status--running")).to_be_visible()

    page.locator("#cancel-run").click()
    expect(page.locator("#cancel-ask")).to_contain_text("What it has done so far is not taken back")
    assert TaskRun.objects.get().cancel_requested_at is None
    page.get_by_role("button", name="Cancel it").click()

    expect(page.locator("#run-title .status--cancelled")).to_be_visible()
    expect(page.locator("#run-why")).to_contain_text("Cancelled by a guest.")
    expect(page.locator("#cancel-run")).to_have_attribute("aria-disabled", "true")
    page.locator("#cancel-run").hover()
    expect(page.get_by_role("tooltip")).to_contain_text("Already ended at ")
    assert TaskRun.objects.get().status == Status.CANCELLED
    assert watched.trouble == []


def test_the_button_is_reached_and_pressed_by_keyboard_while_the_page_refreshes(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster(**SLOW)
    watched = open_a_long_one(open_page, web(OPEN_ACCESS=1, **SLOW))
    page = watched.page
    expect(page.locator("#run-title .status--running")).to_be_visible()
    page.locator("#copy-id").focus()
    page.keyboard.press("Tab")
    assert focused(page) == "cancel-run"

    told = page.locator("#run-live").get_attribute("data-now") or ""
    expect(page.locator("#run-live")).not_to_have_attribute("data-now", told)
    assert focused(page) == "cancel-run"
    TaskRun.objects.get().cancel("Cancelled by somebody else.")

    expect(page.locator("#run-title .status--cancelled")).to_be_visible()
    assert focused(page) == "cancel-run"
    expect(page.get_by_role("tooltip")).to_contain_text("Already ended at ")
    assert watched.trouble == []


def test_a_press_counts_however_long_it_takes(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    qcluster(**SLOW)
    watched = open_a_long_one(open_page, web(OPEN_ACCESS=1, **SLOW))
    page = watched.page
    expect(page.locator("#run-title .status--running")).to_be_visible()

    page.locator("#cancel-run").hover()
    page.mouse.down()
    asked = watched.polls

    def is_refreshed() -> bool:
        page.wait_for_timeout(100)
        return watched.polls >= asked + 3

    wait_until(is_refreshed, what="polls while it is pressed")
    page.mouse.up()
    page.get_by_role("button", name="Cancel it").click()

    expect(page.locator("#run-title .status--cancelled")).to_be_visible()
    assert watched.trouble == []


@pytest.mark.parametrize("javascript", [True, False])
def test_a_reason_can_be_said_beside_the_button(web: WebFactory, open_page: OpenPage, javascript: bool) -> None:
    watched = open_a_long_one(open_page, web(OPEN_ACCESS=1), java_script_enabled=javascript)
    page = watched.page

    page.get_by_label("Cancel and say why").click()
    page.get_by_role("textbox", name="Why").fill("Wrong list")
    page.get_by_role("button", name="Cancel it").click()

    expect(page.locator("#run-title .status--cancelled")).to_be_visible()
    expect(page.locator("#run-why")).to_contain_text("Cancelled by a guest: Wrong list.")
    assert watched.trouble == []


def test_it_needs_no_javascript(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_a_long_one(open_page, web(OPEN_ACCESS=1), java_script_enabled=False)
    page = watched.page

    page.locator("#cancel-run").press("Enter")

    expect(page.locator("#run-title .status--cancelled")).to_be_visible()
    assert watched.trouble == []


def test_it_asks_without_javascript_too(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    qcluster(**SLOW)
    watched = open_a_long_one(open_page, web(OPEN_ACCESS=1, **SLOW), java_script_enabled=False)
    page = watched.page
    wait_until(lambda: TaskRun.objects.get().status == Status.RUNNING, what="its start")
    page.goto(f"{watched.address}/runs/")

    page.locator("table.runs tbody summary", has_text="Cancel").press("Enter")
    page.get_by_role("button", name="Cancel it").press("Enter")

    expect(page.get_by_text("is cancelled, or will be in a moment.")).to_be_visible()
    wait_until(lambda: TaskRun.objects.get().status == Status.CANCELLED, what="its end")
    page.locator("table.runs").get_by_role("link", name="create_task").click()

    expect(page.locator("#run-title .status--cancelled")).to_be_visible()
    assert watched.trouble == []
