"""A person ticks runs, thinks better of it, and then deletes them all, with a real browser, server and worker."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tasks_app.models import Status, TaskRun
from tests.browser.conftest import OpenPage, Watched
from tests.engine.test_verbs import stored
from tests.plugins.processes import ClusterFactory, WebFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

OPEN = {"OPEN_ACCESS": 1}


def open_failed(open_page: OpenPage, address: str, **options: Any) -> Watched:
    """The list of what failed."""
    watched = open_page(address, **options)
    watched.page.goto(f"{address}/runs/?state=failed")
    return watched


def tick(page: Page, number: int) -> None:
    page.locator(".pick").nth(number).check()


def test_tick_undo_and_delete_all(web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage) -> None:
    runs = stored(3, status=Status.FAILED, failure="error", failure_message="ValueError: no")
    qcluster(**OPEN)
    watched = open_failed(open_page, web(**OPEN))
    page = watched.page
    expect(page.locator("#bulk-bar")).to_be_hidden()

    tick(page, 0)
    tick(page, 1)
    expect(page.locator("#ticked")).to_have_text("2 ticked")
    expect(page.locator("#do-cancel")).to_have_attribute("aria-disabled", "true")
    page.locator("#bulk-bar").get_by_role("button", name="Retry").click()
    expect(page.get_by_role("heading", name="Send 2 ticked runs once more?")).to_be_visible()
    page.get_by_label("Why, for the audit").fill("the shop was closed")
    page.get_by_role("button", name="Retry 2 runs").click()
    expect(page.locator("#bulk-why")).to_contain_text("Nothing has been changed yet.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#bulk-told")).to_have_text("Undone. Nothing was changed.")
    assert not TaskRun.objects.filter(retry_of__isnull=False).exists()

    page.get_by_role("link", name="Back to the runs").click()
    expect(page).to_have_url(f"{watched.address}/runs/?state=failed")
    tick(page, 0)
    expect(page.locator("#ticked")).to_have_text("1 ticked")
    page.get_by_label("All 3 that match the filter").check()
    page.locator("#bulk-bar").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Delete 3 failed runs for good?")).to_be_visible()
    page.get_by_role("button", name="Delete 3 runs").click()

    expect(page.locator("#bulk-told")).to_have_text("3 runs were deleted.", timeout=30_000)
    expect(page.locator("#do-undo")).to_have_count(0)
    assert not TaskRun.objects.filter(pk__in=[run.pk for run in runs]).exists()
    assert watched.trouble == []


def test_it_needs_no_javascript(web: WebFactory, open_page: OpenPage) -> None:
    stored(2, status=Status.FAILED)
    watched = open_failed(open_page, web(**OPEN), java_script_enabled=False)
    page = watched.page

    tick(page, 0)
    page.locator("#do-delete").click()
    page.get_by_role("button", name="Delete 1 run").click()
    expect(page.locator("#bulk-run")).to_contain_text("Nothing has been changed yet.")
    page.get_by_role("button", name="Undo").click()

    expect(page.locator("#bulk-told")).to_contain_text("Nothing was changed.")
    assert TaskRun.objects.failed().count() == 2
    assert watched.trouble == []


def test_back_shows_the_question_and_then_the_list(web: WebFactory, open_page: OpenPage) -> None:
    stored(2, status=Status.FAILED)
    watched = open_failed(open_page, web(**OPEN))
    page = watched.page

    tick(page, 0)
    page.locator("#do-delete").click()
    page.get_by_role("button", name="Delete 1 run").click()
    expect(page.locator("#bulk-run")).to_contain_text("Nothing has been changed yet.")
    page.go_back()
    expect(page.get_by_role("heading", name="Delete 1 ticked run for good?")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(f"{watched.address}/runs/?state=failed")
    page.go_forward()
    expect(page.get_by_role("heading", name="Delete 1 ticked run for good?")).to_be_visible()
    assert watched.trouble == []


def test_the_filtered_list_is_a_file(web: WebFactory, open_page: OpenPage, tmp_path: Path) -> None:
    failed = stored(2, status=Status.FAILED)
    stored(1)
    watched = open_failed(open_page, web(**OPEN))
    page = watched.page

    page.locator("#export summary").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="All that match, as CSV").click()

    download.value.save_as(tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == {str(run.pk) for run in failed}
    assert download.value.suggested_filename.startswith("runs-failed-")
    assert watched.trouble == []
