"""What the private streams of several exchanges have in common: one subscription, and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brokers.dialects.answers import Row, rows

SUBSCRIBED = "order events"
"""Under which ccxt.pro remembers the subscription and waits for its answer."""


def is_subscribed(client: Any, url: str) -> bool:
    """Whether ccxt.pro's ``client`` has asked for the events on a connection to ``url`` that stands."""
    known = client.clients.get(url) if client.clients else None
    return known is not None and SUBSCRIBED in known.subscriptions


async def ask(client: Any, url: str, frame: Mapping[str, Any]) -> None:
    """Send ``frame`` and wait until the stream has heard its answer. Raises what the library raises."""
    await client.watch(url, SUBSCRIBED, frame, SUBSCRIBED)


def listed(message: Row) -> Sequence[Row]:
    """The rows of a message. Raises QueryFailedError."""
    return rows(message.get("data"))
