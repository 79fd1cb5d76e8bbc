"""WATCH: when a schedule fires, told in words and in its next moments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError
from django.utils import timezone

from tasks_app.engine.firing import MISSED_AFTER
from tasks_app.engine.timing import CRON, CRON_NAMES, HOURLY, MINUTES, MONTHS, ONCE, BadTiming, Plan, Timing
from tasks_app.models import Missed
from tasks_app.wording import ordinal, plural

TOLD = 5
"""So many of its next moments are told."""

AT_ONCE = "That time is over: it fires as soon as it is saved."
SKIPPED = "That time is over: it is skipped, as missed ones are."
NEVER = "That time is over, and a missed one is skipped: it will never fire."

SHORTEST_MONTH = 28
EVERY_MONTHS = {1: "month", 2: "2 months", 3: "3 months"}


def words(timing: Timing, due: datetime | None, plan: Plan | None = None) -> str:
    """`Every Monday at 02:30`: how often, by the schedule's own clock; `due` is a moment at which it fires."""
    if timing.kind == CRON:
        return words_of_cron(timing.cron or "")
    if timing.kind == MINUTES:
        return "Every minute" if timing.minutes in {None, 1} else f"Every {plural(timing.minutes or 1, 'minute')}"
    if due is None:
        return "Never"
    # Elapsed hours, and a time that comes once, know no other clock than the one of their moment.
    began = timing.local(due) if timing.kind in {ONCE, HOURLY} else timing.began(due, plan)
    at = f"{began:%H:%M:%S}" if began.second else f"{began:%H:%M}"
    if timing.kind == ONCE:
        return f"Once, on {began.day} {began:%B %Y} at {at}"
    if timing.kind == HOURLY:
        return f"Every hour, {plural(began.minute, 'minute')} past" if began.minute else "Every hour, on the hour"
    if timing.kind == "D":
        return f"Every day at {at}"
    if timing.kind in {"W", "BW"}:
        return f"Every {'second ' if timing.kind == 'BW' else ''}{began:%A} at {at}"
    if timing.kind == "Y":
        return f"Every year on {began.day} {began:%B} at {at}"
    every = EVERY_MONTHS[MONTHS[timing.kind]]
    rest = ", or the last day" if began.day > SHORTEST_MONTH else ""
    return f"Every {every} on the {ordinal(began.day)}{rest} at {at}"


@lru_cache(maxsize=1_000)
def words_of_cron(expression: str) -> str:
    """`At 02:30 on Monday through Friday`; the expression itself where it cannot be read."""
    try:
        said = CronSim(CRON_NAMES.get(expression.strip().lower(), expression), datetime.now(UTC)).explain()
    except (CronSimError, ValueError):
        return f"Cron {expression}"
    return str(said)


def moments(
    timing: Timing, due: datetime | None, now: datetime, repeats: int = -1, plan: Plan | None = None, most: int = TOLD
) -> list[datetime]:
    """Its next ones, `due` first; raises `BadTiming`."""
    found: list[datetime] = []
    while due is not None and len(found) < most and len(found) != repeats:
        found.append(due)
        following = timing.after(due, max(due, now), plan)
        plan = timing.plan(due, following, plan)
        due = following
    return found


@lru_cache(maxsize=5_000)
def moments_ahead(timing: Timing, due: datetime, repeats: int, plan: str | None, most: int) -> tuple[datetime, ...]:
    """The same from a moment that is not over yet, so that the present one does not matter; `plan` is JSON."""
    return tuple(moments(timing, due, due, repeats, json.loads(plan) if plan else None, most))


def told(found: Sequence[datetime]) -> list[tuple[datetime, str]]:
    """Each with its time of day in the viewer's zone, and with the day where that is another than of the one before."""
    days = [timezone.localtime(at).date() for at in found]
    before = [timezone.localdate(), *days]
    return [(at, clock(at, day != last)) for at, day, last in zip(found, days, before, strict=False)]


def clock(at: datetime, with_day: bool) -> str:
    """`15:05`, or `Tue 24 November, 15:05`; with the year where it is another."""
    local = timezone.localtime(at)
    hour = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    if not with_day:
        return hour
    year = "" if local.year == timezone.localdate().year else f" {local.year}"
    return f"{local:%a} {local.day} {local:%B}{year}, {hour}"


@dataclass(frozen=True)
class Preview:
    """What a timing that nobody has saved yet comes to: its words and moments, or what is wrong with it."""

    words: str = ""
    moments: tuple[tuple[datetime, str], ...] = ()
    trouble: str = ""
    late: str = ""
    """What becomes of a next time that is over."""

    @classmethod
    def of(
        cls, timing: Timing, due: datetime | None, now: datetime, repeats: int, plan: Plan | None, missed: str
    ) -> Preview:
        try:
            timing.check()
            if timing.kind == CRON and (due is None or not timing.is_of(plan)):
                due, plan = timing.after(now, now), None
            if due is None:
                return cls(trouble="Say when it is to run first.")
            due, noted = timing.first(due, plan)
            plan, late = noted or plan, ""
            said = words(timing, due, plan)
            if due <= now and repeats:  # as a cluster will decide it
                is_skipped = missed == Missed.SKIP and now - due > MISSED_AFTER
                late = AT_ONCE if not is_skipped else NEVER if timing.kind == ONCE else SKIPPED
                repeats -= repeats > 0 and not is_skipped
                following = timing.after(due, now, plan)
                plan = timing.plan(due, following, plan)
                due = following
            return cls(said, tuple(told(moments(timing, due, now, repeats, plan))), late=late)
        except BadTiming as error:
            return cls(trouble=str(error))
