"""An operator steers the clusters, with a real browser, web server, workers and database."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest
from playwright.sync_api import expect

from tasks_app.models import Cluster, Status, TaskRun
from tests.browser.conftest import OpenPage, Watched
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SLOW: dict[str, Any] = {"PRACTICE_UNIT_SECONDS": 20, "LOST_AFTER_SECONDS": 2}


def open_workers(open_page: OpenPage, address: str, **options: Any) -> Watched:
    watched = open_page(address, **options)
    watched.page.goto(f"{address}/workers/")
    return watched


def test_a_pool_grows_is_quiet_goes_on_and_stops(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    process = qcluster(WORKERS=1)
    watched = open_workers(open_page, web(OPEN_ACCESS=1))
    page = watched.page
    lines = page.locator(".cluster tbody tr")
    expect(lines).to_have_count(1)
    expect(lines.first).to_contain_text("Idle")

    page.get_by_role("button", name="Grow").click()
    expect(page.get_by_text("is to keep 2 workers")).to_be_visible()
    expect(lines).to_have_count(2)
    expect(lines.nth(1)).to_contain_text("Idle")
    wait_until(lambda: len(process.titled("worker")) == 2, what="two workers")

    page.get_by_role("button", name="Quiet").click()
    expect(page.locator(".cluster")).to_contain_text("Takes nothing new: nothing is left to end.")
    page.get_by_role("button", name="Smoke test").click()
    expect(page.get_by_text("there is nothing to be tested")).to_be_visible()

    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".cluster .status")).to_have_text("Live")
    wait_until(lambda: (Cluster.objects.get().report or {})["state"] == "run", what="the cluster to go on")
    page.get_by_role("button", name="Smoke test").click()
    expect(page.locator("#smoke")).to_contain_text(re.compile(r"Taken after .+, and back after .+\."))

    page.locator("summary", has_text="Stop").click()
    page.get_by_label("Why").fill("Out of use.")
    page.get_by_role("button", name="Stop it").click()
    expect(page.get_by_text("was asked to stop")).to_be_visible()
    expect(page.get_by_role("heading", name="No cluster runs")).to_be_visible()
    assert process.wait() == 0
    page.get_by_text("1 stopped within a day").click()
    expect(page.locator("#stopped tbody tr")).to_have_count(1)
    assert watched.trouble == []


def test_a_killed_cluster_is_lost_and_its_rescued_run_is_told(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    killed = qcluster(WORKERS=1, **SLOW)
    address = web(OPEN_ACCESS=1, **SLOW)
    watched = open_page(address)
    page = watched.page
    page.locator("#practice").get_by_role("button", name="Long").click()
    page.goto(f"{address}/workers/")
    expect(page.locator(".cluster .does a")).to_have_text("create_task")
    expect(page.locator(".cluster progress")).to_be_visible()

    # At one moment, as when its host is cut off from the power: nobody of it is left to give anything back.
    members = killed.members()
    for member in members:
        member.suspend()
    for member in members:
        member.send_signal(signal.SIGKILL)
    qcluster(WORKERS=1, **SLOW)

    lost = page.locator("section.lost", has_text="Lost")
    expect(lost).to_contain_text("It held 1 run.", timeout=30_000)
    expect(lost).to_contain_text("1 went back in line.")
    expect(lost.locator("tbody a")).to_have_text("create_task")
    expect(lost.locator("tbody .status")).to_have_text("Running")
    lost.locator("tbody a").click()
    expect(page.locator("#run-title")).to_contain_text("create_task")
    run = TaskRun.objects.get()
    assert (run.status, run.attempt) == (Status.RUNNING, 2)

    page.goto(f"{address}/workers/")
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_text("is forgotten")).to_be_visible()
    expect(lost).to_have_count(0)
    assert watched.trouble == []


def test_it_needs_no_javascript(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    qcluster(WORKERS=1)
    watched = open_workers(open_page, web(OPEN_ACCESS=1), java_script_enabled=False)
    page = watched.page

    page.get_by_role("spinbutton").fill("3")
    page.get_by_role("spinbutton").press("Enter")
    expect(page.get_by_text("is to keep 3 workers")).to_be_visible()
    page.locator("summary", has_text="Restart").click()
    page.get_by_role("button", name="Restart the workers").click()
    expect(page.get_by_text("replaces its workers, each after the run at hand")).to_be_visible()
    assert watched.trouble == []
