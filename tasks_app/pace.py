"""SUBMIT: what a task's code says of how many of its runs may be held or begin, checked and in one form."""

from __future__ import annotations

import math
import re

MOST = 1_000_000
"""The largest number of runs in any limit."""

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class BadLimit(ValueError):
    """A limit that nobody can keep; the message is a sentence."""


def limits_of(max_running: object, rate: object, burst: object) -> dict[str, float | int | None] | None:
    """As the table of limits has them, or None without any; raises `BadLimit`."""
    if max_running is None and rate is None:
        if burst not in (None, 1):
            raise BadLimit("burst needs a rate.")
        return None
    count, seconds = read_rate(rate) if rate is not None else (None, None)
    return {
        "max_running": None if max_running is None else read_count("max_running", max_running),
        "rate_count": count,
        "rate_seconds": seconds,
        "burst": 1 if burst is None else read_count("burst", burst),
    }


def read_count(name: str, number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST:
        raise BadLimit(f"{name} must be a whole number, 1 to {MOST:,}.")
    return number


def read_rate(rate: object) -> tuple[int, float]:
    """How many runs in how many seconds: of `10/s`, `10/m` or `10/h`."""
    found = re.fullmatch(r"([0-9]{1,7})/([smh])", rate, re.ASCII) if isinstance(rate, str) else None
    if not found:
        raise BadLimit('rate must be a number of runs in a second, minute or hour, such as "10/m".')
    return read_count("rate", int(found[1])), UNITS[found[2]]


def told(count: int, seconds: float, burst: int) -> str:
    """`10 a minute, 5 at once`"""
    unit = {1.0: "second", 60.0: "minute", 3600.0: "hour"}.get(seconds)
    at_once = f", {burst} at once" if burst > 1 else ""
    return f"{count} {'a ' + unit if unit else f'in {seconds:g} s'}{at_once}"


def unit_of(seconds: float | None) -> str:
    """The letter of a unit, for a form."""
    return next((letter for letter, length in UNITS.items() if seconds and math.isclose(length, seconds)), "")
