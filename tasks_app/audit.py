"""STEER: who did what, when, from where and why; each entry stands or falls with the deed, in its transaction."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias

from django.conf import settings
from django.db import connection, transaction

from tasks_app.jsonable import storable

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.http import HttpRequest

# By the clock of the database, as all times. Nothing here ever changes an entry, and a trigger sees to it.
RECORD = """
INSERT INTO tasks_app_auditentry (act, at, actor_id, actor_name, address, verb, subject, runs, count, details, reason)
VALUES (%(act)s, clock_timestamp(), %(actor)s, %(actor_name)s, %(address)s, %(verb)s, %(subject)s, %(runs)s::uuid[],
  cardinality(%(runs)s::uuid[]), %(details)s::jsonb, %(reason)s)
"""

VERBS = (
    *("cancel", "retry", "delete", "set priority", "move", "run at"),
    *("run now", "steer", "prune", "pause", "resume", "limit", "pace", "add", "change"),
    *("dismiss", "mute", "reopen"),
)
"""All that anybody can do."""

NAME_LENGTH, SUBJECT_LENGTH, REASON_LENGTH = 150, 255, 500


@dataclass(frozen=True)
class Actor:
    """Who acts, and from where; without a user and a name it is code without a person."""

    user: User | None = None
    name: str = ""
    address: str | None = None

    @classmethod
    def of(cls, request: HttpRequest) -> Actor:
        """The person who sent this request, or a guest of open access."""
        user = request.user if request.user.is_authenticated else None
        return cls(user, user.get_username() if user else "a guest", address_of(request))


By: TypeAlias = "Actor | User | None"
"""Whoever may be named as the one who acts: an `Actor`, a user without an address, or None for code."""


def actor_of(by: By) -> Actor:
    if by is None:
        return Actor()
    return by if isinstance(by, Actor) else Actor(by, by.get_username())


def address_of(request: HttpRequest) -> str | None:
    """Where a request came from; what the proxy tells counts only with BEHIND_PROXY, and then its own last entry."""
    told = [request.META.get("REMOTE_ADDR", "")]
    if settings.BEHIND_PROXY:
        # Entries before the last were sent by whoever asked, and say what that one likes.
        told.insert(0, request.headers.get("X-Forwarded-For", "").rpartition(",")[2])
    return next((address for address in map(readable, told) if address), None)


def readable(address: str) -> str | None:
    """The address as the database keeps it, without the zone of a local one; None for what is no address."""
    try:
        return str(ip_address(address.strip().partition("%")[0]))
    except ValueError:
        return None


def record(
    verb: str,
    *,
    subject: str = "",
    by: By = None,
    why: str = "",
    details: Mapping[str, Any] | None = None,
    runs: Collection[uuid.UUID] = (),
    act: uuid.UUID | None = None,
) -> uuid.UUID:
    """Write down an act in the current transaction; answers its id, to be given again for a further part of it."""
    act, actor = act or uuid.uuid4(), actor_of(by)
    given = {
        "act": act,
        "actor": actor.user.pk if actor.user else None,
        "actor_name": clip(actor.name, NAME_LENGTH),
        "address": actor.address,
        "verb": verb,
        "subject": clip(subject, SUBJECT_LENGTH),
        "runs": list(runs),
        "details": json.dumps(dict(details or {}), default=str),
        "reason": clip(why, REASON_LENGTH),
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD, given)
    return act


# Not left to the planner, which takes a run for one that many entries have. Sent as one, so that it is one way there
# and back, and one transaction.
ABOUT = """
SET LOCAL enable_seqscan = off;
SELECT at, actor_name, verb, details, reason, count FROM tasks_app_auditentry WHERE runs @> %s::uuid[]
ORDER BY id DESC LIMIT %s;
SET LOCAL enable_seqscan = on
"""


@dataclass(frozen=True)
class Deed:
    """What somebody did to a run."""

    at: datetime
    who: str
    verb: str
    details: Mapping[str, Any]
    why: str
    count: int
    """How many runs the same act, or this batch of it, was done to."""


def deeds_done_to(run: uuid.UUID, most: int) -> list[Deed]:
    """The newest of them, by one query."""
    with connection.cursor() as cursor:
        cursor.execute(ABOUT, [[run], most])
        cursor.nextset()
        return [Deed(row[0], row[1], row[2], json.loads(row[3]) if isinstance(row[3], str) else row[3], row[4], row[5])
                for row in cursor.fetchall()]  # fmt: skip


def entries_about(run: uuid.UUID) -> list[int]:
    """The ids of the entries that have this run among theirs, newest first; read by their index, however many are."""
    with transaction.atomic(), connection.cursor() as cursor:
        # Not left to the planner, which takes a run for one that many entries have.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SELECT id FROM tasks_app_auditentry WHERE runs @> %s::uuid[]", [[run]])
        found = sorted((row[0] for row in cursor.fetchall()), reverse=True)
        cursor.execute("SET LOCAL enable_seqscan = on")
    return found


def clip(text: str, length: int) -> str:
    """Any text made fit for a column of so many characters."""
    return storable(text, 10 * length)[:length]
