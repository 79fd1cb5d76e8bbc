"""One web server and one full database for all the tests of a module, which only look, or break nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.test import Client

from tests.browser.conftest import Watched
from tests.centre.full import Full, draw, fill
from tests.plugins.processes import serve, wait_until_answering

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


@dataclass
class Centre:
    """A running task centre, and what is in it."""

    address: str
    full: Full
    chromium: Browser
    log_file: Path

    def context(self, *, is_open: bool = False, **options: Any) -> BrowserContext:
        """A browser of its own, in which the operator is logged in unless it `is_open`."""
        context = self.chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(15_000)
        if not is_open:
            context.add_cookies([{"name": "sessionid", "value": session_of(self.full.operator), "url": self.address}])
        return context


OpenCentre = Callable[..., Watched]


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


Filler = Callable[[Path], Full]


@pytest.fixture(scope="module")
def filler() -> Filler:
    """What the database is filled with; a module may have its own."""
    return fill


@pytest.fixture(scope="module")
def transactional_db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The database for the tests of a module together, empty again after the last of them.

    By the name of pytest-django's own, because it makes a database for tests that have a fixture of this name.
    """
    with django_db_blocker.unblock():
        try:
            yield
        finally:
            call_command("flush", verbosity=0, interactive=False)
            connections.close_all()  # with a browser's event loop running they are others than without


@pytest.fixture(scope="module")
def centre(
    filler: Filler, chromium: Browser, transactional_db: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Centre]:
    """The task centre with everything in it."""
    folder = tmp_path_factory.mktemp("centre")
    log_file, media = folder / "qcluster.log", folder / "media"
    full = filler(log_file)
    draw(full, media)
    server, address = serve(folder / "web.txt", {"OPEN_ACCESS": 0, "LOG_FILE": log_file, "MEDIA_ROOT": media})
    try:
        wait_until_answering(f"{address}/healthz", server)
        yield Centre(address, full, chromium, log_file)
    finally:
        server.end()


@pytest.fixture
def visit(centre: Centre) -> Iterator[OpenCentre]:
    """Opens a page of the centre; keywords are Playwright's (viewport, java_script_enabled …)."""
    contexts: list[BrowserContext] = []

    def open_it(path: str, *, is_open: bool = False, **options: Any) -> Watched:
        context = centre.context(is_open=is_open, **options)
        contexts.append(context)
        context.add_init_script(NOTE_VIOLATIONS)
        watched = Watched(context.new_page(), centre.address)
        watched.watch()
        watched.page.goto(f"{centre.address}{path}")
        return watched

    yield open_it
    for context in contexts:
        context.close()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pictures are taken when they are asked for."""
    return True if collection_path.name == "test_screenshots.py" and not config.getoption("screenshots") else None


NOTE_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  (window.violations ??= []).push(`${event.violatedDirective}: ${event.blockedURI || event.sample}`);
});
"""


def troubles(watched: Watched) -> list[str]:
    """All that must not happen on any page: errors in the console, requests to others, breaches of the policy."""
    return [*watched.trouble, *watched.page.evaluate("window.violations ?? []")]
