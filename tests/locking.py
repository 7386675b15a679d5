"""What a migration must not do while the older code runs and trades: docs/upgrade.md promises both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlparse
from django.contrib.postgres import operations as postgres
from django.db.migrations import Migration, operations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import CheckConstraint, Field, GeneratedField, UniqueConstraint
from django.db.models.expressions import Func
from django.db.models.fields import NOT_PROVIDED
from django.db.models.functions import Now

from fks_site.management.commands.migrate import is_concurrent

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
_UNNOTICED = (
    operations.CreateModel,
    operations.AlterModelOptions,
    operations.AlterModelManagers,
    operations.AlterModelTableComment,
    operations.RemoveIndex,
    operations.RenameIndex,
    postgres.AddIndexConcurrently,
    postgres.RemoveIndexConcurrently,
    postgres.AddConstraintNotValid,
)
"""What takes no lock, or one that is given back at once."""
_REPEATABLE = (
    operations.RunPython,
    operations.RunSQL,
    postgres.AddIndexConcurrently,
    postgres.RemoveIndexConcurrently,
    postgres.ValidateConstraint,
)
"""What may stand in a migration with ``atomic = False``: given up half way, it can be done again."""

_GONE = "the older code still uses it; take it away one release later"
_HALF = "given up while it waits for its table, it leaves the rest half done; an atomic migration"
_ALONE = "its wait is limited by the rest, and half made it is in the way; a migration of its own"
_INDEX = "nobody can write meanwhile; use AddIndexConcurrently"
_STATEMENTS = {
    r"create\s+(unique\s+)?index\s+(?!concurrently)": "nobody can write meanwhile; CONCURRENTLY",
    r"alter\s+table.*\badd\s+(constraint|check|unique|foreign|primary|exclude)\b"
    r"(?!.*(not\s+valid|using\s+index))": "the table is read under a lock; NOT VALID, then VALIDATE",
    r"alter\s+table.*\balter\s+(column\s+)?\S+\s+(set\s+data\s+)?type\b": "rows are written anew",
    r"alter\s+table.*\bset\s+not\s+null\b": "the older code may leave it empty",
    r"alter\s+table.*\b(drop\s+column|rename)\b": _GONE,
    r"(drop\s+table|truncate)\b": _GONE,
    r"(lock|cluster|vacuum\s+full|reindex(?!.*concurrently))\b": "others wait for the table",
    r"(with\b.*\b)?(update|delete\s+from|merge\s+into)\b": "one transaction; change rows in batches",
}
"""How a statement of RunSQL begins that stops or breaks the older generation, and why."""


def complaints(migration: Migration, before: ProjectState) -> list[str]:
    """What stops or breaks the older generation, in sentences; nothing for an initial migration.

    ``before`` is how the models stand when the migration begins. What this linter does not know is a
    complaint too.
    """
    if migration.initial or not migration.dependencies:
        return []
    at, made = _Models(migration.app_label, before.clone()), set()
    found = []
    for one in _of_the_database(migration.operations):
        if isinstance(one, operations.CreateModel):
            made.add(one.name_lower)
        if _table(one) not in made:
            found += [f"{one.describe()}: {why}" for why in _reasons(one, migration, at)]
            if not (migration.atomic or isinstance(one, _REPEATABLE)):
                found.append(f"{one.describe()}: {_HALF}")
        one.state_forwards(migration.app_label, at.state)
    return [*found, *_accompanied(migration.operations)]


def _accompanied(made: Sequence[Operation]) -> list[str]:
    """Indexes made beside traffic wait as long as it takes only where nothing else waits with them."""
    concurrent = [one for one in made if is_concurrent(one)]
    if len(concurrent) == len(made):
        return []
    return [f"{one.describe()}: {_ALONE}" for one in concurrent]


@dataclass(frozen=True, slots=True)
class _Models:
    """The models of one app, as the migration has changed them so far."""

    app: str
    state: ProjectState

    def field(self, model: str, name: str) -> Field[Any, Any] | None:
        found = self.state.models.get((self.app, model))
        return found.fields.get(name) if found else None

    def constraint(self, model: str, name: str) -> object:
        found = self.state.models.get((self.app, model))
        named = {one.name: one for one in found.options.get("constraints", [])} if found else {}
        return named.get(name)


def _of_the_database(made: Sequence[Operation]) -> Iterator[Operation]:
    for one in made:
        if isinstance(one, operations.SeparateDatabaseAndState):
            yield from _of_the_database(one.database_operations)
        else:
            yield one


def _table(one: Operation) -> str:
    return str(getattr(one, "model_name", None) or getattr(one, "name", "")).lower()


def _reasons(one: Operation, migration: Migration, at: _Models) -> Iterator[str]:
    match one:
        case operations.AlterField():
            yield from _altered(one, at.field(_table(one), one.name), _table(one) in GROWING)
        case operations.AddField():
            yield from _added(one.field, _table(one) in GROWING)
        case operations.RunSQL():
            yield from _statements(one)
        case operations.RunPython():
            if (migration.atomic or one.atomic) and one.code != one.noop:
                yield "one transaction holds every row it touches; atomic = False, and batches"
        case postgres.ValidateConstraint():
            if migration.atomic and len(migration.operations) > 1:
                yield "reads the table under the locks of the rest; a migration of its own"
        case _ if isinstance(one, _TAKEN_AWAY):
            yield _GONE
        case _ if not isinstance(one, _UNNOTICED):
            yield from _indexed(one, at)


def _indexed(one: Operation, at: _Models) -> Iterator[str]:
    match one:
        case operations.RemoveConstraint():
            if isinstance(at.constraint(_table(one), one.name), UniqueConstraint):
                yield "the older code may count on it (ON CONFLICT); take it away one release later"
        case operations.AddIndex():
            if _table(one) in GROWING:
                yield _INDEX
        case operations.AddConstraint():
            if _table(one) in GROWING:
                is_check = isinstance(one.constraint, CheckConstraint)
                how = "AddConstraintNotValid" if is_check else "a unique index made concurrently"
                yield f"the table is read under a lock; use {how}"
        case operations.AlterUniqueTogether() | operations.AlterIndexTogether():
            if _table(one) in GROWING:
                yield f"{_INDEX}; for a unique one RunSQL"
        case _:
            yield "nobody taught tests/locking.py what it locks; do so, or take another operation"


def _added(field: Field[Any, Any], large: bool) -> Iterator[str]:
    if field.many_to_many:
        return
    default = field.db_default
    if isinstance(field, GeneratedField):
        if large:
            yield "every row is written anew under a lock; fill a plain column in batches"
    elif not field.null and default is NOT_PROVIDED:
        yield "the older code cannot insert; give it a db_default or null=True"
    elif large and isinstance(default, Func) and not isinstance(default, Now):
        yield "a default that differs by row writes every row anew; null=True, and batches"
    if large and _has_index(field):
        yield _INDEX + " and db_index=False"


def _altered(one: operations.AlterField, old: Field[Any, Any] | None, large: bool) -> Iterator[str]:
    new = one.field
    if old is None or old.many_to_many or new.many_to_many:
        yield "nobody can say what it was; a reviewer must"
        return
    if (old.db_column or "") != (new.db_column or ""):
        yield _GONE
    if not _fits(old, new):
        yield "another type, written anew under a lock; fill a column of its own beside it"
    if old.null and not new.null:
        yield "the older code may leave it empty; a NOT VALID check first, this one release later"
    if old.db_default is not NOT_PROVIDED and new.db_default is NOT_PROVIDED and not new.null:
        yield "the older code leaves it to the database's default; drop that one release later"
    if large and _has_index(new) and not _has_index(old):
        yield _INDEX
    if large and _points_at(new) and _points_at(new) != _points_at(old):
        yield "the table is read under a lock; a foreign key NOT VALID, then VALIDATE"


def _fits(old: Field[Any, Any], new: Field[Any, Any]) -> bool:
    """Whether PostgreSQL changes only its catalogue, and what the older code writes still fits."""
    kinds = old.get_internal_type(), new.get_internal_type()
    if kinds == ("CharField", "TextField"):
        return True
    if kinds[0] != kinds[1] or isinstance(new, GeneratedField):
        return False
    if kinds[0] == "DecimalField":
        digits = (getattr(old, "max_digits", 0), getattr(new, "max_digits", 0))
        same_scale = getattr(old, "decimal_places", 0) == getattr(new, "decimal_places", 0)
        return same_scale and digits[0] <= digits[1]
    return new.max_length is None or (old.max_length or 0) <= new.max_length


def _has_index(field: Field[Any, Any]) -> bool:
    return bool(getattr(field, "db_index", False) or field.unique or field.primary_key)


def _points_at(field: Field[Any, Any]) -> str:
    """The table a foreign key of the database points at, by the model's name."""
    if not (field.is_relation and getattr(field, "db_constraint", False)):
        return ""
    return str(field.deconstruct()[3]["to"]).lower()


def _statements(one: operations.RunSQL) -> Iterator[str]:
    given = one.sql if isinstance(one.sql, list | tuple) else [one.sql]
    for part in given:
        text = part[0] if isinstance(part, tuple) else part
        for statement in sqlparse.split(sqlparse.format(str(text), strip_comments=True)):
            for pattern, why in _STATEMENTS.items():
                if re.match(pattern, statement, re.IGNORECASE | re.DOTALL):
                    yield f"{' '.join(statement.split()[:4])} …: {why}"
