"""Readers for environment variables: each says in one sentence what is wrong with a value."""

import os
from collections.abc import Collection
from ipaddress import ip_address
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

Number = TypeVar("Number", int, float)


def text(name: str, default: str = "") -> str:
    """The variable without surrounding blanks; an empty one counts as unset."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, default: bool = False) -> bool:
    value = text(name, "1" if default else "0").lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} is {value!r}: write 1 or 0.")


def number(name: str, default: Number, least: float = 0, most: float = float("inf")) -> Number:
    value = text(name, str(default))
    try:
        read = type(default)(value)
    except ValueError:
        read = None
    if read is None or not least <= read <= most or read == float("inf"):
        whole = "a whole number" if isinstance(default, int) else "a number"
        bounds = f"at least {least:g}" if most == float("inf") else f"from {least:g} to {most:g}"
        raise ImproperlyConfigured(f"{name} is {value!r}: write {whole}, {bounds}.")
    return read


def choice(name: str, default: str, choices: Collection[str]) -> str:
    value = text(name, default)
    if value not in choices:
        shown = ", ".join(sorted(choices)) if len(choices) < 10 else "one of the known names"
        raise ImproperlyConfigured(f"{name} is {value!r}: write {shown}.")
    return value


def words(name: str, default: str = "") -> list[str]:
    """The variable cut at commas and blanks."""
    return text(name, default).replace(",", " ").split()


def is_loopback(host: str) -> bool:
    """True for an address that only this very machine can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
