"""Binance's WebSocket API for one account, in front of a running venue: REST passes through unchanged,
order events are pushed as the venue's ledger changes (developers.binance.com, "User Data Streams").

Steered from the test: cut the connections, hold events back, end the subscription, send doubles.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from aiohttp import ClientSession, WSMsgType, web

from tests.venues.binance.rules import places
from tests.venues.client import OrderRow, RunningVenue, TradeRow
from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET

LOOK_EVERY = 0.01
STATUSES = {
    "open": "NEW",
    "partially_filled": "PARTIALLY_FILLED",
    "filled": "FILLED",
    "canceled": "CANCELED",
    "expired": "EXPIRED",
    "rejected": "REJECTED",
}


class UserStream:
    """The stream's side of a venue. Flags may be set from any thread."""

    def __init__(self, venue: RunningVenue) -> None:
        self.venue = venue
        self.base_url = ""
        self.subscriptions = 0
        self.is_silent = False
        self.doubles = False
        self.refuses = False
        self.sent: list[dict[str, Any]] = []
        self._sockets: set[web.WebSocketResponse] = set()
        self._seen_trades = 0
        self._states: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- steering ---------------------------------------------------------------------------------

    def cut(self) -> None:
        """Close every connection without a word."""
        self._do(self._cut())

    def end_subscription(self) -> None:
        """Tell that the stream is over and keep the connection open."""
        self._do(self._push({"e": "eventStreamTerminated", "E": 1}))

    def send(self, event: dict[str, Any]) -> None:
        self._do(self._push(event))

    def _do(self, work: Any) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> None:
        for socket in list(self._sockets):
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()
        self._sockets.clear()

    # --- serving ----------------------------------------------------------------------------------

    async def serve(self, started: threading.Event, stopped: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_get("/ws-api/v3", self._socket)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        pushing = asyncio.create_task(self._keep_pushing())
        started.set()
        await stopped.wait()
        pushing.cancel()
        await self._cut()
        await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.Response:
        async with ClientSession(auto_decompress=False) as session:
            answer = await session.request(
                request.method,
                self.venue.base_url + request.raw_path,
                headers={k: v for k, v in request.headers.items() if k.lower() != "host"},
                data=await request.read(),
            )
            body = await answer.read()
        return web.Response(status=answer.status, body=body, content_type="application/json")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            await self._answer(socket, json.loads(message.data))
        self._sockets.discard(socket)
        return socket

    async def _answer(self, socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        known = asked["method"] == "userDataStream.subscribe.signature"
        if self.refuses or not known or not _is_signed(asked["params"]):
            error = {"code": -1022, "msg": "Signature for this request is not valid."}
            await socket.send_json({"id": asked["id"], "status": 400, "error": error})
            return
        self.subscriptions += 1
        self._sockets.add(socket)
        result = {"subscriptionId": self.subscriptions - 1}
        await socket.send_json({"id": asked["id"], "status": 200, "result": result})

    async def _keep_pushing(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            ledger = await asyncio.to_thread(self.venue.control.ledger, "binance")
            for event in self._news(ledger.orders, ledger.trades):
                for _ in range(2 if self.doubles else 1):
                    await self._push(event)

    def _news(self, orders: list[OrderRow], trades: list[TradeRow]) -> list[dict[str, Any]]:
        """Trades first, then orders that have come or ended otherwise."""
        rows = {order.id: order for order in orders}
        filled: dict[str, Decimal] = {}
        found = []
        for trade in trades:
            order = rows[trade.order_id]
            filled[order.id] = filled.get(order.id, Decimal(0)) + trade.quantity
            if trade.sequence <= self._seen_trades:
                continue
            self._seen_trades = trade.sequence
            whole = filled[order.id] >= order.quantity
            state = "FILLED" if whole else "PARTIALLY_FILLED"
            found.append(execution_report(order, filled[order.id], state, trade))
        for order in orders:
            is_new = self._states.get(order.id) != order.status
            self._states[order.id] = order.status
            if is_new and order.status in ("new", "open", "canceled", "expired"):
                status = STATUSES.get(order.status, "NEW")
                found.append(execution_report(order, order.filled, status))
        return found

    async def _push(self, event: dict[str, Any]) -> None:
        if self.is_silent:
            return
        self.sent.append(event)
        for socket in list(self._sockets):
            await socket.send_json({"subscriptionId": 0, "event": event})


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


@contextmanager
def user_stream(venue: RunningVenue) -> Iterator[UserStream]:
    """A stream in front of ``venue``, served by a thread of its own."""
    stream, started = UserStream(venue), threading.Event()
    stopped: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        event = asyncio.Event()
        stopped.append((asyncio.get_running_loop(), event))
        await stream.serve(started, event)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(10), "the stream did not start"
    try:
        yield stream
    finally:
        loop, event = stopped[0]
        loop.call_soon_threadsafe(event.set)
        thread.join(10)
