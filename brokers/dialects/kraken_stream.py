"""Kraken spot's private stream as read here (docs.kraken.com, WebSocket API v2, channel "executions").

An update leaves out what has not changed: a trade names its order by Kraken's id alone, and need not
say how much of it is filled in all. So a trade is a fact about itself; every end is asked about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

from brokers.decimals import plain
from brokers.dialects import private_stream
from brokers.dialects.answers import Row, iso_moment, member, number, row, rows, text
from brokers.errors import QueryFailedError
from brokers.streams import OrderNews
from brokers.types import FillReport, OrderReport, Side, VenueStatus
from brokers.venue_client import VenueClient

CHANNEL = "executions"
TRADE = "trade"
QUIET = frozenset({"pending_new", "new", "iceberg_refill", "amended", "status"})
"""Kinds of events that change nothing FKS keeps of an order."""


async def subscribe(client: Any) -> bool:
    """Subscribe with a token of its own for the connection; whether that had to be done."""
    url = client.urls["api"]["ws"]["privateV2"]
    if private_stream.is_subscribed(client, url):
        return False
    token = await asyncio.to_thread(_token, client.private)
    # no snapshots: every order at the venue is asked about after each connection
    params = {"channel": CHANNEL, "token": token, "snap_orders": False, "snap_trades": False}
    frame = {"method": "subscribe", "params": params, "req_id": client.request_id()}
    await private_stream.ask(client, url, frame)
    return True


def _token(private: Callable[[], AbstractContextManager[VenueClient]]) -> str:
    """Asked for by a client of the account's: the numbers of a key's requests must rise, so they take
    turns, and the stream's own would take none.
    """
    with private() as client:
        return text(row(row(client.call("privatePostGetWebSocketsToken")), "result"), "token")


def subscription_answer(message: object) -> bool | None:
    if not isinstance(message, Mapping) or message.get("method") != "subscribe":
        return None
    return message.get("success") is True


def events(message: object) -> Sequence[Row]:
    if not isinstance(message, Mapping) or message.get("channel") != CHANNEL:
        return ()
    return private_stream.listed(message)


def streamed(event: Row) -> OrderNews | None:
    """Raises QueryFailedError for an event that cannot be read."""
    kind, order_id = text(event, "exec_type"), text(event, "order_id")
    if kind in QUIET:
        return None
    client_order_id = str(event.get("cl_ord_id") or "")
    if kind != TRADE:
        return OrderNews(client_order_id, broker_order_id=order_id)
    report = _report(event, order_id, client_order_id)
    return OrderNews(client_order_id, report, iso_moment(event, "timestamp"), order_id)


def _report(event: Row, order_id: str, client_order_id: str) -> OrderReport:
    fill = _fill(event)
    filled = number(event, "cum_qty") if "cum_qty" in event else fill.quantity
    # without the total, "filled" would be believed of an order whose earlier trades were missed
    whole = "cum_qty" in event and text(event, "order_status") == "filled"
    return OrderReport(
        broker_order_id=order_id,
        client_order_id=client_order_id,
        symbol=text(event, "symbol"),
        side=Side(text(event, "side")),
        status=VenueStatus.FILLED if whole else VenueStatus.PARTIALLY_FILLED,
        quantity=plain(number(event, "order_qty") if "order_qty" in event else filled),
        filled_quantity=plain(filled),
        average_price=None,
        fills=(fill,),
    )


def _fill(event: Row) -> FillReport:
    fees = rows(member(event, "fees"))
    if len({text(fee, "asset") for fee in fees}) != 1:
        raise QueryFailedError("unreadable event: the fee is not in one currency")
    return FillReport(
        # as the trade is called in answers
        trade_id=text(event, "exec_id"),
        quantity=plain(number(event, "last_qty")),
        price=plain(number(event, "last_price")),
        fee=plain(sum((number(fee, "qty") for fee in fees), Decimal(0))),
        fee_currency=text(fees[0], "asset"),
        at=iso_moment(event, "timestamp"),
    )
