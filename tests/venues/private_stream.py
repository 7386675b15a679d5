"""A venue's private WebSocket in front of its running REST side: REST passes through unchanged, order
events are pushed as the ledger changes, in the venue's own frames.

Steered from the test: cut the connections, hold events back, deliver them late, twice or in reverse.
"""

from __future__ import annotations

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, ClassVar

from aiohttp import ClientSession, WSMsgType, web

from tests.venues.client import OrderRow, RunningVenue, TradeRow

LOOK_EVERY = 0.03
Frame = dict[str, Any]


class PrivateStream(ABC):
    """The stream's side of a venue. Flags may be set from any thread.

    ``sent`` are the pushed frames. While ``is_holding`` frames wait; `release` sends them, the newest
    first. ``is_silent`` drops them, ``doubles`` sends each twice.
    """

    path: ClassVar[str]

    def __init__(self, venue: RunningVenue, name: str) -> None:
        self.venue = venue
        self.name = name
        self.base_url = ""
        self.subscriptions = 0
        self.is_silent = False
        self.is_holding = False
        self.doubles = False
        self.refuses = False
        self.sent: list[Frame] = []
        self._held: list[Frame] = []
        self._sockets: set[web.WebSocketResponse] = set()
        self._seen_trades = 0
        self._states: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- what each venue does its own way -----------------------------------------------------------

    @abstractmethod
    async def answer(self, socket: web.WebSocketResponse, asked: Any) -> None:
        """Answer one frame of the client; `subscribed` once its signature has proven good."""

    @abstractmethod
    def traded(self, order: OrderRow, filled: Decimal, trade: TradeRow) -> Sequence[Frame]:
        """The frames about a trade that left ``filled`` of the order filled."""

    @abstractmethod
    def changed(self, order: OrderRow) -> Sequence[Frame]:
        """The frames about an order that has come or ended without a trade."""

    def passed(self, path: str, body: bytes) -> None:
        """Called with every REST answer on its way through."""
        return

    # --- steering ---------------------------------------------------------------------------------

    def cut(self) -> None:
        """Close every connection without a word."""
        self._do(self._cut())

    def send(self, frame: Frame) -> None:
        """Push a frame of the test's own making."""
        self._do(self._push(frame))

    def release(self) -> None:
        """Deliver what was held back, the newest first."""
        self.is_holding = False
        held, self._held = self._held, []
        for frame in reversed(held):
            self._do(self._push(frame))

    @property
    def held(self) -> int:
        return len(self._held)

    def subscribed(self, socket: web.WebSocketResponse) -> None:
        """From now on the connection gets events."""
        self.subscriptions += 1
        self._sockets.add(socket)

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
        app.router.add_get(self.path, self._socket)
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
        self.passed(request.path, body)
        return web.Response(status=answer.status, body=body, content_type="application/json")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            text = message.data
            await self.answer(socket, json.loads(text) if text[:1] == "{" else text)
        self._sockets.discard(socket)
        return socket

    async def _keep_pushing(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            ledger = await asyncio.to_thread(self.venue.control.ledger, self.name)
            for frame in self._news(ledger.orders, ledger.trades):
                if self.is_holding:
                    self._held.append(frame)
                    continue
                for _ in range(2 if self.doubles else 1):
                    await self._push(frame)

    def _news(self, orders: list[OrderRow], trades: list[TradeRow]) -> list[Frame]:
        """Trades first, then orders that have come or ended otherwise."""
        rows = {order.id: order for order in orders}
        filled: dict[str, Decimal] = {}
        found: list[Frame] = []
        for trade in trades:
            order = rows[trade.order_id]
            filled[order.id] = filled.get(order.id, Decimal(0)) + trade.quantity
            if trade.sequence > self._seen_trades:
                self._seen_trades = trade.sequence
                found += self.traded(order, filled[order.id], trade)
        for order in orders:
            is_new = self._states.get(order.id) != order.status
            self._states[order.id] = order.status
            if is_new and order.status in ("new", "open", "canceled", "expired"):
                found += self.changed(order)
        return found

    async def _push(self, frame: Frame) -> None:
        if self.is_silent:
            return
        self.sent.append(frame)
        for socket in list(self._sockets):
            await socket.send_json(frame)


@contextmanager
def served(stream: PrivateStream) -> Iterator[PrivateStream]:
    """``stream``, served by a thread of its own."""
    started = threading.Event()
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
