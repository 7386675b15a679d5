"""Brokers behind a trading terminal, through the bridge agent beside it: one plugin for all of them.

The agent says which broker it drives and what that can do. This side proves how far a request came: no
connection is NOT_SENT, a signed refusal is NOT_SENT, and everything else without a signed result is
UNKNOWN.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any, ClassVar

from brokers.base import ExecutionPlugin
from brokers.bridge import PROTOCOL
from brokers.bridge.client import BridgeClient, BridgeError, BridgeRefusal
from brokers.bridge.codec import CodecError, dump, load
from brokers.bridge.drivers import CLASSES, driver_class
from brokers.bridge.hello import Hello
from brokers.bridge.signing import read_key
from brokers.capabilities import Capabilities, VenueCard
from brokers.client_ids import letters_and_digits
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    CredentialError,
    NotShownError,
    NotSupportedError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.order_form import check_form
from brokers.symbols import Shares
from brokers.types import (
    AccountConfig,
    BalanceReport,
    CancelResult,
    Environment,
    ExecutionResult,
    FillReport,
    Health,
    Instrument,
    OrderBook,
    OrderRef,
    OrderReport,
    OrderRequest,
    Outcome,
    Permissions,
    PositionReport,
    Quote,
)

READ_SECONDS = 15
AGAIN = 2
"""Seconds until an absent agent or terminal is tried again, with an order or for its first word."""
_ERRORS = {
    error.code: error
    for error in (
        ConfigurationError,
        CredentialError,
        NotSupportedError,
        QuoteUnavailableError,
        UnknownSymbolError,
    )
}

_TELLING = frozenset({"hello", "instrument", "quote", "order_book"})
"""Calls whose refusals keep their class; every other question was simply not answered."""
DRY_RUN = "a dry-run account of a terminal only reads"


class BridgePlugin(ExecutionPlugin):
    """One account at one terminal."""

    name: ClassVar[str] = "bridge"
    label: ClassVar[str] = "MetaTrader 5, NinjaTrader 8 or Interactive Brokers (bridge agent)"
    credential_fields: ClassVar[tuple[str, ...]] = ("bridge_key",)
    option_fields: ClassVar[dict[str, str]] = {
        "url": "Where the agent listens: http://127.0.0.1:8811, or https:// with certificate_sha256",
        "account": "The account at the broker, as the agent's file lists it",
        "certificate_sha256": "The fingerprint of the agent's certificate; without it the system's "
        "authorities decide",
        "vpn": "true vouches that a private address in url is reached through a tunnel of yours",
        "shares": "true reads a lone US ticker (NASDAQ:AAPL) as that share for dollars (AAPL/USD)",
    }

    @classmethod
    def trades_shares(cls, options: Mapping[str, Any]) -> Shares:
        return Shares.ALSO if options.get("shares", False) is True else Shares.NONE

    def init(self, config: AccountConfig) -> None:
        """Check the configuration without any request."""
        options = config.options
        if not options.get("url") or not options.get("account"):
            raise ConfigurationError("a bridge account needs the options url and account")
        try:
            key = read_key(config.credentials.get("bridge_key", ""))
        except ValueError as error:
            raise CredentialError(f"bridge_key: {error}") from error
        fingerprint = str(options.get("certificate_sha256", ""))
        self._client = BridgeClient(
            str(options["url"]), key, fingerprint, options.get("vpn", False) is True
        )
        try:
            self._client.check()
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self._account = str(options["account"])
        self._environment = config.environment
        self._known: Hello | None = None
        self._absence, self._away_until = "", 0.0
        self._lock = threading.Lock()

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        """One for each driver of the agent that comes with this FKS."""
        return [driver_class(name).card for name in CLASSES]

    @property
    def capabilities(self) -> Capabilities:
        """What the broker behind the agent can do, by the agent's word. Raises BrokerError."""
        return self._hello().capabilities

    def client_order_id(self, identity: str) -> str:
        return letters_and_digits(identity)

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        try:
            hello = self._hello()
            if self._environment is Environment.DRY_RUN:
                raise NotSupportedError(DRY_RUN)
            check_form(request, hello.capabilities, hello.driver)
            if not request.quantity.is_finite():
                raise NotSupportedError(f"{request.quantity} is not a quantity")
        except BrokerError as error:
            return _not_sent(error.code, str(error))
        told = {"request": dump(request), "is_live": hello.is_live}
        evidence: dict[str, Any] = {"request": told["request"], "agent": hello.driver}
        patience = hello.capabilities.submit_timeout
        try:
            answer = self._client.ask("execute_order", self._told(told), patience)
            result: ExecutionResult = load(ExecutionResult, answer)
        except BridgeRefusal as error:
            result = _not_sent(error.code, str(error))
        except (BridgeError, CodecError) as error:
            code, detail = "VENUE_UNREACHABLE", f"the order may exist: {error}"
            result = ExecutionResult(Outcome.UNKNOWN, code=code, detail=detail)
            if not getattr(error, "sent", True):
                result = _not_sent(code, str(error))
        return replace(result, evidence={**evidence, "answer": dict(result.evidence)})

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        if self._environment is Environment.DRY_RUN:
            return CancelResult(Outcome.NOT_SENT, NotSupportedError.code, DRY_RUN)
        try:
            patience = self._hello().capabilities.submit_timeout
            answer = self._client.ask("cancel_order", self._told({"ref": dump(ref)}), patience)
            result: CancelResult = load(CancelResult, answer)
        except (BrokerError, BridgeRefusal) as error:
            return CancelResult(Outcome.NOT_SENT, error.code, str(error))
        except (BridgeError, CodecError) as error:
            outcome = Outcome.UNKNOWN if getattr(error, "sent", True) else Outcome.NOT_SENT
            return CancelResult(outcome, "VENUE_UNREACHABLE", str(error))
        return result

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        if not ref.identity:
            raise NotSupportedError("an agent finds orders by our id, not by the terminal's alone")
        report: OrderReport | None = self._ask("fetch_order", OrderReport | None, ref=dump(ref))
        return report

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        return list(self._ask("open_orders", Sequence[OrderReport], symbol=symbol))

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        told = {"symbol": symbol, "since": dump(since)}
        return list(self._ask("trades_since", Sequence[FillReport], **told))

    def positions(self) -> Sequence[PositionReport]:
        return list(self._ask("positions", Sequence[PositionReport]))

    def balances(self) -> Sequence[BalanceReport]:
        return list(self._ask("balances", Sequence[BalanceReport]))

    def instrument(self, symbol: str) -> Instrument:
        rules: Instrument = self._ask("instrument", Instrument, symbol=symbol)
        return rules

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        """``hint`` goes along: an agent whose terminal shows no prices may be allowed to use it."""
        quote: Quote = self._ask("quote", Quote, symbol=symbol, hint=dump(hint))
        return quote

    def order_book(self, symbol: str) -> OrderBook:
        """As the terminal shows it; at Interactive Brokers the best prices."""
        book: OrderBook = self._ask("order_book", OrderBook, symbol=symbol)
        return book

    def health_check(self) -> Health:
        started = monotonic()
        try:
            asked = datetime.now(UTC)
            hello = self._hello(renew=True)
            skew = hello.now - asked - (datetime.now(UTC) - asked) / 2
            health: Health = self._ask("health", Health)
        except BrokerError as error:
            return Health(False, str(error))
        return replace(
            health,
            latency_ms=round((monotonic() - started) * 1000),
            clock_skew_ms=round(skew / timedelta(milliseconds=1)),
        )

    def check_permissions(self) -> Permissions:
        """The agent has no call that moves money, whatever the terminal's login may do."""
        hello = self._hello(renew=True)
        rehearsal = "; the agent rehearses (dry_run)" if hello.dry_run else ""
        return Permissions(
            trade=not hello.dry_run,
            withdraw=False,
            ip_restricted=None,
            detail=f"{hello.driver} through agent {hello.version}{rehearsal}",
        )

    def _hello(self, *, renew: bool = False) -> Hello:
        """The handshake, once. Raises BrokerError, also when real and demo are mixed up."""
        known = self._known
        if known is not None and not renew:
            return known
        with self._lock:
            if self._known is not None and not renew:
                return self._known
            if monotonic() < self._away_until and not renew:
                raise QueryFailedError(self._absence)
            try:
                hello: Hello = self._ask("hello", Hello)
            except QueryFailedError as error:
                # whoever waited for this answer is told the same, instead of waiting as long again
                self._absence, self._away_until = str(error), monotonic() + AGAIN
                raise
            self._check(hello)
            self._known = hello
            return hello

    def _check(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise ConfigurationError(f"the agent speaks protocol {hello.protocol}, FKS {PROTOCOL}")
        wants_live = self._environment is Environment.LIVE
        if self._environment is not Environment.DRY_RUN and hello.is_live is not wants_live:
            there = "real" if hello.is_live else "demo"
            raise ConfigurationError(
                f"the terminal is on a {there} account, this account is {self._environment.value}"
            )

    def _told(self, told: dict[str, Any]) -> dict[str, Any]:
        return {"account": self._account, **told}

    def _ask(self, call: str, kind: Any, **told: Any) -> Any:
        try:
            return load(kind, self._client.ask(call, self._told(told), READ_SECONDS))
        except BridgeRefusal as error:
            known = _ERRORS.get(error.code) if call in _TELLING else None
            unknown = NotShownError if error.is_answer else QueryFailedError
            raise (known or unknown)(str(error), code=error.code) from error
        except (BridgeError, CodecError) as error:
            raise QueryFailedError(f"the bridge agent: {error}") from error


def _not_sent(code: str, detail: str) -> ExecutionResult:
    """Tried again while nobody answered; what was refused on purpose is not."""
    again = AGAIN if code == QueryFailedError.code else None
    return ExecutionResult(Outcome.NOT_SENT, code=code, detail=detail, retry_after=again)
