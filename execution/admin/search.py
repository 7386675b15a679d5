"""Finding rows by id, symbol and age without reading whole tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from execution.ids import first_id_at

_AGES = {"1": "last hour", "24": "last 24 hours", "168": "last 7 days"}


def by_id(term: str, **columns: str) -> Q:
    """Rows whose columns equal ``term``, or whose symbol begins with it as typed or in capitals.

    ``columns`` maps a column to ``uuid``, ``exact`` or ``symbol``. What is a UUID is no symbol: with
    every column indexed, no search reads a whole table.
    """
    identity = uuid_of(term)
    found = Q(pk__in=())
    for column, kind in columns.items():
        if kind == "exact":
            found |= Q(**{column: term})
        elif kind == "uuid" and identity is not None:
            found |= Q(**{column: identity})
        elif kind == "symbol" and identity is None:
            found |= Q(**{f"{column}__startswith": term})
            found |= Q(**{f"{column}__startswith": term.upper()})
    return found


def uuid_of(term: str) -> UUID | None:
    """``term`` as a UUID, ``None`` when it is none."""
    try:
        return UUID(term)
    except ValueError:
        return None


class AgeFilter(SimpleListFilter):
    """Rows of the last hours, by the time inside their id."""

    title = "age"
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(_AGES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value not in _AGES:
            return queryset
        return queryset.filter(pk__gte=first_id_at(timezone.now() - timedelta(hours=int(value))))
