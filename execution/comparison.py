"""Comparing what a venue holds for an account with our book.

Only what is at rest is compared: a coin with an order under way, or a fill of the last seconds, is
left for the next time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from django.db.models import Q, QuerySet
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.models import Account
from brokers.types import OrderReport, PositionReport
from execution import differences
from execution.differences import Seen
from execution.models import IMMEDIATE, Difference, Order, Position
from execution.states import AT_VENUE, UNRESOLVED, OrderState

QUIET = timedelta(seconds=5)
LINGERS = timedelta(minutes=1)
DUST = Decimal("0.001")
ZERO = Decimal(0)


class Compared(NamedTuple):
    """An account's open ``differences``, and the coins that moved: they were ``left_out``."""

    differences: list[Difference]
    left_out: set[str]


def compare(
    account: Account,
    orders: Sequence[OrderReport],
    positions: Sequence[PositionReport] | None,
    *,
    since: datetime,
    keeps_our_id: bool,
) -> Compared:
    """Store what differs and close what no longer does.

    ``orders`` work at the venue, ``positions`` are held there: ``None`` where it keeps balances only,
    which are read from the account. ``since`` is when the venue was first asked. Where the venue does
    not keep our id, an order there in a coin that moves may be the one under way, and waits.
    """
    # Before the book is read: an order that ends in between shows in it as a fill of this moment.
    moving = _busy_coins(account)
    rows = list(Position.objects.filter(account=account).order_by("pk"))
    moving |= {coin_of(row.symbol) for row in rows if row.updated_at >= since - QUIET}
    book = [row for row in rows if coin_of(row.symbol) not in moving]
    held = (
        _missing_coins(account, book)
        if positions is None
        else _other_positions(book, [one for one in positions if coin_of(one.symbol) not in moving])
    )
    left_out = {Difference.Kind.POSITION: moving}
    if not keeps_our_id:
        orders = [one for one in orders if coin_of(one.symbol) not in moving]
        left_out[Difference.Kind.FOREIGN_ORDER] = moving
    found = differences.note(
        account,
        _foreign_orders(account, orders) + held,
        left_out=_differing_in(account, left_out),
        since=since,
    )
    return Compared(found, moving)


def _foreign_orders(account: Account, reports: Sequence[OrderReport]) -> list[Seen]:
    """Working orders at the venue that no order of ours explains."""
    ids = [report.broker_order_id for report in reports]
    # Some venues count their ids per symbol.
    ours = set(
        Order.objects.filter(account=account, broker_order_id__in=ids).values_list(
            "symbol", "broker_order_id"
        )
    )
    names = [report.client_order_id for report in reports]
    named = set(
        Order.objects.filter(client_order_id__in=names, is_adopted=False).values_list(
            "client_order_id", flat=True
        )
    )
    named |= _carried(account, names)
    return [
        Seen(
            kind=Difference.Kind.FOREIGN_ORDER,
            symbol=report.symbol,
            key=Difference.key_of_order(report.symbol, report.broker_order_id),
            ours="",
            theirs=f"{report.side} {decimal_text(report.quantity)}",
            detail=f"order {report.broker_order_id} is open at the venue but was not placed by FKS",
        )
        for report in reports
        if (report.symbol, report.broker_order_id) not in ours
        and report.client_order_id not in named
    ]


def _carried(account: Account, names: Collection[str]) -> set[str]:
    """Which of ``names`` are stops that entries carry; an entry that has just ended may take its own
    along a moment later."""
    ended_lately = Q(finished_at__isnull=True) | Q(finished_at__gt=timezone.now() - LINGERS)
    carriers = Order.objects.filter(
        ended_lately, account=account, attached_client_id__in=names
    ).exclude(attached_client_id="")
    return set(carriers.values_list("attached_client_id", flat=True))


def busy_orders(account: Account) -> QuerySet[Order]:
    """Orders that may be trading, whose coins are left out; not one whose trades the venue does not
    show, or about which it says nothing, for so long that what is held is the better witness."""
    lately = timezone.now() - LINGERS
    told = Q(unknown_since=None) | Q(unknown_since__gt=lately)
    told &= Q(unanswered_since=None) | Q(unanswered_since__gt=lately)
    return Order.objects.filter(
        Q(state__in=(OrderState.SUBMITTING, *UNRESOLVED))
        | (Q(state__in=AT_VENUE) & IMMEDIATE & told),
        account=account,
    )


def may_have_left_out(account: Account, symbol: str) -> bool:
    """Whether the account's last comparison may have left out the symbol's coin: an order of it may be
    trading, or has ended since, or one had filled seconds before. So it is where none has been made.
    """
    compared_at = account.reconciled_at
    if compared_at is None:
        return True
    changed = Order.objects.filter(account=account, updated_at__gte=compared_at).order_by()
    moved = Position.objects.filter(account=account, updated_at__gte=compared_at - QUIET).order_by()
    symbols = changed.values_list("symbol").union(moved.values_list("symbol"))
    return coin_of(symbol) in _busy_coins(account) | {coin_of(one) for (one,) in symbols}


def _busy_coins(account: Account) -> set[str]:
    symbols = busy_orders(account).values_list("symbol", flat=True).distinct()
    return {coin_of(symbol) for symbol in symbols}


def coin_of(symbol: str) -> str:
    return symbol.partition("/")[0]


def _differing_in(
    account: Account, coins: Mapping[Difference.Kind, Collection[str]]
) -> set[tuple[str, str]]:
    """Kinds and symbols that have differed so far, of those whose ``coins`` were left out."""
    differing = Difference.objects.filter(account=account).values_list("kind", "symbol")
    return {
        (kind, symbol)
        for kind, symbol in differing.order_by().distinct()
        if coin_of(symbol) in coins.get(Difference.Kind(kind), ())
    }


def _missing_coins(account: Account, quiet: Sequence[Position]) -> list[Seen]:
    """Spot: coins our fills bought that the venue no longer holds. More coins than ours are no
    difference: they may have been there before."""
    ours: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in quiet:
        ours[coin_of(row.symbol)] += row.quantity
    seen = []
    for row in quiet:
        coin = coin_of(row.symbol)
        there = Decimal(account.balances.get(coin, {}).get("total", "0"))
        if row.quantity > 0 and there < ours[coin] * (1 - DUST):
            left = max(there - (ours[coin] - row.quantity), Decimal(0))
            detail = f"the account holds only {there} {coin}"
            seen.append(_position(row.symbol, row.quantity, left, detail))
    return seen


def _other_positions(book: Sequence[Position], reports: Sequence[PositionReport]) -> list[Seen]:
    """Venues that keep positions: what either side holds the other must hold too, also where FKS has
    never traded."""
    ours = {row.symbol: row.quantity for row in book}
    theirs = {one.symbol: one.quantity for one in reports}
    costs = {one.symbol: one.average_price for one in reports}
    return [
        _position(symbol, held, there, _how_they_differ(symbol in ours), costs.get(symbol))
        for symbol in {**ours, **theirs}
        if (held := ours.get(symbol, ZERO)) != (there := theirs.get(symbol, ZERO))
    ]


def _how_they_differ(has_traded: bool) -> str:
    return "the venue's position is another" if has_traded else "FKS has not traded this here"


def _position(
    symbol: str, held: Decimal, there: Decimal, detail: str, cost: Decimal | None = None
) -> Seen:
    return Seen(
        kind=Difference.Kind.POSITION,
        symbol=symbol,
        key=symbol,
        ours=decimal_text(held),
        theirs=decimal_text(there),
        detail=f"{detail}; our fills add up to {decimal_text(held)}",
        average_price=cost,
    )
