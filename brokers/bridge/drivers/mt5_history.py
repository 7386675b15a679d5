"""One order's past at MetaTrader 5, asked for by its ticket where that is known.

A day's whole history is slow to read where thousands of orders were placed (0.6 s for 10,000 through an
imitation of the terminal), and other calls wait meanwhile. So it is read only where the ticket is not
known, or shows less than the order's own numbers say.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from brokers.bridge.drivers.mt5_terminal import Terminal
from brokers.bridge.drivers.mt5_terms import decimal
from brokers.errors import BrokerError


def orders_of(
    terminal: Terminal, ticket: str, since: datetime, is_wanted: Callable[[Any], bool]
) -> list[Any]:
    """The orders that are wanted, those that have ended first. Raises QueryFailedError.

    ``ticket`` may be empty. What is working is asked first: what ends meanwhile is then in the history.
    """
    working = [row for row in terminal.rows("orders_get") if is_wanted(row)]
    ticket = ticket or "".join(str(row.ticket) for row in working[:1])
    ended: list[Any] = []
    if ticket.isdecimal():
        rows = terminal.rows("history_orders_get", ticket=int(ticket))
        ended = [row for row in rows if is_wanted(row)]
    if not (ended or working):
        rows = terminal.history("history_orders_get", since)
        ended = [row for row in rows if is_wanted(row)]
    return ended + working


def learn_clock(terminal: Terminal, ticket: int) -> None:
    """By an order the server has just taken; nothing is learnt where it does not show it."""
    now = datetime.now(UTC)
    try:
        found = orders_of(terminal, str(ticket), now, lambda row: row.ticket == ticket)
    except BrokerError:
        return
    for order in found:
        terminal.clock.learn(order.time_setup_msc, now)


def deals_of(terminal: Terminal, order: Any, since: datetime) -> list[Any]:
    """The order's trades, as many as its numbers say where there are so many.

    Raises QueryFailedError.
    """

    def own(rows: Any) -> list[Any]:
        return [row for row in rows if row.order == order.ticket]

    done = decimal(order.volume_initial) - decimal(order.volume_current)
    deals = own(terminal.rows("history_deals_get", ticket=order.ticket))
    if sum((decimal(row.volume) for row in deals), Decimal(0)) >= done:
        return deals
    return own(terminal.history("history_deals_get", since))
