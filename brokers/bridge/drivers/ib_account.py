"""Which accounts TWS is on, what they hold and what they are worth."""

from __future__ import annotations

from typing import Any

from brokers.bridge.drivers.ib_numbers import decimal
from brokers.bridge.drivers.ib_session import Session
from brokers.errors import QueryFailedError
from brokers.types import BalanceReport

EQUITY, FREE = "NetLiquidation", "AvailableFunds"


async def managed_accounts(session: Session) -> list[str]:
    """TWS's accounts, proven by an answer of this moment. Raises QueryFailedError."""
    await session.ask("time", session.ib.reqCurrentTimeAsync)
    session.require_servers()
    return list(session.ib.managedAccounts())


async def positions(session: Session, account: str) -> dict[int, Any]:
    """By contract id; the last word of each counts."""
    rows = await session.ask("positions", session.ib.reqPositionsAsync)
    session.require_servers()
    held = {row.contract.conId: row for row in rows if row.account == account}
    return {number: row for number, row in held.items() if row.position}


async def balances(session: Session, account: str) -> list[BalanceReport]:
    ib = session.ib

    async def summary() -> list[Any]:
        number = ib.client.getReqId()
        ib.wrapper.acctSummary.clear()
        future = ib.wrapper.startReq(number)
        ib.client.reqAccountSummary(number, "All", f"{EQUITY},{FREE}")
        await future
        await session.pace.turn()
        ib.client.cancelAccountSummary(number)
        return [row for row in ib.wrapper.acctSummary.values() if row.account == account]

    rows = await session.ask("account summary", summary)
    session.require_servers()
    told = {row.tag: row for row in rows}
    if EQUITY not in told or FREE not in told:
        raise QueryFailedError(f"TWS told no balance of {account}")
    equity = told[EQUITY]
    return [BalanceReport(equity.currency, decimal(equity.value), decimal(told[FREE].value))]
