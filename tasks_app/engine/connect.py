"""Connections of the engine's own, apart from those that a task's code uses through Django."""

import json
import re
from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads

from tasks_app.engine import statements

# What Django adds for its own cursors; the rest is plain libpq.
DJANGO_ONLY = {"context", "cursor_factory", "prepare_threshold", "assume_role", "isolation_level", "pool",
               "server_side_binding"}  # fmt: skip

# Every statement of the engine finds its rows by an index. A plan made while the table was small, or had no statistics
# yet, stays with the connection and would read all of it, again and again, when it has grown.
# Before PostgreSQL 18, what is switched off counts as so dear that each statement would be compiled, for nothing.
# And it is planned once: for each claim of one run anew, that took longer than the claim itself.
SESSION = """SET TIME ZONE 'UTC'; SET jit = off; SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"""

DECODER = json.JSONDecoder()

UNREACHABLE = (psycopg.OperationalError, psycopg.InterfaceError)
"""What psycopg raises when the server went away or does not answer; anything else is our own mistake."""


def parameters() -> dict[str, Any]:
    given = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return {key: value for key, value in given.items() if key not in DJANGO_ONLY}


def connect(title: str, holder: str = "") -> psycopg.Connection[TupleRow]:
    """A new autocommit connection; `title` is what pg_stat_activity shows. Raises `psycopg.OperationalError`.

    With a holder (the `claimed_by` of a worker) it takes the place of an earlier one with the same title.
    """
    defaults: dict[str, Any] = {
        "connect_timeout": 5,
        # A host that vanished without a word is noticed in about 20 s instead of 2 h.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    name = title.encode("ascii", "replace").decode()  # the server writes other characters its own way, and longer
    name = f"{name[: 62 - len(_tag(holder))]} {_tag(holder)}" if holder else name[:63]
    connection = psycopg.connect(**{**defaults, **parameters(), "application_name": name, "autocommit": True})
    set_json_loads(loads, connection)
    connection.execute(SESSION)
    if holder:
        _end(connection, re.sub(r"[\\%_]", r"\\\g<0>", name))
    return connection


def loads(text: str | bytes) -> Any:
    """JSON, or None where Python cannot read what PostgreSQL can keep: nested too deep, or a number too long.

    An exception here would come out of a claim, again and again, and stop the whole queue for one row.
    """
    try:
        return DECODER.decode(text if isinstance(text, str) else text.decode())
    except (RecursionError, ValueError):
        return None


def end_sessions(connection: psycopg.Connection[TupleRow], holder: str) -> None:
    """End the sessions of a worker, or of all workers of a cluster if `holder` is no more than its short id.

    Raises `psycopg.OperationalError` when one of them does not end. Not for use in a transaction, which would see the
    same sessions however often it looks.
    """
    _end(connection, f"% {_tag(holder)}%" if ":" in holder else f"% {holder}:%")


def _tag(holder: str) -> str:
    """The part of `claimed_by` that no two workers share; the host's name may be too long for pg_stat_activity."""
    return ":".join(holder.split(":")[:3])


def _end(connection: psycopg.Connection[TupleRow], names: str) -> None:
    for _ in range(3):  # False may also mean that it ended by itself before it was told to, so look again
        ended = connection.execute(statements.END_SESSIONS, {"names": names}).fetchall()
        if all(gone for (gone,) in ended):
            return
    raise psycopg.OperationalError("an earlier session does not end")


def execute_prepared(statement: str, given: Mapping[str, Any]) -> Any:
    """Run a statement that answers one row, or perhaps none, on Django's own connection, within its transaction.

    Django's cursors send text, which PostgreSQL parses and plans at each call; here it does so once a connection,
    unless the option `prepare_threshold` of the database says otherwise. Raises what Django's cursors raise.
    """
    db = connections[DEFAULT_DB_ALIAS]
    if db.queries_logged or db.execute_wrappers:  # somebody watches the queries: they want to see this one too
        with db.cursor() as cursor:
            cursor.execute(statement, given)
            return cursor.fetchone()
    db.close_if_health_check_failed()
    db.ensure_connection()
    db.validate_thread_sharing()
    db.validate_no_broken_transaction()
    with db.wrap_database_errors, psycopg.Cursor(db.connection) as plain:
        return plain.execute(statement, given).fetchone()
