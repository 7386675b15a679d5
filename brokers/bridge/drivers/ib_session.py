"""One connection to TWS or IB Gateway, on the thread of its event loop.

TWS numbers some answers and not others: a list of orders is whatever came before its end mark. So
unnumbered questions go one at a time, and a late answer ends the connection, lest its rest be taken for
the next answer. What ib_async cannot read it drops with a line in the log; here that spoils the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from brokers.bridge.drivers.ib_settings import Terms
from brokers.errors import BrokerError, QueryFailedError

CONNECT_SECONDS = 5
MOST_A_SECOND = 40
"""TWS takes 50 messages a second (interactivebrokers.github.io/tws-api/order_limitations.html) and cuts
off who sends more (error 100)."""
LOST = frozenset({1100, 2110})
BACK = frozenset({1101, 1102})
"""TWS without its servers, and with them again (tws-api/message_codes.html)."""
UNREADABLE = "with something ib_async cannot read: see the agent's log"
NUMBER_TAKEN = 326
"""Another client has this client id."""


class Unread(logging.Handler):
    """Counts the messages of TWS that ib_async could not read."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0
        logging.getLogger("ib_async.Decoder").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


class Pace:
    """So many messages a second and no more."""

    def __init__(self) -> None:
        self._sent: deque[float] = deque()

    async def turn(self) -> None:
        """Wait until one more message may be sent."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            while self._sent and now - self._sent[0] >= 1:
                self._sent.popleft()
            if len(self._sent) < MOST_A_SECOND:
                self._sent.append(now)
                return
            await asyncio.sleep(1 - (now - self._sent[0]))


class Session:
    """Made, used and closed on the loop's thread."""

    def __init__(self, package: Any, terms: Terms, unread: Unread) -> None:
        self.package = package
        self.ib: Any = package.IB()
        self.ib.RaiseRequestErrors = True
        self.ib.TimezoneTWS = terms.time_zone
        # its own queue would send an order long after it was given up; `pace` waits before instead
        self.ib.client.MaxRequests = 0
        # it would open one more account summary with each outage, of two that TWS allows
        self.ib.errorEvent -= self.ib._onError
        self.ib.errorEvent += self._hear
        self.ib.updateEvent += self._wake
        self.ib.disconnectedEvent += self._wake
        self.pace = Pace()
        self.cut_off = False
        self.known: dict[str, Any] = {}
        """What was learnt over this connection."""
        self.patience = terms.answer_seconds
        self._terms, self._unread = terms, unread
        self._said: defaultdict[int, list[list[tuple[int, str]]]] = defaultdict(list)
        self._last = ""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: list[asyncio.Future[None]] = []
        self._connecting: asyncio.Future[Any] | None = None

    @property
    def alive(self) -> bool:
        return bool(self.ib.isConnected())

    async def open(self) -> None:
        """Connect and learn the open orders, whose numbers must not be used again."""
        terms, before = self._terms, self._unread.count
        orders = self.package.StartupFetch.ORDERS_OPEN
        self._connecting = asyncio.ensure_future(
            self.ib.connectAsync(
                terms.host,
                terms.port,
                terms.client_id,
                CONNECT_SECONDS,
                raiseSyncErrors=True,
                fetchFields=orders,
            )
        )
        try:
            await self._connecting
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            self.close()
            why = self._last or type(error).__name__
            where = f"{terms.host}:{terms.port}"
            raise QueryFailedError(f"no connection to TWS at {where}: {why}") from error
        if self._unread.count != before:
            self.close()
            raise QueryFailedError(f"TWS shows open orders {UNREADABLE}")

    def close(self) -> None:
        self.ib.client.disconnect()
        self.ib.wrapper.connectionClosed()
        self._wake()

    async def ask(
        self, name: str, request: Callable[[], Awaitable[Any]], *, whole: bool = True
    ) -> Any:
        """The answer to one question; those of one ``name`` go one at a time.

        ``whole``: not if ib_async had to leave out a part. Raises QueryFailedError.
        """
        async with self._locks[name]:
            await self.pace.turn()
            before = self._unread.count
            answer = await self._answer(name, request)
            if whole and self._unread.count != before:
                raise QueryFailedError(f"TWS answered ({name}) {UNREADABLE}")
            return answer

    async def _answer(self, name: str, request: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await asyncio.wait_for(request(), self.patience)
        except TimeoutError as error:
            self.close()
            raise QueryFailedError(f"TWS did not answer ({name}) {self._last}") from error
        except asyncio.CancelledError:
            self.close()
            raise
        except self.package.RequestError as error:
            raise RefusedError(name, error.code, error.message) from error
        except ConnectionError as error:
            raise QueryFailedError(f"the connection to TWS broke ({name})") from error

    async def news(self, until: float) -> bool:
        """Wait for a message; false at ``until`` (of the loop's clock) and without a connection."""
        loop = asyncio.get_running_loop()
        if not self.alive or loop.time() >= until:
            return False
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await asyncio.wait([future], timeout=until - loop.time())
        return self.alive

    def listen(self, number: int) -> list[tuple[int, str]]:
        """The codes and texts TWS sends for request or order ``number``, as they come."""
        said: list[tuple[int, str]] = []
        self._said[number].append(said)
        return said

    def forget(self, number: int, said: list[tuple[int, str]]) -> None:
        """End one listening to ``number``."""
        self._said[number] = [one for one in self._said[number] if one is not said]
        if not self._said[number]:
            del self._said[number]

    def require_servers(self) -> None:
        """Raise QueryFailedError while TWS is without its servers: what it shows may be old."""
        if self.cut_off:
            raise QueryFailedError("TWS has lost its connection to Interactive Brokers")

    def _hear(self, number: int, code: int, text: str, _contract: object) -> None:
        self.cut_off = (self.cut_off or code in LOST) and code not in BACK
        for said in self._said.get(number, ()):
            said.append((code, text))
        if not 2100 <= code < 2200:
            self._last = f"{text} ({code})"
        if code == NUMBER_TAKEN and self._connecting is not None:
            self._connecting.cancel()

    def _wake(self, *_: object) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class RefusedError(QueryFailedError):
    """TWS answered a question with an error."""

    def __init__(self, name: str, number: int, text: str) -> None:
        super().__init__(f"TWS refused {name}: {text} ({number})")
        self.number = number


class StuckError(BrokerError):
    """Nobody knows how far the work on the loop came."""

    code = "VENUE_UNREACHABLE"
