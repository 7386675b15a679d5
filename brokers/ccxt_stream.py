"""An exchange's order stream through ccxt.pro.

The library connects, signs, subscribes, answers pings and notices a dead connection. Events are read
here from the raw messages, by the exchange's dialect: ccxt's own caches keep only the last state of an
order, so of two trades in one moment one would be lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from decimal import DecimalException
from functools import cache
from typing import Any

from brokers.dialects.base import Dialect
from brokers.dialects.private_stream import SUBSCRIBED
from brokers.errors import BrokerError, ConfigurationError
from brokers.streams import OrderNews, OrderStream, StreamLostError
from brokers.transport import Gate, RequestRefusedError, origin
from brokers.types import AccountConfig, Environment
from brokers.venue_client import VenueClient, aim, origins_of, settings_of

logger = logging.getLogger(__name__)

CONNECT_WITHIN = 15.0
"""Seconds for the connection and the subscription."""
SUBSCRIBED_EVERY = 10.0
"""Seconds between two looks whether the venue still has us subscribed."""
PING_EVERY = 10_000
"""Milliseconds; a connection that leaves two pings unanswered is given up."""
ENDED = "ended"
"""What nobody ever answers: its wait ends with the connection."""
Heard = Callable[[Any, str | bytes], None]
SOCKET = {"http": "ws", "https": "wss"}


class CcxtStream(OrderStream):
    """Order events of one account. ``symbols`` is a client that has the exchange's symbol list;
    ``private`` lends one that signs, for requests that have to take turns with the account's others.
    """

    def __init__(
        self,
        dialect: Dialect,
        config: AccountConfig,
        symbols: VenueClient,
        private: Callable[[], AbstractContextManager[VenueClient]],
    ) -> None:
        self._dialect = dialect
        self._private = private
        self._symbols = symbols
        self._config = config
        self._news: asyncio.Queue[OrderNews] = asyncio.Queue()
        self._client: Any = None
        self._watching: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._client = _connected(self._dialect, self._config, self._heard)
        self._client.set_markets_from_exchange(self._symbols.ccxt)
        self._client.private = self._private
        await self._subscribe()
        self._watching = asyncio.create_task(self._watch())

    async def next(self) -> OrderNews:
        heard = asyncio.ensure_future(self._news.get())
        try:
            while not heard.done():
                tasks = {heard, self._watching} if self._watching else {heard}
                await asyncio.wait(
                    tasks, timeout=SUBSCRIBED_EVERY, return_when=asyncio.FIRST_COMPLETED
                )
                if not heard.done():
                    await self._still_there()
            return heard.result()
        finally:
            heard.cancel()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._client is None:
            return
        try:
            await self._client.close()
        except Exception as error:
            # A library's teardown: the connection is given up anyway.
            logger.debug("closing a stream: %s", type(error).__name__)

    async def _still_there(self) -> None:
        """Raises StreamLostError when the connection has ended; subscribes anew where the venue ended
        the subscription alone.
        """
        if self._watching is not None and self._watching.done():
            error = self._watching.exception()
            raise StreamLostError(type(error).__name__ if error else "it ended")
        if await self._subscribe():
            self._news.put_nowait(OrderNews())

    async def _subscribe(self) -> bool:
        """Whether a subscription had to be made."""
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                return await self._dialect.subscribe(self._client)
        except TimeoutError:
            raise StreamLostError(f"not subscribed within {CONNECT_WITHIN:g} s") from None
        except Exception as error:
            # exception texts of the library may hold what was sent, signatures included
            raise StreamLostError(f"not subscribed ({type(error).__name__})") from None

    async def _watch(self) -> None:
        """End with the error of the first connection that ends."""
        await asyncio.gather(*(one.future(ENDED) for one in self._client.clients.values()))

    def _heard(self, socket: Any, data: str | bytes) -> None:
        """Called with every message before the library reads it; must not raise."""
        try:
            message = _exact(data)
            answer = self._dialect.subscription_answer(message)
            if answer is not None:
                _settle(socket, granted=answer)
            told = self._dialect.stream_events(message)
        except (BrokerError, ValueError, TypeError, KeyError) as error:
            logger.warning("a message cannot be read: %s", type(error).__name__)
            self._news.put_nowait(OrderNews())
            return
        for event in told:
            self._tell(event)

    def _tell(self, event: Mapping[str, Any]) -> None:
        try:
            news = self._dialect.streamed(event, self._symbols)
        except (BrokerError, DecimalException, ValueError, TypeError, KeyError) as error:
            logger.warning("an event cannot be read: %s", type(error).__name__)
            news = OrderNews()
        if news is not None:
            self._news.put_nowait(news)


def _exact(data: str | bytes) -> object:
    """The message with its fractions as text, so that none passes through a float; what is no JSON
    object or list stays text.
    """
    said = data.decode() if isinstance(data, bytes) else data
    return json.loads(said, parse_float=str) if said.lstrip()[:1] in ("{", "[") else said


def _settle(socket: Any, *, granted: bool) -> None:
    if granted:
        socket.resolve(True, SUBSCRIBED)
    else:
        socket.reject(StreamLostError("the subscription was refused"), SUBSCRIBED)


def _connected(dialect: Dialect, config: AccountConfig, heard: Heard) -> Any:
    """A ccxt.pro client of the account, aimed where the account's other requests go.

    Raises ConfigurationError when a sandbox account would listen to the exchange's real host.
    """
    profile = dialect.profile
    client = _listening_class(profile.id)(settings_of(profile, config, config.credentials))
    live = _sockets(client)
    origins = aim(client, profile, config)
    client.urls["api"]["ws"] = _as_sockets(client.urls["api"]["ws"])
    client.sockets = _sockets(client)
    if config.environment is Environment.SANDBOX and live & client.sockets:
        raise ConfigurationError(f"the stream of {profile.label} stayed on its real host")
    client.streaming = {**client.streaming, "keepAlive": PING_EVERY}
    client.gate = Gate(profile, origins, tuple(config.credentials.values()))
    client.heard = heard
    return client


@cache
def _listening_class(exchange: str) -> Any:
    """The ccxt.pro class of ``exchange`` whose messages are heard, which sends no order, and which
    connects nowhere but to its ``sockets``.
    """
    import ccxt.pro

    base: Any = getattr(ccxt.pro, exchange)

    class Listening(base):  # type: ignore[misc]
        gate: Gate
        sockets: frozenset[str]
        heard: Heard

        async def fetch(
            self, url: str, method: str = "GET", headers: Any = None, body: Any = None
        ) -> Any:
            self.gate.inspect(url, method, body)
            return await super().fetch(url, method, headers, body)

        def client(self, url: str) -> Any:
            if origin(url) not in self.sockets:
                raise RequestRefusedError(f"{origin(url)} is not where this account listens")
            is_new = url not in (self.clients or {})
            socket = super().client(url)
            if is_new:
                take = socket.handle_text_or_binary_message

                def hear(data: str | bytes) -> None:
                    self.heard(socket, data)
                    take(data)

                socket.handle_text_or_binary_message = hear
            return socket

    return Listening


def _sockets(client: Any) -> frozenset[str]:
    """The origins of ``client``'s streams."""
    return origins_of(client, client.urls["api"]["ws"])


def _as_sockets(urls: Any) -> Any:
    if isinstance(urls, Mapping):
        return {name: _as_sockets(url) for name, url in urls.items()}
    scheme, _, rest = str(urls).partition("://")
    return f"{SOCKET.get(scheme, scheme)}://{rest}"
