"""Bybit's private WebSocket v5 for one account (bybit-exchange.github.io/docs/v5, "Websocket Stream":
"order" and "execution", one connection for all categories).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.venues.bybit.rules import LINEAR, SPOT, text
from tests.venues.client import OrderRow, TradeRow
from tests.venues.credentials import BYBIT_KEYS, BYBIT_SECRET
from tests.venues.private_stream import Frame, PrivateStream

CONNECTION = "cejreaspqfh3sjdnldmg-p"
STATUSES = {"canceled": "Cancelled", "expired": "Cancelled"}


class BybitStream(PrivateStream):
    """Logged in by a signature over a time to come, then subscribed to topics."""

    path = "/v5/private"

    @property
    def category(self) -> str:
        return LINEAR if self.name.endswith(LINEAR) else SPOT

    async def answer(self, socket: web.WebSocketResponse, asked: Any) -> None:
        told = {"op": asked["op"], "conn_id": CONNECTION, "ret_msg": ""}
        if "req_id" in asked:
            told["req_id"] = asked["req_id"]
        if asked["op"] == "ping":
            await socket.send_json(told | {"op": "pong", "args": [str(_now())]})
        elif asked["op"] == "auth" and not self._is_signed(asked["args"]):
            refused = {"success": False, "ret_msg": "error:USVC1111", "conn_id": CONNECTION}
            await socket.send_json(refused | {"request": asked})
        elif asked["op"] == "auth":
            socket["user"] = asked["args"][0]
            await socket.send_json(told | {"success": True})
        elif self.refuses or "user" not in socket or asked["args"] != ["order", "execution"]:
            await socket.send_json(told | {"success": False, "ret_msg": "Request not authorized"})
        else:
            await socket.send_json(told | {"success": True})
            self.subscribed(socket)

    def _is_signed(self, args: list[str]) -> bool:
        key, expires, signature = args
        signed = f"GET/realtime{expires}".encode()
        wanted = hmac.new(BYBIT_SECRET.encode(), signed, hashlib.sha256).hexdigest()
        is_due = int(expires) > _now()
        return key == BYBIT_KEYS[self.category] and is_due and signature == wanted

    def traded(self, order: OrderRow, filled: Decimal, trade: TradeRow) -> Sequence[Frame]:
        left = order.quantity - filled
        event = {
            "category": self.category, "symbol": order.symbol.replace("/", ""),
            "orderId": order.id, "orderLinkId": order.client_id, "side": order.side.capitalize(),
            "orderPrice": text(order.price or Decimal(0)), "orderQty": text(order.quantity),
            "leavesQty": text(left), "createType": "CreateByUser", "orderType": order.type,
            "stopOrderType": "UNKNOWN", "execFee": text(trade.fee),
            "feeCurrency": trade.fee_asset if self.category == SPOT else "", "execId": trade.id,
            "execPrice": text(trade.price), "execQty": text(trade.quantity), "execPnl": "0",
            "execType": "Trade", "execValue": text(trade.price * trade.quantity),
            "execTime": str(trade.time), "isMaker": trade.maker, "feeRate": "0.001",
            "tradeIv": "", "markIv": "", "markPrice": "0", "indexPrice": "", "underlyingPrice": "",
            "blockTradeId": "", "closedSize": "0", "seq": trade.sequence, "isLeverage": "0",
        }  # fmt: skip
        status = "PartiallyFilled" if left else "Filled"
        return [
            self._frame("execution", event),
            self._order(order, filled, filled * trade.price, status, trade.time),
        ]

    def changed(self, order: OrderRow) -> Sequence[Frame]:
        status = STATUSES.get(order.status, "New")
        return [self._order(order, order.filled, order.cost, status, order.created_at)]

    def _order(
        self, order: OrderRow, filled: Decimal, value: Decimal, status: str, at: int
    ) -> Frame:
        left = order.quantity - filled if status in ("New", "PartiallyFilled") else Decimal(0)
        return self._frame(
            "order",
            {
                "category": self.category, "symbol": order.symbol.replace("/", ""),
                "orderId": order.id, "orderLinkId": order.client_id, "blockTradeId": "",
                "side": order.side.capitalize(), "positionIdx": 0, "orderStatus": status,
                "cancelType": "UNKNOWN", "rejectReason": "EC_NoError", "timeInForce": "GTC",
                "isLeverage": "", "price": text(order.price or Decimal(0)),
                "qty": text(order.quantity), "avgPrice": text(value / filled) if filled else "",
                "leavesQty": text(left), "cumExecQty": text(filled), "cumExecValue": text(value),
                "cumExecFee": "0", "orderType": order.type, "stopOrderType": "",
                "triggerPrice": "", "reduceOnly": False, "createdTime": str(order.created_at),
                "updatedTime": str(at),
            },
        )  # fmt: skip

    def _frame(self, topic: str, event: dict[str, Any]) -> Frame:
        return {
            "id": f"592324d2bce751-ad38-48eb-8f42-{len(self.sent):012x}", "topic": topic,
            "creationTime": _now(), "data": [event],
        }  # fmt: skip


def _now() -> int:
    return time.time_ns() // 1_000_000
