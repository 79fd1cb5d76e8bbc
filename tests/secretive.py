"""Tasks that take secrets in every way in which a call can have them."""

from __future__ import annotations

from typing import Any, Literal

from tasks_app.backend import task
from tasks_app.engine.context import RunContext

DEFAULT = "of-the-code"


@task
def signs_in(url: str, password: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Sign in at `url` with a <password>, or ``nobody``."""
    return {"session": password, "url": url}


@task(takes_context=True)
def unlocks(context: RunContext, door: str, pin_token: str = DEFAULT, *cookies: str, **credentials: str) -> None:
    """Takes some by position, and any name."""


@task
def chooses(token_kind: Literal["a", "b"], api_key: str | None, days: list[Any] | None = None) -> None:
    """Of two."""


def plain(url: str, password: str) -> None:
    """No task."""
