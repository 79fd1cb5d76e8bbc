"""A person looks into what failed and how it goes, with a real browser, web server, worker and database."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tasks_app.models import FailureGroup, QueueStat
from tests import outcomes
from tests.browser.conftest import OpenPage
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def counted() -> int:
    return sum(QueueStat.objects.filter(grain=60).values_list("count", flat=True))


def test_failures_are_grouped_dismissed_and_come_back(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster()
    for number in range(3):
        outcomes.fails.enqueue(text=f"order {number} of ada@example.com")
    outcomes.fails.enqueue(text="no such currency")
    address = web(OPEN_ACCESS=1)
    watched = open_page(address)
    page = watched.page
    page.get_by_role("link", name="Failures", exact=True).click()

    row = page.locator("#failures tbody tr", has_text="order")
    expect(row.locator(".c-count").first).to_have_text(re.compile("^3"), timeout=20_000)
    expect(page.locator("#failures tbody tr")).to_have_count(2, timeout=20_000)

    row.get_by_role("link", name="fails").click()
    expect(page.get_by_role("heading", name="ValueError")).to_be_visible()
    expect(page.locator("#traceback")).to_contain_text("raise ValueError")
    expect(page.locator("#newest-runs tbody tr")).to_have_count(3)
    expect(page.locator("#course path.f-failed")).to_have_count(1)
    page.locator("#steer-one > summary").click()
    page.locator("#why-one").fill("Mended in release 41.")
    page.get_by_role("button", name="Dismiss").click()

    expect(page.get_by_role("status").filter(has_text="is dismissed")).to_be_visible()
    expect(page.locator("#aside")).to_contain_text("Mended in release 41.")
    page.goto(f"{address}/failures/")
    expect(page.locator("#failures tbody tr")).to_have_count(1)
    expect(page.locator("#failures")).not_to_contain_text("order")

    outcomes.fails.enqueue(text="order 4711 of grace@example.com")

    expect(row).to_contain_text("Came back", timeout=20_000)  # it is counted a few seconds later
    expect(row.locator(".c-count").first).to_have_text(re.compile("^4"))
    assert FailureGroup.objects.get(message__contains="order").is_back
    page.get_by_role("link", name="Dismissed").click()
    expect(page.get_by_text("Nothing is dismissed")).to_be_visible()
    assert watched.trouble == []


def test_it_needs_no_javascript(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    qcluster()
    outcomes.fails.enqueue(text="no such currency")
    wait_until(FailureGroup.objects.exists, what="the failure to be counted")
    address = web(OPEN_ACCESS=1)
    watched = open_page(address, java_script_enabled=False)
    page = watched.page
    page.goto(f"{address}/failures/?q=currency")

    page.locator("#failures .c-do summary").click()
    page.get_by_role("button", name="Mute").press("Enter")

    expect(page.get_by_role("status").filter(has_text="is muted until somebody opens it again")).to_be_visible()
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status").filter(has_text="is open again")).to_be_visible()
    expect(page).to_have_url(f"{address}/failures/?q=currency")
    expect(page.locator("#failures tbody tr")).to_have_count(1)
    assert watched.trouble == []


def test_the_drawings_have_the_right_figures(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    qcluster()
    for _ in range(5):
        outcomes.succeeds.enqueue()
    for _ in range(2):
        outcomes.fails.enqueue()
    wait_until(lambda: counted() == 7, what="all to be counted")
    address = web(OPEN_ACCESS=1)
    watched = open_page(address)
    page = watched.page
    page.goto(f"{address}/stats/?window=30d")

    expect(page.locator("#stats-figures dd").first).to_contain_text(re.compile("7 in 30 d ?none in the 30 d before"))
    expect(page.locator("#stats-figures")).to_contain_text("28.6 %")
    drawn = [
        page.locator(f"#throughput .chart path.{kind}").get_attribute("d") for kind in ("f-failed", "f-successful")
    ]
    failed, successful = (sum(map(float, re.findall(r"v([\d.]+)", path or ""))) for path in drawn)
    assert successful / failed == pytest.approx(2.5, rel=0.01)
    page.locator("#throughput summary").click()
    cells = page.locator("#throughput tbody tr", has_text="5").last.locator("td")
    expect(cells).to_have_text(["5", "0", "2"])
    rows = page.locator("#tasks tbody tr")
    expect(rows).to_have_count(2)

    page.get_by_role("combobox", name="Task").select_option("tests.outcomes.succeeds")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#stats-figures dd").first).to_contain_text("5 in 30 d")
    page.get_by_role("navigation", name="Window").get_by_role("link", name="1 h").click()
    expect(page).to_have_url(re.compile("window=1h.*task=|task=.*window=1h"))

    outcomes.succeeds.enqueue()
    expect(page.locator("#stats-figures dd").first).to_contain_text("6 in 1 h", timeout=20_000)
    page.go_back()
    expect(page.get_by_role("combobox", name="Task")).to_have_value("tests.outcomes.succeeds")
    assert watched.trouble == []
