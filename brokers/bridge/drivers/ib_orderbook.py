"""The account's orders and executions as TWS tells them now; nothing is taken from memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from brokers.bridge.drivers.ib_reports import newest
from brokers.bridge.drivers.ib_session import Session

logger = logging.getLogger(__name__)

COMMISSION_SECONDS = 1.5
"""Commissions come in messages of their own, after the executions."""
SERVERS = "America/New_York"
"""The zone Interactive Brokers' own days follow."""
MARGIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Traces:
    """All that TWS shows of some orders."""

    working: list[Any]
    completed: list[Any]
    fills: list[Any]

    @property
    def is_anything(self) -> bool:
        return bool(self.working or self.completed or self.fills)

    def of(self, is_wanted: Callable[[Any], bool]) -> Traces:
        """What of it ``is_wanted`` picks."""
        return Traces(
            [one for one in self.working if is_wanted(one.order)],
            [one for one in self.completed if is_wanted(one.order)],
            [one for one in self.fills if is_wanted(one.execution)],
        )


async def traces(session: Session, account: str, is_wanted: Callable[[Any], bool]) -> Traces:
    """What TWS shows of the orders and executions ``is_wanted`` picks. Raises QueryFailedError.

    In this order: what ends meanwhile is then among the completed, what fills meanwhile in the last.
    """
    working = await open_orders(session, account)
    completed = await session.ask(
        "completed orders", lambda: session.ib.reqCompletedOrdersAsync(False)
    )
    fills = await executions(session, account)
    ended = [one for one in completed if one.order.account == account]
    return Traces(working, ended, fills).of(is_wanted)


async def open_orders(session: Session, account: str) -> list[Any]:
    """Everybody's in this account, in whatever state."""
    rows = await session.ask("open orders", session.ib.reqAllOpenOrdersAsync)
    session.require_servers()
    unique = {id(row): row for row in rows if row.order.account == account}
    return list(unique.values())


async def executions(session: Session, account: str) -> list[Any]:
    """Today's, with their commissions as far as they came, corrected ones left out."""
    wanted = session.package.ExecutionFilter(acctCode=account)
    rows = await session.ask("executions", lambda: session.ib.reqExecutionsAsync(wanted))
    session.require_servers()
    ids = [row.execution.execId for row in rows if row.execution.acctNumber == account]
    known, ours = session.ib.wrapper.fills, session.ib.client.clientId
    # TWS tells nobody the commissions of other clients
    due = [one for one in ids if known[one].execution.clientId == ours]
    until = asyncio.get_running_loop().time() + COMMISSION_SECONDS
    while missing := [one for one in due if not known[one].commissionReport.execId]:
        if not await session.news(until):
            logger.warning("TWS tells no commission yet of %s: told without", ", ".join(missing))
            break
    return newest(known[one] for one in ids)


def tells_of(sent_at: datetime, now: datetime, time_zone: str) -> bool:
    """Whether an order of ``sent_at`` would still be shown: TWS tells of today alone.

    Whose midnight counts is nowhere said: this machine's, New York's and the one in the settings must
    all lie before the order.
    """
    zones: list[tzinfo | None] = [None, ZoneInfo(SERVERS)]
    if time_zone:
        zones.append(ZoneInfo(time_zone))
    early = (sent_at - MARGIN).astimezone(UTC)
    return all(early.astimezone(z).date() == now.astimezone(z).date() for z in zones)
