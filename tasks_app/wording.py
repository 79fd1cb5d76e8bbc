"""How figures and values are said, in pages and sentences alike."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from django.utils import timezone

NBSP = "\u00a0"
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(length: timedelta | float | None) -> str:
    """A length of time that is over: `38 ms`, `3.4 s`, `2 min 31 s`, `1 h 5 min`."""
    if length is None:
        return ""
    seconds = max(0.0, length.total_seconds() if isinstance(length, timedelta) else length)
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 59.95 else elapsed(round(seconds))


def short_duration(seconds: float) -> str:
    """A round length of time at the side of a chart: `450 ms`, `1.5 s`, `20 min`, `6 h`."""
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size)
    return f"{seconds / size:g} {unit}"


def elapsed(length: timedelta | float) -> str:
    """A length of time that still grows or shrinks, in whole seconds: `18 s`, `2 min 31 s`."""
    seconds = whole_seconds(length)
    for (size, unit), (smaller, smaller_unit) in pairwise(UNITS):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller} {smaller_unit}"
    return f"{seconds} s"


def about(length: timedelta | float) -> str:
    """The largest unit alone: `18 s`, `4 min`, `2 h`, `3 d`."""
    seconds = whole_seconds(length)
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size or size == 1)
    return f"{seconds // size} {unit}"


def ago(length: timedelta | float) -> str:
    """`just now`, `18 s ago`, `4 min ago`."""
    return f"{about(length)} ago" if whole_seconds(length) else "just now"


def whole_seconds(length: timedelta | float) -> int:
    return max(0, int(length.total_seconds() if isinstance(length, timedelta) else length))


def limit(seconds: float | None) -> str:
    """A round length that somebody set: `15 min`, `90 s`."""
    if seconds is None:
        return "none"
    size, unit = next((size, unit) for size, unit in UNITS if (seconds >= size and seconds % size == 0) or size == 1)
    return f"{seconds / size:g} {unit}"


def moment(at: datetime) -> str:
    """An absolute time in full: `12 March 2026, 14:31:51 UTC`."""
    try:
        local = timezone.localtime(at)
    except OverflowError:  # written by somebody who went past every door: the last or first day of the calendar
        local = at
    return f"{local.day} {local:%B %Y, %H:%M:%S} {local.tzname()}"


def clock_time(at: datetime) -> str:
    """The time of day to the millisecond: `14:31:51.118`."""
    return f"{timezone.localtime(at):%H:%M:%S.%f}"[:-3]


def clock_seconds(at: datetime) -> str:
    """The time of day to the second: `14:31:51`."""
    return clock_time(at)[:-4]


def day_or_time(at: datetime, now: datetime) -> str:
    """`15:05` for a time today, `13 March 15:05` for another day."""
    local, today = timezone.localtime(at), timezone.localtime(now).date()
    return f"{local:%H:%M}" if local.date() == today else f"{local.day} {local:%B %H:%M}"


def bar_label(at: datetime, span: timedelta) -> str:
    """When a bar of a chart begins, as short as the whole of it allows: `14:05`, `12 Mar 14:00`, `12 March`."""
    if span > timedelta(days=7):  # its bars are days of UTC
        return f"{at.astimezone(UTC).day} {at.astimezone(UTC):%B}"
    local = timezone.localtime(at)
    return f"{local:%H:%M}" if span <= timedelta(days=1) else f"{local.day} {local:%b %H:%M}"


def axis_labels(begin: datetime, span: timedelta) -> list[str]:
    """What stands below a chart, at its quarters."""
    quarters = [begin + span * n / 4 for n in range(4)]
    if span <= timedelta(days=1):
        return [*(bar_label(at, span) for at in quarters), "now"]
    days = [at.astimezone(UTC) if span > timedelta(days=7) else timezone.localtime(at) for at in quarters]
    return [*(f"{day.day} {day:%b}" for day in days), "now"]


def count(number: float, most: int | None = None) -> str:
    """`1 284`, or `10 000+` once it has gone beyond what was counted."""
    if most is not None and number > most:
        return f"{count(most)}+"
    return f"{int(number) if number == int(number) else number:,}".replace(",", NBSP)


def percent(share: float) -> str:
    """`22.9 %` of a share from 0 to 1; small ones with one figure that counts: `0.04 %`."""
    number = 100 * share
    if number and number < 0.005:
        return f"under{NBSP}0.01{NBSP}%"
    return f"{number:.2f}{NBSP}%" if 0 < number < 0.095 else f"{number:.1f}{NBSP}%"


def size(number: float) -> str:
    """`412 kB`, `3.4 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "bytes" or number >= 9.95 else f"{number:.1f} {unit}"


def ordinal(number: int) -> str:
    suffix = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def plural(number: int, word: str, most: int | None = None) -> str:
    """`1 run`, `6 runs`, `1 000+ runs`."""
    return f"{count(number, most)} {word if number == 1 else word + 's'}"


UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def visible(text: str) -> str:
    """The text with control characters, and those that turn its direction, written out: `␛`, `[202e]`."""
    return UNSEEN.sub(lambda match: shown(ord(match[0])), text)


def shown(code: int) -> str:
    if code in {9, 10, 13}:
        return " "
    return chr(0x2400 + code) if code < 0x20 else f"[{code:04x}]"


def clip(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends like a sentence already."""
    text = text.strip()
    return text if not text or text[-1] in ".!?…" else f"{text}."


def one_line(value: Any, length: int = 160) -> str:
    """A value as compact JSON, clipped; a text without its quotes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clip(" ".join(text.split()), length)


def arguments_line(args: Sequence[Any], kwargs: Mapping[str, Any], length: int = 160) -> str:
    """`77 type=3 url=https://…`: the arguments of a call, clipped."""
    parts = [one_line(value) for value in args]
    parts += [f"{name}={one_line(value)}" for name, value in kwargs.items()]
    return clip(" ".join(parts), length)


def pretty(value: Any) -> str:
    """A value as indented JSON; what cannot be seen, or would turn the page around, is escaped as JSON has it."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        return "Nested too deep to be shown."
    return UNSEEN.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
