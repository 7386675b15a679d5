"""The plugin: what FKS asks, and how each answer is proven."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

from brokers.base import ExecutionPlugin
from brokers.capabilities import Capabilities, IdRule, VenueCard
from brokers.decimals import decimal_text
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    QueryFailedError,
    UnknownSymbolError,
)
from brokers.order_form import check_form, check_grid
from brokers.types import (
    AccountConfig,
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
    Permissions,
    PositionReport,
    Quote,
    Side,
    TimeInForce,
    VenueStatus,
)
from fks_example_broker.venue import Lost, Refused, Row, Trade, Venue

PRICES = {"BTC/USDT": Decimal(60000), "ETH/USDT": Decimal(3000)}
CAPABILITIES = Capabilities(
    order_types=frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP}),
    time_in_force=frozenset({TimeInForce.GTC}),
    id_rule=IdRule.FOREVER,
    submit_timeout=5,
    settle_window=1,
    needs_internet=False,
)


class ExamplePlugin(ExecutionPlugin):
    """One account: one file."""

    name: ClassVar[str] = "example"
    label: ClassVar[str] = "Example (a SQLite file)"
    option_fields: ClassVar[dict[str, str]] = {"path": "The file that is the venue"}

    def init(self, config: AccountConfig) -> None:
        path = config.options.get("path")
        if not isinstance(path, str) or not path:
            raise ConfigurationError("option path names the file that is the venue")
        self._venue = Venue(path, PRICES)

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        """What ``list_brokers`` tells of it."""
        return (
            VenueCard("Example", CAPABILITIES, "client_id", "client_id", "nothing: it is a file"),
        )

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def client_order_id(self, identity: str) -> str:
        return identity

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        """Everything is checked before anything leaves; after that only evidence counts."""
        try:
            order = self._order(request)
        except BrokerError as error:
            return ExecutionResult(Outcome.NOT_SENT, code=error.code, detail=str(error))
        evidence = {"request": order}
        try:
            order_id = self._venue.place(order)
        except Refused as refused:
            # An id the venue knows means that an earlier request arrived: never a rejection.
            known = "duplicate" in str(refused)
            outcome = Outcome.UNKNOWN if known else Outcome.REJECTED
            return ExecutionResult(
                outcome, code="VENUE_REJECTED", detail=str(refused), evidence=evidence
            )
        except (Lost, sqlite3.Error) as error:
            said = f"the order may exist: {type(error).__name__}"
            return ExecutionResult(
                Outcome.UNKNOWN, code="VENUE_UNREACHABLE", detail=said, evidence=evidence
            )
        return ExecutionResult(Outcome.ACCEPTED, str(order_id), evidence=evidence)

    def _order(self, request: OrderRequest) -> dict[str, str]:
        check_form(request, CAPABILITIES, self.label)
        check_grid(request, self.instrument(request.symbol))
        order = {
            "client_id": request.identity,
            "symbol": request.symbol,
            "side": request.side.value,
            "type": request.type.value,
            "quantity": decimal_text(request.quantity),
        }
        prices = {"price": request.price, "stop_price": request.stop_price}
        return order | {name: decimal_text(one) for name, one in prices.items() if one is not None}

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        try:
            found = self._named(ref)
            canceled = bool(found) and self._venue.cancel(found[0].client_id)
        except sqlite3.Error as error:
            return CancelResult(Outcome.UNKNOWN, detail=type(error).__name__)
        if canceled:
            return CancelResult(Outcome.ACCEPTED)
        return CancelResult(Outcome.REJECTED, "VENUE_REJECTED", "no such working order")

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        with _asking():
            found = self._named(ref)
            return self._report(found[0]) if found else None

    def _named(self, ref: OrderRef) -> list[Row]:
        """The order by our id; one that carries none of ours, by the venue's."""
        wanted = ref.identity or ref.broker_order_id
        name = "client_id" if ref.identity else "id"
        return [one for one in self._venue.orders() if str(getattr(one, name)) == wanted]

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        with _asking():
            rows = [one for one in self._venue.orders() if one.status == "open"]
            return [self._report(one) for one in rows if symbol in (None, one.symbol)]

    def _report(self, row: Row) -> OrderReport:
        trades = [one for one in self._venue.trades() if one.order_id == row.id]
        filled = sum((one.quantity for one in trades), Decimal(0))
        value = sum((one.quantity * one.price for one in trades), Decimal(0))
        status = VenueStatus(row.status)
        if status is VenueStatus.OPEN and filled:
            status = VenueStatus.PARTIALLY_FILLED
        return OrderReport(
            broker_order_id=str(row.id),
            client_order_id=row.client_id,
            symbol=row.symbol,
            side=Side(row.side),
            status=status,
            quantity=row.quantity,
            filled_quantity=filled,
            average_price=value / filled if filled else None,
            fills=tuple(_fill(one) for one in trades),
        )

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        with _asking():
            trades = [one for one in self._venue.trades() if one.symbol == symbol]
        return [_fill(one) for one in trades if one.at >= since]

    def positions(self) -> Sequence[PositionReport]:
        """A spot venue keeps none."""
        return ()

    def balances(self) -> Sequence[BalanceReport]:
        with _asking():
            cash, trades = self._venue.cash(), self._venue.trades()
        totals = {"USDT": cash}
        for one in trades:
            coin, signed = one.symbol.partition("/")[0], one.quantity * Side(one.side).sign
            totals[coin] = totals.get(coin, Decimal(0)) + signed
        return [BalanceReport(name, total, total) for name, total in totals.items() if total]

    def instrument(self, symbol: str) -> Instrument:
        if symbol not in PRICES:
            raise UnknownSymbolError(f"the example does not list {symbol}")
        base, _, quote = symbol.partition("/")
        step = Decimal("0.00001")
        return Instrument(symbol, symbol, base, quote, step, Decimal("0.01"), min_quantity=step)

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        price, half = PRICES[self.instrument(symbol).symbol], Decimal("0.01")
        return Quote(symbol, price - half, price + half, price, datetime.now(UTC))

    def health_check(self) -> Health:
        started = time.monotonic()
        try:
            self.balances()
        except QueryFailedError as error:
            return Health(False, str(error))
        return Health(True, "the file answers", round((time.monotonic() - started) * 1000))

    def check_permissions(self) -> Permissions:
        return Permissions(trade=True, withdraw=False, ip_restricted=None, detail="there is no key")


@contextmanager
def _asking() -> Iterator[None]:
    """No answer is never "nothing there"."""
    try:
        yield
    except sqlite3.Error as error:
        raise QueryFailedError(f"the file does not answer: {type(error).__name__}") from error


def _fill(trade: Trade) -> FillReport:
    return FillReport(str(trade.id), trade.quantity, trade.price, trade.fee, "USDT", trade.at)
