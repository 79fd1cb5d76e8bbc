"""The one clock that all times are told by: the database's."""

from datetime import datetime

from django.db import connection


def database_now() -> datetime:
    """The present moment as PostgreSQL has it, which wrote every time that a page compares with it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]
