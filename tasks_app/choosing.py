"""WATCH: all that a list of runs can be filtered by, beyond the few values that are counted beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from django.contrib.auth import get_user_model
from django.db import connection

from tasks_app import wording
from tasks_app.catalog import registered
from tasks_app.finding import LONGEST, NOBODY, Finding
from tasks_app.health import WAITING
from tasks_app.listing import SQL
from tasks_app.models import Grain

CLAIM_LENGTH = 12
"""So much of a cluster's id names it: `claim_id`."""

CLUSTERS = 100
"""The newest of them can be chosen; an older one by the link on a run of it."""

QUEUES = 500
DAYS = 30
"""A queue is known for so long after its last run has ended."""

EVERY = {"task": "Every task", "queue": "Every queue", "cluster": "Every cluster", "owner": ""}
ALL = {"task": "All tasks…", "queue": "All queues…", "cluster": "All clusters…", "owner": "Another owner…"}

# Names are found as `health.WAITING_QUEUES` finds them; no history is read for the rest.
KNOWN = f"""
WITH RECURSIVE {WAITING},
cluster AS (
  (SELECT id, name, host, queues FROM tasks_app_cluster ORDER BY heartbeat_at DESC, id LIMIT {CLUSTERS})
  UNION SELECT id, name, host, queues FROM tasks_app_cluster
    WHERE left(replace(id::text, '-', ''), {CLAIM_LENGTH}) = ANY (%s)),
queue AS (
  SELECT name FROM (SELECT name FROM waiting WHERE name IS NOT NULL LIMIT {QUEUES}) AS waits
  UNION SELECT taken.name FROM cluster, jsonb_array_elements_text(cluster.queues) AS taken(name)
  UNION SELECT name FROM tasks_app_queue
  UNION SELECT queue_name FROM tasks_app_queuestat
    WHERE grain = {Grain.DAY.value} AND at > statement_timestamp() - interval '{DAYS} days'
  ORDER BY name LIMIT {QUEUES})
SELECT 'queue', name, name FROM queue
UNION ALL SELECT 'cluster', left(replace(id::text, '-', ''), {CLAIM_LENGTH}), name || ' on ' || host FROM cluster
UNION ALL SELECT 'owner', {{pk}}::text, {{name}} FROM {{users}} WHERE {{pk}} = ANY (%s)
UNION ALL SELECT 'cut', '', '' WHERE {{cut}}
"""  # noqa: S608  its parts are ours


@dataclass(frozen=True)
class Known:
    """What can be chosen, as a URL has it and as a page tells it; and whether there are more runs than were counted."""

    values: dict[str, dict[str, str]]
    owners: dict[Any, str]
    """The names of those that were asked for, by their keys."""
    is_cut: bool

    @classmethod
    def look(cls, beyond: list[SQL], owners: list[Any], clusters: list[str]) -> Known:
        """By one query, which names these owners and clusters, and tells whether any of `beyond` finds a row."""
        cut = " OR ".join(f"EXISTS ({each.text})" for each in beyond) or "false"
        given: list[Any] = [[text for text in clusters if text], [pk for pk in owners if pk is not None]]
        with connection.cursor() as cursor:
            given += [value for each in beyond for value in each.given]
            cursor.execute(KNOWN.format(cut=cut, **user_columns()), given)
            rows = cursor.fetchall()
        values = {what: {key: name for kind, key, name in rows if kind == what} for what in ("queue", "cluster")}
        tasks = registered()
        paths = {task.module_path for task in tasks}
        names = Counter(path.rpartition(".")[2] for path in paths)
        values["task"] = {path: short if names[short := path.rpartition(".")[2]] == 1 else path for path in paths}
        values["queue"] |= {name: name for name in ("default", *(task.queue_name for task in tasks))}
        users = {key: name for kind, key, name in rows if kind == "owner"}
        named = {pk: users[str(pk)] for pk in owners if str(pk) in users}
        return cls(values, named, any(kind == "cut" for kind, _, _ in rows))


def user_columns() -> dict[str, str]:
    """The table of the people and its columns, whatever model they have."""
    meta = get_user_model()._meta
    columns = {"pk": meta.pk.column, "name": meta.get_field(get_user_model().USERNAME_FIELD).column}  # type: ignore[union-attr]
    named = {"users": meta.db_table, **columns}
    return {each: connection.ops.quote_name(str(column)) for each, column in named.items()}


@dataclass(frozen=True)
class Others:
    """A form beside a facet, by which a value can be had that is not counted there; without options it is written."""

    name: str
    summary: str
    every: str
    chosen: str
    options: list[tuple[str, str]]
    hidden: list[tuple[str, str]]
    longest: int


def others(finding: Finding, name: str, shown: dict[str, str], known: Known, keep: str) -> Others | None:
    """Beside these values of a facet; None where there is no other one.

    Whose runs there are is not listed, for there may be thousands of people.
    """
    chosen = finding.given.get(name, "")
    every = {**known.values.get(name, {}), **shown}
    every = {value: told for value, told in every.items() if value.isprintable()}  # as `finding` reads it
    if name == "owner":
        every = {}
        if not (chosen or known.is_cut or len(shown) > 1):
            return None
    elif name not in EVERY or not every.keys() - shown.keys():
        return None
    return Others(
        name,
        ALL[name],
        EVERY[name],
        "" if chosen == NOBODY else chosen,
        sorted(((value, wording.visible(told)) for value, told in every.items()), key=lambda each: each[1].lower()),
        parse_qsl(f"{finding.changed(**{name: None})}{keep}"),
        LONGEST.get(name, 0),
    )
