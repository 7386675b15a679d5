"""NinjaTrader 8 through its documented folders: no add-on, no DLL, one order per file.

The files tell neither balances, nor prices, nor fees, nor what kind of account it is: the operator
writes those into the agent's file, and what is not written is refused. Quantities are units: a contract
of ES is 50, so that quantity times price is its value.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

from brokers.bridge.driver import Driver, Listed, Memory, Standing
from brokers.bridge.drivers import nt8_lines as lines
from brokers.bridge.drivers.nt8_folders import Folders, NotTakenError, read, wait_until
from brokers.bridge.drivers.nt8_instructions import Instructions
from brokers.bridge.drivers.nt8_positions import position
from brokers.bridge.drivers.nt8_settings import Terms, terms_of
from brokers.bridge.drivers.nt8_states import States
from brokers.bridge.journal import Entry
from brokers.capabilities import Balances, Capabilities, IdRule, VenueCard
from brokers.decimals import plain
from brokers.errors import (
    BrokerError,
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
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    PositionReport,
    Quote,
    VenueStatus,
)

CAPABILITIES = Capabilities(
    order_types=frozenset(
        {OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT}
    ),
    time_in_force=frozenset(lines.TIMES),
    id_rule=IdRule.FOREVER,
    submit_timeout=40,
    settle_window=90,
    short_selling=True,
    locks_balance=False,
    needs_internet=False,
    balances=Balances.STATED,
)
AGAIN = 5
"""Seconds until an order that was taken back may be tried again."""
SLEEPY = 10
"""Seconds an instruction may wait before the platform's reader counts as asleep; as many as it is given
to be taken, where those are more."""
GRACE = 2
"""Seconds a submitted order is given to be refused."""


class Nt8Driver(Driver):
    name: ClassVar[str] = "nt8"
    label: ClassVar[str] = "NinjaTrader 8"
    card: ClassVar[VenueCard] = VenueCard(
        label,
        CAPABILITIES,
        "the order's id, which names its state file",
        "its state file, and what the agent copied of it",
        "the agent's selftest on Sim101, then a day of trading there: whether files are taken "
        "(placing), the words of real fills, the names of position files",
    )

    proves_absence: ClassVar[bool] = False

    def __init__(
        self,
        account: str,
        instruments: Mapping[str, Listed],
        options: Mapping[str, Any],
        memory: Memory,
    ) -> None:
        """Takes back what an agent that died left in the folder. Raises ConfigurationError."""
        self._account = account
        self._listed = dict(instruments)
        self._terms: Terms = terms_of(account, instruments, options)
        self._folders = Folders(options)
        self._memory = memory
        self._instructions = Instructions(
            self._folders, memory, self._terms.take_seconds, self._terms.settle_seconds
        )
        self._states = States(account, self._folders, memory)
        self._prices: dict[str, tuple[Decimal, datetime]] = {}
        for entry in self._states.unfinished():
            self._instructions.take_back(entry)

    def stop(self) -> None:
        self._states.stop()

    def standing(self) -> Standing:
        is_live = self._account not in self._terms.demo_accounts
        times = frozenset(self._terms.times)
        return Standing(self._account, is_live, replace(CAPABILITIES, time_in_force=times))

    def check(self, request: OrderRequest, *, thorough: bool) -> None:
        self._refuse_when_cut_off()
        self._refuse_when_asleep()
        self._line(request, "fks")

    def execute_order(self, request: OrderRequest, client_id: str) -> ExecutionResult:
        try:
            line = self._line(request, client_id)
            units = self._terms.instruments[request.symbol].multiplier
            self._memory.note(request.identity, {"multiplier": f"{units:f}"})
            self._instructions.place(request.identity, line)
        except NotTakenError as error:
            return _not_sent(error, AGAIN)
        except NotSupportedError as error:
            return _not_sent(error, None)
        except (QueryFailedError, OSError) as error:
            return _unknown(str(error), {})
        evidence = {"line": line.strip()}
        self._await(request.identity, client_id)
        state, _ = self._states.now(request.identity)
        if state is None:
            said = self._folders.complaint(client_id)
            if said:
                return _rejected(said, evidence)
            return _unknown("NinjaTrader took the file and says nothing of it", evidence)
        evidence["state"] = f"{state.word};{state.filled:f};{state.average:f}"
        if state.status is VenueStatus.REJECTED:
            return _rejected("NinjaTrader says REJECTED: its log has the reason", evidence)
        return ExecutionResult(
            Outcome.ACCEPTED, client_id, detail=f"NinjaTrader: {state.word}", evidence=evidence
        )

    def cancel_order(self, ref: OrderRef, entry: Entry | None) -> CancelResult:
        if not ref.identity:
            detail = "NinjaTrader cancels only what this agent sent: cancel others there"
            return CancelResult(Outcome.NOT_SENT, NotSupportedError.code, detail)
        try:
            state = None if entry is None else self._states.now(ref.identity)[0]
            if entry is None or (state is not None and state.status in lines.ENDED):
                return CancelResult(Outcome.REJECTED, "NOTHING_TO_CANCEL", "no such working order")
            if self._instructions.was_never_taken(entry):
                return CancelResult(Outcome.ACCEPTED, detail="its file was taken back unread")
            line = self._instructions.cancel(entry.client_id, lambda: self._is_ending(ref.identity))
        except BrokerError as error:
            taken_back = isinstance(error, NotTakenError | NotSupportedError)
            outcome = Outcome.NOT_SENT if taken_back else Outcome.UNKNOWN
            return CancelResult(outcome, error.code, str(error))
        wait_until(lambda: self._has_ended(ref.identity), self._terms.take_seconds)
        return CancelResult(Outcome.ACCEPTED, evidence={"line": line})

    def fetch_order(self, ref: OrderRef, entry: Entry | None) -> OrderReport | None:
        if entry is None or self._instructions.was_never_taken(entry):
            return None
        state, is_told = self._states.now(ref.identity)
        if state is None:
            raise NotShownError(
                "NinjaTrader took this order's file and never said what became of it: look there"
            )
        if not is_told and state.status not in lines.ENDED:
            raise NotShownError(
                f"NinjaTrader no longer tells of this order (a restart?); it was {state.word}"
            )
        return self._report(entry, state)

    def turned_up(self, entry: Entry) -> bool:
        """NinjaTrader may sit on a file it has read for longer than anybody waits."""
        return self._states.now(entry.request.identity)[0] is not None

    def open_orders(self, symbol: str | None) -> Sequence[OrderReport]:
        """Ours alone: the files do not tell of others. Last known to work counts as working."""
        found = []
        for entry in self._states.unfinished():
            if symbol in (None, entry.request.symbol):
                state, _ = self._states.now(entry.request.identity)
                if state is not None and state.status not in lines.ENDED:
                    found.append(self._report(entry, state))
        return found

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        fills: list[FillReport] = []
        for entry in self._states.unfinished():
            self._states.now(entry.request.identity)
        for entry in self._states.entries():
            if entry.request.symbol == symbol:
                fills += self._fills(entry.request.identity)
        return sorted((one for one in fills if one.at >= since), key=lambda one: one.at)

    def positions(self) -> Sequence[PositionReport]:
        self._refuse_when_cut_off()
        asked_at, booked = datetime.now(UTC), self._states.booked()
        found = []
        for symbol, listed in self._listed.items():
            terms = self._terms.instruments[symbol]
            told = position(self._folders.outgoing, self._account, terms.position_name, listed)
            if told is None:
                if booked.get(symbol):
                    raise QueryFailedError(f"NinjaTrader tells no position of {symbol}: a restart?")
            elif told[0]:
                quantity = plain(told[0] * terms.multiplier)
                found.append(PositionReport(symbol, quantity, told[1]))
            elif symbol in booked:
                self._states.note_flat(symbol, asked_at)
        return found

    def balances(self) -> Sequence[BalanceReport]:
        """What the operator wrote down: the files tell none."""
        return [BalanceReport(self._terms.currency, self._terms.balance, self._terms.balance)]

    def instrument(self, symbol: str) -> Instrument:
        terms, listed = self._terms.instruments[symbol], self._listed[symbol]
        return Instrument(
            symbol=symbol,
            venue_symbol=listed.venue_symbol,
            base=symbol.partition("/")[0].partition(" ")[0],
            quote=self._terms.currency,
            quantity_step=terms.multiplier,
            price_tick=terms.tick,
            min_quantity=terms.multiplier,
            market_type="future",
        )

    def quote(self, symbol: str, hint: Decimal | None) -> Quote:
        """The last alert's price, one tick each way, if the operator allowed it."""
        if not self._terms.trust_alert_prices:
            raise QuoteUnavailableError(
                "NinjaTrader's files tell no prices; trust_alert_prices would take the alert's"
            )
        if hint is not None:
            self._prices[symbol] = (hint, datetime.now(UTC))
        if symbol not in self._prices:
            raise QuoteUnavailableError(f"no alert has told a price of {symbol} yet")
        price, at = self._prices[symbol]
        tick = self._terms.instruments[symbol].tick
        return Quote(symbol, price - tick, price + tick, price, at)

    def health(self) -> Health:
        if trouble := self._states.trouble:
            return Health(False, f"the states of orders are not copied: {trouble}")
        try:
            self._refuse_when_asleep()
            self._refuse_when_cut_off()
        except BrokerError as error:
            return Health(False, str(error))
        return Health(True, "NinjaTrader's folders are there and empty of old instructions", 0)

    def _line(self, request: OrderRequest, client_id: str) -> str:
        listed = self._listed[request.symbol]
        contracts = request.quantity / self._terms.instruments[request.symbol].multiplier
        if contracts % 1:
            raise NotSupportedError(f"{contracts:f} is no whole number of contracts")
        return lines.place(request, self._account, listed.venue_symbol, contracts, client_id)

    def _await(self, identity: str, client_id: str) -> None:
        """Until NinjaTrader has said something that lasts: a word of its own or a complaint."""
        submitted: list[float] = []

        def is_told() -> bool:
            state, _ = self._states.now(identity)
            if state is None:
                return bool(self._folders.complaint(client_id))
            submitted.append(time.monotonic())
            lasting = state.word not in ("SUBMITTED", "INITIALIZED")
            return lasting or submitted[-1] - submitted[0] > GRACE

        wait_until(is_told, self._terms.answer_seconds)

    def _has_ended(self, identity: str) -> bool:
        state, _ = self._states.now(identity)
        return state is not None and state.status in lines.ENDED

    def _is_ending(self, identity: str) -> bool:
        state, _ = self._states.now(identity)
        return state is not None and (state.status in lines.ENDED or state.is_canceling)

    def _fills(self, identity: str) -> list[FillReport]:
        entry = self._memory.find(identity)
        if entry is None:
            return []
        return self._states.fills(
            entry, self._units(entry), self._terms.commission, self._terms.currency
        )

    def _units(self, entry: Entry) -> Decimal:
        """What a contract of the order is in units: as it was when it was sent, listed still or not."""
        noted = entry.notes.get("multiplier")
        if noted is not None:
            return Decimal(noted)
        terms = self._terms.instruments.get(entry.request.symbol)
        if terms is None:
            raise NotShownError(f"the agent's file lists {entry.request.symbol} no more")
        return terms.multiplier

    def _report(self, entry: Entry, state: lines.State) -> OrderReport:
        request = entry.request
        return OrderReport(
            broker_order_id=entry.client_id,
            client_order_id=entry.client_id,
            symbol=request.symbol,
            side=request.side,
            status=state.status,
            quantity=request.quantity,
            filled_quantity=plain(state.filled * self._units(entry)),
            average_price=plain(state.average) if state.filled else None,
            fills=tuple(self._fills(request.identity)),
        )

    def _refuse_when_asleep(self) -> None:
        waiting = self._folders.oldest_waiting()
        if waiting > max(SLEEPY, self._terms.take_seconds):
            raise QueryFailedError(
                f"NinjaTrader has not read an instruction for {waiting:.0f} s: restart it"
            )

    def _refuse_when_cut_off(self) -> None:
        name = self._terms.connection
        text = read(self._folders.outgoing / f"{name}.txt") if name else "CONNECTED"
        if text is None or text.strip().upper() != "CONNECTED":
            raise QueryFailedError(f"NinjaTrader's connection {name!r} is not CONNECTED")


def _not_sent(error: BrokerError, again: int | None) -> ExecutionResult:
    return ExecutionResult(Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again)


def _rejected(said: str, evidence: Mapping[str, Any]) -> ExecutionResult:
    return ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail=said, evidence=evidence)


def _unknown(said: str, evidence: Mapping[str, Any]) -> ExecutionResult:
    detail = f"the order may exist: {said}"
    return ExecutionResult(
        Outcome.UNKNOWN, code="VENUE_UNREACHABLE", detail=detail, evidence=evidence
    )
