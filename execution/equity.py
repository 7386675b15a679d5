"""What accounts are worth over time: sampled every ten minutes, whenever one is reconciled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import OuterRef, Subquery

from brokers.base import ExecutionPlugin
from brokers.capabilities import Balances
from brokers.decimals import plain
from brokers.models import Account, Instrument
from brokers.types import Environment
from execution import book, days
from execution.book import same_money
from execution.models import EquitySample, Position
from execution.performance import Point

EVERY = timedelta(minutes=10)
MOST_POINTS, LEAST_POINTS = 300, 30
"""Of one account's curve, where there are few and where there are very many accounts."""
MOST_TOGETHER = 12_000
_SAMPLES = """
    WITH begun AS (
        SELECT account.id, first.at, first.equity
        FROM unnest(%(accounts)s::bigint[]) AS account (id) CROSS JOIN LATERAL (
            SELECT at, equity FROM execution_equitysample
            WHERE account_id = account.id AND at BETWEEN %(since)s AND %(now)s
            ORDER BY at LIMIT 1
        ) AS first
    ), span AS (
        SELECT min(at) AS since, greatest(%(least)s, (%(now)s - min(at)) / %(points)s) AS step
        FROM begun
    )
    SELECT id, at, equity FROM begun
    UNION
    SELECT begun.id, last.at, last.equity
    FROM begun CROSS JOIN span
    CROSS JOIN generate_series(%(now)s, span.since, -span.step) AS tick
    CROSS JOIN LATERAL (
        SELECT at, equity FROM execution_equitysample
        WHERE account_id = begun.id AND at > greatest(begun.at, tick - span.step) AND at <= tick
        ORDER BY at DESC LIMIT 1
    ) AS last
    ORDER BY id, at
"""
"""The first of each account, and the last of each stretch of time: found in the index, one by one."""


def note(account: Account, plugin: ExecutionPlugin, now: datetime) -> None:
    """Keep on the account what it is worth, and every ten minutes a sample of that; call when balances
    and prices have been read. Unknown, and never sampled, where the venue tells no balance.
    """
    account.equity = worth(account, plugin.capabilities.balances, now)
    account.save(update_fields=["equity"])
    recent = EquitySample.objects.filter(account=account, at__gt=now - EVERY)
    if account.equity is not None and not recent.exists():
        EquitySample.objects.create(account=account, at=now, equity=account.equity)


def worth(account: Account, told: Balances, now: datetime) -> Decimal | None:
    """Money and positions in the account's currency, each at its latest price, or at what it cost
    where none is known, or a gain by an old one. What the venue has counted in is not added again.
    """
    if told is Balances.STATED:
        return None
    totals = book.totals(account)
    cash = book.cash(account, totals)
    if told is Balances.WORTH:
        return cash
    return cash + _paid(account, totals) + days.known_gain(account, now)


def curves(
    accounts: Collection[Account], since: datetime | None, now: datetime
) -> dict[int, list[Point]]:
    """Each account's samples from ``since`` on, or all of them, by account id: the first, then the last
    of each stretch, of which there are fewer for one account the more accounts there are. One query.
    """
    found: dict[int, list[Point]] = {account.pk: [] for account in accounts}
    share = MOST_TOGETHER // max(len(found), 1)
    asked: dict[str, Any] = {
        "accounts": list(found),
        "since": since or datetime.min.replace(tzinfo=UTC),
        "now": now,
        "least": EVERY,
        "points": max(LEAST_POINTS, min(MOST_POINTS, share)),
    }
    with connection.cursor() as cursor:
        cursor.execute(_SAMPLES, asked)
        for account_id, at, equity in cursor.fetchall():
            found[account_id].append(Point(at, plain(equity)))
    return found


def _paid(account: Account, totals: Mapping[str, Decimal]) -> Decimal:
    """What was paid for what is owned, in the account's currency by the last known rates.

    Only what a balance shows was paid for: a future, a swap, a pair of currencies or a contract for
    difference takes no money from the wallet. A rehearsal pays for all it trades.
    """
    rehearses = account.environment == Environment.DRY_RUN
    rates = Instrument.objects.filter(account=account, symbol=OuterRef("symbol"))
    positions = Position.objects.filter(account=account, average_price__isnull=False)
    rows = positions.annotate(rate=Subquery(rates.values("last_rate")[:1]))
    paid = Decimal(0)
    for symbol, quantity, price, rate in rows.values_list(
        "symbol", "quantity", "average_price", "rate"
    ):
        base, _, rest = symbol.partition("/")
        is_cash = same_money(base, account.quote_currency)
        if totals.get(base) and not is_cash and (rehearses or ":" not in rest):
            paid += quantity * (price or 0) * (rate or 1)
    return paid
