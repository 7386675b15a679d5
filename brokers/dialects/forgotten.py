"""What a venue no longer tells of an order because it is old, and what follows from its silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.errors import NotShownError
from brokers.exchanges import ExchangeProfile
from brokers.types import OrderRef, OrderReport, VenueStatus


def refuse_forgotten_id(profile: ExchangeProfile, ref: OrderRef) -> None:
    """Raise NotShownError for an order so old that the venue may no longer know our id."""
    remembers, age = profile.remembers, _age(ref)
    if remembers is None:
        return
    if age is None or age > timedelta(seconds=remembers):
        raise NotShownError(
            f"{profile.label} forgets client ids: it cannot prove that the order is absent"
        )


def only_if_unfilled(profile: ExchangeProfile, ref: OrderRef) -> bool:
    """Whether an order the venue took would still be told if anything of it had traded: one of this
    age is only forgotten if it ended without.
    """
    forgets, age = profile.forgets, _age(ref)
    if not forgets or age is None or ref.request is None or not ref.broker_order_id:
        return False
    return timedelta(seconds=forgets["unfilled"]) < age < timedelta(seconds=forgets["all"])


def ended_unfilled(
    ref: OrderRef, listed: Sequence[OrderReport], trades: Sequence[Mapping[str, Any]]
) -> OrderReport:
    """The end of such an order, which works no more and has traded nothing.

    Raises NotShownError where the open orders of its symbol, or the trades since it was sent, say
    otherwise.
    """
    shown = {one.broker_order_id for one in listed} | {one.get("order") for one in trades}
    if ref.broker_order_id in shown or ref.request is None:
        raise NotShownError("the venue does not know the order, and shows it all the same")
    return OrderReport(
        broker_order_id=ref.broker_order_id,
        client_order_id="",
        symbol=ref.symbol,
        side=ref.request.side,
        status=VenueStatus.CANCELED,
        quantity=ref.request.quantity,
        filled_quantity=Decimal(0),
        average_price=None,
        reason="it ended without a trade: the venue no longer tells of it",
    )


def _age(ref: OrderRef) -> timedelta | None:
    return None if ref.submitted_at is None else datetime.now(UTC) - ref.submitted_at
