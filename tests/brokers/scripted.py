"""A venue that does what a test tells it to.

Without instructions it fills every order whole, at the price risk judged it by, and remembers it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

import pytest

from brokers.base import ExecutionPlugin
from brokers.capabilities import Capabilities, IdRule
from brokers.errors import UnknownSymbolError
from brokers.models import Account
from brokers.registry import registry
from brokers.sessions import forget_all
from brokers.types import (
    AccountConfig,
    BalanceReport,
    BookLevel,
    CancelResult,
    Candle,
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
    Permissions,
    PositionReport,
    Quote,
    Side,
    TimeInForce,
    TradingFees,
    VenueStatus,
)
from execution.models import Order
from tests.factories import AccountFactory

AT = datetime(2026, 7, 1, 12, tzinfo=UTC)
PRICE = Decimal(60000)
MAY_TRADE = Permissions(trade=True, withdraw=False, ip_restricted=None)
NO_FEES = TradingFees(Decimal(0), Decimal(0))
CAPABILITIES = Capabilities(
    order_types=frozenset(OrderType),
    time_in_force=frozenset(TimeInForce),
    id_rule=IdRule.NONE,
    submit_timeout=5,
    settle_window=15,
    post_only=True,
    needs_internet=False,
)

Outcomes = ExecutionResult | Exception | Callable[[OrderRequest], ExecutionResult]


@dataclass(slots=True)
class Script:
    """How one account's venue behaves, and what it was asked.

    Queues are used up first; then it answers from ``reports``. While ``gate`` is closed no
    placement ends; ``entered`` tells that one has begun. ``failure`` is raised by every question,
    ``quote_failure`` by those for a price.
    """

    outcomes: deque[Outcomes] = field(default_factory=deque)
    answers: deque[OrderReport | Exception | None] = field(default_factory=deque)
    cancel_results: deque[CancelResult | Exception] = field(default_factory=deque)
    reports: dict[str, OrderReport] = field(default_factory=dict)
    failure: Exception | None = None
    quote_failure: Exception | None = None
    init_failure: BaseException | None = None
    capabilities_failure: Exception | None = None
    capabilities: Capabilities = CAPABILITIES
    shares_quotes_as: str = ""
    permissions: Permissions = MAY_TRADE
    price: Decimal = PRICE
    book: OrderBook | None = None
    fees: TradingFees | None = NO_FEES
    unlisted: set[str] = field(default_factory=set)
    hours: list[Candle] = field(default_factory=list)
    balances: dict[str, Decimal] = field(default_factory=lambda: {"USDT": Decimal(1_000_000)})
    sent: list[OrderRequest] = field(default_factory=list)
    asked: list[OrderRef] = field(default_factory=list)
    canceled: list[OrderRef] = field(default_factory=list)
    inits: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def identities(self) -> list[str]:
        return [request.identity for request in self.sent]

    def place(self, request: OrderRequest) -> ExecutionResult:
        self.sent.append(request)
        self.entered.set()
        assert self.gate.wait(30), "the test never opened the gate"
        outcome = self.outcomes.popleft() if self.outcomes else fill_whole(request)
        if isinstance(outcome, Exception):
            raise outcome
        result = outcome if isinstance(outcome, ExecutionResult) else outcome(request)
        if result.report is not None:
            self.reports[request.identity] = result.report
        return result

    def cancel(self, ref: OrderRef) -> CancelResult:
        self.canceled.append(ref)
        result = self.cancel_results.popleft() if self.cancel_results else None
        if isinstance(result, Exception):
            raise result
        if result is None:
            known = self.reports.get(ref.identity)
            if known is not None:
                self.reports[ref.identity] = replace(known, status=VenueStatus.CANCELED)
            result = CancelResult(Outcome.ACCEPTED)
        return result

    def find(self, ref: OrderRef) -> OrderReport | None:
        self.asked.append(ref)
        self.refuse_when_failing()
        if not self.answers:
            return self.reports.get(ref.identity)
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def refuse_when_failing(self) -> None:
        if self.failure is not None:
            raise self.failure


_scripts: dict[str, Script] = {}


def script_of(account: Account) -> Script:
    """What ``account``'s venue does; made on first use."""
    return _scripts.setdefault(str(account.pk), Script())


def follow(account: Account, script: Script) -> None:
    """Let ``account``'s venue follow ``script``."""
    _scripts[str(account.pk)] = script


class ScriptedPlugin(ExecutionPlugin):
    """Follows the script of its account."""

    name: ClassVar[str] = "scripted"
    label: ClassVar[str] = "Scripted (tests)"
    credential_fields: ClassVar[tuple[str, ...]] = ("api_key", "api_secret")
    option_fields: ClassVar[dict[str, str]] = {"exchange": "a label"}

    closed: bool = False

    def init(self, config: AccountConfig) -> None:
        self.config = config
        self.script = _scripts.setdefault(config.key, Script())
        self.script.inits += 1
        if self.script.init_failure is not None:
            raise self.script.init_failure

    @property
    def capabilities(self) -> Capabilities:
        if self.script.capabilities_failure is not None:
            raise self.script.capabilities_failure
        return self.script.capabilities

    def client_order_id(self, identity: str) -> str:
        return f"x-{identity}"

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        return self.script.place(request)

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        return self.script.cancel(ref)

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        return self.script.find(ref)

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        self.script.refuse_when_failing()
        working = (VenueStatus.OPEN, VenueStatus.PARTIALLY_FILLED)
        return [one for one in self.script.reports.values() if one.status in working]

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        self.script.refuse_when_failing()
        return [fill for one in self.script.reports.values() for fill in one.fills]

    def positions(self) -> Sequence[PositionReport]:
        return []

    def balances(self) -> Sequence[BalanceReport]:
        self.script.refuse_when_failing()
        return [
            BalanceReport(name, amount, amount) for name, amount in self.script.balances.items()
        ]

    def instrument(self, symbol: str) -> Instrument:
        self.script.refuse_when_failing()
        base, _, quote = symbol.partition("/")
        return Instrument(
            symbol=symbol,
            venue_symbol=base + quote,
            base=base,
            quote=quote,
            quantity_step=Decimal("0.00001"),
            price_tick=Decimal("0.01"),
            min_value=Decimal(5),
        )

    @property
    def shares_quotes_as(self) -> str:
        return self.script.shares_quotes_as

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        self.script.refuse_when_failing()
        if self.script.quote_failure is not None:
            raise self.script.quote_failure
        if symbol in self.script.unlisted:
            raise UnknownSymbolError(f"there is no {symbol} here")
        price = self.script.price
        return Quote(symbol, price, price, price, datetime.now(UTC))

    def order_book(self, symbol: str) -> OrderBook:
        """The script's, else a deep one at its price."""
        self.script.refuse_when_failing()
        deep = (BookLevel(self.script.price, Decimal(1_000_000)),)
        return self.script.book or OrderBook(symbol, deep, deep, datetime.now(UTC))

    def trading_fees(self, symbol: str) -> TradingFees | None:
        return self.script.fees

    def candles(self, symbol: str, count: int) -> Sequence[Candle]:
        self.script.refuse_when_failing()
        return self.script.hours[-count:]

    def health_check(self) -> Health:
        return Health(self.script.failure is None, "as scripted", latency_ms=1, clock_skew_ms=0)

    def check_permissions(self) -> Permissions:
        self.script.refuse_when_failing()
        return self.script.permissions

    def close(self) -> None:
        self.closed = True


def trade(
    trade_id: str,
    quantity: str | Decimal = "0.01",
    price: str | Decimal = PRICE,
    *,
    fee: str = "0",
    fee_currency: str = "USDT",
    at: datetime = AT,
) -> FillReport:
    return FillReport(trade_id, Decimal(quantity), Decimal(price), Decimal(fee), fee_currency, at)


def report_of(
    order: Order | OrderRequest,
    status: VenueStatus,
    *fills: FillReport,
    filled: str | Decimal | None = None,
    reason: str = "",
) -> OrderReport:
    """What a venue would say of ``order``; ``filled`` defaults to what the fills add up to."""
    total = sum((one.quantity for one in fills), Decimal(0))
    return OrderReport(
        broker_order_id=f"V{order.identity[-8:]}",
        client_order_id=f"x-{order.identity}",
        symbol=order.symbol,
        side=Side(order.side),
        status=status,
        quantity=order.quantity,
        filled_quantity=total if filled is None else Decimal(filled),
        average_price=None,
        fills=fills,
        reason=reason,
    )


def accepted(report: OrderReport) -> ExecutionResult:
    return ExecutionResult(Outcome.ACCEPTED, broker_order_id=report.broker_order_id, report=report)


def fill_whole(request: OrderRequest) -> ExecutionResult:
    price = request.price or request.reference_price or PRICE
    fill = trade(f"T{request.identity}", request.quantity, price, at=datetime.now(UTC))
    return accepted(report_of(request, VenueStatus.FILLED, fill))


def rest(request: OrderRequest) -> ExecutionResult:
    """The order goes into the venue's book and stays there."""
    return accepted(report_of(request, VenueStatus.OPEN))


def swallow(request: OrderRequest) -> ExecutionResult:
    """Nothing is heard of the order again."""
    return ExecutionResult(Outcome.UNKNOWN, code="VENUE_UNREACHABLE", detail="no answer")


@contextmanager
def registered() -> Iterator[Callable[..., Account]]:
    """The plugin is known to the registry inside; gives a factory of accounts that use it."""

    def account(**columns: object) -> Account:
        return AccountFactory.create(**{"broker": "scripted", "options": {}} | columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry()._paths, "scripted", f"{__name__}:ScriptedPlugin")
        try:
            yield account
        finally:
            forget_all()
            _scripts.clear()
