"""OKX's private stream as read here (okx.com/docs-v5, "Order channel"): the order as it stands, and in
the same row the trade that made it so. Stops that wait are in another channel and stay with polling;
the order a triggered one has put in comes here, and names the stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brokers.decimals import plain
from brokers.dialects import okx_rows, private_stream
from brokers.dialects.answers import Row, moment, number, text
from brokers.streams import OrderNews
from brokers.types import FillReport
from brokers.venue_client import Market

CHANNEL = "orders"


async def subscribe(client: Any, kind: str) -> bool:
    """Log in on the connection and subscribe to orders of ``kind``; whether that had to be done."""
    url = client.get_url(CHANNEL, "private")
    if private_stream.is_subscribed(client, url):
        return False
    await client.authenticate({"access": "private"})
    frame = {"op": "subscribe", "args": [{"channel": CHANNEL, "instType": kind}]}
    await private_stream.ask(client, url, frame)
    return True


def subscription_answer(message: object) -> bool | None:
    if not isinstance(message, Mapping) or message.get("event") not in ("subscribe", "error"):
        return None
    return bool(message["event"] == "subscribe")


def events(message: object, kind: str) -> Sequence[Row]:
    where = message.get("arg") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(where, Mapping):
        return ()
    if where.get("channel") != CHANNEL or "data" not in message:
        return ()
    return [one for one in private_stream.listed(message) if one.get("instType") == kind]


def streamed(event: Row, market: Market) -> OrderNews:
    """Raises QueryFailedError for an event that cannot be read."""
    report = replace(okx_rows.report(event, market), fills=tuple(_fills(event, market)))
    at = moment(event, "uTime", per_second=1000)
    return OrderNews(report.client_order_id, report, at, report.broker_order_id)


def _fills(event: Row, market: Market) -> Sequence[FillReport]:
    """The trade of this event; later events of the order may name it again."""
    if not event.get("tradeId") or not okx_rows.amount(event, "fillSz"):
        return ()
    return (
        FillReport(
            # as the trade is called in answers
            trade_id=f"{market['id']}-{text(event, 'tradeId')}",
            quantity=plain(number(event, "fillSz") * okx_rows.unit(market)),
            price=plain(number(event, "fillPx")),
            # negative when charged, positive when a rebate
            fee=plain(-okx_rows.amount(event, "fillFee")),
            fee_currency=text(event, "fillFeeCcy"),
            at=moment(event, "fillTime", per_second=1000),
        ),
    )
