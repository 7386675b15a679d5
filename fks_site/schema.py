"""Whether the database is what this code needs: its migrations applied, its tables open to our role."""

from __future__ import annotations

from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor


def unapplied() -> list[str]:
    """Migrations of this code that the database lacks, in order; newer ones of another code count not.

    Raises:
        DatabaseError: the database, or its list of migrations, cannot be read.
    """
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [str(migration) for migration, _ in plan]


def closed_tables() -> list[str]:
    """Tables our role may not read or not add to; all must be there."""
    tables = [model._meta.db_table for model in apps.get_models(include_auto_created=True)]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM unnest(%s::text[]) AS name WHERE NOT (has_table_privilege(name, 'SELECT')"
            " AND has_table_privilege(name, 'INSERT')) ORDER BY name",
            [tables],
        )
        return [name for (name,) in cursor.fetchall()]
