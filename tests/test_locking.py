"""The linter of migrations, on migrations made here."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.postgres import operations as postgres
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.migrations import Migration, operations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from django.db.models.functions import Now

from tests.locking import complaints

NOT_EMPTY = models.Q(quantity__gt=0)
INDEX = models.Index(fields=["symbol"], name="by_symbol")
CHECK = models.CheckConstraint(condition=NOT_EMPTY, name="positive")
ONCE = models.UniqueConstraint(fields=["symbol"], name="once")
KEPT = models.UniqueConstraint(fields=["note"], name="kept")
GROWN = models.CheckConstraint(condition=NOT_EMPTY, name="grown")


def before() -> ProjectState:
    """An order and a strategy with one field of each kind that a migration may change."""
    state = ProjectState()
    for name in ("Order", "Strategy"):
        fields: list[tuple[str, models.Field[Any, Any]]] = [
            ("id", models.BigAutoField(primary_key=True)),
            ("symbol", models.CharField(max_length=20)),
            ("note", models.TextField(null=True)),
            ("mark", models.TextField(db_default="")),
            ("quantity", models.DecimalField(max_digits=20, decimal_places=8)),
            ("owner", models.ForeignKey("auth.User", models.PROTECT, db_constraint=False)),
        ]
        options = {"constraints": [KEPT, GROWN]}
        state.add_model(ModelState("execution", name, fields, options))
    return state


def named(value: object) -> str:
    """The same in every process: no address of a function."""
    return re.sub(r" at 0x\w+", "", repr(value))


def said(*made: Operation, first: bool = False, atomic: bool = True) -> list[str]:
    migration = Migration("0099_made_here", "execution")
    migration.initial = first
    migration.atomic = atomic
    migration.dependencies = [("execution", "0001_initial")]
    migration.operations = list(made)
    return complaints(migration, before())


def fill_in(apps: object, editor: object) -> None:
    """What a data migration would do."""


@pytest.mark.parametrize(
    "operation",
    [
        operations.AddField("order", "remark", models.TextField(null=True)),
        operations.AddField("order", "remark", models.TextField(db_default="")),
        operations.AddField("order", "seen_at", models.DateTimeField(db_default=Now())),
        postgres.AddIndexConcurrently("order", INDEX),
        postgres.AddConstraintNotValid("order", CHECK),
        postgres.ValidateConstraint("order", "positive"),
        operations.AddIndex("strategy", INDEX),
        operations.AddConstraint("strategy", ONCE),
        operations.RemoveConstraint("order", "grown"),
        operations.AlterField("order", "symbol", models.CharField(max_length=30)),
        operations.AlterField("order", "symbol", models.TextField()),
        operations.AlterField(
            "order", "symbol", models.CharField(max_length=20, choices=[("a", "b")], help_text="c")
        ),
        operations.AlterField("order", "mark", models.TextField(null=True)),
        operations.AlterField(
            "order", "quantity", models.DecimalField(max_digits=30, decimal_places=8)
        ),
        operations.AlterField("strategy", "symbol", models.CharField(max_length=20, unique=True)),
        operations.CreateModel("Thing", [("id", models.AutoField(primary_key=True))]),
        operations.RunSQL("CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN UPDATE x; END $$"),
        operations.RunSQL("-- UPDATE x\nCREATE UNIQUE INDEX CONCURRENTLY i ON execution_order (a)"),
        operations.RunSQL("ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX i"),
        operations.RunSQL("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID"),
        operations.RunPython(operations.RunPython.noop),
    ],
    ids=named,
)
def test_what_the_older_code_does_not_notice(operation: Operation) -> None:
    assert said(operation) == []


def altered(model: str, name: str, field: models.Field[Any, Any]) -> Operation:
    return operations.AlterField(model, name, field)


@pytest.mark.parametrize(
    ("operation", "advice"),
    [
        (operations.AddField("order", "remark", models.TextField(default="")), "db_default"),
        (
            operations.AddField("order", "remark", models.TextField(null=True, db_index=True)),
            "AddIndexConcurrently",
        ),
        (
            operations.AddField("order", "key", models.UUIDField(db_default=RandomUUID())),
            "differs by row",
        ),
        (operations.RemoveField("strategy", "note"), "one release later"),
        (operations.RenameField("strategy", "note", "remark"), "one release later"),
        (operations.DeleteModel("Strategy"), "one release later"),
        (operations.RenameModel("Strategy", "Plan"), "one release later"),
        (operations.AlterModelTable("strategy", "plans"), "one release later"),
        (operations.AddIndex("Order", INDEX), "AddIndexConcurrently"),
        (operations.AddConstraint("order", CHECK), "AddConstraintNotValid"),
        (operations.AddConstraint("order", ONCE), "a unique index made concurrently"),
        (operations.RemoveConstraint("strategy", "kept"), "ON CONFLICT"),
        (operations.AlterUniqueTogether("order", [("symbol", "note")]), "AddIndexConcurrently"),
        (altered("strategy", "symbol", models.CharField(max_length=10)), "another type"),
        (altered("strategy", "symbol", models.IntegerField()), "another type"),
        (
            altered("strategy", "quantity", models.DecimalField(max_digits=30, decimal_places=9)),
            "another type",
        ),
        (altered("strategy", "note", models.TextField()), "leave it empty"),
        (altered("strategy", "mark", models.TextField()), "the database's default"),
        (
            altered("strategy", "symbol", models.CharField(max_length=20, db_column="ticker")),
            "one release later",
        ),
        (
            altered("order", "symbol", models.CharField(max_length=20, db_index=True)),
            "AddIndexConcurrently",
        ),
        (altered("order", "owner", models.ForeignKey("auth.User", models.PROTECT)), "NOT VALID"),
        (operations.AlterOrderWithRespectTo("order", "owner"), "nobody taught"),
        (operations.RunPython(fill_in), "batches"),
        (operations.RunSQL("CREATE INDEX i ON execution_order (a)"), "CONCURRENTLY"),
        (operations.RunSQL("ALTER TABLE t\n ADD CONSTRAINT c CHECK (a > 0)"), "NOT VALID"),
        (operations.RunSQL("alter table t alter column a type bigint"), "written anew"),
        (operations.RunSQL("ALTER TABLE t ALTER a SET NOT NULL"), "leave it empty"),
        (operations.RunSQL(["SELECT 1", ("UPDATE t SET a = %s", [1])]), "batches"),
        (operations.RunSQL("SELECT 1; LOCK TABLE t;"), "others wait"),
        (operations.RunSQL("ALTER TABLE t DROP COLUMN a"), "one release later"),
    ],
    ids=named,
)
def test_what_stops_it_is_named(operation: Operation, advice: str) -> None:
    [sentence] = said(operation)

    assert advice in sentence


def test_what_is_done_behind_the_models_is_looked_at_too() -> None:
    inner = operations.RunSQL("DROP TABLE t")
    hidden = operations.SeparateDatabaseAndState(database_operations=[inner])
    shown = operations.SeparateDatabaseAndState(
        state_operations=[operations.RemoveField("order", "note")]
    )

    assert len(said(hidden)) == 1
    assert said(shown) == []


def test_a_table_is_not_read_under_the_locks_of_the_rest() -> None:
    add, prove = (
        postgres.AddConstraintNotValid("order", CHECK),
        postgres.ValidateConstraint("order", "positive"),
    )

    [sentence] = said(add, prove)
    assert "a migration of its own" in sentence
    assert said(prove, atomic=False) == []
    assert said(operations.RunPython(fill_in), atomic=False) == []


def test_what_is_given_up_half_way_can_be_done_again() -> None:
    [sentence] = said(operations.AddField("order", "a", models.TextField(null=True)), atomic=False)

    assert "half done" in sentence
    index = postgres.AddIndexConcurrently("order", INDEX)
    assert said(index, atomic=False) == []
    [sentence] = said(index, operations.RunPython(fill_in), atomic=False)
    assert "a migration of its own" in sentence


def test_a_change_is_compared_with_the_one_before_it() -> None:
    longer = altered("order", "symbol", models.CharField(max_length=40))
    back = altered("order", "symbol", models.CharField(max_length=20))

    [sentence] = said(longer, back)
    assert "another type" in sentence


def test_what_a_migration_makes_itself_it_may_fill_as_it_likes() -> None:
    new = operations.CreateModel("Thing", [("id", models.AutoField(primary_key=True))])

    assert said(new, operations.AddField("thing", "note", models.TextField())) == []


def test_an_initial_migration_finds_nobody() -> None:
    assert said(operations.AddField("order", "remark", models.TextField()), first=True) == []
