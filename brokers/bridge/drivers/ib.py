"""Interactive Brokers through ib_async, beside a TWS or IB Gateway that is logged in.

Our order id travels as ``orderRef``, which TWS shows with open orders, completed orders and executions.
An answer counts by what TWS says of that reference; silence and broken connections leave it unknown.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from brokers.bridge.driver import Driver, Listed, Memory, Standing
from brokers.bridge.drivers import ib_orders as orders
from brokers.bridge.drivers import ib_reports as reports
from brokers.bridge.drivers.ib_account import balances, managed_accounts, positions
from brokers.bridge.drivers.ib_connection import Connection
from brokers.bridge.drivers.ib_contracts import Traded, best_prices, quote, traded
from brokers.bridge.drivers.ib_lookup import is_ours, shown_of
from brokers.bridge.drivers.ib_orderbook import executions, open_orders, tells_of
from brokers.bridge.drivers.ib_placing import Placing, cancel, rehearse
from brokers.bridge.drivers.ib_session import Session, StuckError
from brokers.bridge.drivers.ib_settings import terms_of
from brokers.bridge.journal import Entry
from brokers.capabilities import Balances, BookDepth, Capabilities, IdRule, VenueCard
from brokers.client_ids import letters_and_digits
from brokers.errors import BrokerError, NotShownError, QueryFailedError, UnknownSymbolError
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
    Outcome,
    PositionReport,
    Quote,
    VenueStatus,
)

CAPABILITIES = Capabilities(
    order_book=BookDepth.BEST,
    order_types=frozenset(orders.TYPES),
    time_in_force=frozenset(orders.TIMES),
    id_rule=IdRule.FOREVER,
    submit_timeout=40,
    settle_window=60,
    short_selling=True,
    locks_balance=False,
    needs_internet=False,
    attached_stop=True,
    balances=Balances.WORTH,
)
PAPER = "DU"
"""How the numbers of paper accounts begin (interactivebrokers.com, "Paper Trading Account")."""
LIVE_PORTS = frozenset({7496, 4001})
"""Where TWS and Gateway listen for real money unless told otherwise (tws-api/initial_setup.html)."""
SECONDS = 13
"""For a question: less than FKS waits for its answer."""
PLACING_SECONDS = 36
T = TypeVar("T")


class IbDriver(Driver):
    name: ClassVar[str] = "ib"
    label: ClassVar[str] = "Interactive Brokers"
    card: ClassVar[VenueCard] = VenueCard(
        label,
        CAPABILITIES,
        "orderRef",
        "that, among working orders, completed orders and executions of today",
        "the agent's selftest on a paper account; then an alert with a stop_loss: TWS must show the "
        "stop beneath its entry, and end both when FKS cancels",
    )

    def __init__(
        self,
        account: str,
        instruments: Mapping[str, Listed],
        options: Mapping[str, Any],
        memory: Memory,
    ) -> None:
        """Options: see `ib_settings`. Connects at the first question. Raises ConfigurationError."""
        self._account = account
        self._listed = dict(instruments)
        self._terms = terms_of(instruments, options)
        self._connection = Connection(self._terms)

    def stop(self) -> None:
        self._connection.close()

    def standing(self) -> Standing:
        accounts = self._ask(managed_accounts)
        account = self._account if self._account in accounts else ", ".join(accounts)
        return Standing(account, is_real(account, self._terms.port), CAPABILITIES)

    def check(self, request: OrderRequest, *, thorough: bool) -> None:
        async def look(session: Session) -> None:
            session.require_servers()
            one = await self._traded(session, request.symbol)
            told = orders.fields(request, one, self._account, letters_and_digits("0" * 32))
            if thorough:
                await rehearse(session, one, told)

        self._ask(look)

    def execute_order(self, request: OrderRequest, client_id: str) -> ExecutionResult:
        placing = Placing(request, self._account, client_id)

        async def place(session: Session) -> ExecutionResult:
            return await placing.run(session, await self._traded(session, request.symbol))

        try:
            return self._connection.run(place, PLACING_SECONDS)
        except StuckError as error:
            return placing.unknown(str(error))
        except BrokerError as error:
            return placing.failed(error)

    def cancel_order(self, ref: OrderRef, entry: Entry | None) -> CancelResult:
        async def withdraw(session: Session) -> CancelResult:
            working = await open_orders(session, self._account)
            found = [one for one in working if is_ours(one.order, ref)]
            return await cancel(session, found)

        try:
            return self._connection.run(withdraw, PLACING_SECONDS)
        except StuckError as error:
            return CancelResult(Outcome.UNKNOWN, error.code, str(error))
        except BrokerError as error:
            return CancelResult(Outcome.NOT_SENT, error.code, str(error))

    def fetch_order(self, ref: OrderRef, entry: Entry | None) -> OrderReport | None:
        async def look(session: Session) -> OrderReport | None:
            found = await shown_of(session, self._account, ref, entry)
            one = await self._traded(session, ref.symbol)
            fills = [reports.fill(row, one) for row in found.fills]
            asked = None if entry is None else entry.request.quantity
            # what ended between the two questions is in both lists, and its end counts
            trade = next(iter([*found.completed, *found.working]), None)
            if trade is not None:
                completed = bool(found.completed)
                return reports.report(trade, one, fills, asked, completed=completed)
            if fills:
                raise NotShownError("TWS shows executions of this order but not the order")
            self._refuse_yesterdays(entry.sent_at if entry else ref.submitted_at)
            return None

        return self._ask(look)

    def open_orders(self, symbol: str | None) -> Sequence[OrderReport]:
        async def look(session: Session) -> list[OrderReport]:
            listed = await self._by_contract(session)
            working = await open_orders(session, self._account)
            filled = any(one.orderStatus.filled for one in working)
            rows = await executions(session, self._account) if filled else []
            made = []
            for trade in working:
                one = listed.get(trade.contract.conId)
                is_over = reports.state_of(trade) is not VenueStatus.OPEN
                if one is None or is_over or symbol not in (None, one.symbol):
                    continue
                fills = [
                    reports.fill(row, one)
                    for row in rows
                    if row.execution.permId == trade.order.permId
                ]
                made.append(reports.report(trade, one, fills, None, completed=False))
            return made

        return self._ask(look)

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        async def look(session: Session) -> list[FillReport]:
            if since < datetime.now(UTC):
                self._refuse_yesterdays(since)
            one = await self._traded(session, symbol)
            rows = await executions(session, self._account)
            fills = [reports.fill(r, one) for r in rows if r.contract.conId == one.contract.conId]
            return [row for row in fills if row.at >= since.replace(microsecond=0)]

        return self._ask(look)

    def positions(self) -> Sequence[PositionReport]:
        async def look(session: Session) -> list[PositionReport]:
            listed = await self._by_contract(session)
            rows = await positions(session, self._account)
            return [reports.position(r, listed[c]) for c, r in rows.items() if c in listed]

        return self._ask(look)

    def balances(self) -> Sequence[BalanceReport]:
        """Net liquidation value and available funds, in the account's own currency."""
        return self._ask(lambda session: balances(session, self._account))

    def instrument(self, symbol: str) -> Instrument:
        async def look(session: Session) -> Instrument:
            return (await self._traded(session, symbol)).instrument()

        return self._ask(look)

    def quote(self, symbol: str, hint: Decimal | None) -> Quote:
        async def look(session: Session) -> Quote:
            return await quote(session, await self._traded(session, symbol))

        return self._ask(look)

    def order_book(self, symbol: str) -> OrderBook:
        """The best prices with their sizes: deeper levels are another subscription at the broker."""

        async def look(session: Session) -> OrderBook:
            return await best_prices(session, await self._traded(session, symbol))

        return self._ask(look)

    def health(self) -> Health:
        started = time.monotonic()
        try:
            self._ask(managed_accounts)
        except BrokerError as error:
            return Health(False, str(error))
        took = round((time.monotonic() - started) * 1000)
        return Health(True, "TWS answers and has its servers", took)

    def _ask(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Raises BrokerError; a question nobody answered in time is a failed one."""
        try:
            return self._connection.run(work, SECONDS)
        except StuckError as error:
            raise QueryFailedError(str(error)) from error

    async def _traded(self, session: Session, symbol: str) -> Traded:
        return await traded(session, self._listed[symbol], self._terms.contracts[symbol])

    async def _by_contract(self, session: Session) -> dict[int, Traded]:
        """The allowed instruments TWS knows; one that has expired hides no others."""
        found: dict[int, Traded] = {}
        for symbol in self._listed:
            try:
                one = await self._traded(session, symbol)
            except UnknownSymbolError:
                continue
            found[one.contract.conId] = one
        return found

    def _refuse_yesterdays(self, since: datetime | None) -> None:
        """Raise NotShownError for what TWS may no longer show."""
        now = datetime.now(UTC)
        if since is not None and not tells_of(since, now, self._terms.time_zone):
            raise NotShownError("TWS tells of orders and executions of today alone: look there")


def is_real(account: str, port: int) -> bool:
    """Whether money is at stake: only a paper number behind a port that is not for money is not."""
    return not account.startswith(PAPER) or port in LIVE_PORTS
