"""A browser that writes down all that must not happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User

from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

OpenPage = Callable[..., "Watched"]


BESIDES = ("/runs/counts/", "/runs/facets/")
"""What is counted beside a list asks for its own news, at a pace of its own."""


def is_poll(url: str) -> bool:
    return "seen=" in url and not any(each in url for each in BESIDES)


@dataclass
class Watched:
    """A page, and what it did behind one's back."""

    page: Page
    address: str
    trouble: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """The status of each answer to a poll."""

    def watch(self) -> None:
        self.page.on("console", self.listen)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", self.note)
        self.page.on(
            "response", lambda response: self.answers.append(response.status) if is_poll(response.url) else None
        )

    def listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.trouble.append(message.text)

    def note(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith((self.address, "data:")):
            self.trouble.append(f"asked another host: {request.url}")

    @property
    def polls(self) -> int:
        return sum(is_poll(url) for url in self.requests)

    def wait_until_no_news(self) -> None:
        """Until a poll that is sent from now on is answered by nothing."""
        seen = len(self.answers)

        def is_empty() -> bool:
            self.page.wait_for_timeout(100)
            return 204 in self.answers[seen:]

        wait_until(is_empty, what="a poll without news")

    def log_in(self, name: str) -> None:
        """At the door, by a password that is the name."""
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(name)
        self.page.get_by_role("button", name="Log in").click()

    def hurry(self) -> None:
        """Have its pages ask each second, as somebody does who waits for something."""
        self.page.context.add_cookies([{"name": "refresh", "value": "1", "url": self.address}])

    def tab(self, path: str) -> Watched:
        """Another tab of the same browser, its own troubles apart."""
        other = Watched(self.page.context.new_page(), self.address)
        other.watch()
        other.page.goto(f"{self.address}{path}")
        return other

    def stay(self) -> None:
        """From now on the page is to follow by itself: `stayed` tells whether it was never loaded anew."""
        self.page.evaluate("window.hasStayed = true")

    @property
    def stayed(self) -> bool:
        return bool(self.page.evaluate("window.hasStayed === true"))

    @property
    def rows(self) -> Any:
        return self.page.locator("#runs-rows > tr")


@pytest.fixture
def mara(transactional_db: None) -> User:
    """An operator, whose password is her name."""
    return User.objects.create_superuser("mara", password="mara")


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens an address in a browser of its own; keywords are Playwright's (viewport, java_script_enabled …)."""
    contexts = []

    def open_it(address: str, **options: Any) -> Watched:
        # Without motion: what turns on a page is drawn by the processor here, and takes half of it.
        calm = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        context = chromium.new_context(**{**calm, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        watched = Watched(context.new_page(), address)
        watched.watch()
        watched.page.goto(address)
        return watched

    yield open_it
    for context in contexts:
        context.close()
