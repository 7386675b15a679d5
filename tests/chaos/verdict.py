"""After the storm: our rows against the venue's ledger, order by order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from brokers.types import Side
from execution.models import Fill, Order, OrderEvent, Position, Signal
from execution.states import AT_VENUE, TERMINAL, UNRESOLVED, OrderState, SignalState
from execution.transitions import _CORRECTIONS, TABLE, Event
from risk.types import ReasonCode
from tests.chaos.plan import Step, accounts_of, venue_of
from tests.chaos.trouble import Halt
from tests.venues.binance.rules import BALANCES as BINANCE_BALANCES
from tests.venues.client import LedgerView, OrderRow, TradeRow
from tests.venues.kraken.rules import BALANCES as KRAKEN_BALANCES

ZERO = Decimal(0)
NOTES = frozenset({"look", "cancel_sent"})
"""Journal rows that record something and move nothing."""
EVIDENCE = frozenset({"send_again", "return_unsent"})
"""The only ways back into the lane."""
PASSING = frozenset({Order.Role.STOP_LOSS, Order.Role.FLATTEN})
"""Roles a halt does not hold up."""
OPENING = {"binance": BINANCE_BALANCES, "kraken": KRAKEN_BALANCES}


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise; ``order`` is the client id where it concerns an order."""

    kind: str
    what: str
    order: str = ""


class Auditor:
    """Compares everything once; the run has failed unless ``findings`` stays empty."""

    def __init__(self, ledgers: Mapping[str, LedgerView]) -> None:
        self.findings: list[Finding] = []
        self.orders = {order.client_order_id: order for order in _orders()}
        self.placed: dict[str, list[OrderRow]] = defaultdict(list)
        self.trades: dict[str, list[TradeRow]] = defaultdict(list)
        for ledger in ledgers.values():
            for row in ledger.orders:
                self.placed[row.client_id].append(row)
            for trade in ledger.trades:
                self.trades[trade.client_id].append(trade)
        self.fills: dict[str, list[Fill]] = defaultdict(list)
        names = {order.pk: client_id for client_id, order in self.orders.items()}
        for fill in Fill.objects.iterator():
            self.fills[names.get(fill.order_id) or fill.order.client_order_id].append(fill)

    def add(self, kind: str, what: str, order: str = "") -> None:
        self.findings.append(Finding(kind, what, order))

    def alerts(self, steps: Iterable[Step], acknowledged: Mapping[int, str]) -> None:
        """Each acknowledged alert has a disposition, and one order for each of its accounts."""
        signals = {str(row.pk): row for row in Signal.objects.iterator()}
        legs: dict[str, Counter[str]] = defaultdict(Counter)
        for order in self.orders.values():
            if order.role != Order.Role.STOP_LOSS:
                legs[str(order.signal_id)][order.account.name] += 1
        for step in steps:
            signal_id = acknowledged.get(step.index)
            if signal_id is None:
                continue
            signal = signals.get(signal_id)
            if signal is None or signal.alert.get("idempotency_key") != step.key:
                self.add("lost", f"{step.key} was acknowledged and is not stored")
            elif signal.state == SignalState.RECEIVED:
                self.add("lost", f"{step.key} was never decided (signal {signal_id})")
            elif _was_made_void(signal, signals):
                continue
            elif step.makes_an_order and legs[signal_id] != Counter(accounts_of(step.strategy)):
                has = f"{signal.state} {signal.reason} with orders {dict(legs[signal_id])}"
                self.add("lost", f"{step.key} is {has} (signal {signal_id})")

    def cancels(self, steps: Iterable[Step], acknowledged: Mapping[int, str]) -> None:
        """What was working when a cancel arrived is not working in the end."""
        lanes: dict[tuple[str, str], list[Order]] = defaultdict(list)
        for order in self.orders.values():
            is_stop = order.role == Order.Role.STOP_LOSS
            if order.strategy and order.signal_id and order.state not in TERMINAL and not is_stop:
                lanes[order.strategy.slug, order.symbol].append(order)
        for step in steps:
            if step.makes_an_order or step.index not in acknowledged:
                continue
            cancel = UUID(acknowledged[step.index])
            for order in lanes[step.lane]:
                if order.signal_id and order.signal_id < cancel:
                    noted = f"{order.cancel_reason or 'nothing'} {order.cancel_asked_by}".strip()
                    what = f"{order} is {order.state} after the cancel {step.key} ({cancel})"
                    what += f"; its row asks for {noted}"
                    self.add("cancel ignored", what, order.client_order_id)

    def doubled(self) -> None:
        for client_id, rows in self.placed.items():
            if len(rows) > 1:
                what = self.orders.get(client_id, client_id)
                self.add("doubled", f"the venue took {what} {len(rows)} times", client_id)

    def order_by_order(self) -> None:
        """All but what is doubled."""
        for client_id, order in self.orders.items():
            rows = self.placed.get(client_id, [])
            if len(rows) > 1:
                continue
            if order.state in UNRESOLVED:
                self.add("unknown left", f"{order} is {order.state}", client_id)
            elif order.state not in TERMINAL | AT_VENUE:
                self.add("lost", f"{order} is still {order.state}", client_id)
            else:
                self._against_the_venue(order, rows)
        for client_id in self.placed.keys() - self.orders.keys():
            self.add("lost", f"the venue has an order nobody knows: {client_id}", client_id)

    def _against_the_venue(self, order: Order, rows: list[OrderRow]) -> None:
        client_id = order.client_order_id
        wanted = [row.status for row in rows]
        if not rows and (order.broker_order_id or order.state in AT_VENUE):
            self.add("wrong", f"{order} is {order.state}, the venue has none", client_id)
        elif rows and not order.broker_order_id:
            self.add("lost", f"{order} is {order.state}, the venue: {wanted}", client_id)
        elif rows and wanted != [order.state]:
            self.add("wrong", f"{order} is {order.state}, the venue: {wanted}", client_id)
        ours = sorted((fill.quantity, fill.price, fill.fee) for fill in self.fills[client_id])
        theirs = sorted((row.quantity, row.price, row.fee) for row in self.trades[client_id])
        total = sum((quantity for quantity, _, _ in ours), ZERO)
        if ours != theirs:
            self.add("wrong", f"{order} has fills {ours}, trades {theirs}", client_id)
        elif total != order.filled_quantity or total > order.quantity:
            self.add("wrong", f"{order}: fills {total} of {order.quantity}", client_id)

    def positions(self, ledgers: Mapping[str, LedgerView]) -> None:
        """Position = sum of fills = what the venue's balance of the coin has changed by."""
        sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for fill in Fill.objects.select_related("account").iterator():
            base = fill.symbol.partition("/")[0]
            fee = fill.fee if fill.fee_currency == base else ZERO
            sums[fill.account.name, fill.symbol] += fill.quantity * Side(fill.side).sign - fee
        for row in Position.objects.select_related("account").iterator():
            total = sums[row.account.name, row.symbol]
            if row.quantity != total:
                self.add("wrong", f"position {row.quantity} {row}, its fills {total}")
        held: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for (name, symbol), quantity in sums.items():
            held[name, symbol.partition("/")[0]] += quantity
        for (name, coin), quantity in held.items():
            ledger, opening = ledgers[venue_of(name)], OPENING[venue_of(name)]
            total = ledger.free[name, coin] + ledger.locked[name, coin]
            if total - opening[coin] != quantity:
                change = total - opening[coin]
                self.add("wrong", f"{name}: {coin} changed by {change}, our fills {quantity}")

    def journals(self, halts: Iterable[Halt]) -> None:
        """Every chain is one of the table's, and nothing was claimed under a halt."""
        pressed = list(halts)
        last: dict[object, tuple[str, str]] = {}
        orders = {order.pk: order for order in self.orders.values()}
        for row in OrderEvent.objects.order_by("id").iterator():
            row.order = orders.get(row.order_id) or row.order
            state, event = last.get(row.order_id, ("", ""))
            if row.event in NOTES:
                legal = row.from_state == row.to_state
            elif row.event == "create":
                legal, event, state = state == "", row.event, row.to_state
            else:
                legal = row.from_state == state and _legal(row)
                legal &= row.event != "claim" or row.attempt == 1 or event in EVIDENCE
                event, state = row.event, row.to_state
            last[row.order_id] = state, event
            if not legal:
                self.add("wrong", f"journal {row.pk}: {row}", row.order.client_order_id)
            for halt in pressed:
                mine = row.order.account.name == halt.account and row.order.role not in PASSING
                if mine and row.event == "claim" and halt.pressed < row.at < halt.released:
                    what = f"{row.order} was claimed while {halt.account} was halted"
                    self.add("wrong", what, row.order.client_order_id)
        for client_id, order in self.orders.items():
            if last[order.pk][0] != order.state:
                self.add("wrong", f"{order}: journal ends {last[order.pk][0]}", client_id)


def _was_made_void(signal: Signal, signals: Mapping[str, Signal]) -> bool:
    """Whether a later close or cancel of the same lane, named on the signal, overtook it."""
    if signal.state != SignalState.IGNORED or signal.reason != ReasonCode.CANCELED_BY_SIGNAL:
        return False
    lane = signal.strategy_id, signal.symbol
    closing = [one for key, one in signals.items() if key in signal.detail]
    return any(
        (one.strategy_id, one.symbol) == lane
        and one.action in ("close", "cancel")
        and one.pk > signal.pk
        for one in closing
    )


def _orders() -> Iterable[Order]:
    return Order.objects.select_related("account", "strategy").iterator()


def _legal(row: OrderEvent) -> bool:
    key = OrderState(row.from_state), Event(row.event)
    return (TABLE.get(key) or _CORRECTIONS.get(key)) == row.to_state
