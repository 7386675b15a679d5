"""The paper broker: rehearses orders against a venue of our own, without keys or internet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import Error as DatabaseFailure

from brokers import paper_market, paper_terms
from brokers.base import ExecutionPlugin
from brokers.capabilities import BookDepth, Capabilities, IdRule, VenueCard
from brokers.errors import (
    BrokerError,
    NotSupportedError,
    QueryFailedError,
    QuoteUnavailableError,
)
from brokers.paper_faults import Fault, FaultScript, Trouble
from brokers.paper_market import VenueRefusal
from brokers.paper_quotes import LiveQuotes
from brokers.types import (
    AccountConfig,
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
    Permissions,
    PositionReport,
    Quote,
    TimeInForce,
    TradingFees,
)

if TYPE_CHECKING:
    from brokers.paper_book import PaperBook

_CAPABILITIES = Capabilities(
    order_book=BookDepth.BEST,
    order_types=frozenset(
        {OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT}
    ),
    time_in_force=frozenset({TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK}),
    id_rule=IdRule.FOREVER,
    submit_timeout=5,
    settle_window=1,
    post_only=True,
    short_selling=True,
    locks_balance=False,
    needs_internet=False,
)


_CARDS = (
    VenueCard(
        "Paper",
        _CAPABILITIES,
        "its own column",
        "that column",
        "nothing: it rehearses; rules, queues and prices of an exchange show at the exchange alone",
    ),
)


class PaperPlugin(ExecutionPlugin):
    """A margin account at the paper venue: deep books, shorts allowed, no order lacks money.

    None is told to only reduce, as at the terminals: so a rehearsal goes the longest way, with every
    exit at the market leaving after its stop.
    """

    name: ClassVar[str] = "paper"
    label: ClassVar[str] = "Paper (rehearsal)"
    option_fields: ClassVar[dict[str, str]] = paper_terms.OPTIONS

    _book: PaperBook
    _script: FaultScript

    def init(self, config: AccountConfig) -> None:
        from brokers.paper_book import PaperBook

        terms = paper_terms.terms(config.options)
        self._live = LiveQuotes(config.quotes or _no_quotes) if terms.quotes_from else None
        self._book = PaperBook(config.key, terms, self._live)
        self._script = FaultScript(config.key, terms.faults)

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        return _CARDS

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    def client_order_id(self, identity: str) -> str:
        return identity

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        """Fills market orders at once, at ``reference_price`` or the current price, with slippage.

        A second order of the same identity is answered with the first. What the account's script
        of faults has for this order happens to it.
        """
        try:
            self._refuse_impossible(request)
            if self._live is not None:
                self._live.see(request.symbol)
            fault, spoiled = self._meet_trouble(request)
            if spoiled is not None:
                return spoiled
            self._look(request.symbol)  # it may have come late
            report = self._book.place(request, fault)
        except VenueRefusal as error:
            return ExecutionResult(Outcome.REJECTED, code=error.code, detail=str(error))
        except BrokerError as error:
            again = 1 if isinstance(error, QueryFailedError) else None
            return ExecutionResult(
                Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
            )
        except DatabaseFailure as error:
            return ExecutionResult(Outcome.UNKNOWN, detail=_silence(error))
        return ExecutionResult(
            Outcome.ACCEPTED,
            broker_order_id=report.broker_order_id,
            report=report,
            evidence=_evidence(request, report),
        )

    def _meet_trouble(self, request: OrderRequest) -> tuple[Fault | None, ExecutionResult | None]:
        """What strikes this order, and its end where it ends there. Raises django.db.Error."""
        if self._script.is_down(_now()):
            return None, _not_sent("VENUE_UNREACHABLE", "the paper venue is down", 1)
        fault = self._script.next(request.symbol, _now())
        match fault.trouble if fault is not None else None:
            case Trouble.REJECT:
                raise VenueRefusal("refused, as the script of faults has it")
            case Trouble.LOST_ANSWER:
                self._book.place(request)
                return None, ExecutionResult(Outcome.UNKNOWN, detail="the answer was lost")
            case Trouble.LOST_REQUEST:
                return None, ExecutionResult(Outcome.UNKNOWN, detail="the request was lost")
            case Trouble.OUTAGE:
                return None, _not_sent("VENUE_UNREACHABLE", "the paper venue is down", 1)
            case Trouble.THROTTLED if fault is not None:
                return None, _not_sent("RATE_LIMITED", "asked too often", fault.seconds)
            case Trouble.LATE if fault is not None:
                time.sleep(fault.seconds)
                return None, None
        return fault, None

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        try:
            if self._script.is_down(_now()):
                return CancelResult(Outcome.NOT_SENT, "VENUE_UNREACHABLE", "the venue is down")
            self._look(ref.symbol)
            canceled = self._book.cancel(ref)
        except DatabaseFailure as error:
            return CancelResult(Outcome.UNKNOWN, detail=_silence(error))
        if canceled:
            return CancelResult(Outcome.ACCEPTED)
        return CancelResult(
            Outcome.REJECTED, "NOTHING_TO_CANCEL", "the paper venue has no such working order"
        )

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        with self._asking():
            self._look(ref.symbol)
            return self._book.find(ref)

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        with self._asking():
            if self._live is not None:
                for name in self._book.resting_symbols():
                    self._look(name)
            return self._book.working(symbol)

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        with self._asking():
            self._look(symbol)
            return self._book.trades_since(symbol, since)

    def positions(self) -> Sequence[PositionReport]:
        with self._asking():
            return self._book.positions()

    def balances(self) -> Sequence[BalanceReport]:
        """Every currency the account owns or owes; what a short sold is negative."""
        with self._asking():
            return self._book.balances()

    def instrument(self, symbol: str) -> Instrument:
        return paper_market.instrument(symbol)

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        """The quote of the account named for it; else the configured price, else ``hint`` (then
        remembered), else the last one remembered."""
        paper_market.instrument(symbol)
        with self._asking():
            if self._live is not None:
                self._live.see(symbol)
            return self._book.quote(symbol, hint)

    def order_book(self, symbol: str) -> OrderBook:
        """One level on each side, which no order uses up."""
        return paper_market.order_book(self.fetch_data(symbol))

    def trading_fees(self, symbol: str) -> TradingFees:
        return self._book.fees

    def _look(self, symbol: str) -> None:
        """See the market before orders are matched with it. Without an answer none of them fills."""
        if self._live is not None:
            with suppress(BrokerError):
                self._live.see(symbol)

    def health_check(self) -> Health:
        start = time.perf_counter()
        try:
            self.balances()
        except QueryFailedError as error:
            return Health(ok=False, detail=str(error))
        elapsed = round((time.perf_counter() - start) * 1000)
        return Health(ok=True, detail="the paper venue answers", latency_ms=elapsed)

    def check_permissions(self) -> Permissions:
        return Permissions(
            trade=True, withdraw=False, ip_restricted=None, detail="a paper account has no key"
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            if self._script.is_down(_now()):
                raise QueryFailedError("the paper venue is down, as its script of faults has it")
            yield
        except DatabaseFailure as error:
            raise QueryFailedError(_silence(error)) from error

    def _refuse_impossible(self, request: OrderRequest) -> None:
        """Raise BrokerError for an order this venue cannot even read."""
        self.capabilities.refuse_unsupported(request, "the paper venue")
        paper_market.instrument(request.symbol)
        immediate = request.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
        if immediate and request.type in (OrderType.STOP, OrderType.STOP_LIMIT):
            raise NotSupportedError("stops of the paper venue stay until canceled (gtc)")
        if request.post_only and request.type is not OrderType.LIMIT:
            raise NotSupportedError("only limit orders of the paper venue can be post-only")
        fault = paper_market.fault(request)
        if fault:
            raise BrokerError(fault, code="NOT_SUPPORTED")


def _no_quotes(symbol: str) -> Quote:
    """While an account is only being checked."""
    raise QuoteUnavailableError(f"nobody quotes {symbol} here")


def _now() -> datetime:
    return datetime.now(UTC)


def _not_sent(code: str, detail: str, retry_after: int) -> ExecutionResult:
    return ExecutionResult(Outcome.NOT_SENT, code=code, detail=detail, retry_after=retry_after)


def _silence(error: DatabaseFailure) -> str:
    return f"the paper venue's database did not answer: {type(error).__name__}"


def _evidence(request: OrderRequest, report: OrderReport) -> Mapping[str, Any]:
    return {
        "request": {
            "identity": request.identity,
            "symbol": request.symbol,
            "side": request.side.value,
            "type": request.type.value,
            "quantity": f"{request.quantity:f}",
            "price": None if request.price is None else f"{request.price:f}",
            "stop_price": None if request.stop_price is None else f"{request.stop_price:f}",
        },
        "answer": {
            "order_id": report.broker_order_id,
            "status": report.status.value,
            "filled_quantity": f"{report.filled_quantity:f}",
        },
    }
