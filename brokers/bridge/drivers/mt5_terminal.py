"""The connection to one MetaTrader 5 terminal: every call of the vendor's package goes through here.

The package keeps one connection per process and its last error beside it, so calls go one at a time.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from brokers.bridge.driver import Listed
from brokers.bridge.drivers import mt5_terms as terms
from brokers.bridge.drivers.mt5_clock import ServerClock
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)

DAY = timedelta(days=1)
"""History is asked for a day more on both ends: its times are the server's, not UTC."""
FRESH = 10.0
"""Seconds between two looks at a price within which a change happened just now."""
PATIENCE = 3.0
"""Seconds to wait for a first price to move."""
OK = 1


class ExpiredError(BrokerError):
    """Nothing was sent: the order's time was over."""

    code = "EXPIRED_BEFORE_SENDING"


class Terminal:
    """Raises QueryFailedError wherever the terminal gives no answer."""

    def __init__(self, path: str | None, account: str) -> None:
        """``account`` is the login everything is for, whatever the terminal is on."""
        self.clock = ServerClock()
        self._path, self._account = path, account
        self._lock = threading.RLock()
        self._package: Any = None
        self._looks: dict[str, tuple[float, int]] = {}
        self._depths: set[str] = set()

    @contextmanager
    def package(self) -> Iterator[Any]:
        """The package, connected, for this thread alone."""
        with self._lock:
            if self._package is None:
                try:
                    self._package = importlib.import_module("MetaTrader5")
                except ImportError as error:
                    raise ConfigurationError(
                        "the package MetaTrader5 is not installed here (Windows only)"
                    ) from error
            if self._package.terminal_info() is None:
                paths = [self._path] if self._path else []
                if not self._package.initialize(*paths):
                    code, text = self._package.last_error()
                    raise QueryFailedError(f"MetaTrader does not answer: {text} ({code})")
                # the new connection has not asked for any depth
                self._depths.clear()
            yield self._package

    def close(self) -> None:
        with self._lock:
            if self._package is not None:
                self._package.shutdown()

    @contextmanager
    def _at_server(self, elsewhere: type[BrokerError] = ConfigurationError) -> Iterator[Any]:
        """The package, for a question to the account's server: cut off from it, the terminal goes on
        telling what it last knew, and logged in elsewhere it tells of another account, whose lots and
        prices are its own. ``elsewhere`` is what it raises then: of a symbol QueryFailedError, because
        an exit makes do with what was told of that before.
        """
        with self.package() as package:
            self._refuse_elsewhere(package, elsewhere)
            yield package
            self._refuse_elsewhere(package, elsewhere)

    def _refuse_elsewhere(
        self, package: Any, error: type[BrokerError] = ConfigurationError
    ) -> None:
        """Raise ``error`` where somebody has logged the terminal in to another account."""
        _refuse_when_cut_off(package)
        on = str(self.ask("account_info").login)
        if on != self._account:
            raise error(f"the terminal is on account {on}, not on {self._account}")

    def account(self) -> Any:
        """The account, as the terminal shows it now."""
        with self._at_server():
            return self.ask("account_info")

    def ask(self, function: str, *arguments: object, **named: object) -> Any:
        """One answer of the package."""
        with self.package() as package:
            answer = getattr(package, function)(*arguments, **named)
            if answer is None:
                code, text = package.last_error()
                raise QueryFailedError(f"MetaTrader's {function}: {text} ({code})")
            return answer

    def rows(self, function: str, *arguments: object, **named: object) -> Sequence[Any]:
        """A list of the package; "nothing found" is an empty one, an error is none."""
        with self._at_server() as package:
            answer = getattr(package, function)(*arguments, **named)
            if answer is None:
                code, text = package.last_error()
                if code != OK:
                    raise QueryFailedError(f"MetaTrader's {function}: {text} ({code})")
            return tuple(answer or ())

    def history(self, function: str, since: datetime) -> Sequence[Any]:
        """Orders or deals; dates are positional, other forms are refused by the package."""
        return self.rows(function, since.astimezone(UTC) - DAY, datetime.now(UTC) + DAY)

    def request(
        self, function: str, fields: Mapping[str, Any], before: datetime | None = None
    ) -> tuple[Any, tuple[int, str]]:
        """The answer to a trade request, or ``None``, and the package's error beside it.

        Raises ExpiredError when it would leave at or after ``before``: other threads' calls, and a
        terminal that had to be connected, may have taken long. Raises ConfigurationError on another
        account.
        """
        with self.package() as package:
            self._refuse_elsewhere(package)
            if before is not None and datetime.now(UTC) >= before:
                raise ExpiredError("the claim on this order ended while it waited for the terminal")
            answer = getattr(package, function)(dict(fields))
            return answer, package.last_error()

    def symbol(self, listed: Listed) -> Any:
        """The terminal's row of an instrument, selected. Raises UnknownSymbolError for one it does not
        list: an answer that was lost, or a row that cannot be selected now, says nothing of that.
        """
        with self._at_server(QueryFailedError) as package:
            found = package.symbol_info(listed.venue_symbol)
            if found is not None and (found.visible or package.symbol_select(found.name, True)):
                return found
            code, text = package.last_error()
            self._refuse_elsewhere(package, QueryFailedError)
            if found is not None or code in terms.CUT_OFF:
                raise QueryFailedError(f"MetaTrader's {listed.venue_symbol}: {text} ({code})")
            raise UnknownSymbolError(f"the terminal does not list {listed.venue_symbol!r}")

    def depth(self, venue_symbol: str) -> Sequence[Any]:
        """The rows of the depth of market; none where the broker shows none, or not yet."""
        with self._at_server(QueryFailedError) as package:
            if venue_symbol not in self._depths:
                if not package.market_book_add(venue_symbol):
                    return ()
                self._depths.add(venue_symbol)
            return tuple(package.market_book_get(venue_symbol) or ())

    def tick(self, venue_symbol: str) -> Any:
        """The newest price. The first ones also teach the server's clock.

        Raises QuoteUnavailableError while nothing moves: then nobody knows how old the price is.
        """
        end = time.monotonic() + PATIENCE
        self._look(venue_symbol)
        while self.clock.offset is None:
            if time.monotonic() >= end:
                raise QuoteUnavailableError(f"{venue_symbol} does not move: is its market open?")
            time.sleep(0.05)
            self._look(venue_symbol)
        return self.price(venue_symbol)

    def price(self, venue_symbol: str) -> Any:
        """The newest price, however old. Raises QuoteUnavailableError where there is none."""
        tick = self._look(venue_symbol)
        if not (tick.bid > 0 and tick.ask > 0):
            raise QuoteUnavailableError(f"{venue_symbol} has no price")
        return tick

    def _look(self, venue_symbol: str) -> Any:
        with self._at_server(QueryFailedError):
            tick = self.ask("symbol_info_tick", venue_symbol)
        now, (before, last) = time.monotonic(), self._looks.get(venue_symbol, (0.0, 0))
        self._looks[venue_symbol] = (now, tick.time_msc)
        if last and tick.time_msc != last and now - before < FRESH:
            self.clock.learn(tick.time_msc, datetime.now(UTC))
        return tick


def _refuse_when_cut_off(package: Any) -> None:
    terminal = package.terminal_info()
    if terminal is None or not terminal.connected:
        raise QueryFailedError("the terminal is not connected to its server")
