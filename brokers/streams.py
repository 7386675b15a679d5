"""What a venue's stream of order events is to the rest: news of one order at a time, until it ends.

A stream is never the only source of anything. It may miss events, double them and end without a word:
whoever follows one asks the venue itself after each (re)connection, and goes on polling.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from brokers.types import OrderReport


class StreamLostError(Exception):
    """The stream has ended; the message is fit for a log. Connect again after a pause."""


@dataclass(frozen=True, slots=True)
class OrderNews:
    """One event: a fact, or a hint to ask the venue.

    A fact has a ``report``, with the trade the event is about if it is about one. A hint has none: ask
    about the order it names, or about every order if it names none. ``client_order_id`` is in the
    venue's writing, empty where the event leaves it out; then ``broker_order_id`` names the order.
    """

    client_order_id: str = ""
    report: OrderReport | None = None
    at: datetime | None = None
    broker_order_id: str = ""


class OrderStream(ABC):
    """One connection to one account's order events; used within one event loop, once."""

    @abstractmethod
    async def connect(self) -> None:
        """Return once events flow. Raises StreamLostError."""

    @abstractmethod
    async def next(self) -> OrderNews:
        """The next event, in the venue's order. Raises StreamLostError once the stream has ended."""

    @abstractmethod
    async def close(self) -> None:
        """Release the connection; never raises."""
