"""The database stops while pages are open: they say so, keep what was known, and go on by themselves."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from playwright.sync_api import expect

from config import embedded
from tests.plugins.processes import serve, wait_until_answering
from tests.server import Server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture
def address(server: Server, tmp_path: Path) -> Iterator[str]:
    """Of a web server on the database that is going to stop."""
    given = {"DATABASE_URL": server.url, "OPEN_ACCESS": 1, "LOG_FILE": tmp_path / "qcluster.log"}
    web, address = serve(tmp_path / "web.txt", given)
    try:
        wait_until_answering(f"{address}/healthz", web)
        yield address
    finally:
        web.end()


def stop(server: Server) -> None:
    postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
    os.kill(postmaster.pid, signal.SIGINT)  # a fast stop: it waits for nobody
    psutil.wait_procs([postmaster], timeout=30)
    wait_until(lambda: not embedded.is_running(server.data), what="the end of the database")


@pytest.mark.parametrize("path", ["/", "/queues/", "/audit/", "/logs/"])
def test_an_open_page_tells_that_the_database_is_silent_and_goes_on_when_it_is_back(
    server: Server, chromium: Browser, address: str, path: str
) -> None:
    (server.folder / "qcluster.log").write_text("2026-01-01T00:00:00.000Z INFO 1 a line\n")
    server.enqueue(3)
    context = chromium.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{address}{path}")
    live = page.locator("[data-poll]")
    known = live.locator("tr, li, .empty").count()
    assert known

    stop(server)
    with (server.folder / "qcluster.log").open("a") as log:  # news of the one page that needs no database for it
        log.write("2026-01-01T00:00:01.000Z INFO 1 another line\n")
    expect(page.get_by_text("The database does not answer.")).to_be_visible()
    expect(page.locator("#stale-retry")).to_contain_text("Trying again")
    expect(live).to_have_class(re.compile("is-stale"))
    assert live.locator("tr, li, .empty").count() == known

    embedded.ensure_running(server.data)
    expect(page.get_by_text("The database does not answer.")).to_be_hidden(timeout=30_000)
    expect(live).not_to_have_class(re.compile("is-stale"))
    assert page.locator("h1").is_visible()
    context.close()


def test_a_page_that_is_asked_for_meanwhile_says_so_in_a_sentence(
    server: Server, chromium: Browser, address: str
) -> None:
    stop(server)
    context = chromium.new_context(reduced_motion="reduce")
    page = context.new_page()

    answer = page.goto(f"{address}/audit/")

    assert answer
    assert answer.status == 503
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("body")).to_contain_text("database")
    embedded.ensure_running(server.data)
    page.reload()
    expect(page.locator("h1")).to_have_text("Audit")
    context.close()
