"""Querysets whose SQL is made once, by Django and by PostgreSQL.

Django writes the SQL of a queryset anew each time, and PostgreSQL plans it anew; on the way of an order
that cost several times what the answers do (docs/adr/0024). A prepared queryset is an ordinary one with
places left open; calling it fills them in. For questions that are asked for every order: elsewhere a
plain queryset reads better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, NotSupportedError, OperationalError, connections
from django.db.models import Field, ForeignObject, Lookup, QuerySet, Value
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.db.transaction import TransactionManagementError

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class _Place:
    name: str


_Statement = tuple[str, tuple[_Place, ...]]


def given(name: str) -> Value:
    """A place in a prepared queryset, filled in by the argument of this name."""
    return Value(_Place(name))


@Field.register_lookup
@ForeignObject.register_lookup
class EqualsAny(Lookup):
    """``pk__any=given("ids")``: what ``in`` is for a list whose length is not known yet."""

    lookup_name = "any"

    def get_prep_lookup(self) -> Any:
        return self.rhs

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, before = self.process_lhs(compiler, connection)
        values, after = self.process_rhs(compiler, connection)
        return f"{column} = ANY({values})", (*before, *after)


class Prepared(Generic[_Row]):
    """``Prepared(lambda: Order.objects.filter(pk=given("order")))(order=pk)`` is a list of its rows.

    A call raises TypeError for a place without a value or a value without a place, and ValueError for
    None, which SQL never finds: ``isnull`` belongs into the queryset. Raises DatabaseError.
    """

    queryset: Callable[[], QuerySet[Any, _Row]]
    """The plain one, with its places: a part of others."""

    def __init__(self, build: Callable[[], QuerySet[Any, _Row]]) -> None:
        self.queryset = build

    def __call__(self, **values: object) -> list[_Row]:
        queryset, compiler = self._made
        answered = compiler.answered(values)
        if not answered.rows:
            return []
        query = _with(queryset.query, made=answered)
        rows: Any = queryset._iterable_class(_with(queryset, _query=query))
        return list(rows)

    def first(self, **values: object) -> _Row | None:
        """The first row, or None; the queryset itself should ask for no more than it needs."""
        return next(iter(self(**values)), None)

    def compile(self) -> None:
        """Make the SQL now, before the first call. Raises DatabaseError."""
        _ = self._made

    @cached_property
    def _made(self) -> tuple[QuerySet[Any, _Row], _Compiled]:
        queryset = self.queryset()
        connection = connections[DEFAULT_DB_ALIAS]
        compiler = _Compiled(queryset.query, connection, DEFAULT_DB_ALIAS)
        made = queryset.query.get_compiler(DEFAULT_DB_ALIAS)
        compiler.statement = _with_constants(*made.as_sql())
        vars(compiler).update(vars(made))
        columns = [column for column, _, _ in made.select[: made.col_count]]
        compiler.converters = made.get_converters(columns)
        compiler.is_composite = made.has_composite_fields(columns)
        rows = queryset._iterable_class
        queryset.query = queryset.query.chain(klass=_Prepared)
        # Given a query, Django forgets how a ``values_list`` gives its rows.
        queryset._iterable_class = rows
        return queryset, compiler


class _Prepared(Query):
    """A query that is compiled already."""

    made: _Compiled

    def get_compiler(self, *_: object, **__: object) -> _Compiled:
        return self.made


class _Compiled(SQLCompiler):
    """A compiler that has done its work, and what it came to."""

    statement: _Statement
    converters: dict[int, Any]
    is_composite: bool
    rows: list[tuple[Any, ...]]

    def answered(self, values: dict[str, object]) -> _Compiled:
        """A copy for one call, asked on the connection of this thread."""
        connection = connections[DEFAULT_DB_ALIAS]
        if self.query.select_for_update and connection.get_autocommit():
            raise TransactionManagementError("select_for_update needs a transaction")
        sql, places = self.statement
        if unknown := values.keys() - {place.name for place in places}:
            raise TypeError(f"the queryset has no place for {', '.join(sorted(unknown))}")
        params = [_value(place, values) for place in places]
        with planned_once(connection) as cursor:
            cursor.execute(sql, params)
            rows = cursor.fetchall()
        copied: _Compiled = _with(self, connection=connection, rows=rows)
        return copied

    def get_converters(self, expressions: Iterable[Any]) -> dict[int, Any]:
        return self.converters

    def has_composite_fields(self, expressions: Iterable[Any]) -> bool:
        return self.is_composite

    def execute_sql(self, *_: Any, **__: Any) -> Any:
        return [self.rows]


def _with(one: Any, **attributes: object) -> Any:
    """A shallow copy of ``one`` with other ``attributes``; Django's own copies go much deeper."""
    copied = object.__new__(type(one))
    vars(copied).update(vars(one), **attributes)
    return copied


@contextmanager
def planned_once(connection: Any) -> Iterator[Any]:
    """A cursor that lets PostgreSQL keep the plan of what it executes often."""
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    try:
        with connection._prepare_cursor(psycopg.Cursor(connection.connection)) as cursor:
            yield cursor
    except NotSupportedError as error:
        # A migration has changed a column of a statement this connection knows the old plan of.
        connection.close_at = time.monotonic()
        raise OperationalError("a table has changed: ask again on a new connection") from error


def _with_constants(sql: str, params: Sequence[object]) -> _Statement:
    """The constants written into the statement, for PostgreSQL to see which partial index serves it."""
    connection = connections[DEFAULT_DB_ALIAS]
    connection.ensure_connection()
    cursor = psycopg.ClientCursor(connection.connection)
    texts = [
        "%s" if isinstance(one, _Place) else cursor.mogrify("%s", [one]).replace("%", "%%")
        for one in params
    ]
    parts = zip(sql.split("%s"), [*texts, ""], strict=True)
    return "".join(map("".join, parts)), tuple(one for one in params if isinstance(one, _Place))


def _value(place: _Place, values: dict[str, object]) -> object:
    if place.name not in values:
        raise TypeError(f"the queryset needs a value for {place.name}")
    if values[place.name] is None:
        raise ValueError(f"{place.name} is None")
    return values[place.name]
