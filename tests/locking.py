"""What a migration must not do while the older code runs and trades: docs/upgrade.md promises both."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.db.migrations import Migration, operations
from django.db.models import CheckConstraint
from django.db.models.fields import NOT_PROVIDED

GROWING = frozenset(
    {"signal", "idempotencykey", "order", "orderevent", "fill", "auditevent", "limithit", "notice"}
)
"""Models whose tables are large: reading one whole under a lock stops trading for minutes."""
_TAKEN_AWAY = (
    operations.RemoveField,
    operations.RenameField,
    operations.DeleteModel,
    operations.RenameModel,
    operations.AlterModelTable,
)


def complaints(migration: Migration) -> list[str]:
    """What stops or breaks the older generation, in sentences; nothing for an initial migration."""
    if migration.initial or not migration.dependencies:
        return []
    made = {
        one.name_lower for one in migration.operations if isinstance(one, operations.CreateModel)
    }
    return [
        complaint
        for one in migration.operations
        for complaint in _complaints(one)
        if str(getattr(one, "model_name", "")).lower() not in made
    ]


def _complaints(one: operations.Operation) -> Iterator[str]:
    table = str(getattr(one, "model_name", "")).lower()
    if isinstance(one, _TAKEN_AWAY):
        yield f"{one.describe()}: the older code still uses it; take it away one release later"
    elif isinstance(one, operations.AddField):
        if not (one.field.null or one.field.many_to_many or _has_default(one)):
            yield f"{one.describe()}: the older code cannot insert; give it a db_default or null=True"
    elif isinstance(one, AddIndexConcurrently | AddConstraintNotValid) or table not in GROWING:
        return
    elif isinstance(one, operations.AddIndex):
        yield f"{one.describe()}: nobody can write meanwhile; use AddIndexConcurrently"
    elif isinstance(one, operations.AddConstraint):
        is_check = isinstance(one.constraint, CheckConstraint)
        how = "AddConstraintNotValid" if is_check else "a unique index made concurrently"
        yield f"{one.describe()}: the table is read under a lock; use {how}"


def _has_default(one: operations.AddField) -> bool:
    return one.field.db_default is not NOT_PROVIDED
