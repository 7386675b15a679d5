"""The clients of one account: as many as are in use at once."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from brokers.dialects.base import Dialect
from brokers.key_turns import TURNS, Turn
from brokers.markets import MARKETS, list_name, load_markets
from brokers.timing import timed
from brokers.types import AccountConfig, Environment
from brokers.venue_client import VenueClient, connect

LONGEST_TURN = 10.0
"""Seconds to wait for another request with the same key; less if the account gives up sooner."""

KEPT = 60.0
"""Seconds for which a client nobody needs is kept, and its connection open; the last one stays."""


_Idle = deque[tuple[float, VenueClient]]  # with when each came back


class ClientPool:
    """Lends clients that know the exchange's symbols.

    A client costs 10 ms and some MiB to make: whoever is done with one leaves it to the next, the one
    used last first, so that its connection is open. Public questions are asked without the key. Where
    a venue wants one request of a key at a time, those of all clients take turns.
    """

    def __init__(self, dialect: Dialect, config: AccountConfig) -> None:
        self._dialect = dialect
        self._profile = dialect.profile
        self._config = config
        self._idle: dict[tuple[int, bool], _Idle] = {}
        self._is_closed = False
        self._turns = TURNS
        self._time_difference: int | None = None
        self._listed_as = ""
        self._patience = timed(self._profile.capabilities, config.options).submit_timeout

    def check(self) -> None:
        """Make a client without asking anything. Raises ConfigurationError."""
        with self._lent(private=False):
            pass

    @contextmanager
    def public(self, *, markets: bool = True) -> Iterator[VenueClient]:
        """A client without credentials. Raises QueryFailedError."""
        with self._lent(private=False) as client:
            if markets:
                self._give_markets(client)
            yield client

    @contextmanager
    def private(self, *, refresh: bool = True) -> Iterator[VenueClient]:
        """A client that signs. ``refresh`` off never waits for a newer symbol list.

        Raises QueryFailedError, and so do its requests when the key stays in use for too long.
        """
        with self._lent(private=True) as client:
            self._give_markets(client, refresh=refresh)
            if self._time_difference is not None:
                client.ccxt.options["timeDifference"] = self._time_difference
            yield client

    def heal_clock(self, client: VenueClient) -> None:
        """Adopt the venue's clock after it refused a timestamp. Raises QueryFailedError."""
        if self._profile.rising_nonce:
            return
        server = self._dialect.server_time(client)
        if server is None:
            return
        self._time_difference = client.ccxt.milliseconds() - round(server.timestamp() * 1000)
        client.ccxt.options["timeDifference"] = self._time_difference

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        self._is_closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        for idle in list(self._idle.values()):
            with suppress(IndexError):  # another thread may take the last one
                while True:
                    idle.pop()[1].close()

    def _close_unneeded(self, idle: _Idle) -> None:
        """Else many that were once in use at the same moment would stay for ever."""
        with suppress(IndexError):  # as above
            while len(idle) > 1 and idle[0][0] < time.monotonic() - KEPT:
                idle.popleft()[1].close()

    def _turn(self) -> AbstractContextManager[Turn]:
        key = self._config.credentials.get("api_key", "")
        place = f"{self._profile.id} {self._config.options.get('base_url', '')}".strip()
        return self._turns.turn(place, key, min(LONGEST_TURN, self._patience))

    @contextmanager
    def _lent(self, *, private: bool) -> Iterator[VenueClient]:
        """Of this process alone: a connection opened before a fork would be shared with the parent, and
        answers would get mixed up.
        """
        idle = self._idle.setdefault((os.getpid(), private), deque())
        try:
            _, client = idle.pop()
        except IndexError:
            client = self._connect(private=private)
        try:
            yield client
        finally:
            # in this order: whichever of the two comes last, the closing or this one, closes it
            idle.append((time.monotonic(), client))
            if self._is_closed:
                self._close_idle()
            self._close_unneeded(idle)

    def _give_markets(self, client: VenueClient, *, refresh: bool = True) -> None:
        facts = self._dialect.market_facts
        MARKETS.give(
            self._list_name(client),
            client,
            lambda: load_markets(self._connect(private=False), facts),
            refresh=refresh,
        )

    def _list_name(self, client: VenueClient) -> str:
        """The same for all clients of the pool."""
        if not self._listed_as:
            profile, origins = self._profile, client.gate.origins
            facts = self._dialect.market_facts
            sandbox = self._config.environment is Environment.SANDBOX
            self._listed_as = list_name(
                profile.id, profile.market_type, origins, facts, sandbox=sandbox
            )
        return self._listed_as

    def _connect(self, *, private: bool) -> VenueClient:
        client = connect(self._profile, self._config, self._dialect.read_error, private=private)
        client.on_unknown = lambda: MARKETS.doubt(self._list_name(client))
        if private and self._profile.one_in_flight:
            client.ccxt.turn = self._turn
        return client
