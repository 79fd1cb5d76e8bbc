"""Connections of the engine's own, apart from those that a task's code uses through Django."""

from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.rows import TupleRow

# What Django adds for its own cursors; the rest is plain libpq.
DJANGO_ONLY = {"context", "cursor_factory", "prepare_threshold", "assume_role", "isolation_level", "pool",
               "server_side_binding"}  # fmt: skip

UNREACHABLE = (psycopg.OperationalError, psycopg.InterfaceError)
"""What psycopg raises when the server went away or does not answer; anything else is our own mistake."""


def parameters() -> dict[str, Any]:
    given = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return {key: value for key, value in given.items() if key not in DJANGO_ONLY}


def connect(title: str) -> psycopg.Connection[TupleRow]:
    """A new autocommit connection; `title` is what pg_stat_activity shows. Raises `psycopg.OperationalError`."""
    defaults: dict[str, Any] = {
        "connect_timeout": 5,
        # A host that vanished without a word is noticed in about 20 s instead of 2 h.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    connection = psycopg.connect(**{**defaults, **parameters(), "application_name": title[:63], "autocommit": True})
    connection.execute("SET TIME ZONE 'UTC'")
    return connection


def execute_prepared(statement: str, given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Run a statement that answers one row on Django's own connection, within its transaction.

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
        row = plain.execute(statement, given).fetchone()
    assert row is not None
    return row
