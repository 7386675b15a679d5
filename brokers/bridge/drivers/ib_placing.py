"""Sending one order, once, and cancelling one, with what TWS says meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from brokers.bridge.drivers import ib_orders as orders
from brokers.bridge.drivers.ib_contracts import Traded
from brokers.bridge.drivers.ib_reports import ENDED
from brokers.bridge.drivers.ib_session import RefusedError, Session
from brokers.errors import BrokerError, NotSupportedError, QueryFailedError
from brokers.types import CancelResult, ExecutionResult, OrderRequest, Outcome

GRACE = 2.0
"""Seconds after an error within which the rest of TWS's answer comes."""
JUMP = 1000
"""How far the order numbers move on when TWS has used the next one."""
AGAIN = 2
"""Seconds until an order that found no connection is tried again."""


class Placing:
    """One placement; ``is_sent`` from the moment a byte may have left."""

    def __init__(self, request: OrderRequest, account: str, client_id: str) -> None:
        self.is_sent = False
        self._request, self._account = request, account
        self._client_id = client_id
        self._evidence: Mapping[str, Any] = {}

    async def run(self, session: Session, traded: Traded) -> ExecutionResult:
        """Raises BrokerError."""
        told = orders.fields(self._request, traded, self._account, self._client_id)
        session.require_servers()
        await session.pace.turn()
        deadline = self._request.send_before
        if deadline is not None and datetime.now(UTC) >= deadline:
            code, detail = "EXPIRED_BEFORE_SENDING", "the claim on this order ended while it waited"
            return ExecutionResult(Outcome.NOT_SENT, code=code, detail=detail, retry_after=1)
        if not session.alive:
            raise QueryFailedError("the connection to TWS broke before the order left")
        number = session.ib.client.getReqId()
        order = session.package.Order(orderId=number, **told)
        said = session.listen(number)
        self.is_sent = True
        try:
            trade = session.ib.placeOrder(traded.contract, order)
            result = await self._settled(session, trade, said)
            self._evidence = orders.evidence(told, trade, said)
            if result is None:
                why = orders.words(said) or "TWS is silent" if session.alive else "connection lost"
                return self.unknown(why)
        finally:
            session.forget(number, said)
        if result.outcome is Outcome.NOT_SENT:
            session.ib.client.updateReqId(number + JUMP)
            session.ib.wrapper.trades.pop((order.clientId, number), None)
        return replace(result, evidence=self._evidence)

    async def _settled(
        self, session: Session, trade: Any, said: orders.Said
    ) -> ExecutionResult | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + session.patience
        result = orders.judge(trade, said, self._client_id)
        while result is None and await session.news(until):
            result = orders.judge(trade, said, self._client_id)
            if orders.is_serious(said):
                until = min(until, loop.time() + GRACE)
        # what came with the end of the connection counts as well
        return result or orders.judge(trade, said, self._client_id)

    def unknown(self, why: str) -> ExecutionResult:
        return ExecutionResult(
            Outcome.UNKNOWN,
            code="VENUE_UNREACHABLE",
            detail=f"the order may exist: {why}",
            evidence=self._evidence,
        )

    def failed(self, error: BrokerError) -> ExecutionResult:
        """After an error: not sent, unless something may have left."""
        if self.is_sent:
            return self.unknown(str(error))
        again = AGAIN if isinstance(error, QueryFailedError) else None
        return ExecutionResult(
            Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
        )


async def cancel(session: Session, found: Sequence[Any]) -> CancelResult:
    """Cancel the one order in ``found``. Raises BrokerError before anything is sent."""
    if not found or found[0].orderStatus.status in ENDED:
        return CancelResult(Outcome.REJECTED, "NOTHING_TO_CANCEL", "no such working order")
    trade, ib = found[0], session.ib
    if trade.order.clientId != ib.client.clientId:
        raise NotSupportedError(
            f"client {trade.order.clientId} of TWS placed this order, and only that can cancel it"
        )
    number = trade.order.orderId
    await session.pace.turn()
    if not session.alive:
        raise QueryFailedError("the connection to TWS broke before the cancel left")
    said = session.listen(number)
    ib.client.cancelOrder(number)
    until = asyncio.get_running_loop().time() + session.patience
    try:
        while not (result := _canceled(trade, said)):
            if not await session.news(until):
                break
    finally:
        session.forget(number, said)
    return result or CancelResult(Outcome.UNKNOWN, "VENUE_UNREACHABLE", "TWS did not answer")


def _canceled(trade: Any, said: orders.Said) -> CancelResult | None:
    codes, status = {code for code, _ in said}, trade.orderStatus.status
    evidence = {"messages": [f"{code}: {text}" for code, text in said], "state": status}
    if orders.NOTHING_TO_CANCEL & codes or status == "Filled":
        detail = orders.words(said) or "it was filled first"
        return CancelResult(Outcome.REJECTED, "NOTHING_TO_CANCEL", detail, evidence)
    if orders.CANCELED in codes or status in ("PendingCancel", "Cancelled", "ApiCancelled"):
        return CancelResult(Outcome.ACCEPTED, "", orders.words(said), evidence)
    return None


async def rehearse(session: Session, traded: Traded, told: Mapping[str, Any]) -> None:
    """Ask TWS what the order would do, without placing it. Raises BrokerError if it would refuse."""
    order = session.package.Order(**told)
    try:
        await session.ask("what-if", lambda: session.ib.whatIfOrderAsync(traded.contract, order))
    except RefusedError as error:
        raise NotSupportedError(str(error)) from error
