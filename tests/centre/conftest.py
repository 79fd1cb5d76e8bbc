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
from playwright.sync_api import expect

from tests.browser.conftest import Watched, is_poll
from tests.centre.full import Full, draw, fill
from tests.centre.looks import LOOKS
from tests.centre.pages import Page
from tests.plugins.processes import serve, wait_until_answering
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Dialog, Response
    from playwright.sync_api import Page as Tab

SIZE: Any = {"width": 1280, "height": 900}


@dataclass
class Centre:
    """A running task centre, and what is in it."""

    address: str
    full: Full
    chromium: Browser
    log_file: Path

    def context(self, *, who: str = "mara", refresh: int = 2, **options: Any) -> BrowserContext:
        """A browser of its own, in which this person is logged in, with pages that ask every so many seconds."""
        # Without motion: what turns on a page is drawn by the processor here, and takes half of it.
        context = self.chromium.new_context(**{"viewport": SIZE, "reduced_motion": "reduce", **options})
        context.set_default_timeout(15_000)
        context.add_init_script(NOTE_VIOLATIONS)
        context.add_cookies([{"name": "refresh", "value": str(refresh), "url": self.address}])
        if who:
            self.let_in(context, who)
        return context

    def let_in(self, context: BrowserContext, who: str) -> None:
        """Has this person logged in there."""
        session = session_of(User.objects.get(username=who))
        context.add_cookies([{"name": "sessionid", "value": session, "url": self.address}])

    def lead(self, tab: Tab, page: Page) -> Response:
        """To that page, in this tab; gives the answer that it came with."""
        answer = tab.goto(f"{self.address}{page.path(self.full)}")
        if page.by:
            with tab.expect_navigation() as led:
                tab.evaluate(PRESS, page.by)
            answer = led.value
        assert answer
        return answer


PRESS = """(selector) => {
  document.querySelector(".pick").checked = true;
  const button = document.querySelector(selector);
  button.form.requestSubmit(button);
}"""

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
    server, address = serve(folder / "web.txt", {"OPEN_ACCESS": 0, "LOG_FILE": log_file, "MEDIA_ROOT": media})
    try:
        full = filler(log_file)
        draw(full, media)
        wait_until_answering(f"{address}/healthz", server)
        yield Centre(address, full, chromium, log_file)
    finally:
        server.end()


@pytest.fixture
def visit(centre: Centre) -> Iterator[OpenCentre]:
    """Opens a page, or a path, in a browser of its own; keywords are those of `Centre.context`.

    With `has_clock` time also goes by when it is told to.
    """
    contexts: list[BrowserContext] = []

    def open_it(place: Page | str, *, has_clock: bool = False, **options: Any) -> Watched:
        page = place if isinstance(place, Page) else Page(place, place)
        context = centre.context(who=page.who, **options)
        contexts.append(context)
        watched = Watched(context.new_page(), centre.address)
        watched.watch()
        if has_clock:
            watched.page.clock.install()
        centre.lead(watched.page, page)
        return watched

    yield open_it
    for context in contexts:
        context.close()


@dataclass
class Shown:
    """A page in the tab of those who only look."""

    page: Page
    watched: Watched
    answer: Response

    @property
    def tab(self) -> Tab:
        return self.watched.page

    def reset(self) -> None:
        """As wide as it was, by day, on a screen."""
        self.tab.set_viewport_size(SIZE)
        self.tab.emulate_media(media="null", color_scheme="null")

    def troubles(self) -> list[str]:
        """As `troubles`, but for the status of the page itself, which the console tells."""
        told = f"status of {self.page.status}"
        return [each for each in troubles(self.watched) if self.page.status == 200 or told not in each]

    def forget(self) -> None:
        """What a test did itself is no trouble to the next one."""
        self.watched.trouble.clear()
        self.tab.evaluate("window.violations = []")

    def take_news(self) -> None:
        """Has the page ask, until it is told something new."""
        live = self.tab.locator("[data-poll]")
        told = live.get_attribute("data-now") or ""

        def is_told() -> bool:
            with self.tab.expect_response(lambda answer: is_poll(answer.url)) as answer:
                self.tab.keyboard.press("r")
            return answer.value.status == 200

        wait_until(is_told, what="news")
        expect(live).not_to_have_attribute("data-now", told)


Show = Callable[..., Shown]


@pytest.fixture(scope="module")
def show(centre: Centre) -> Iterator[Show]:
    """Shows a page to those who only look, each after the other in one tab.

    Nothing is kept there but who is logged in, and pages stay as they came: they ask for news by the minute.
    """
    tabs: dict[tuple[str, bool], Watched] = {}

    def open_tab(who: str, has_script: bool) -> Watched:
        context = centre.context(who=who, refresh=60, java_script_enabled=has_script)
        context.add_init_script(LOOKS)
        watched = Watched(context.new_page(), centre.address)
        watched.watch()
        watched.page.on("dialog", lambda dialog: note(watched, dialog))
        return watched

    def show_it(page: Page, *, has_script: bool = True) -> Shown:
        key = page.who, has_script
        watched = tabs[key] = tabs.get(key) or open_tab(*key)
        for noted in (watched.trouble, watched.requests, watched.answers):
            noted.clear()
        return Shown(page, watched, centre.lead(watched.page, page))

    yield show_it
    for watched in tabs.values():
        watched.page.context.close()


def note(watched: Watched, dialog: Dialog) -> None:
    """No page asks its reader anything before all else."""
    watched.trouble.append(f"asked: {dialog.message}")
    dialog.dismiss()


@pytest.fixture(scope="module")
def shown(request: pytest.FixtureRequest, show: Show) -> Shown:
    """One page, for all tests that look at it and leave it as it was; pytest has them look in turn."""
    return show(request.param)


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
