"""The page that says what trading brought, how well it was carried out, and gives the trades as CSV."""

from __future__ import annotations

import csv
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import (
    Case,
    F,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Concat
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.fields import MoneyField
from execution import fee_values, performance
from execution.fee_values import Fee
from execution.models import Fill, FundingPayment
from execution.performance import Figures, Traded
from fks_site import carried_out, charts, equity_curves, holdings, open_results
from fks_site.trade_filter import PERIODS, TradeFilter

PERMISSIONS = ("execution.view_fill", "execution.view_order")
SEVERAL = "several, or by hand"
"""Whose fills held a position that funding was paid for, where no one strategy did."""
MOST_FILLS = 20_000
"""Of the period, the latest; the page says when there were more."""
COUNTED = (
    "id", "symbol", "side", "quantity", "price", "fee", "fee_currency", "fee_value",
    "realised_pnl", "at", "account__name", "order__strategy__slug",
)  # fmt: skip
"""The columns a report reads, in the order of ``Booked``."""
PLACES = ("account__name", "strategy__slug", "symbol", "currency")
"""What funding is added up by, in the order of ``Paid``."""
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "|", "%")
"""How a spreadsheet's formula may begin: the full-width signs count for the plain ones (OWASP)."""
CSV_COLUMNS = (
    "at", "account", "strategy", "symbol", "side", "quantity", "price", "fee", "fee_currency",
    "realised_pnl", "trade_id", "order_id", "broker_order_id", "kind", "fee_value",
)  # fmt: skip


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
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Report:
    """Everything counted in one currency."""

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
    """One report per currency, and whether fills were left out."""
    rows = form.fills().order_by("-id").values_list(*COUNTED)
    newest = [Booked(*row) for row in rows[: MOST_FILLS + 1]]
    fills = newest[MOST_FILLS - 1 :: -1]
    paid = _funding(form)
    held = {}
    if fills:
        before = Fill.objects.filter(id__lt=fills[0].id)
        held = _held_before(form.chosen(before, "order__strategy"))
    currencies = sorted({_quote(fill.symbol) for fill in fills} | {one.currency for one in paid})
    return [_report(one, fills, paid, held) for one in currencies], len(newest) > MOST_FILLS


def _funding(form: TradeFilter) -> list[Paid]:
    grouped = form.funding().order_by().values_list(*PLACES)
    return [Paid(*row) for row in grouped.annotate(Sum("amount"))]


def _report(
    currency: str,
    fills: Sequence[Booked],
    funding: Sequence[Paid],
    held: dict[tuple[str, str], Decimal],
) -> Report:
    mine = [(fill, _traded(fill)) for fill in fills if _quote(fill.symbol) == currency]
    paid = [one for one in funding if one.currency == currency]
    traded = [trade for _, trade in mine]
    points = performance.curve(traded)
    trips = performance.trips(traded, held)
    return Report(
        currency=currency,
        figures=performance.figures(trips),
        realised=points[-1].total if points else Decimal(0),
        funding=sum((one.amount for one in paid), Decimal(0)),
        drawdown=performance.deepest_drawdown(points),
        line=charts.line(points),
        not_counted=_not_counted(mine),
        groups={
            "Account": _rows(mine, paid, held, lambda one: one.account),
            "Strategy": _rows(
                mine,
                paid,
                held,
                lambda one: one.strategy or carried_out.BY_HAND,
                lambda one: one.strategy or SEVERAL,
            ),
            "Symbol": _rows(mine, paid, held, lambda one: one.symbol),
        },
    )


def _rows(
    fills: Sequence[tuple[Booked, Traded]],
    funding: Sequence[Paid],
    held: dict[tuple[str, str], Decimal],
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
    if fill.fee_currency == _base(fill.symbol):
        quantity -= fill.fee
    return Traded((fill.account, fill.symbol), fill.at, quantity, fill.realised_pnl)


def _fee(fill: Booked) -> Fee:
    return Fee(fill.symbol, fill.price, fill.fee, fill.fee_currency, fill.fee_value)


def _not_counted(fills: Sequence[tuple[Booked, Traded]]) -> str:
    return fee_values.in_words(fee_values.not_counted(_fee(fill) for fill, _ in fills))


def _base(symbol: str) -> str:
    return symbol.partition("/")[0]


def _quote(symbol: str) -> str:
    return symbol.partition("/")[2].partition(":")[0]


def _held_before(fills: QuerySet[Fill]) -> dict[tuple[str, str], Decimal]:
    """What earlier fills left in each lane."""
    signed = Case(When(side="buy", then=F("quantity")), default=-F("quantity"))
    in_coin = Q(symbol__startswith=Concat(F("fee_currency"), Value("/")))
    fee = Case(When(in_coin, then=F("fee")), default=Value(Decimal(0)), output_field=MoneyField())
    rows = (
        fills.order_by()
        .values_list("account__name", "symbol")
        .annotate(held=Coalesce(Sum(signed) - Sum(fee), Decimal(0), output_field=MoneyField()))
    )
    return {(account, symbol): held for account, symbol, held in rows}


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
