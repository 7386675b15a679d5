"""The page that says what trading brought, how well it was carried out, and gives the trades as CSV."""

from __future__ import annotations

import csv
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import (
    Case,
    F,
    QuerySet,
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
from execution.models import SIGNED, Fill, FundingPayment
from execution.performance import Figures, Lane, Traded
from fks_site import carried_out, charts, equity_curves, holdings, open_results
from fks_site.trade_filter import PERIODS, TradeFilter

PERMISSIONS = ("execution.view_fill", "execution.view_order")
SEVERAL = "several, or by hand"
"""Whose fills held a position that funding was paid for, where no one strategy did."""
MOST_FILLS = 20_000
"""Of the period, the latest; the page says when there were more."""
COUNTED = (
    "id", "symbol", "side", "quantity", "price", "fee", "fee_currency", "fee_value",
    "realised_pnl", "at", "account__name", "order__strategy__slug", "account__environment",
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
    worths = equity_curves.worths(form.accounts(), form.since(), now)
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
        "holdings": holdings.of_accounts(form.accounts(), now),
        "quality": carried_out.quality(form.orders()),
        "refused": carried_out.refused(form.orders()),
        "query": request.GET.urlencode(),
        "box": (charts.WIDTH, charts.HEIGHT),
    }
    return TemplateResponse(request, "fks/performance.html", context)


def _reports(form: TradeFilter) -> tuple[list[Report], bool]:
    """One report per kind of money, and whether fills were left out."""
    rows = form.fills().order_by("-id").values_list(*COUNTED)
    newest = [Booked(*row) for row in rows[: MOST_FILLS + 1]]
    fills = newest[MOST_FILLS - 1 :: -1]
    paid = _funding(form)
    held: dict[Lane, Decimal] = {}
    if fills:
        before = Fill.objects.filter(id__lt=fills[0].id)
        held = _held_before(form.chosen(before, "order__strategy"))
    quotes = fee_values.quotes_of((fill.account, fill.symbol) for fill in fills)
    booked: defaultdict[Money, list[Booked]] = defaultdict(list)
    for fill in fills:
        booked[fill.environment, quotes[fill.account, fill.symbol]].append(fill)
    kinds = sorted({*booked, *(one.money for one in paid)})
    reports = [_report(kind, booked[kind], paid, held) for kind in kinds]
    return reports, len(newest) > MOST_FILLS


def _funding(form: TradeFilter) -> list[Paid]:
    grouped = form.funding().order_by().values_list(*PLACES)
    return [Paid(*row) for row in grouped.annotate(Sum("amount"))]


def _report(
    money: Money, fills: Sequence[Booked], funding: Sequence[Paid], held: dict[Lane, Decimal]
) -> Report:
    """``held`` by account, symbol and strategy."""
    mine = [(fill, _traded(fill)) for fill in fills]
    parts = [(fill, replace(trade, lane=(*trade.lane, _by(fill)))) for fill, trade in mine]
    lanes: defaultdict[Lane, Decimal] = defaultdict(Decimal)
    for (account, symbol, _), quantity in held.items():
        lanes[account, symbol] += quantity
    paid = [one for one in funding if one.money == money]
    traded = [trade for _, trade in mine]
    points = performance.curve(traded)
    return Report(
        *money,
        figures=performance.figures(performance.trips(traded, lanes)),
        realised=points[-1].total if points else Decimal(0),
        funding=sum((one.amount for one in paid), Decimal(0)),
        drawdown=performance.deepest_drawdown(points),
        line=charts.line(points),
        not_counted=_not_counted(mine),
        groups={
            "Account": _rows(mine, paid, lanes, lambda one: one.account),
            "Strategy": _rows(parts, paid, held, _by, lambda one: one.strategy or SEVERAL),
            "Symbol": _rows(mine, paid, lanes, lambda one: one.symbol),
        },
    )


def _by(fill: Booked) -> str:
    return fill.strategy or carried_out.BY_HAND


def _rows(
    fills: Sequence[tuple[Booked, Traded]],
    funding: Sequence[Paid],
    held: Mapping[Lane, Decimal],
    name: Callable[[Any], str],
    name_of_paid: Callable[[Paid], str] | None = None,
) -> list[Row]:
    """Best first. ``name`` is what a fill, and funding unless it has another, is added up by."""
    groups: dict[str, list[tuple[Booked, Traded]]] = {}
    for fill, trade in fills:
        groups.setdefault(name(fill), []).append((fill, trade))
    paid: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in funding:
        paid[(name_of_paid or name)(one)] += one.amount
    rows = []
    for label in {**groups, **paid}:
        mine = groups.get(label, [])
        figures = performance.figures(performance.trips([trade for _, trade in mine], held))
        fees = sum((_fee(fill).counted or Decimal(0) for fill, _ in mine), Decimal(0))
        funded = paid.get(label, Decimal(0))
        rows.append(Row(label, figures, fees, funded, len(mine), _not_counted(mine)))
    return sorted(rows, key=lambda row: (-row.figures.result, row.name))


def _traded(fill: Booked) -> Traded:
    quantity = fill.quantity if fill.side == "buy" else -fill.quantity
    if _fee(fill).is_of_the_coins:
        quantity -= fill.fee
    return Traded((fill.account, fill.symbol), fill.at, quantity, fill.realised_pnl)


def _fee(fill: Booked) -> Fee:
    return Fee(fill.symbol, fill.price, fill.fee, fill.fee_currency, fill.fee_value)


def _not_counted(fills: Sequence[tuple[Booked, Traded]]) -> str:
    return fee_values.in_words(fee_values.not_counted(_fee(fill) for fill, _ in fills))


def _held_before(fills: QuerySet[Fill]) -> dict[Lane, Decimal]:
    """What earlier fills left, by account, symbol and strategy."""
    none = Value(Decimal(0), output_field=MoneyField())
    fee = Case(When(fee_values.OF_THE_COINS, then=F("fee")), default=none)
    rows = (
        fills.order_by()
        .values_list("account__name", "symbol", "order__strategy__slug")
        .annotate(held=Coalesce(Sum(SIGNED) - Sum(fee), Decimal(0), output_field=MoneyField()))
    )
    return {
        (account, symbol, strategy or carried_out.BY_HAND): held
        for account, symbol, strategy, held in rows
    }


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
