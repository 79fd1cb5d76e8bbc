"""An empty database after each test that commits: Django's own `flush` takes most of what a short test takes.

It truncates every table, of which three have rows, and then makes the content types and permissions anew.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.test import TransactionTestCase

EMPTY = """
DO $$
DECLARE
  name text;
  has_rows boolean;
  names text[] := '{}';
BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema()
    AND tablename NOT IN ('django_migrations', 'django_content_type', 'auth_permission')
  LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO has_rows;
    IF has_rows THEN names := names || quote_ident(name); END IF;
  END LOOP;
  IF names <> '{}' THEN EXECUTE 'TRUNCATE ' || array_to_string(names, ', ') || ' CASCADE'; END IF;
END $$
"""


def empty(connection: "BaseDatabaseWrapper") -> None:
    """No row is left in any table but in those that migrations fill."""
    with connection.cursor() as cursor:
        cursor.execute(EMPTY)


def pytest_configure(config: pytest.Config) -> None:
    from django.db import connections
    from django.test import TransactionTestCase

    def tear_down(test: "TransactionTestCase") -> None:
        for alias in test.databases:
            empty(connections[alias])

    TransactionTestCase._fixture_teardown = tear_down  # type: ignore[attr-defined]
