"""Kraken Futures: how an order ended, once nothing tells its state any more.

That is told while an order works and for five seconds after ("Get Specific Orders' Status"); later
only the events of the account speak of it ("Get order events"), where `quantity` is what is left of an
order and `filled` what has traded. ccxt takes an order that was merely placed for one that was
cancelled, so the events are read here. A stop that ended before it woke has events of its own ("Get
trigger events"); one that woke is an order like others from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from brokers.decimals import decimal_text
from brokers.dialects.answers import Row, at, member, number, row, rows, text
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
CANCELLED, WOKEN = "OrderTriggerCancelled", "OrderTriggerActivated"
NEVER_PLACED = "TRIGGER_ACTIVATION_FAILURE"
"""The status of a stop that woke to no order; ccxt passes it on as it is."""


class KrakenFutures(Unified):
    profile = KRAKEN_FUTURES

    def __init__(self) -> None:
        super().__init__(KRAKEN_FUTURES)

    def _asked(
        self, client: VenueClient, ref: OrderRef, order_id: str, *, stop: bool = False
    ) -> Mapping[str, Any] | None:
        found = super()._asked(client, ref, order_id, stop=stop)
        if found is None or at(found, "info.order.type") != "TRIGGER_ORDER":
            return found
        status = "rejected" if found.get("status") == NEVER_PLACED else found.get("status")
        return {**found, "status": status, "filled": found.get("filled") or "0"}

    def _recent(self, client: VenueClient, ref: OrderRef) -> Iterator[Mapping[str, Any]]:
        since = look_back(ref)
        for event in _events(client, "historyGetOrders", since):
            ended = _ended(event, client)
            if ended is not None:
                yield ended
        yield from _ended_asleep(_events(client, "historyGetTriggers", since), client)


def _events(client: VenueClient, question: str, since: int) -> list[Row]:
    answer = row(client.call(question, since=since))
    return [row(one, "event") for one in rows(member(answer, "elements"))]


def _ended(event: Row, client: VenueClient) -> Mapping[str, Any] | None:
    """The order, if this event says that nothing is left of it at work."""
    for name, (place, end) in EVENTS.items():
        if name not in event:
            continue
        order = row(row(event, name), place)
        left, filled = number(order, "quantity"), number(order, "filled")
        if not end and (left or not filled):
            return None
        return _order(order, end or "closed", left + filled, filled, client)
    return None


def _ended_asleep(events: Sequence[Row], client: VenueClient) -> list[Mapping[str, Any]]:
    """The stops that were cancelled while they waited: what wakes is told of by the order's events."""
    woken = [text(_stop(event, WOKEN), "uid") for event in events if WOKEN in event]
    cancelled = [_stop(event, CANCELLED) for event in events if CANCELLED in event]
    return [
        _order(stop, "canceled", number(stop, "quantity"), Decimal(0), client)
        for stop in cancelled
        if text(stop, "uid") not in woken
    ]


def _stop(event: Row, name: str) -> Row:
    return row(row(event, name), "order")


def _order(
    told: Row, status: str, quantity: Decimal, filled: Decimal, client: VenueClient
) -> Mapping[str, Any]:
    """As ccxt would write it."""
    return {
        "id": text(told, "uid"),
        "clientOrderId": told.get("clientId"),
        "symbol": client.symbol_of(text(told, "tradeable")),
        "side": text(told, "direction").lower(),
        "status": status,
        "amount": decimal_text(quantity),
        "filled": decimal_text(filled),
        "timestamp": int(number(told, "timestamp")),
    }
