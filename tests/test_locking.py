"""The linter of migrations, on migrations made here."""

from __future__ import annotations

import pytest
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.db import models
from django.db.migrations import Migration, operations

from tests.locking import complaints

INDEX = models.Index(fields=["symbol"], name="by_symbol")
CHECK = models.CheckConstraint(condition=models.Q(quantity__gt=0), name="positive")
ONCE = models.UniqueConstraint(fields=["symbol"], name="once")


def said(*made: operations.Operation, first: bool = False) -> list[str]:
    migration = Migration("0099_made_here", "execution")
    migration.initial = first
    migration.dependencies = [("execution", "0001_initial")]
    migration.operations = list(made)
    return complaints(migration)


@pytest.mark.parametrize(
    "operation",
    [
        operations.AddField("order", "note", models.TextField(null=True)),
        operations.AddField("order", "note", models.TextField(db_default="")),
        AddIndexConcurrently("order", INDEX),
        AddConstraintNotValid("order", CHECK),
        operations.AddIndex("strategy", INDEX),
        operations.AddConstraint("strategy", ONCE),
        operations.AlterField("order", "state", models.CharField(max_length=30)),
        operations.CreateModel("Thing", [("id", models.AutoField(primary_key=True))]),
    ],
    ids=repr,
)
def test_what_the_older_code_does_not_notice(operation: operations.Operation) -> None:
    assert said(operation) == []


@pytest.mark.parametrize(
    ("operation", "advice"),
    [
        (operations.AddField("order", "note", models.TextField(default="")), "db_default"),
        (operations.RemoveField("strategy", "note"), "one release later"),
        (operations.RenameField("strategy", "note", "remark"), "one release later"),
        (operations.DeleteModel("Strategy"), "one release later"),
        (operations.RenameModel("Strategy", "Plan"), "one release later"),
        (operations.AddIndex("Order", INDEX), "AddIndexConcurrently"),
        (operations.AddConstraint("fill", CHECK), "AddConstraintNotValid"),
        (operations.AddConstraint("fill", ONCE), "a unique index made concurrently"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_stops_it_is_named(operation: operations.Operation, advice: str) -> None:
    [sentence] = said(operation)

    assert advice in sentence


def test_what_a_migration_makes_itself_it_may_fill_as_it_likes() -> None:
    new = operations.CreateModel("Thing", [("id", models.AutoField(primary_key=True))])

    assert said(new, operations.AddField("thing", "note", models.TextField())) == []


def test_an_initial_migration_finds_nobody() -> None:
    assert said(operations.AddField("order", "note", models.TextField()), first=True) == []
