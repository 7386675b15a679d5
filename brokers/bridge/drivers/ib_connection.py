"""The agent's one long-lived connection to TWS, and the thread it lives on."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import TimeoutError as TookTooLong
from typing import Any, TypeVar

from brokers.bridge.drivers.ib_session import Session, StuckError, Unread
from brokers.bridge.drivers.ib_settings import Terms
from brokers.errors import ConfigurationError

T = TypeVar("T")


class Connection:
    """Opened at the first question and again at the first one after it broke."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._unread = Unread()
        self._session: Session | None = None
        self._loop = asyncio.new_event_loop()
        self._opening = asyncio.Lock()
        # it tells every order and position of the account; what matters is in the agent's own lines
        logging.getLogger("ib_async").setLevel(logging.WARNING)
        threading.Thread(target=self._loop.run_forever, name="ib", daemon=True).start()

    def run(self, work: Callable[[Session], Awaitable[T]], seconds: float) -> T:
        """What ``work`` comes to over the open connection.

        Raises BrokerError; StuckError when it is not done after ``seconds``.
        """
        return self._wait(self._with_session(work), seconds)

    def close(self) -> None:
        self._wait(self._end(), 2)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except TookTooLong as error:
            future.cancel()
            raise StuckError(f"not done after {seconds:.0f} s") from error

    async def _with_session(self, work: Callable[[Session], Awaitable[T]]) -> T:
        async with self._opening:
            session = self._session
            if session is None or not session.alive:
                self._session = session = Session(_package(), self._terms, self._unread)
                await session.open()
        return await work(session)

    async def _end(self) -> None:
        if self._session is not None:
            self._session.close()


def _package() -> Any:
    try:
        return importlib.import_module("ib_async")
    except ImportError as error:
        raise ConfigurationError("the package ib_async is not installed here") from error
