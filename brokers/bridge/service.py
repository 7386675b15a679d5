"""What the agent does with a genuine request: check, write down, act, write down.

The order of these steps is the whole promise. Refusals before the intent is written are NOT_SENT; from
then on only the driver's evidence counts, and without any the order's outcome is UNKNOWN.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.bridge import PROTOCOL, VERSION
from brokers.bridge.codec import CodecError, dump, load
from brokers.bridge.driver import Driver, Standing
from brokers.bridge.hello import Hello
from brokers.bridge.journal import Entry, Journal, OtherOrderError
from brokers.bridge.settings import Settings
from brokers.client_ids import letters_and_digits
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    NotSupportedError,
    UnknownSymbolError,
)
from brokers.order_form import check_form, check_grid
from brokers.types import (
    CancelResult,
    ExecutionResult,
    Health,
    Instrument,
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
)

logger = logging.getLogger(__name__)


class Service:
    """Answers questions and takes orders for the allowed accounts."""

    def __init__(self, settings: Settings, journal: Journal, drivers: Mapping[str, Driver]) -> None:
        self._settings = settings
        self._journal = journal
        self._drivers = drivers
        self._calls: dict[str, Callable[[Driver, str, Mapping[str, Any]], Any]] = {
            "hello": lambda driver, account, _: self._hello(driver, account),
            "health": lambda driver, _account, _: self._health(driver),
            "execute_order": self._execute,
            "cancel_order": self._cancel,
            "fetch_order": self._fetch,
            "open_orders": lambda driver, account, told: self._on(driver, account).open_orders(
                None if told["symbol"] is None else self._symbol(told)
            ),
            "trades_since": lambda driver, account, told: self._on(driver, account).trades_since(
                self._symbol(told), load(datetime, told["since"])
            ),
            "positions": lambda driver, account, _: self._on(driver, account).positions(),
            "balances": lambda driver, account, _: self._on(driver, account).balances(),
            "instrument": lambda driver, _, told: self._instrument(driver, self._symbol(told)),
            "quote": lambda driver, _, told: driver.quote(
                self._symbol(told), load(Decimal | None, told["hint"])
            ),
            "order_book": lambda driver, _, told: driver.order_book(self._symbol(told)),
        }

    def answer(self, call: str, told: Mapping[str, Any]) -> Any:
        """JSON-ready answer to ``call``. Raises BrokerError or CodecError: then nothing was done."""
        action = self._calls.get(call)
        if action is None:
            raise NotSupportedError(f"the agent has no call {call!r}")
        if told.get("protocol") != PROTOCOL:
            raise ConfigurationError(f"the agent speaks protocol {PROTOCOL}: update the older end")
        account = str(told.get("account", ""))
        driver = self._drivers.get(account)
        if driver is None:
            raise ConfigurationError(f"the agent's file does not list the account {account!r}")
        try:
            return dump(action(driver, account, told))
        except KeyError as error:
            raise CodecError(f"{call} lacks {error.args[0]!r}") from error

    def _hello(self, driver: Driver, account: str) -> Hello:
        standing = self._standing(driver, account)
        return Hello(
            PROTOCOL,
            VERSION,
            driver.name,
            account,
            standing.is_live,
            self._settings.dry_run,
            standing.capabilities,
            datetime.now(UTC),
        )

    def _health(self, driver: Driver) -> Health:
        health = driver.health()
        unresolved = self._journal.unresolved()
        lost = f"; {unresolved} orders without a result" if unresolved else ""
        return Health(health.ok, f"{health.detail}{lost}", health.latency_ms, None)

    def _symbol(self, told: Mapping[str, Any]) -> str:
        symbol = str(told["symbol"])
        if symbol not in self._settings.instruments:
            raise UnknownSymbolError(f"the agent's file does not list {symbol!r}")
        return symbol

    def _instrument(self, driver: Driver, symbol: str) -> Instrument:
        """The terminal's rules, and the agent's own: FKS divides what is more than one order takes.

        Where not even one step may leave there is nothing to divide: that order is refused.
        """
        rules, listed = driver.instrument(symbol), self._settings.instruments[symbol]
        most = min(listed.max_quantity, rules.max_quantity or listed.max_quantity)
        return replace(rules, max_quantity=max(most, rules.quantity_step))

    def _standing(self, driver: Driver, account: str) -> Standing:
        """What the terminal is on at this moment: someone may have logged in elsewhere."""
        standing = driver.standing()
        if standing.account != account:
            raise ConfigurationError(
                f"the terminal is on account {standing.account}, not on {account}"
            )
        return standing

    def _on(self, driver: Driver, account: str) -> Driver:
        """The driver, if its terminal is on the account now: another one's money is nobody's news."""
        self._standing(driver, account)
        return driver

    def _execute(self, driver: Driver, account: str, told: Mapping[str, Any]) -> ExecutionResult:
        request = load(OrderRequest, told["request"])
        known = self._journal.find(account, request.identity)
        absent = known.attempt if known and self._is_absent(driver, known, request) else None
        if known is None or known.may_be_sent_again or absent is not None:
            self._refuse(driver, account, request, told)
        client_id = letters_and_digits(request.identity)
        try:
            taken = self._journal.intend(account, client_id, request, absent)
        except OtherOrderError:
            return ExecutionResult(
                Outcome.UNKNOWN,
                code="DUPLICATE_ORDER",
                detail="the agent knows this id with another order: nothing was sent now",
            )
        if taken is None:
            return self._act(driver, account, request, client_id)
        if taken.result is not None:
            return taken.result
        return ExecutionResult(
            Outcome.UNKNOWN,
            code="VENUE_UNREACHABLE",
            detail="the agent began to send this order and never learned how it ended",
        )

    def _is_absent(self, driver: Driver, known: Entry, request: OrderRequest) -> bool:
        """Whether an order in doubt is surely not at the terminal: FKS has proved it, and now, long
        enough after it was sent, the terminal itself says so once more.
        """
        if not known.is_in_doubt or request.attempt < 2 or not driver.proves_absence:
            return False
        ref = OrderRef(request.identity, request.symbol, "", known.sent_at)
        try:
            window = self._standing(driver, known.account).capabilities.settle_window
            settled = datetime.now(UTC) - known.sent_at >= timedelta(seconds=window)
            return settled and driver.fetch_order(ref, known) is None
        except BrokerError:
            return False

    def _refuse(
        self, driver: Driver, account: str, request: OrderRequest, told: Mapping[str, Any]
    ) -> None:
        """Raise BrokerError for an order that must not leave; nothing is written yet."""
        standing = self._standing(driver, account)
        if standing.is_live and not self._settings.allow_live:
            raise ConfigurationError("the terminal is on a real account and allow_live is off")
        if told["is_live"] is not standing.is_live:
            raise ConfigurationError("FKS and the terminal disagree about real or demo")
        self._symbol({"symbol": request.symbol})
        check_form(request, standing.capabilities, driver.label)
        check_grid(request, driver.instrument(request.symbol))
        most = self._settings.instruments[request.symbol].max_quantity
        if request.quantity > most and not _is_level(request, standing):
            raise NotSupportedError(f"the agent's file allows {most:f} of {request.symbol} at most")
        driver.check(request, thorough=self._settings.dry_run)
        if self._settings.dry_run:
            raise NotSupportedError("the agent rehearses (dry_run): the order passed its checks")

    def _act(
        self, driver: Driver, account: str, request: OrderRequest, client_id: str
    ) -> ExecutionResult:
        if request.send_before is not None and datetime.now(UTC) >= request.send_before:
            result = ExecutionResult(
                Outcome.NOT_SENT,
                code="EXPIRED_BEFORE_SENDING",
                detail="the claim on this order ended before it could be sent",
                retry_after=1,
            )
        else:
            result = _send(driver, request, client_id)
        self._journal.finish(account, request.identity, result)
        logger.info(
            "order %s %s %s %s: %s %s",
            client_id,
            request.side,
            f"{request.quantity:f}",
            request.symbol,
            result.outcome,
            result.detail,
        )
        return result

    def _cancel(self, driver: Driver, account: str, told: Mapping[str, Any]) -> CancelResult:
        ref = load(OrderRef, told["ref"])
        self._standing(driver, account)
        if self._settings.dry_run:
            raise NotSupportedError("the agent rehearses (dry_run): nothing is cancelled")
        if not ref.identity:
            self._symbol({"symbol": ref.symbol})
        result = driver.cancel_order(ref, self._journal.find(account, ref.identity))
        named = letters_and_digits(ref.identity) if ref.identity else ref.broker_order_id
        logger.info("cancel %s: %s %s", named, result.outcome, result.detail)
        return result

    def _fetch(self, driver: Driver, account: str, told: Mapping[str, Any]) -> OrderReport | None:
        ref = load(OrderRef, told["ref"])
        self._standing(driver, account)
        entry = self._journal.find(account, ref.identity)
        outcome = entry.result.outcome if entry and entry.result else Outcome.UNKNOWN
        if outcome is Outcome.REJECTED:
            return None
        if entry is not None and outcome is Outcome.NOT_SENT and not driver.turned_up(entry):
            return None
        return driver.fetch_order(ref, entry)


def _is_level(request: OrderRequest, standing: Standing) -> bool:
    """Whether it would only set the stop or target of a position, which is of the position's size."""
    guards = request.reduce_only and request.type is not OrderType.MARKET
    return guards and standing.capabilities.whole_stop


def _send(driver: Driver, request: OrderRequest, client_id: str) -> ExecutionResult:
    try:
        return driver.execute_order(request, client_id)
    except Exception as error:
        # The boundary to the vendor's code: whatever went wrong, the order may be at the venue.
        logger.exception("placing %s raised", client_id)
        detail = f"the order may exist: the driver raised {type(error).__name__}"
        return ExecutionResult(Outcome.UNKNOWN, code="VENUE_UNREACHABLE", detail=detail)
