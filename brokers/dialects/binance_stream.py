"""Binance spot's user data stream as read here (developers.binance.com, "User Data Streams",
executionReport; subscribed through the WebSocket API by signature).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from brokers.decimals import plain
from brokers.dialects.answers import Row, moment, number, text
from brokers.errors import QueryFailedError
from brokers.streams import OrderNews
from brokers.types import FillReport, OrderReport, Side, VenueStatus

SPOT = "spot"
NO_REASON = "NONE"
TRADE = "TRADE"


async def subscribe(client: Any) -> bool:
    """Subscribe to the user data stream unless that has been done; whether it was done now."""
    url = client.urls["api"]["ws"]["ws-api"][SPOT]
    known = client.clients.get(url) if client.clients else None
    if known is not None and SPOT in known.subscriptions:
        return False
    await client.authenticate({"type": SPOT})
    return True


def events(message: object) -> Sequence[Row]:
    """The event in ``message`` if it is about an order."""
    event = message.get("event") if isinstance(message, Mapping) else None
    if not isinstance(event, Mapping) or event.get("e") != "executionReport":
        return ()
    return (event,)


def streamed(
    event: Row, symbol_of: Callable[[str], str], statuses: Mapping[str, VenueStatus]
) -> OrderNews:
    """What the event says. Raises QueryFailedError for one that cannot be read."""
    client_order_id = str(event.get("C") or "") or text(event, "c")
    report = _report(event, client_order_id, symbol_of(text(event, "s")), statuses)
    return OrderNews(
        client_order_id, report, moment(event, "E", per_second=1000), report.broker_order_id
    )


def _report(
    event: Row, client_order_id: str, symbol: str, statuses: Mapping[str, VenueStatus]
) -> OrderReport:
    status = statuses.get(text(event, "X"))
    if status is None:
        raise QueryFailedError(f"unreadable event: order status {text(event, 'X')!r}")
    filled, value = number(event, "z"), number(event, "Z")
    reason = str(event.get("r") or NO_REASON)
    return OrderReport(
        broker_order_id=text(event, "i"),
        client_order_id=client_order_id,
        symbol=symbol,
        side=Side(text(event, "S").lower()),
        status=status,
        quantity=plain(number(event, "q")),
        filled_quantity=plain(filled),
        average_price=plain(value / filled) if filled else None,
        fills=(_fill(event),) if text(event, "x") == TRADE else (),
        reason="" if reason == NO_REASON else reason,
    )


def _fill(event: Row) -> FillReport:
    return FillReport(
        # as the trade is called in answers: ids count per symbol
        trade_id=f"{text(event, 's')}-{text(event, 't')}",
        quantity=plain(number(event, "l")),
        price=plain(number(event, "L")),
        fee=plain(number(event, "n")),
        fee_currency=str(event.get("N") or ""),
        at=moment(event, "T", per_second=1000),
    )
