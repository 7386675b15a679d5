"""OKX's private WebSocket v5 for one account (okx.com/docs-v5, "Order channel")."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.venues.client import OrderRow, TradeRow
from tests.venues.credentials import OKX_KEYS, OKX_PASSPHRASE, OKX_SECRET
from tests.venues.okx.rules import INSTRUMENTS, SPOT, SWAP, text, unit
from tests.venues.okx.trading import CHILD
from tests.venues.private_stream import Frame, PrivateStream

CONNECTION = "a4d3ae55"
WINDOW = 30
STATES = {"canceled": "canceled", "expired": "canceled"}


class OkxStream(PrivateStream):
    """Logged in by a signature over the time, then subscribed to a channel; pinged with plain text."""

    path = "/ws/v5/private"

    @property
    def kind(self) -> str:
        return SWAP if self.name.endswith("swap") else SPOT

    async def answer(self, socket: web.WebSocketResponse, asked: Any) -> None:
        if asked == "ping":
            await socket.send_str("pong")
            return
        [arg] = asked["args"]
        if asked["op"] == "login" and not self._is_signed(arg):
            await self._refuse(socket, "60009", "Login failed.")
        elif asked["op"] == "login":
            socket["user"] = arg["apiKey"]
            told = {"event": "login", "code": "0", "msg": "", "connId": CONNECTION}
            await socket.send_json(told)
        elif "user" not in socket:
            await self._refuse(socket, "60011", "Please log in")
        elif self.refuses or arg != {"channel": "orders", "instType": self.kind}:
            await self._refuse(socket, "60018", "Wrong URL or channel doesn't exist.")
        else:
            await socket.send_json({"event": "subscribe", "arg": arg, "connId": CONNECTION})
            self.subscribed(socket)

    async def _refuse(self, socket: web.WebSocketResponse, code: str, words: str) -> None:
        await socket.send_json({"event": "error", "code": code, "msg": words, "connId": CONNECTION})

    def _is_signed(self, arg: dict[str, str]) -> bool:
        signed = f"{arg['timestamp']}GET/users/self/verify".encode()
        mac = hmac.new(OKX_SECRET.encode(), signed, hashlib.sha256).digest()
        return (
            arg["apiKey"] == OKX_KEYS[self.kind]
            and arg["passphrase"] == OKX_PASSPHRASE
            and abs(time.time() - int(arg["timestamp"])) < WINDOW
            and arg["sign"] == base64.b64encode(mac).decode()
        )

    def traded(self, order: OrderRow, filled: Decimal, trade: TradeRow) -> Sequence[Frame]:
        state = "filled" if filled >= order.quantity else "partially_filled"
        return [self._frame(order, filled, state, trade)]

    def changed(self, order: OrderRow) -> Sequence[Frame]:
        if order.trigger_price is not None:
            return []  # a stop that waits is told of in the channel "orders-algo"
        return [self._frame(order, order.filled, STATES.get(order.status, "live"))]

    def _frame(
        self, order: OrderRow, filled: Decimal, state: str, trade: TradeRow | None = None
    ) -> Frame:
        names = INSTRUMENTS[self.kind].items()
        [(name, item)] = [(name, item) for name, item in names if item.symbol == order.symbol]
        size, algo = unit(self.kind, item), order.trigger_price is not None
        event = {
            "instType": self.kind, "instId": name, "tgtCcy": "", "ccy": "", "tag": "",
            "ordId": CHILD + order.id if algo else order.id,
            "clOrdId": "" if algo else order.client_id,
            "algoId": order.id if algo else "", "algoClOrdId": order.client_id if algo else "",
            "px": text(order.price) if order.price else "", "sz": text(order.quantity / size),
            "notionalUsd": "", "ordType": order.type, "side": order.side, "posSide": "net",
            "tdMode": "cash" if self.kind == SPOT else "cross", "category": "normal",
            "accFillSz": text(filled / size), "avgPx": text(trade.price) if trade else "",
            "state": state, "lever": "0", "feeCcy": trade.fee_asset if trade else "",
            "fee": text(-trade.fee) if trade else "0", "rebate": "0", "rebateCcy": "",
            "fillSz": text(trade.quantity / size) if trade else "0",
            "fillPx": text(trade.price) if trade else "", "tradeId": trade.id if trade else "",
            "fillFee": text(-trade.fee) if trade else "0",
            "fillFeeCcy": trade.fee_asset if trade else "",
            "fillTime": str(trade.time) if trade else "",
            "execType": ("M" if trade.maker else "T") if trade else "",
            "uTime": str(trade.time if trade else order.created_at),
            "cTime": str(order.created_at), "reqId": "", "amendResult": "", "code": "0", "msg": "",
        }  # fmt: skip
        arg = {"channel": "orders", "instType": self.kind, "uid": "77982378738415879"}
        return {"arg": arg, "data": [event]}
