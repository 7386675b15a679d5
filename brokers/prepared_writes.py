"""Rows written by statements that are made once, as ``prepared`` reads them.

Django writes the SQL of each ``save`` and ``update`` anew, and PostgreSQL plans it anew. Here it is
made once for a model and the columns written. A change and the line that tells of it are one statement:
there is no moment between them, and one answer to wait for. For what is written for every order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Field, Model
from django.db.transaction import mark_for_rollback_on_error

from brokers.prepared import planned_once

_NOT_IN = "__not_in"


def insert(row: Model, *, along: Model | None = None) -> None:
    """As ``row.save(force_insert=True)``; with ``along``, one further row in the same statement.

    No column fills itself in: one with ``auto_now`` needs a value.
    """
    keeps_id = row.pk is not None
    sql, params = _insertion(type(row), keeps_id), _values(row, _inserted(type(row), keeps_id))
    if along is not None:
        after = _inserted(type(along), along.pk is not None)
        sql = f"WITH first AS ({sql}) {_insertion(type(along), along.pk is not None)}"
        params += _values(along, after)
    elif not keeps_id:
        sql += f' RETURNING "{row._meta.pk.column}"'
    _, found = _execute(sql, params, reads=along is None and not keeps_id)
    if found:
        row.pk = found[0]
    row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS


def change(
    model: type[Model],
    where: Mapping[str, object],
    changes: Mapping[str, object],
    *,
    along: Model | None = None,
) -> bool:
    """Whether a row of ``model`` was as ``where`` says (``state__not_in`` takes a list), and has the
    ``changes`` now; only then ``along`` is inserted, in the same statement.
    """
    sql = _update(model, tuple(changes), tuple(where))
    connection = connections[DEFAULT_DB_ALIAS]
    params = [
        _field(model, name).get_db_prep_save(value, connection) for name, value in changes.items()
    ]
    params += [_asked(model, name, value, connection) for name, value in where.items()]
    if along is not None:
        columns = _inserted(type(along), along.pk is not None)
        sql = f"WITH changed AS ({sql} RETURNING 1) {_copied(type(along), along.pk is not None)}"
        params += _values(along, columns)
    count, _ = _execute(sql, params)
    return count > 0


def _execute(
    sql: str, params: Sequence[object], *, reads: bool = False
) -> tuple[int, tuple[Any, ...] | None]:
    with (
        mark_for_rollback_on_error(DEFAULT_DB_ALIAS),
        planned_once(connections[DEFAULT_DB_ALIAS]) as cursor,
    ):
        cursor.execute(sql, params)
        return cursor.rowcount, cursor.fetchone() if reads else None


@cache
def _inserted(model: type[Model], keeps_id: bool) -> tuple[Field[Any, Any], ...]:
    fields = model._meta.local_concrete_fields
    return tuple(field for field in fields if keeps_id or not field.primary_key)


@cache
def _insertion(model: type[Model], keeps_id: bool) -> str:
    columns = _inserted(model, keeps_id)
    return f"{_into(model, keeps_id)} VALUES ({', '.join(['%s'] * len(columns))})"


@cache
def _copied(model: type[Model], keeps_id: bool) -> str:
    columns = _inserted(model, keeps_id)
    places = ", ".join(["%s"] * len(columns))
    return f"{_into(model, keeps_id)} SELECT {places} FROM changed"  # noqa: S608  (names of columns)


def _into(model: type[Model], keeps_id: bool) -> str:
    names = ", ".join(f'"{field.column}"' for field in _inserted(model, keeps_id))
    return f'INSERT INTO "{model._meta.db_table}" ({names})'


@cache
def _update(model: type[Model], names: tuple[str, ...], where: tuple[str, ...]) -> str:
    changed = ", ".join(f'"{_field(model, name).column}" = %s' for name in names)
    asked = " AND ".join(
        f'"{_field(model, name.removesuffix(_NOT_IN)).column}" '
        + ("<> ALL(%s)" if name.endswith(_NOT_IN) else "= %s")
        for name in where
    )
    return f'UPDATE "{model._meta.db_table}" SET {changed} WHERE {asked}'  # noqa: S608  (names of columns)


def _field(model: type[Model], name: str) -> Any:
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def _values(row: Model, fields: Sequence[Field[Any, Any]]) -> list[object]:
    connection = connections[DEFAULT_DB_ALIAS]
    return [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]


def _asked(model: type[Model], name: str, value: Any, connection: Any) -> object:
    field = _field(model, name.removesuffix(_NOT_IN))
    if name.endswith(_NOT_IN):
        return [field.get_db_prep_save(one, connection) for one in value]
    return field.get_db_prep_save(value, connection)
