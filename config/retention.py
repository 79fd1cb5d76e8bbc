"""How long runs are kept, as a readable list: `SUCCESSFUL=30d, SUCCESSFUL shop.tasks.ping=1d, FAILED=1000`."""

import re
from dataclasses import dataclass
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured

KEEP_ALL = "none"
"""No rule, so everything is kept; an empty variable counts as unset."""

RULE = re.compile(r"(SUCCESSFUL|FAILED|CANCELLED)(?:\s+([\w.]{1,255}))?\s*=\s*(\d{1,9})\s*([dh]?)", re.ASCII)
LONGEST = timedelta(days=36_500)


@dataclass(frozen=True)
class Rule:
    """What is kept of the runs with one status, of one task or of all that have no rule of their own."""

    status: str
    task: str | None = None
    age: timedelta | None = None
    """Those that ended within so long; None where a number is kept."""
    newest: int | None = None
    """So many, by when they were enqueued."""

    def __str__(self) -> str:
        return f"{self.status} {self.task}" if self.task else self.status

    @property
    def kept(self) -> str:
        if self.age is None:
            return f"the newest {self.newest}"
        hours = self.age // timedelta(hours=1)
        return f"those of the last {hours // 24} d" if hours % 24 == 0 else f"those of the last {hours} h"


def rules(name: str, text: str) -> list[Rule]:
    """The rules that a variable of this name says; raises `ImproperlyConfigured` with one sentence."""
    if text.lower() == KEEP_ALL:
        return []
    read: dict[tuple[str, str | None], Rule] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        rule = _rule(part)
        if rule is None:
            raise ImproperlyConfigured(
                f"{name} has {part!r}: write rules such as SUCCESSFUL=30d or FAILED shop.tasks.sync=1000 with commas"
                f" between them (d for days, h for hours, or how many), or {KEEP_ALL} to keep all."
            )
        if (rule.status, rule.task) in read:
            raise ImproperlyConfigured(f"{name} has two rules for {rule}: write one.")
        read[rule.status, rule.task] = rule
    return list(read.values())


def _rule(part: str) -> Rule | None:
    found = RULE.fullmatch(part)
    if found is None:
        return None
    status, task, number, unit = found.groups()
    if not unit:
        return Rule(status, task, newest=int(number))
    age = timedelta(hours=int(number) * (24 if unit == "d" else 1))
    return Rule(status, task, age=age) if age <= LONGEST else None
