"""When a schedule falls due next: pure functions of its row, its time zone and the present moment.

Minutes and hours are elapsed time. Days, weeks, months and years keep the wall clock of the schedule's time zone: a
time that a switch of clocks leaves out becomes the first moment after it, one that comes twice counts once, the first
time. Cron is Debian's cron, which does the same for jobs at fixed hours, and counts the hours that there are for jobs
at every hour. A day that a month does not have becomes its last, and the next month has the day again.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ONCE, MINUTES, CRON = "O", "I", "C"
HOURLY = "H"
ELAPSED = {MINUTES, HOURLY}
DAYS = {"D": 1, "W": 7, "BW": 14}
MONTHS = {"M": 1, "BM": 2, "Q": 3, "Y": 12}
"""Django-Q2's letters for its types of schedule."""

CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

CRON_FIELDS = (
    ("minute", "Minutes are 0 to 59"),
    ("hour", "Hours are 0 to 23"),
    ("day of the month", "Days are 1 to 31, L for the last one and LW for the last weekday"),
    ("month", "Months are 1 to 12, or jan to dec"),
    ("weekday", "Weekdays are 0 to 7, where both are Sunday, or sun to sat; 5L is the last Friday, fri#2 the second"),
)
CRON_SIGNS = "Of them there may be lists (1,15), ranges upwards (1-5), * for all and steps (*/10)"
"""What each field of a cron expression takes, in its order, and what they all do."""

Plan = dict[str, Any]
"""What a schedule's times are counted from: its timing, the wall clock of its first time, and the time found last."""


class BadTiming(ValueError):
    """No time can be found; the message is a sentence."""


def zone_of(name: str) -> tzinfo:
    """Raises `BadTiming` for a zone that this machine does not know."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadTiming(f"There is no time zone {name!r}.") from None


@dataclass(frozen=True, slots=True)
class Timing:
    """How often, in Django-Q2's words, and by whose clock."""

    kind: str
    zone: str
    minutes: int | None = None
    cron: str | None = None

    def check(self) -> None:
        """Raises `BadTiming` for what names no time, or an option that this type does not have."""
        zone_of(self.zone)
        if self.kind not in {ONCE, MINUTES, HOURLY, CRON, *DAYS, *MONTHS}:
            raise BadTiming(f"There is no type of schedule {self.kind!r}.")
        if self.minutes is not None and self.kind != MINUTES:
            raise BadTiming("Only a schedule of the type Minutes has minutes.")
        if self.minutes is not None and self.minutes < 1:
            raise BadTiming("A schedule of the type Minutes needs at least 1 minute.")
        if self.cron and self.kind != CRON:
            raise BadTiming("Only a schedule of the type Cron has a cron expression.")
        if self.kind == CRON:
            self._after_by_cron(datetime.now(UTC))

    def after(self, due: datetime, now: datetime, plan: Plan | None = None) -> datetime | None:
        """The first time after both, counted from `due` or as planned; None for a schedule that is only for once."""
        latest = max(due, now)
        try:
            if self.kind == ONCE:
                return None
            if self.kind == CRON:
                return self._after_by_cron(latest)
            if self.kind in ELAPSED:
                length = timedelta(hours=1) if self.kind == HOURLY else timedelta(minutes=self.minutes or 1)
                return due + ((latest - due) // length + 1) * length
            return self._after_by_calendar(self.began(due, plan), latest)
        except OverflowError:
            raise BadTiming("Its next time is beyond the year 9999.") from None

    def plan(self, due: datetime, following: datetime | None, plan: Plan | None = None) -> Plan:
        """What to remember, so that a short month or a switch of clocks moves no later time."""
        began = self.began(due, plan).isoformat()
        return {"began": began, "next": following.isoformat() if following else None, **self._key}

    def is_of(self, plan: Plan | None) -> bool:
        """True when the plan was made for this very timing."""
        return plan is not None and all(plan.get(name) == value for name, value in self._key.items())

    @property
    def _key(self) -> dict[str, Any]:
        return {"kind": self.kind, "zone": self.zone, "cron": self.cron or None}

    def began(self, due: datetime, plan: Plan | None) -> datetime:
        """The wall clock of the first time, from which short months and switches of clocks take nothing away."""
        if plan and self.is_of(plan) and is_planned(due, plan):
            return datetime.fromisoformat(plan["began"])
        return self.meant(due, plan)

    def meant(self, due: datetime, plan: Plan | None) -> datetime:
        """The wall clock of a time as somebody gave it, also where a switch of clocks leaves that out."""
        local, zone = self.local(due), zone_of(self.zone)
        if plan and plan["kind"] not in ELAPSED and is_planned(due, plan):
            at = datetime.fromisoformat(plan["began"]).time()
            for day in (local.date(), local.date() - timedelta(days=1)):  # clocks are switched at midnight, too
                given = datetime.combine(day, at)
                if _is_left_out(given, zone) and moment_of(given, zone) == due:
                    return given
        return local

    def local(self, due: datetime) -> datetime:
        """What the clock on the wall shows then."""
        return due.astimezone(zone_of(self.zone)).replace(tzinfo=None)

    def first(self, given: datetime, plan: Plan | None = None) -> tuple[datetime, Plan | None]:
        """The moment of a time that somebody gave, and a plan if another wall clock is to be remembered from then on.

        By the clock of a zone it may be one that a switch leaves out: it is put off on that day alone.
        """
        zone, wall = given.tzinfo, given.replace(tzinfo=None)
        if zone is None or not (named := getattr(zone, "key", None)):
            return given, None
        at = moment_of(wall, zone) if _is_left_out(wall, zone) else given.astimezone(UTC)
        there = replace(self, zone=named)
        if self.kind in ELAPSED or self.kind == CRON or there.meant(at, plan) == wall:
            return at, None
        return at, {"began": wall.isoformat(), "next": at.isoformat(), **there._key}

    def _after_by_cron(self, latest: datetime) -> datetime:
        if not self.cron:
            raise BadTiming("A schedule of the type Cron needs a cron expression.")
        expression = CRON_NAMES.get(self.cron.strip().lower(), self.cron)
        if len(expression.split()) != len(CRON_FIELDS):
            names = ", ".join(CRON_NAMES)
            raise BadTiming(
                f"A cron expression has five fields, minute to weekday, or is one of {names}; {self.cron!r} is not."
            )
        zone = zone_of(self.zone)
        try:
            times = CronSim(expression, latest.astimezone(zone))
            # In the hour that comes twice it may begin with the first one, which is over.
            return next(at for time in times if (at := time.astimezone(UTC)) > latest)
        except CronSimError:
            raise BadTiming(f"The cron expression {self.cron!r} cannot be read: {_trouble(expression)}") from None
        except StopIteration:
            raise BadTiming(f"The cron expression {self.cron!r} names a time that never comes.") from None

    def _after_by_calendar(self, began: datetime, latest: datetime) -> datetime:
        zone = zone_of(self.zone)
        local = latest.astimezone(zone).replace(tzinfo=None)
        if self.kind in DAYS:
            step = (local.date() - began.date()).days // DAYS[self.kind]
        else:
            step = ((local.year - began.year) * 12 + local.month - began.month) // MONTHS[self.kind]
        step = max(step - 1, 0)  # never too far, and the few in between are soon passed
        while (at := moment_of(self._stepped(began, step), zone)) <= latest:
            step += 1
        return at

    def _stepped(self, began: datetime, step: int) -> datetime:
        if self.kind in DAYS:
            return began + timedelta(days=step * DAYS[self.kind])
        year, month = divmod(began.year * 12 + began.month - 1 + step * MONTHS[self.kind], 12)
        if year > 9999:
            raise OverflowError
        day = min(began.day, calendar.monthrange(year, month + 1)[1])
        return began.replace(year=year, month=month + 1, day=day)


def is_planned(due: datetime, plan: Plan) -> bool:
    """Nobody has set another time since. Forms know no fractions of a second."""
    return bool(plan["next"]) and abs(datetime.fromisoformat(plan["next"]) - due) < timedelta(seconds=1)


def _trouble(expression: str) -> str:
    """Which field of it cannot be read, and what it takes."""
    fields = expression.split()
    for place, (name, allowed) in enumerate(CRON_FIELDS):
        alone = ["*"] * len(fields)
        alone[place] = fields[place]
        try:
            CronSim(" ".join(alone), datetime.now(UTC))
        except CronSimError:
            return f"{fields[place]!r} is no {name}. {allowed}. {CRON_SIGNS}."
    return f"there is no day {fields[2]!r} in the month {fields[3]!r}."


def moment_of(wall: datetime, zone: tzinfo) -> datetime:
    """The moment of a wall clock's time: the first of two, or the first after a gap."""
    if _is_left_out(wall, zone):
        wall = wall.replace(second=0, microsecond=0)
        while _is_left_out(wall, zone):
            wall += timedelta(minutes=1)
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def _is_left_out(wall: datetime, zone: tzinfo) -> bool:
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall
