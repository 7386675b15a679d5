"""Bybit's private stream as read here (bybit-exchange.github.io/docs/v5, "Websocket Stream", private:
"order" and "execution"). Orders come without their trades and trades without the order's total value,
in either sequence; each is a fact about what it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brokers.decimals import plain
from brokers.dialects import bybit_rows, private_stream
from brokers.dialects.answers import Row, moment, number, text
from brokers.dialects.fees import Fees
from brokers.streams import OrderNews
from brokers.types import OrderReport, Side, VenueStatus
from brokers.venue_client import VenueClient

TOPICS = ("order", "execution")


async def subscribe(client: Any) -> bool:
    """Log in on the connection and subscribe; whether that had to be done."""
    # not the library's way to the address: that asks two private questions first
    url = client.implode_hostname(client.urls["api"]["ws"]["private"]["contract"])
    if private_stream.is_subscribed(client, url):
        return False
    await client.authenticate(url)
    frame = {"op": "subscribe", "req_id": str(client.request_id()), "args": list(TOPICS)}
    await private_stream.ask(client, url, frame)
    return True


def subscription_answer(message: object) -> bool | None:
    if not isinstance(message, Mapping) or message.get("op") != "subscribe":
        return None
    return message.get("success") is True


def events(message: object, category: str) -> Sequence[Row]:
    """Those of ``category``: the connection tells of all of them."""
    if not isinstance(message, Mapping) or message.get("topic") not in TOPICS:
        return ()
    return [one for one in private_stream.listed(message) if one.get("category") == category]


def streamed(event: Row, client: VenueClient, fees: Fees) -> OrderNews | None:
    """Raises QueryFailedError for an event that cannot be read, UnknownSymbolError for an unlisted
    symbol.
    """
    ours, order_id = str(event.get("orderLinkId") or ""), text(event, "orderId")
    if "execId" not in event:
        symbol = client.symbol_of(text(event, "symbol"))
        report = bybit_rows.report(event, symbol)
        return OrderNews(ours, report, moment(event, "updatedTime", per_second=1000), order_id)
    if text(event, "execType") not in bybit_rows.TRADES:
        return None
    in_either_coin = event.get("category") == "spot"
    if event.get("execFee") is None or (in_either_coin and not event.get("feeCurrency")):
        # what the event does not tell of the fee the answer may
        return OrderNews(ours, broker_order_id=order_id)
    at = moment(event, "execTime", per_second=1000)
    return OrderNews(ours, _traded(event, client, fees), at, order_id)


def _traded(event: Row, client: VenueClient, fees: Fees) -> OrderReport:
    market = client.market(client.symbol_of(text(event, "symbol")))
    quantity, left = number(event, "orderQty"), number(event, "leavesQty")
    return OrderReport(
        broker_order_id=text(event, "orderId"),
        client_order_id=str(event.get("orderLinkId") or ""),
        symbol=market["symbol"],
        side=Side(text(event, "side").lower()),
        status=VenueStatus.PARTIALLY_FILLED if left else VenueStatus.FILLED,
        quantity=plain(quantity),
        filled_quantity=plain(quantity - left),
        average_price=None,
        fills=(bybit_rows.fill(event, market, fees),),
    )
