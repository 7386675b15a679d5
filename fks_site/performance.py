"""The page that says what trading brought, how well it was carried out, and gives the trades as CSV."""

from __future__ import annotations

import csv
import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import (
    Case,
    Exists,
    F,
    OuterRef,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.fields import MoneyField
from execution import fee_values, performance
from execution.fee_values import Fee
from execution.models import SIGNED, Fill, FundingPayment, Position
from execution.performance import Figures, Lane, Traded, Trip
from fks_site import carried_out, charts, equity_curves, holdings, open_results, taken_over
from fks_site.taken_over import TakenOver
from fks_site.trade_filter import PERIODS, TradeFilter

PERMISSIONS = ("execution.view_fill", "execution.view_order")
SEVERAL = "several, or by hand"
"""Whose fills held a position that funding was paid for, where no one strategy did."""
MOST_FILLS = 20_000
"""Of the period, the latest; the page says when there were more."""
COUNTED = (
    "id", "symbol", "side", "quantity", "price", "fee", "fee_currency", "fee_value",
    "realised_pnl", "at", "account__name", "order__strategy__slug", "account__environment",
    "recorded_at",
)  # fmt: skip
"""The columns a report reads, in the order of ``Booked``."""
PLACES = ("account__name", "strategy__slug", "symbol", "account__environment", "currency")
"""What funding is added up by, in the order of ``Paid``."""
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "|", "%")
"""How a spreadsheet's formula may begin: the full-width signs count for the plain ones (OWASP)."""
CSV_COLUMNS = (
    "at", "account", "strategy", "symbol", "side", "quantity", "price", "fee", "fee_currency",
    "realised_pnl", "trade_id", "order_id", "broker_order_id", "kind", "fee_value",
)  # fmt: skip

OF_ACCOUNT, OF_SYMBOL, OF_STRATEGY = range(3)
"""Where they stand in a lane: whose part it is of a position."""
Money = tuple[str, str]
"""Environment and currency: what may be added up."""


class Booked(NamedTuple):
    """What a report reads of a fill: thousands of model instances would take longer than the
    arithmetic.
    """

    id: int
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    fee_value: Decimal | None
    realised_pnl: Decimal
    at: datetime
    account: str
    strategy: str | None
    environment: str
    recorded_at: datetime

    @property
    def place(self) -> tuple[str, str]:
        return self.account, self.symbol

    @property
    def lane(self) -> Lane:
        return *self.place, self.strategy or carried_out.BY_HAND


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one account, strategy or symbol."""

    name: str
    figures: Figures
    fees: Decimal
    funding: Decimal
    fills: int
    not_counted: str
    """Fees that could not be valued, in words."""


class Paid(NamedTuple):
    """What was received as funding less what was paid, in one currency."""

    account: str
    strategy: str | None
    symbol: str
    environment: str
    currency: str
    amount: Decimal

    @property
    def lane(self) -> Lane:
        return self.account, self.symbol, self.strategy or SEVERAL

    @property
    def money(self) -> Money:
        return self.environment, self.currency


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one environment that is counted in one currency: paper is never added to money."""

    environment: str
    currency: str
    figures: Figures
    realised: Decimal
    funding: Decimal
    drawdown: Decimal
    line: charts.Line | None
    not_counted: str
    groups: dict[str, list[Row]]

    @property
    def is_loss(self) -> bool:
        return self.realised < 0


def page(request: HttpRequest) -> HttpResponseBase:
    """The report, or with ``?format=csv`` its trades."""
    if not cast(Any, request.user).has_perms(PERMISSIONS):
        raise PermissionDenied
    form = TradeFilter.of(request.GET, request.user)
    if request.GET.get("format") == "csv":
        return _csv(form)
    reports, is_cut = _reports(form)
    now = timezone.now()
    accounts = list(form.accounts())
    worths = equity_curves.worths(accounts, form.since(), now)
    context = {
        **admin.site.each_context(request),
        "title": "Performance",
        "form": form,
        "reports": reports,
        "most": MOST_FILLS if is_cut else None,
        "worths": worths,
        "together": equity_curves.together(worths),
        "are_many": len(worths) > equity_curves.MOST_CURVES,
        "period": PERIODS[form.cleaned_data["days"]],
        "open_results": open_results.of_positions(form, now),
        "holdings": holdings.of_accounts(accounts, now),
        "quality": carried_out.quality(form.orders()),
        "refused": carried_out.refused(form.orders()),
        "query": request.GET.urlencode(),
        "box": (charts.WIDTH, charts.HEIGHT),
    }
    return TemplateResponse(request, "fks/performance.html", context)


def _reports(form: TradeFilter) -> tuple[list[Report], bool]:
    """One report per kind of money, and whether fills were left out."""
    rows = form.fills_beside().order_by("-id").values_list(*COUNTED)
    newest = [Booked(*row) for row in rows[: MOST_FILLS + 1]]
    fills = newest[MOST_FILLS - 1 :: -1]
    paid = _funding(form)
    strategy = form.cleaned_data["strategy"]
    only = strategy.slug if strategy else None
    taken = taken_over.of_places(form, (fill.place for fill in fills)) if fills else []
    held = _held_before(form, fills[0], taken) if fills else {}
    since = [one for one in taken if one.at >= fills[0].recorded_at]
    quotes = fee_values.quotes_of(fill.place for fill in fills)
    booked: defaultdict[Money, list[Booked]] = defaultdict(list)
    for fill in fills:
        booked[fill.environment, quotes[fill.place]].append(fill)
    kinds = sorted({*booked, *(one.money for one in paid)})
    reports = [_report(kind, booked[kind], since, paid, held, only) for kind in kinds]
    return reports, len(newest) > MOST_FILLS


def _funding(form: TradeFilter) -> list[Paid]:
    grouped = form.funding().order_by().values_list(*PLACES)
    return [Paid(*row) for row in grouped.annotate(Sum("amount"))]


def _report(
    money: Money,
    fills: Sequence[Booked],
    taken: Sequence[TakenOver],
    funding: Sequence[Paid],
    held: Mapping[Lane, Decimal],
    only: str | None,
) -> Report:
    """``held`` by lane; ``only`` is the strategy it is of, beside which others may have traded."""
    places = {fill.place for fill in fills}
    moves = _moves(fills, [one for one in taken if (one.account, one.symbol) in places])
    parts = performance.trips_of_parts(moves, held)
    whole = _trips_of_positions(moves, held)
    if only is not None:
        fills = [fill for fill in fills if fill.strategy == only]
        whole = parts = [trip for trip in parts if trip.lane[OF_STRATEGY] == only]
    paid = [one for one in funding if one.money == money]
    points = performance.curve(_traded(fill, fill.lane) for fill in fills)
    return Report(
        *money,
        figures=performance.figures(whole),
        realised=points[-1].total if points else Decimal(0),
        funding=sum((one.amount for one in paid), Decimal(0)),
        drawdown=performance.deepest_drawdown(points),
        line=charts.line(points),
        not_counted=_not_counted(fills),
        groups={
            "Account": _rows(fills, paid, whole, OF_ACCOUNT),
            "Strategy": _rows(fills, paid, parts, OF_STRATEGY),
            "Symbol": _rows(fills, paid, whole, OF_SYMBOL),
        },
    )


def _moves(fills: Sequence[Booked], taken: Sequence[TakenOver]) -> list[Traded]:
    """Whatever changed positions, in the order it did."""
    traded = ((fill.recorded_at, _traded(fill, fill.lane)) for fill in fills)
    beside = ((one.at, Traded(one.lane, one.at, one.quantity, Decimal(0))) for one in taken)
    return [move for _, move in heapq.merge(beside, traded, key=lambda one: one[0])]


def _trips_of_positions(moves: Sequence[Traded], held: Mapping[Lane, Decimal]) -> list[Trip]:
    """The round trips of whole positions, whichever strategies traded them."""
    lanes: defaultdict[Lane, Decimal] = defaultdict(Decimal)
    for (account, symbol, _), quantity in held.items():
        lanes[account, symbol] += quantity
    return performance.trips([replace(one, lane=one.lane[:OF_STRATEGY]) for one in moves], lanes)


def _rows(
    fills: Sequence[Booked], funding: Sequence[Paid], trips: Sequence[Trip], part: int
) -> list[Row]:
    """Best first. ``part`` is what of a lane they are added up by."""
    mine: defaultdict[str, list[Booked]] = defaultdict(list)
    for fill in fills:
        mine[fill.lane[part]].append(fill)
    ended: defaultdict[str, list[Trip]] = defaultdict(list)
    for trip in trips:
        ended[trip.lane[part]].append(trip)
    paid: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in funding:
        paid[one.lane[part]] += one.amount
    rows = []
    for name in {**mine, **paid}:
        figures = performance.figures(ended[name])
        fees = sum((_fee(fill).counted or Decimal(0) for fill in mine[name]), Decimal(0))
        counts = len(mine[name]), _not_counted(mine[name])
        rows.append(Row(name, figures, fees, paid[name], *counts))
    return sorted(rows, key=lambda row: (-row.figures.result, row.name))


def _traded(fill: Booked, lane: Lane) -> Traded:
    quantity = fill.quantity if fill.side == "buy" else -fill.quantity
    if _fee(fill).is_of_the_coins:
        quantity -= fill.fee
    return Traded(lane, fill.at, quantity, fill.realised_pnl)


def _fee(fill: Booked) -> Fee:
    return Fee(fill.symbol, fill.price, fill.fee, fill.fee_currency, fill.fee_value)


def _not_counted(fills: Sequence[Booked]) -> str:
    return fee_values.in_words(fee_values.not_counted(map(_fee, fills)))


def _held_before(
    form: TradeFilter, first: Booked, taken: Sequence[TakenOver]
) -> dict[Lane, Decimal]:
    """What was held before ``first``, by lane: what fills and what was ``taken`` over left, of a
    position that has not been flat since only what is younger than it.
    """
    here = Position.objects.filter(account=OuterRef("account"), symbol=OuterRef("symbol"))
    begun_later = here.filter(first_fill_id__gt=OuterRef("pk"), first_fill_id__lt=first.id)
    fills = form.chosen(Fill.objects.filter(~Exists(begun_later), id__lt=first.id))
    none = Value(Decimal(0), output_field=MoneyField())
    fee = Case(When(fee_values.OF_THE_COINS, then=F("fee")), default=none)
    rows = (
        fills.order_by()
        .values_list("account__name", "symbol", "order__strategy__slug")
        .annotate(held=Coalesce(Sum(SIGNED) - Sum(fee), Decimal(0), output_field=MoneyField()))
    )
    left: defaultdict[Lane, Decimal] = defaultdict(Decimal)
    for account, symbol, strategy, held in rows:
        left[account, symbol, strategy or carried_out.BY_HAND] = held
    for one in taken:
        if one.at < first.recorded_at and one.is_held_before(first.id):
            left[one.lane] += one.quantity
    return left


class _Echo:
    """What ``csv`` writes to: gives back what it gets."""

    def write(self, line: str) -> str:
        return line


def _csv(form: TradeFilter) -> StreamingHttpResponse:
    response = StreamingHttpResponse(_csv_lines(form), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="fills.csv"'
    return response


def _csv_lines(form: TradeFilter) -> Iterator[str]:
    """Trades and funding payments in the order FKS learned of them."""
    writer = csv.writer(_Echo())
    yield writer.writerow(CSV_COLUMNS)
    fills = form.fills().order_by("id").select_related("account", "order__strategy")
    paid = form.funding().order_by("recorded_at", "id").select_related("account", "strategy")
    lines = heapq.merge(
        ((fill.recorded_at, _trade_line(fill)) for fill in fills.iterator(chunk_size=1000)),
        ((one.recorded_at, _funding_line(one)) for one in paid.iterator(chunk_size=1000)),
        key=lambda line: line[0],
    )
    for _, line in lines:
        yield writer.writerow(line)


def _trade_line(fill: Fill) -> list[object]:
    return [
        fill.at.isoformat(),
        _harmless(fill.account.name),
        _harmless(fill.order.strategy.slug if fill.order.strategy else carried_out.BY_HAND),
        _harmless(fill.symbol),
        fill.side,
        *map(decimal_text, (fill.quantity, fill.price, fill.fee)),
        _harmless(fill.fee_currency),
        decimal_text(fill.realised_pnl),
        _harmless(fill.trade_id),
        fill.order_id,
        _harmless(fill.order.broker_order_id),
        "trade",
        "" if fill.fee_value is None else decimal_text(fill.fee_value),
    ]


def _funding_line(one: FundingPayment) -> list[object]:
    return [
        one.at.isoformat(),
        _harmless(one.account.name),
        _harmless(one.strategy.slug if one.strategy else SEVERAL),
        _harmless(one.symbol),
        *("",) * 4,
        _harmless(one.currency),
        decimal_text(one.amount),
        _harmless(one.payment_id),
        *("",) * 2,
        "funding",
        "",
    ]


def _harmless(text: str) -> str:
    """Somebody's text that no spreadsheet takes for a formula, nor for one after a line's end."""
    line = " ".join(text.split("\n")).replace("\r", " ").replace("\t", " ")
    return f"'{line}" if line.lstrip().startswith(FORMULA) else line
