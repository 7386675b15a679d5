"""Querysets whose SQL is made once.

Django writes the SQL of a queryset anew each time, and on the way of an order that costs several times
what the database's answer does (docs/performance.md). A prepared queryset is an ordinary one with
places left open; calling it fills them in. For questions that are asked for every order: elsewhere a
plain queryset reads better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Field, ForeignObject, Lookup, QuerySet, Value
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.db.transaction import TransactionManagementError

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class _Place:
    name: str


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
    None, which SQL never finds: ``isnull`` belongs into the queryset.
    """

    queryset: Callable[[], QuerySet[Any, _Row]]
    """The plain one, with its places: a part of others."""

    def __init__(self, build: Callable[[], QuerySet[Any, _Row]]) -> None:
        self.queryset = build

    def __call__(self, **values: object) -> list[_Row]:
        queryset, compiler = self._made
        statement = compiler.filled_in(values)
        rows = queryset.all()
        cast(_Prepared, rows.query).made = statement
        return list(rows)

    def first(self, **values: object) -> _Row | None:
        """The first row, or None; the queryset itself should ask for no more than it needs."""
        return next(iter(self(**values)), None)

    @cached_property
    def _made(self) -> tuple[QuerySet[Any, _Row], _Compiled]:
        queryset = self.queryset()
        compiler = _Compiled(queryset.query, connections[DEFAULT_DB_ALIAS], DEFAULT_DB_ALIAS)
        made = queryset.query.get_compiler(DEFAULT_DB_ALIAS)
        compiler.statement = made.as_sql()
        vars(compiler).update(vars(made))
        columns = (column for column, _, _ in made.select[: made.col_count])
        compiler.converters = made.get_converters(columns)
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

    statement: tuple[str, tuple[Any, ...]]
    converters: dict[int, Any]

    def as_sql(self, *_: object, **__: object) -> tuple[str, tuple[Any, ...]]:
        return self.statement

    def get_converters(self, expressions: Iterable[Any]) -> dict[int, Any]:
        return self.converters

    def filled_in(self, values: dict[str, object]) -> _Compiled:
        """A copy for one call, on the connection of this thread."""
        sql, places = self.statement
        mine = copy(self)
        mine.connection = connections[DEFAULT_DB_ALIAS]
        if self.query.select_for_update and mine.connection.get_autocommit():
            raise TransactionManagementError("select_for_update needs a transaction")
        left = set(values)
        params = [_value(place, values, left) for place in places]
        if left:
            raise TypeError(f"the queryset has no place for {', '.join(sorted(left))}")
        mine.statement = sql, tuple(params)
        return mine


def _value(place: object, values: dict[str, object], left: set[str]) -> object:
    if not isinstance(place, _Place):
        return place
    if place.name not in values:
        raise TypeError(f"the queryset needs a value for {place.name}")
    if values[place.name] is None:
        raise ValueError(f"{place.name} is None")
    left.discard(place.name)
    return values[place.name]
