"""Empties the database after a test that commits.

Django's own way rewrites every table and makes every permission anew: longer than most tests take.
"""

from __future__ import annotations

from functools import cache

from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected

TRIES = 5
KEPT = frozenset({"django_migrations", "django_content_type", "auth_permission"})
"""What the migrations leave and no test changes."""
_GUARDED = """
SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal
"""


def empty_tables() -> None:
    """Delete every row, once the transactions under way have ended."""
    for _ in range(TRIES - 1):
        try:
            return _empty_tables()
        except OperationalError as error:
            # A thread of the test is not done, and holds a table we want while it wants one we hold.
            if not isinstance(error.__cause__, DeadlockDetected):
                raise
    return _empty_tables()


def _empty_tables() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {', '.join(_tables())} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(" UNION ALL ".join(_is_filled(table) for table in _tables()))
        for (table,) in cursor.fetchall():
            is_guarded = table in _guarded()
            cursor.execute(f"{'TRUNCATE' if is_guarded else 'DELETE FROM'} {table}")


def _is_filled(table: str) -> str:
    return f"(SELECT '{table}' WHERE EXISTS (SELECT FROM {table}))"  # noqa: S608  (the names are ours)


@cache
def _tables() -> tuple[str, ...]:
    with connection.cursor() as cursor:
        return tuple(sorted(set(connection.introspection.table_names(cursor)) - KEPT))


@cache
def _guarded() -> frozenset[str]:
    """Tables whose rows a trigger keeps from being deleted one by one."""
    with connection.cursor() as cursor:
        cursor.execute(_GUARDED)
        return frozenset(table for (table,) in cursor.fetchall())
