"""MetaTrader 5 through the vendor's own package, beside a terminal that is logged in.

An order's identity is written twice: 52 bits as the magic number, which the server keeps, and whole as
the comment, which a server may shorten. Quantities are units, not lots: a lot of EURUSD is 100,000.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from brokers.bridge.driver import Driver, Listed, Memory, Standing
from brokers.bridge.drivers import mt5_depth
from brokers.bridge.drivers import mt5_reports as reports
from brokers.bridge.drivers import mt5_terms as terms
from brokers.bridge.drivers.mt5_guard import Guard
from brokers.bridge.drivers.mt5_history import deals_of, learn_clock, orders_of
from brokers.bridge.drivers.mt5_terminal import ExpiredError, Terminal
from brokers.bridge.drivers.mt5_terms import decimal
from brokers.bridge.journal import Entry
from brokers.capabilities import Balances, BookDepth, Capabilities, IdRule, VenueCard
from brokers.client_ids import letters_and_digits
from brokers.decimals import plain
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    NotShownError,
    NotSupportedError,
    QueryFailedError,
    QuoteUnavailableError,
)
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
    OrderType,
    Outcome,
    PositionReport,
    Quote,
    TimeInForce,
)

CAPABILITIES = Capabilities(
    order_book=BookDepth.LEVELS,
    order_types=frozenset(
        {OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT}
    ),
    time_in_force=frozenset({TimeInForce.GTC, TimeInForce.DAY}),
    id_rule=IdRule.FOREVER,
    submit_timeout=30,
    settle_window=60,
    short_selling=True,
    locks_balance=False,
    needs_internet=False,
    balances=Balances.WORTH,
)
"""The package itself gives up after 60 seconds; what turns up later is found by its magic number."""
NOT_REAL = frozenset({0, 1})
"""Trade modes demo and contest. Every other number, known or not, counts as real money."""
HEDGING = 2
LONGEST_LIFE = timedelta(days=90)
"""How far back an order without a known time is looked for."""
DEVIATION = 20
PASSING = (ExpiredError, QueryFailedError, QuoteUnavailableError)
"""What keeps an order from leaving only for now."""


class Mt5Driver(Driver):
    name: ClassVar[str] = "mt5"
    label: ClassVar[str] = "MetaTrader 5"
    card: ClassVar[VenueCard] = VenueCard(
        label,
        CAPABILITIES,
        "magic number and comment",
        "both, among working orders, history and deals",
        "the agent's selftest on a demo account; then by hand-written alerts there: how the broker's "
        "server keeps magic and comment, fills, and shows a woken stop-limit",
    )

    def __init__(
        self,
        account: str,
        instruments: Mapping[str, Listed],
        options: Mapping[str, Any],
        memory: Memory,
    ) -> None:
        """Options: ``path`` of the terminal, ``deviation`` in points. Raises ConfigurationError."""
        foreign = sorted(set(options) - {"path", "deviation"})
        deviation = options.get("deviation", DEVIATION)
        if foreign or type(deviation) is not int or deviation < 0:
            raise ConfigurationError("[mt5] takes path (a text) and deviation (whole points)")
        self._listed = dict(instruments)
        self._by_name = {one.venue_symbol: one for one in instruments.values()}
        self._deviation: int = deviation
        self._terminal = Terminal(options.get("path"), account)
        self._guard = Guard(self._terminal, memory)

    def stop(self) -> None:
        self._terminal.close()

    def standing(self) -> Standing:
        account = self._terminal.account()
        hedging = account.margin_mode == HEDGING
        return Standing(
            account=str(account.login),
            is_live=account.trade_mode not in NOT_REAL,
            capabilities=replace(CAPABILITIES, reduce_only=hedging, whole_stop=hedging),
        )

    def check(self, request: OrderRequest, *, thorough: bool) -> None:
        terminal = self._terminal.ask("terminal_info")
        account = self._terminal.account()
        lacking = {
            "algorithmic trading is switched off in the terminal": not terminal.trade_allowed,
            "trading through the package is switched off in the terminal": terminal.tradeapi_disabled,
            "this account may not trade": not account.trade_allowed,
            "this account may not be traded by programs": not account.trade_expert,
        }
        for sentence, holds in lacking.items():
            if holds:
                raise ConfigurationError(sentence)
        if thorough:
            outcome, said = self._checked(self._fields(request, letters_and_digits("0" * 32)))
            if outcome is not Outcome.ACCEPTED:
                raise NotSupportedError(f"order_check: {said}")

    def execute_order(self, request: OrderRequest, client_id: str) -> ExecutionResult:
        try:
            # what the tickets show must still hold when the request leaves
            with self._terminal.package():
                fields = self._fields(request, client_id)
                if fields["action"] != terms.SLTP:
                    outcome, said = self._checked(fields)
                    if outcome is not Outcome.ACCEPTED:
                        is_no = outcome is Outcome.REJECTED
                        code = "VENUE_REJECTED" if is_no else "VENUE_UNREACHABLE"
                        return ExecutionResult(outcome, code=code, detail=f"order_check: {said}")
                else:
                    self._guard.remember(request, fields)
                    # the level is there: nothing is asked of a server that may refuse it now
                    if (shown := self._guard.shown(request, {})) is not None:
                        return shown
                before = request.send_before
                answer, last_error = self._terminal.request("order_send", fields, before)
            if answer is None and last_error[0] in terms.NO_PIPE:
                raise QueryFailedError(
                    f"MetaTrader's order_send: {last_error[1]} ({last_error[0]})"
                )
        except BrokerError as error:
            # nothing has left; a terminal that comes back takes the order
            again = 1 if isinstance(error, PASSING) else None
            return ExecutionResult(
                Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
            )
        outcome, said = terms.judge(answer, last_error)
        evidence = terms.evidence(fields, answer, last_error)
        if fields["action"] == terms.SLTP:
            return self._guard.placed(request, fields, answer, outcome, said, evidence)
        if outcome is Outcome.ACCEPTED:
            if self._terminal.clock.offset is None:
                learn_clock(self._terminal, answer.order)
            return ExecutionResult(outcome, str(answer.order), detail=said, evidence=evidence)
        code = "VENUE_REJECTED" if outcome is Outcome.REJECTED else "VENUE_UNREACHABLE"
        return ExecutionResult(outcome, code=code, detail=said, evidence=evidence)

    def cancel_order(self, ref: OrderRef, entry: Entry | None) -> CancelResult:
        try:
            if entry is not None and "ticket" in entry.notes:
                return self._guard.cancel(entry)
            working = [o for o in self._terminal.rows("orders_get") if _is(o, ref)]
            if not working:
                return CancelResult(Outcome.REJECTED, "NOTHING_TO_CANCEL", "no such working order")
            fields = {"action": terms.REMOVE, "order": working[0].ticket}
            answer, last_error = self._terminal.request("order_send", fields)
        except BrokerError as error:
            return CancelResult(Outcome.NOT_SENT, error.code, str(error))
        outcome, said = terms.judge(answer, last_error)
        if answer is not None and answer.retcode in terms.ACCEPTED:
            outcome = Outcome.ACCEPTED
        code = "VENUE_REJECTED" if outcome is Outcome.REJECTED else ""
        return CancelResult(outcome, code, said, terms.evidence(fields, answer, last_error))

    def fetch_order(self, ref: OrderRef, entry: Entry | None) -> OrderReport | None:
        if entry is not None and "ticket" in entry.notes:
            return self._guard.report(entry, self._units(ref.symbol), self._currency())
        since = (entry.sent_at if entry else ref.submitted_at) or datetime.now(UTC) - LONGEST_LIFE
        known = entry.result.broker_order_id if entry and entry.result else ""
        ticket = ref.broker_order_id or known
        found = orders_of(self._terminal, ticket, since, lambda order: _is(order, ref))
        if not found:
            self._refuse_traces(ref, since)
            return None
        return self._reports(found[:1], since)[0]

    def open_orders(self, symbol: str | None) -> Sequence[OrderReport]:
        rows = [
            order
            for order in self._terminal.rows("orders_get")
            if order.symbol in self._by_name
            and symbol in (None, self._by_name[order.symbol].symbol)
        ]
        working: list[OrderReport] = []
        if rows:
            oldest = min(self._terminal.clock.utc(order.time_setup_msc) for order in rows)
            working = self._reports(rows, oldest)
        return (*working, *self._guard.working(symbol))

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        listed, currency = self._listed[symbol], self._currency()
        units = self._units(symbol)
        fills = [
            reports.fill(deal, units, currency, self._terminal.clock)
            for deal in self._terminal.history("history_deals_get", since)
            if deal.symbol == listed.venue_symbol and deal.type in reports.TRADES
        ]
        return sorted((one for one in fills if one.at >= since), key=lambda one: one.at)

    def positions(self) -> Sequence[PositionReport]:
        held: dict[str, list[tuple[Decimal, Decimal]]] = {}
        for row in self._terminal.rows("positions_get"):
            if row.symbol in self._by_name:
                symbol = self._by_name[row.symbol].symbol
                sign = 1 if row.type == 0 else -1
                volume = sign * decimal(row.volume) * self._units(symbol)
                held.setdefault(symbol, []).append((volume, decimal(row.price_open)))
        return [_netted(symbol, rows) for symbol, rows in held.items()]

    def balances(self) -> Sequence[BalanceReport]:
        """Equity: what is left if everything were closed now."""
        account = self._terminal.account()
        equity, free = decimal(account.equity), decimal(account.margin_free)
        return [BalanceReport(account.currency, equity, free)]

    def instrument(self, symbol: str) -> Instrument:
        row = self._terminal.symbol(self._listed[symbol])
        units = decimal(row.trade_contract_size)
        tick = decimal(row.trade_tick_size) or Decimal(1).scaleb(-row.digits)
        return Instrument(
            symbol=symbol,
            venue_symbol=row.name,
            base=symbol.partition("/")[0],
            quote=row.currency_profit,
            quantity_step=plain(decimal(row.volume_step) * units),
            price_tick=plain(tick),
            min_quantity=plain(decimal(row.volume_min) * units),
            max_quantity=plain(decimal(row.volume_max) * units),
            market_type="margin",
        )

    def quote(self, symbol: str, hint: Decimal | None) -> Quote:
        listed = self._listed[symbol]
        self._terminal.symbol(listed)
        tick = self._terminal.tick(listed.venue_symbol)
        bid, ask = decimal(tick.bid), decimal(tick.ask)
        last = decimal(tick.last) or bid
        return Quote(symbol, bid, ask, last, self._terminal.clock.utc(tick.time_msc))

    def order_book(self, symbol: str) -> OrderBook:
        """The depth of market; where the broker shows none, its prices for its largest order."""
        listed = self._listed[symbol]
        row = self._terminal.symbol(listed)
        return mt5_depth.order_book(self._terminal, row, self.quote(symbol, None))

    def health(self) -> Health:
        started = time.monotonic()
        terminal = self._terminal.ask("terminal_info")
        took = round((time.monotonic() - started) * 1000)
        if not terminal.connected:
            return Health(False, "the terminal is not connected to its server", took)
        return Health(True, f"MetaTrader 5 build {terminal.build} answers", took)

    def _fields(self, request: OrderRequest, client_id: str) -> dict[str, Any]:
        """The request as the package takes it. Raises BrokerError."""
        symbol = self._terminal.symbol(self._listed[request.symbol])
        lots = plain(request.quantity / decimal(symbol.trade_contract_size))
        account = self._terminal.account()
        place = {}
        if account.margin_mode == HEDGING:
            place = self._guard.ticket_for(request, symbol.name, lots)
            if place.get("action") == terms.SLTP:
                return place
        if request.type is OrderType.MARKET:
            # not `tick`: an exit does not wait for a price to move
            tick = self._terminal.price(symbol.name)
            fields = terms.market_order(request, symbol, tick, lots, self._deviation)
        else:
            fields = terms.pending_order(request, symbol, lots)
        identity = {"magic": terms.magic_of(request.identity), "comment": client_id}
        return {**fields, **identity, **place}

    def _checked(self, fields: Mapping[str, Any]) -> tuple[Outcome, str]:
        """What order_check says; nothing has been sent, whatever it says.

        Raises QueryFailedError where the terminal is not to be reached.
        """
        answer, error = self._terminal.request("order_check", fields)
        if answer is None and error[0] in terms.CUT_OFF:
            raise QueryFailedError(f"MetaTrader's order_check: {error[1]} ({error[0]})")
        if answer is None:
            return Outcome.NOT_SENT, f"{error[1]} ({error[0]})"
        said = f"{answer.comment} ({answer.retcode})"
        if answer.retcode in terms.AWAY:
            raise QueryFailedError(f"MetaTrader's order_check: {said}")
        passed = answer.retcode == terms.PASSED
        return Outcome.ACCEPTED if passed else Outcome.REJECTED, said

    def _refuse_traces(self, ref: OrderRef, since: datetime) -> None:
        """Raise NotShownError when a position or deal speaks of an order no list shows."""
        rows = [*self._terminal.rows("positions_get")]
        rows += self._terminal.history("history_deals_get", since)
        if any(_is_named(row, ref) for row in rows):
            raise NotShownError("the terminal shows trades of this order but not the order")

    def _reports(self, orders: Sequence[Any], since: datetime) -> list[OrderReport]:
        currency, made = self._currency(), []
        for order in orders:
            symbol = self._by_name[order.symbol].symbol
            units = self._units(symbol)
            fills = [
                reports.fill(deal, units, currency, self._terminal.clock)
                for deal in deals_of(self._terminal, order, since)
                if deal.type in reports.TRADES
            ]
            client_id = order.comment
            made.append(reports.report(order, client_id, symbol, units, fills))
        return made

    def _units(self, symbol: str) -> Decimal:
        return decimal(self._terminal.symbol(self._listed[symbol]).trade_contract_size)

    def _currency(self) -> str:
        return str(self._terminal.account().currency)


def _is(order: Any, ref: OrderRef) -> bool:
    """By ticket where it is known, else by our own marks."""
    if ref.broker_order_id:
        return str(order.ticket) == ref.broker_order_id
    return _is_named(order, ref)


def _is_named(row: Any, ref: OrderRef) -> bool:
    """A server may cut the comment or write its own; what is left of ours must still agree."""
    if row.magic != terms.magic_of(ref.identity):
        return False
    ours = letters_and_digits(ref.identity)
    return not row.comment.startswith("fks") or ours.startswith(row.comment)


def _netted(symbol: str, rows: Sequence[tuple[Decimal, Decimal]]) -> PositionReport:
    quantity = plain(sum((volume for volume, _ in rows), Decimal(0)))
    one_way = len({volume > 0 for volume, _ in rows}) == 1
    average = None
    if one_way and quantity:
        average = plain(sum((v * price for v, price in rows), Decimal(0)) / quantity)
    return PositionReport(symbol, quantity, average)
