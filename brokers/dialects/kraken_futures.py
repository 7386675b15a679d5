"""Kraken Futures: how an order ended, once nothing tells its state any more.

That is told while an order works and for five seconds after ("Get Specific Orders' Status"); later
only the events of the account speak of it ("Get order events"), where `quantity` is what is left of an
order and `filled` what has traded. ccxt takes an order that was merely placed for one that was
cancelled, so the events are read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brokers.decimals import decimal_text
from brokers.dialects.answers import Row, member, number, row, rows, text
from brokers.dialects.unified import Unified, look_back
from brokers.exchanges import KRAKEN_FUTURES
from brokers.types import OrderRef
from brokers.venue_client import VenueClient

EVENTS = {
    "OrderPlaced": ("order", ""),
    "OrderUpdated": ("newOrder", ""),
    "OrderCancelled": ("order", "canceled"),
    "OrderRejected": ("order", "rejected"),
}
"""Where each event has the order after it, and the end it means, if any."""


class KrakenFutures(Unified):
    profile = KRAKEN_FUTURES

    def __init__(self) -> None:
        super().__init__(KRAKEN_FUTURES)

    def _recent(self, client: VenueClient, ref: OrderRef) -> Sequence[Mapping[str, Any]]:
        answer = row(client.call("historyGetOrders", since=look_back(ref)))
        events = [row(one, "event") for one in rows(member(answer, "elements"))]
        ended = [_ended(event, client) for event in events]
        return [one for one in ended if one is not None]


def _ended(event: Row, client: VenueClient) -> Mapping[str, Any] | None:
    """The order as ccxt would write it, if this event says that nothing is left of it at work."""
    for name, (place, end) in EVENTS.items():
        if name not in event:
            continue
        order = row(row(event, name), place)
        left, filled = number(order, "quantity"), number(order, "filled")
        if not end and (left or not filled):
            return None
        return {
            "id": text(order, "uid"),
            "clientOrderId": order.get("clientId"),
            "symbol": client.symbol_of(text(order, "tradeable")),
            "side": text(order, "direction").lower(),
            "status": end or "closed",
            "amount": decimal_text(left + filled),
            "filled": decimal_text(filled),
            "timestamp": int(number(order, "timestamp")),
        }
    return None
