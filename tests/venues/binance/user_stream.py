"""Binance's WebSocket API for one account (developers.binance.com, "User Data Streams")."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.venues.binance.rules import places
from tests.venues.client import OrderRow, TradeRow
from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET
from tests.venues.private_stream import Frame, PrivateStream

STATUSES = {"canceled": "CANCELED", "expired": "EXPIRED"}


class BinanceStream(PrivateStream):
    """Subscribed by a signature over the parameters."""

    path = "/ws-api/v3"

    def end_subscription(self) -> None:
        """Tell that the stream is over and keep the connection open."""
        self.send(wrapped({"e": "eventStreamTerminated", "E": 1}))

    async def answer(self, socket: web.WebSocketResponse, asked: Any) -> None:
        known = asked["method"] == "userDataStream.subscribe.signature"
        if self.refuses or not known or not _is_signed(asked["params"]):
            error = {"code": -1022, "msg": "Signature for this request is not valid."}
            await socket.send_json({"id": asked["id"], "status": 400, "error": error})
            return
        self.subscribed(socket)
        result = {"subscriptionId": self.subscriptions - 1}
        await socket.send_json({"id": asked["id"], "status": 200, "result": result})

    def traded(self, order: OrderRow, filled: Decimal, trade: TradeRow) -> Sequence[Frame]:
        state = "FILLED" if filled >= order.quantity else "PARTIALLY_FILLED"
        return [wrapped(execution_report(order, filled, state, trade))]

    def changed(self, order: OrderRow) -> Sequence[Frame]:
        return [
            wrapped(execution_report(order, order.filled, STATUSES.get(order.status, "NEW"))),
        ]


def wrapped(event: dict[str, Any]) -> Frame:
    return {"subscriptionId": 0, "event": event}


def execution_report(
    order: OrderRow, filled: Decimal, status: str, trade: TradeRow | None = None
) -> dict[str, Any]:
    """The event as Binance writes it: numbers as text, ids as numbers."""
    kind = "TRADE" if trade else status
    at = trade.time if trade else order.created_at
    price = Decimal(0) if trade is None else trade.price
    return {
        "e": "executionReport", "E": at, "s": order.symbol.replace("/", ""), "c": order.client_id,
        "S": order.side.upper(), "o": order.type, "f": "GTC", "q": places(order.quantity),
        "p": places(order.price or Decimal(0)), "P": places(Decimal(0)), "F": places(Decimal(0)),
        "g": -1, "C": "", "x": kind, "X": status, "r": "NONE", "i": int(order.id),
        "l": places(trade.quantity if trade else Decimal(0)), "z": places(filled),
        "L": places(price), "n": places(trade.fee) if trade else "0",
        "N": trade.fee_asset if trade else None, "T": at,
        "t": int(trade.id) if trade else -1, "w": status == "NEW",
        "m": bool(trade and trade.maker), "O": order.created_at,
        "Z": places(filled * (price or Decimal(0))),
        "Y": places(trade.quantity * price if trade else Decimal(0)), "Q": places(Decimal(0)),
    }  # fmt: skip


def _is_signed(params: dict[str, Any]) -> bool:
    """By HMAC over the parameters in alphabetical order, as the WebSocket API wants it."""
    given = {name: value for name, value in params.items() if name != "signature"}
    query = urlencode(sorted(given.items()))
    wanted = hmac.new(BINANCE_SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()
    return params.get("apiKey") == BINANCE_KEY and params.get("signature") == wanted
