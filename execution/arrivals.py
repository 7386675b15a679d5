"""How a strategy's alerts come in: too many at once, or one lost between two."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from functools import cache
from uuid import UUID

from brokers.prepared import Prepared, given
from execution.alerts import Alert, MarketPosition
from execution.ids import first_id_at, moment_of
from execution.models import Signal
from risk.types import ReasonCode, Refusal

NEARLY = Decimal("0.005")
"""Venues take fees in the coin, so the book holds a little less than the sender believes."""


def over_limit(signal: Signal) -> Refusal | None:
    """THROTTLED when the strategy has sent more than its limit before ``signal``; the refusal is kept
    on the signal, which stays stored.

    Signals refused for this are not counted, so that what the limit allows always goes through.
    Counted from the database: the same after a restart and in every worker.
    """
    strategy = signal.strategy
    if strategy.most_alerts is None:
        return None
    came_at = min(signal.received_at, moment_of(signal.pk))
    since = came_at - timedelta(seconds=strategy.most_alerts_window)
    window = {"strategy": strategy.pk, "since": since, "first": first_id_at(since)}
    if not _as_many(strategy.most_alerts)(**window, before=signal.pk):
        return None
    seconds = strategy.most_alerts_window
    return Refusal(
        ReasonCode.THROTTLED,
        f"{strategy.slug} has sent {strategy.most_alerts} alerts in {seconds} s already",
        {"most": str(strategy.most_alerts), "window": str(seconds)},
    )


@cache
def _as_many(most: int) -> Prepared[UUID]:
    """The ``most``-th latest alert of a window, if it holds that many."""
    return Prepared(
        lambda: (
            Signal.objects.filter(strategy=given("strategy"), pk__lt=given("before"))
            .filter(pk__gte=given("first"), received_at__gt=given("since"))
            .exclude(reason=ReasonCode.THROTTLED.value)
            .order_by("-pk")
            .values_list("pk", flat=True)[most - 1 : most]
        )
    )


def gap(alert: Alert, held: Iterable[tuple[str, Decimal]], *, compares_size: bool) -> str:
    """What the sender believes it held before this alert, where our book says otherwise; else empty.

    ``held`` are the accounts' names with their signed quantities. An alert between this one and the
    last has probably not arrived, or was refused. Sizes are compared only where ours follow theirs.
    """
    if alert.prev_market_position is None:
        return ""
    for account, quantity in held:
        side = _side(quantity)
        size = alert.prev_market_position_size if compares_size else None
        if side is alert.prev_market_position and _same_size(size, abs(quantity)):
            continue
        believed = alert.prev_market_position.value + ("" if size is None else f" {size:f}")
        found = side.value + ("" if side is MarketPosition.FLAT else f" {abs(quantity):f}")
        return f"the sender was {believed} before this alert, {account} is {found}"
    return ""


def _side(quantity: Decimal) -> MarketPosition:
    if not quantity:
        return MarketPosition.FLAT
    return MarketPosition.LONG if quantity > 0 else MarketPosition.SHORT


def _same_size(believed: Decimal | None, held: Decimal) -> bool:
    return believed is None or abs(believed - held) <= believed * NEARLY
