"""What a driver does: one account at one terminal. Drivers know neither HTTP nor the journal's file.

A driver's methods have the promises of `brokers.base.ExecutionPlugin`; beside the order they get what
the journal knows of it. They are called from several threads: a driver whose terminal takes one call
at a time keeps its own lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from brokers.bridge.journal import Entry
from brokers.capabilities import Capabilities, VenueCard
from brokers.errors import NotSupportedError
from brokers.types import (
    BalanceReport,
    CancelResult,
    ExecutionResult,
    FillReport,
    Health,
    Instrument,
    OrderBook,
    OrderRef,
    OrderReport,
    OrderRequest,
    PositionReport,
    Quote,
)


@dataclass(frozen=True, slots=True)
class Listed:
    """An instrument the agent's operator allowed.

    ``venue_symbol`` is the terminal's own name; ``max_quantity`` bounds one order, in FKS's units.
    ``terms`` holds what only some drivers need.
    """

    symbol: str
    venue_symbol: str
    max_quantity: Decimal
    terms: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """What account the terminal is on right now, and what it can do."""

    account: str
    is_live: bool
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Memory:
    """A driver's hand on the journal, for its own account."""

    find: Callable[[str], Entry | None]
    by_client_id: Callable[[str], Entry | None]
    since: Callable[[datetime], Sequence[Entry]]
    note: Callable[[str, Mapping[str, Any]], None]


class Driver(ABC):
    name: ClassVar[str]
    label: ClassVar[str]
    card: ClassVar[VenueCard]
    proves_absence: ClassVar[bool] = True
    """Whether an order ``fetch_order`` does not find cannot come to life there any more."""

    @abstractmethod
    def stop(self) -> None:
        """Disconnect."""

    @abstractmethod
    def standing(self) -> Standing:
        """Asked before every order, never from memory; connects if need be. Raises BrokerError."""

    @abstractmethod
    def check(self, request: OrderRequest, *, thorough: bool) -> None:
        """Raise BrokerError when the terminal would not trade now, or not ``request``.

        ``thorough``, for a rehearsal, asks everything the terminal can be asked without sending.
        """

    @abstractmethod
    def execute_order(self, request: OrderRequest, client_id: str) -> ExecutionResult:
        """Send one order, once. Its intent is in the journal already."""

    @abstractmethod
    def cancel_order(self, ref: OrderRef, entry: Entry | None) -> CancelResult:
        """Ask the terminal to cancel this one order."""

    @abstractmethod
    def fetch_order(self, ref: OrderRef, entry: Entry | None) -> OrderReport | None:
        """The order as the terminal knows it; ``None`` only if it is not there."""

    def turned_up(self, entry: Entry) -> bool:
        """Whether the terminal speaks of an order that counted as never sent."""
        return False

    @abstractmethod
    def open_orders(self, symbol: str | None) -> Sequence[OrderReport]:
        """All working orders of the account in allowed instruments."""

    @abstractmethod
    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        """Own trades, oldest first."""

    @abstractmethod
    def positions(self) -> Sequence[PositionReport]:
        """Net positions in allowed instruments."""

    @abstractmethod
    def balances(self) -> Sequence[BalanceReport]:
        """What the account is worth."""

    @abstractmethod
    def instrument(self, symbol: str) -> Instrument:
        """Trading rules of an allowed symbol."""

    @abstractmethod
    def quote(self, symbol: str, hint: Decimal | None) -> Quote:
        """Best prices now."""

    def order_book(self, symbol: str) -> OrderBook:
        """What others offer now, in units. Raises NotSupportedError where no terminal tells."""
        raise NotSupportedError(f"{self.label} shows no order book")

    @abstractmethod
    def health(self) -> Health:
        """One cheap question."""
