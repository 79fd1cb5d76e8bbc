"""The one clock that all times are told by, the database's, and the zones that people tell them in."""

from datetime import UTC, datetime
from functools import cache
from zoneinfo import available_timezones as find_timezones

from django.db import connection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

available_timezones = cache(find_timezones)
"""The names of all time zones; finding them reads hundreds of files."""


def database_now() -> datetime:
    """The present moment as PostgreSQL has it, which wrote every time that a page compares with it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]
