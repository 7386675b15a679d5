"""Kraken's private WebSocket v2 for one account (docs.kraken.com, channel "executions")."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.venues.client import OrderRow, RunningVenue, TradeRow
from tests.venues.private_stream import Frame, PrivateStream

TOKEN_PATH = "/0/private/GetWebSocketsToken"


class KrakenStream(PrivateStream):
    """Subscribed with a token the REST side gave out. Updates leave out what has not changed."""

    path = "/v2"

    def __init__(self, venue: RunningVenue, name: str) -> None:
        super().__init__(venue, name)
        self._tokens: set[str] = set()
        self._sequence = 0

    def passed(self, path: str, body: bytes) -> None:
        if path == TOKEN_PATH:
            self._tokens.add(json.loads(body).get("result", {}).get("token", ""))

    async def answer(self, socket: web.WebSocketResponse, asked: Any) -> None:
        if asked["method"] == "ping":
            await socket.send_json({"method": "pong"})
            return
        params = asked["params"]
        good = params["channel"] == "executions" and params["token"] in self._tokens
        told: Frame = {"method": "subscribe", "req_id": asked["req_id"]}
        if self.refuses or not good:
            await socket.send_json(told | {"success": False, "error": "ESession:Invalid session"})
            return
        shown = {k: v for k, v in params.items() if k != "token"} | {"maxratecount": 180}
        await socket.send_json(told | {"success": True, "result": shown})
        self.subscribed(socket)

    def traded(self, order: OrderRow, filled: Decimal, trade: TradeRow) -> Sequence[Frame]:
        whole = filled >= order.quantity
        event = {
            "order_id": order.id, "order_userref": 0, "exec_id": trade.id, "exec_type": "trade",
            "trade_id": trade.sequence, "symbol": order.symbol, "side": order.side,
            "last_qty": number(trade.quantity), "last_price": number(trade.price),
            "liquidity_ind": "m" if trade.maker else "t",
            "cost": number(trade.quantity * trade.price),
            "order_status": "filled" if whole else "partially_filled", "order_type": "limit",
            "timestamp": stamp(trade.time), "fee_usd_equiv": number(trade.fee),
            "fees": [{"asset": trade.fee_asset, "qty": number(trade.fee)}],
        }  # fmt: skip
        return [self._update(event), *([self._ended(order, filled, "filled")] if whole else [])]

    def changed(self, order: OrderRow) -> Sequence[Frame]:
        if order.status in ("canceled", "expired"):
            return [self._ended(order, order.filled, order.status)]
        event = {
            "order_id": order.id, "cl_ord_id": order.client_id, "symbol": order.symbol,
            "order_qty": number(order.quantity), "cum_cost": 0, "time_in_force": "GTC",
            "exec_type": "pending_new", "side": order.side, "order_type": order.type,
            "limit_price": number(order.price or Decimal(0)), "order_status": "pending_new",
            "fee_ccy_pref": "fciq", "timestamp": stamp(order.created_at),
        }  # fmt: skip
        new = {
            "timestamp": stamp(order.created_at), "order_status": "new", "exec_type": "new",
            "order_userref": 0, "order_id": order.id,
        }  # fmt: skip
        return [self._update(event), self._update(new)]

    def _ended(self, order: OrderRow, filled: Decimal, how: str) -> Frame:
        event = {
            "timestamp": stamp(order.created_at), "order_status": how, "exec_type": how,
            "order_userref": 0, "order_id": order.id, "cum_qty": number(filled),
            "cum_cost": number(order.cost), "fee_usd_equiv": 0, "avg_price": 0,
        }  # fmt: skip
        return self._update(event)

    def _update(self, event: dict[str, Any]) -> Frame:
        self._sequence += 1
        return {
            "channel": "executions", "type": "update", "data": [event], "sequence": self._sequence,
        }  # fmt: skip


def number(value: Decimal) -> float:
    """Kraken writes JSON numbers; the shortest text of these floats is the decimal itself."""
    assert Decimal(str(float(value))) == value
    return float(value)


def stamp(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
