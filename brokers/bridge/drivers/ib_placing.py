"""Sending one order, once, and cancelling one, with what TWS says meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from brokers.bridge.drivers import ib_orders as orders
from brokers.bridge.drivers.ib_contracts import Traded
from brokers.bridge.drivers.ib_reports import ENDED
from brokers.bridge.drivers.ib_session import RefusedError, Session
from brokers.client_ids import letters_and_digits
from brokers.errors import BrokerError, NotSupportedError, QueryFailedError
from brokers.types import CancelResult, ExecutionResult, OrderRequest, Outcome

GRACE = 2.0
"""Seconds after an error within which the rest of TWS's answer comes."""
JUMP = 1000
"""How far the order numbers move on when TWS has used the next one."""
AGAIN = 2
"""Seconds until an order that found no connection is tried again."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One order on its way, and what TWS says of it."""

    told: Mapping[str, Any]
    order: Any
    trade: Any
    said: list[tuple[int, str]]

    @property
    def verdict(self) -> ExecutionResult | None:
        return orders.judge(self.trade, self.said, self.told["orderRef"])

    @property
    def evidence(self) -> dict[str, Any]:
        return orders.evidence(self.told, self.trade, self.said)

    @property
    def is_dead(self) -> bool:
        """Whether TWS said that it does not work, and nothing of it has traded."""
        return not self.trade.fills and any(code in orders.DEAD for code, _ in self.said)


class Placing:
    """One placement, of an order or of an entry with its stop; ``is_sent`` from the moment a byte may
    have left.
    """

    def __init__(self, request: OrderRequest, account: str, client_id: str) -> None:
        self.is_sent = False
        self._request, self._account = request, account
        self._client_id = client_id
        self._legs: list[Leg] = []

    async def run(self, session: Session, traded: Traded) -> ExecutionResult:
        """Raises BrokerError."""
        forms = self._forms(traded)
        session.require_servers()
        for _ in forms:
            await session.pace.turn()
        deadline = self._request.send_before
        if deadline is not None and datetime.now(UTC) >= deadline:
            code, detail = "EXPIRED_BEFORE_SENDING", "the claim on this order ended while it waited"
            return ExecutionResult(Outcome.NOT_SENT, code=code, detail=detail, retry_after=1)
        if not session.alive:
            raise QueryFailedError("the connection to TWS broke before the order left")
        try:
            self._send(session, traded, forms)
            await self._settled(session)
            result = await self._judged(session)
        finally:
            for leg in self._legs:
                session.forget(leg.order.orderId, leg.said)
        if result is None:
            said = [one for leg in self._legs for one in leg.said]
            why = orders.words(said) or "TWS is silent" if session.alive else "connection lost"
            return self.unknown(why)
        if result.outcome is Outcome.NOT_SENT:
            self._skip_numbers(session)
        return replace(result, evidence=self._evidence())

    def _forms(self, traded: Traded) -> list[dict[str, Any]]:
        """What leaves, in this order: TWS holds the entry back until the last one has arrived."""
        entry = orders.fields(self._request, traded, self._account, self._client_id)
        stop = self._request.attached_stop
        if stop is None:
            return [entry]
        attached = orders.stop_fields(entry, stop.price, letters_and_digits(stop.identity))
        return [entry | {"transmit": False}, attached]

    def _send(self, session: Session, traded: Traded, forms: Sequence[dict[str, Any]]) -> None:
        numbers = [session.ib.client.getReqId() for _ in forms]
        for number, told in zip(numbers, forms, strict=True):
            parent = {} if number == numbers[0] else {"parentId": numbers[0]}
            order = session.package.Order(orderId=number, **told, **parent)
            said = session.listen(number)
            self.is_sent = True
            trade = session.ib.placeOrder(traded.contract, order)
            self._legs.append(Leg(told, order, trade, said))

    async def _settled(self, session: Session) -> None:
        """Until each order has a verdict, TWS is silent, or the connection ends."""
        loop = asyncio.get_running_loop()
        until = loop.time() + session.patience
        while any(leg.verdict is None for leg in self._legs) and await session.news(until):
            if any(orders.is_serious(leg.said) for leg in self._legs):
                until = min(until, loop.time() + GRACE)

    async def _judged(self, session: Session) -> ExecutionResult | None:
        """The verdict on the entry; its stop must not stay without it, nor it without its stop."""
        entry, *stops = self._legs
        verdict = entry.verdict
        if not stops:
            return verdict
        stop = stops[0]
        if entry.trade.fills:
            return verdict
        if verdict is None or verdict.outcome is Outcome.ACCEPTED:
            refused = stop.verdict is not None and stop.verdict.outcome is Outcome.REJECTED
            if refused:
                return await self._taken_back(session, entry, stop)
            return verdict if stop.verdict is not None else None
        return verdict if stop.is_dead or await _withdrawn(session, stop) else None

    async def _taken_back(self, session: Session, entry: Leg, stop: Leg) -> ExecutionResult | None:
        """An entry whose stop TWS refused is cancelled, whether TWS holds it back or not."""
        if not await _withdrawn(session, entry):
            return entry.verdict
        detail = f"TWS refused the stop loss: {orders.words(stop.said)}"
        return ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail=detail)

    def _skip_numbers(self, session: Session) -> None:
        last = self._legs[-1].order.orderId
        session.ib.client.updateReqId(last + JUMP)
        for leg in self._legs:
            session.ib.wrapper.trades.pop((leg.order.clientId, leg.order.orderId), None)

    def _evidence(self) -> dict[str, Any]:
        if not self._legs:
            return {}
        entry, *stops = (leg.evidence for leg in self._legs)
        return {**entry, "attached_stop": stops[0]} if stops else entry

    def unknown(self, why: str) -> ExecutionResult:
        return ExecutionResult(
            Outcome.UNKNOWN,
            code="VENUE_UNREACHABLE",
            detail=f"the order may exist: {why}",
            evidence=self._evidence(),
        )

    def failed(self, error: BrokerError) -> ExecutionResult:
        """After an error: not sent, unless something may have left."""
        if self.is_sent:
            return self.unknown(str(error))
        again = AGAIN if isinstance(error, QueryFailedError) else None
        return ExecutionResult(
            Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
        )


async def _withdrawn(session: Session, leg: Leg) -> bool:
    """Ask TWS to cancel this order of a pair; whether it says that nothing of it is left."""
    await session.pace.turn()
    if not session.alive:
        return False
    session.ib.client.cancelOrder(leg.order.orderId)
    until = asyncio.get_running_loop().time() + session.patience
    while not (leg.is_dead or leg.trade.fills) and await session.news(until):
        continue
    return leg.is_dead


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
