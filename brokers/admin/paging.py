"""Long lists, newest first, in pages by key: one page costs as much as another, nothing is counted.

What is asked for may be rare in a long table and have no index. Such a question is given
``PATIENCE``; then only the next ``WINDOW`` rows are looked through, the page says so, and its link
goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.db import OperationalError, connection, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from psycopg.errors import QueryCanceled
from unfold.paginator import InfinitePaginator

PATIENCE = 200
"""Milliseconds a filtered page may take in the database before only a window is looked through."""
WINDOW = 50_000
_PLACE = re.compile(r"(before|after):(.{1,64})")


class KeyPaginator(InfinitePaginator):  # type: ignore[misc]
    """Only names the links under the list: ``NewestFirst`` finds the rows itself."""

    template_name = "fks/pages.html"


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Rows, newest first, and the places beside them; a place is ``before:KEY`` or ``after:KEY``.

    ``looked_through`` is how many rows were examined when that was not all there are.
    """

    rows: list[Any]
    newer: str | None = None
    older: str | None = None
    looked_through: int | None = None


def key_page(
    rows: QuerySet[Any], place: tuple[str, Any] | None, size: int, *, patience: int | None = None
) -> KeyPage:
    """``size`` of ``rows`` from ``place`` on; within ``patience`` milliseconds if it is given."""
    toward, key = place or ("before", None)
    if toward == "after":
        page = _newer(rows, key, size, patience)
        return key_page(rows, None, size, patience=patience) if page is None else page
    wanted = rows.filter(pk__lt=key) if place else rows
    found, edge = _found(wanted, rows.model, place, size, patience)
    shown = found[:size]
    newer = None
    if place:
        newer = f"after:{shown[0].pk}" if shown else f"after:{key}"
    older = f"before:{shown[-1].pk}" if len(found) > size else None
    if older is None and edge is not None:
        return KeyPage(shown, newer, f"before:{edge}", WINDOW)
    return KeyPage(shown, newer, older)


def _newer(rows: QuerySet[Any], key: Any, size: int, patience: int | None) -> KeyPage | None:
    """The page before ``key``; ``None`` when that is the newest one."""
    wanted = rows.filter(pk__gt=key).order_by("pk")
    found, edge = _found(wanted, rows.model, ("after", key), size, patience)
    shown = found[:size][::-1]
    older = f"before:{shown[-1].pk}" if shown else f"before:{key}"
    if len(found) > size:
        return KeyPage(shown, f"after:{shown[0].pk}", older)
    return None if edge is None else KeyPage(shown, f"after:{edge}", older, WINDOW)


def _found(
    wanted: QuerySet[Any],
    model: type[Model],
    place: tuple[str, Any] | None,
    size: int,
    patience: int | None,
) -> tuple[list[Any], Any]:
    """One row more than ``size`` if there are, and the key at which the search was broken off."""
    if patience is None:
        return list(wanted[: size + 1]), None
    try:
        with _within(patience):
            return list(wanted[: size + 1]), None
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
    toward, key = place or ("before", None)
    every = model._default_manager.order_by("pk" if toward == "after" else "-pk")
    if place:
        every = every.filter(**{"pk__gt" if toward == "after" else "pk__lt": key})
    edge = every.values_list("pk", flat=True)[WINDOW - 1 : WINDOW].first()
    if edge is not None:
        wanted = wanted.filter(**{"pk__lte" if toward == "after" else "pk__gte": edge})
    return list(wanted[: size + 1]), edge


@contextmanager
def _within(milliseconds: int) -> Iterator[None]:
    """What is asked inside is given up after that time, with ``QueryCanceled``.

    It is planned for a disk without a head to move: else PostgreSQL walks the primary key through what
    came since, where the rows of an account or strategy that ended long ago have an index.
    """
    settings = {"statement_timeout": str(milliseconds), "random_page_cost": "1.1"}
    with transaction.atomic(), connection.cursor() as cursor:
        for name, value in settings.items():
            cursor.execute("SELECT set_config(%s, %s, true)", [name, value])
        yield
        cursor.execute("SET LOCAL statement_timeout TO DEFAULT")
        cursor.execute("SET LOCAL random_page_cost TO DEFAULT")


def about(model: type[Model]) -> int | None:
    """How many rows PostgreSQL thinks the table has; ``None`` when it has not looked yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
            [connection.ops.quote_name(model._meta.db_table)],
        )
        rows = cast(int, cursor.fetchone()[0])
    return rows if rows > 0 else None


class NewestFirst(ChangeList):
    """The list of a table that only grows. Its page parameter is a place: ``?p=before:KEY``."""

    looked_through: int | None
    newer: str | None
    older: str | None

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        large: tuple[str, ...] = cast(Any, self.model_admin).list_defer
        return rows.defer(*large)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        is_narrowed = bool(self.query or self.get_filters_params())
        page = key_page(
            self.queryset,
            self._place(request.GET.get(PAGE_VAR, "")),
            self.list_per_page,
            patience=PATIENCE if is_narrowed else None,
        )
        self.result_list = page.rows
        self.result_count = self.full_result_count = len(page.rows)  # what is shown, no total
        self.looked_through = page.looked_through
        self.newer, self.older = self._link(page.newer), self._link(page.older)
        self.total = self._total(is_narrowed)
        self.show_full_result_count = False
        self.show_admin_actions = False
        self.can_show_all = self.multi_page = False
        self.paginator = KeyPaginator(page.rows, self.list_per_page)

    @property
    def first(self) -> str:
        """The address of the newest page."""
        return self.get_query_string()

    def _link(self, place: str | None) -> str | None:
        return None if place is None else self.get_query_string({PAGE_VAR: place})

    def _place(self, text: str) -> tuple[str, Any] | None:
        """Where the page begins; what was never a place of ours is the first page."""
        match = _PLACE.fullmatch(text)
        if match is None:
            return None
        key = self.lookup_opts.pk
        assert key is not None  # noqa: S101  (for the type checker)
        try:
            return match[1], key.to_python(match[2])
        except ValidationError as error:
            raise IncorrectLookupParameters from error

    def _total(self, is_narrowed: bool) -> str:
        """How many there are, as far as that is known without counting them."""
        count = len(self.result_list)
        if self.newer is None and self.older is None:
            one, many = self.opts.verbose_name, self.opts.verbose_name_plural
            return f"{count} {one if count == 1 else many}"
        estimate = None if is_narrowed else about(self.model)
        if estimate is None or estimate <= count:
            return f"more than {count}"
        return f"about {_round(estimate):,}"


def _round(number: int) -> int:
    """To two digits."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return (number + unit // 2) // unit * unit
