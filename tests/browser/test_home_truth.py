"""Home tells when nobody takes work, until somebody does; and sends nothing in no name that was opened in one."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from tasks_app.models import Cluster, TaskRun
from tests.browser.conftest import OpenPage
from tests.plugins.processes import ClusterFactory, WebFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SHORT: dict[str, Any] = {"PRACTICE_UNIT_SECONDS": 0.2}


def test_a_quiet_cluster_is_told_and_resumed(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    qcluster(**SHORT)
    watched = open_page(web(OPEN_ACCESS=1, **SHORT))
    page = watched.page
    expect(page.locator("#health-says")).to_have_text("All quiet")
    Cluster.objects.get().steer(state="quiet")  # type: ignore[arg-type]
    page.locator("#practice").get_by_role("button", name="Short").click()

    expect(page.locator("#health-says")).to_have_text("No worker takes new work")
    banner = page.get_by_role("status").filter(has_text="Nobody takes from the queue default now.")
    expect(banner).to_contain_text("1 cluster would, but was asked to take nothing more: resume it.")
    banner.get_by_role("link", name="resume it").click()
    page.get_by_role("button", name="Resume").click()
    page.goto(watched.address)

    expect(watched.rows.first).to_contain_text("Successful")
    expect(page.locator("#health-says")).to_have_text("All quiet")
    assert watched.trouble == []


def test_a_page_opened_as_somebody_sends_nothing_once_they_are_logged_out(
    web: WebFactory, open_page: OpenPage, mara: User
) -> None:
    watched = open_page(web(OPEN_ACCESS=1))
    watched.page.goto(f"{watched.address}/login/")
    watched.log_in("mara")
    short = watched.page.locator("#practice").get_by_role("button", name="Short")
    expect(short).to_be_visible()
    other = watched.tab("/")
    other.page.locator("summary").filter(has_text="mara").click()
    other.page.get_by_role("button", name="Log out").click()
    expect(other.page.get_by_label("Password")).to_be_visible()

    short.click()

    said = watched.page.locator("#practice-error")
    expect(said).to_have_text(
        "That was not sent: you have been logged in or out elsewhere. Load the page again and send it once more."
    )
    assert not TaskRun.objects.exists()
