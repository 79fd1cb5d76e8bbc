"""WATCH: how many runs there are beside a list: of each state, and of each task, queue, cluster, owner and reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from django.db import connection
from django.db.models import Q
from django.http import QueryDict

from tasks_app import wording
from tasks_app.choosing import Known, Others, others
from tasks_app.finding import NOBODY, STATES, TABS, Finding
from tasks_app.listing import LOOKED_AT, SQL, TABLE, Listing, Way, condition, ways
from tasks_app.live import digest
from tasks_app.models import Failure

COUNTED = 10_000
"""Counts go no further."""

LOOKED_AT_FOR_COUNT = 2_000
"""So many rows are read for the count of a state for which no index has just the right ones."""

LENGTH = 8
"""Values of one facet."""

SPANS = (("1h", "Last hour"), ("24h", "Last 24 hours"), ("7d", "Last 7 days"))

# Of each grouping one column; `which` has a bit for each that is not grouped by.
FACETS = """
SELECT grouping(task_path, queue_name, cluster, owner_id, failure) AS which,
  task_path, queue_name, cluster, owner_id, failure, count(*)
FROM (SELECT task_path, queue_name, split_part(claimed_by, ':', 1) AS cluster, owner_id, failure
  FROM ({runs}) AS found) AS run
GROUP BY GROUPING SETS ((task_path), (queue_name), (cluster), (owner_id), (failure))
ORDER BY count(*) DESC, 2, 3, 4, 5, 6
"""
NAMES = ("task", "queue", "cluster", "owner", "reason")
WHICH = {31 - (16 >> place): name for place, name in enumerate(NAMES)}
TITLES = {"task": "Task", "queue": "Queue", "cluster": "Cluster", "owner": "Owner", "reason": "Reason"}
FOR_OPERATORS = {"cluster", "owner"}

EMPTY = QueryDict("")
Found: TypeAlias = dict[str, list[tuple[Any, int]]]
"""Of each facet values of the table, and how many runs have each."""

Value: TypeAlias = tuple[str, str, int]
"""A value as a URL has it, as a page tells it, and how many runs have it."""


@dataclass(frozen=True)
class Tab:
    """A state as a link; with its count once it was counted."""

    state: str
    query: str
    is_here: bool
    count: str = ""

    @property
    def name(self) -> str:
        return self.state.capitalize() or "All"


@dataclass(frozen=True)
class Choice:
    """A value of a facet as a link that sets it, or lets go of it."""

    name: str
    query: str
    is_chosen: bool
    count: str = ""
    id: str = ""
    """By which it is found again in a newer drawing, wherever it stands there."""


@dataclass(frozen=True)
class Facet:
    title: str
    choices: list[Choice]
    others: Others | None = None
    note: str = ""
    """What is to be known of the counts, said above the first one."""


def tabs(finding: Finding, keep: str, counts: dict[str, str] | None = None) -> list[Tab]:
    """All states; a state without a tab of its own has one while it is looked at."""
    states = ["", *TABS, *([finding.state] if finding.state not in ("", *TABS) else [])]
    # What makes sense in one state alone is let go of with it.
    dropped = {name: None for name in ("reason", "group") if name in finding.given}
    return [
        Tab(
            state,
            f"?{finding.changed(**({} if state in {'failed', finding.state} else dropped), state=state)}{keep}",
            state == finding.state,
            (counts or {}).get(state, ""),
        )
        for state in states
    ]


def counts(finding: Finding) -> dict[str, str]:
    """How many runs there are of each state, with all other filters as they are: `1 284`, or `10 000+`."""
    states = list(dict.fromkeys(("", *TABS, finding.state)))
    if finding.q:
        return counts_of_search(finding.in_state(""), states)
    parts, given = [], []
    for place, state in enumerate(states):
        listing = Listing(finding.in_state(state), EMPTY)
        listing.ways = [shorter(way) for way in ways(listing.finding)]
        found = listing.first(None, True, COUNTED + 1)
        if found is None:
            continue
        bounded = [way for way in listing.ways if way.is_bounded]
        ends = [end for way in bounded if (end := way.end(listing.beyond(None), listing.descending))]
        more = " OR ".join(f"EXISTS ({end.text})" for end in ends) or "false"
        parts.append(f"SELECT {place}, (SELECT count(*) FROM ({found.text}) AS run), {more}")  # noqa: S608
        given += [*found.given, *(value for end in ends for value in end.given)]
    if not parts:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"({part})" for part in parts), given)
        rows = cursor.fetchall()
    return {
        states[place]: f"{wording.count(number)}+" if more and number <= COUNTED else wording.count(number, COUNTED)
        for place, number, more in rows
    }


def counts_of_search(finding: Finding, states: list[str]) -> dict[str, str]:
    """The same of what a search has found in all states, which is the same work as in one of them."""
    listing = Listing(finding, EMPTY)
    found = listing.first(None, True, COUNTED + 1)
    if found is None:
        return dict.fromkeys(states, "0")
    asked = [condition(STATES[state]) if state else SQL("true") for state in states]
    numbers = ", ".join(f"count(*) FILTER (WHERE {each.text})" for each in asked if each)
    with connection.cursor() as cursor:
        text = f'SELECT {numbers} FROM ({found.text}) AS "{TABLE}"'  # noqa: S608
        cursor.execute(text, [value for each in asked if each for value in each.given] + list(found.given))
        row = cursor.fetchone()
    bounded = [way for way in listing.ways if way.is_bounded]
    more = "+" if row[0] > COUNTED or (bounded and listing.looked_to(bounded, None, True)) else ""
    return {state: f"{wording.count(min(number, COUNTED))}{more}" for state, number in zip(states, row, strict=True)}


def shorter(way: Way) -> Way:
    return replace(way, most=min(way.most, LOOKED_AT_FOR_COUNT)) if way.is_bounded else way


def facets(finding: Finding, keep: str, found: Found | None = None) -> list[Facet]:
    """What the newest runs that match are of, the most common first; `found` is that, where it is known already."""
    if found is None:
        found = most_common(finding)
    known = Known.look(beyond(finding, found), [pk for pk, _ in found["owner"]], [text for text, _ in found["cluster"]])
    counted = named(found, known)
    names = [name for name in NAMES if finding.viewer.is_staff or name not in FOR_OPERATORS]
    shown = {name: values for name in names if (values := with_chosen(finding, name, counted[name]))}
    note = f"Counted among the {which(finding)} alone; there are more." if known.is_cut else ""
    return [
        Facet(
            TITLES[name],
            [choice(finding, name, *each, keep) for each in values],
            others(finding, name, {value: told for value, told, _ in values}, known, keep),
            "" if place else note,
        )
        for place, (name, values) in enumerate(shown.items())
    ]


def most_common(finding: Finding) -> Found:
    """Of each facet the most common values as the table has them, and how many runs have them."""
    runs = Listing(finding, EMPTY).first(None, True, LOOKED_AT)
    if runs is None:
        return {name: [] for name in NAMES}
    with connection.cursor() as cursor:
        cursor.execute(FACETS.format(runs=runs.text), runs.given)
        rows = cursor.fetchall()
    found = {name: [(row[1 + at], row[-1]) for row in rows if WHICH[row[0]] == name] for at, name in enumerate(NAMES)}
    return {name: each[:LENGTH] for name, each in found.items()}


def beyond(finding: Finding, found: Found) -> list[SQL]:
    """What finds a row where not all runs were counted: because they are too many, or were not looked for further."""
    listing = Listing(finding, EMPTY)
    ends = [end for way in listing.ways if way.is_bounded and (end := way.end(Q(), listing.descending))]
    # Every run has a queue and a task. Where those are all listed, their counts tell how many runs there are.
    wholes = [found[name] for name in ("queue", "task") if len(found[name]) < LENGTH]
    if not wholes or sum(count for _, count in wholes[0]) >= LOOKED_AT:
        runs = listing.first(None, True, LOOKED_AT + 1)
        if runs:
            ends.append(SQL(f"SELECT FROM ({runs.text}) AS run OFFSET {LOOKED_AT}", runs.given))
    return ends


def which(finding: Finding) -> str:
    """Those that are counted where not all are."""
    listing = Listing(finding, EMPTY)
    number = "" if any(way.is_bounded for way in listing.ways) else f" {wording.count(LOOKED_AT)}"
    return f"{'newest' if listing.descending else 'next'}{number}"


def named(found: Found, known: Known) -> dict[str, list[Value]]:
    """The same with the values as a URL has them, and how they are told."""
    counted: dict[str, list[Value]] = {name: [] for name in NAMES}
    for name, each in found.items():
        for value, count in each:
            if name == "owner":
                owner = known.owners.get(value, NOBODY)
                counted[name].append((owner, "Nobody" if owner == NOBODY else owner, count))
            elif value:
                told = known.values["cluster"].get(value) if name == "cluster" else None
                counted[name].append((value, told or told_of(name, value), count))
    return counted


def told_of(name: str, value: str) -> str:
    match name:
        case "task":
            return value.rpartition(".")[2]
        case "reason":
            return Failure(value).label if value in Failure.values else value
        case "cluster":
            return value[:8]
        case _:
            return value


def with_chosen(finding: Finding, name: str, values: list[Value]) -> list[Value]:
    """The chosen value is among them in any case, or nobody could let go of it."""
    chosen = finding.given.get(name)
    if chosen and all(value != chosen for value, _, _ in values):
        return [(chosen, told_of(name, chosen), 0), *values]
    return values


def choice(finding: Finding, name: str, value: str, told: str, count: int, keep: str) -> Choice:
    is_chosen = finding.given.get(name) == value
    query = finding.changed(**{name: None if is_chosen else value})
    shown = wording.visible(told)
    return Choice(shown, f"?{query}{keep}", is_chosen, wording.count(count), f"facet-{digest(name, value)}")


def spans(finding: Finding, keep: str) -> Facet:
    """The last hour, day and week."""
    chosen = finding.given.get("since") if "until" not in finding.given else None
    return Facet(
        {"finished_at": "Failed in", "run_after": "Due since"}.get(finding.moment, "Enqueued in"),
        [
            Choice(
                told,
                f"?{finding.changed(since=None if chosen == span else span, until=None)}{keep}",
                chosen == span,
            )
            for span, told in SPANS
        ],
    )
