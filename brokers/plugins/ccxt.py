"""Crypto exchanges through ccxt: one plugin, the exchange is an option of the account.

The library is used for signing, addresses and symbols. What an answer means is decided here: the
end of a placement by `brokers.outcome`, numbers by the exchange's dialect from its raw answers; and
nothing leaves that the gate in `brokers.transport` was not told about.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any, ClassVar, TypeVar

from brokers import margin, timing
from brokers.base import ExecutionPlugin
from brokers.capabilities import Capabilities, VenueCard
from brokers.client_pool import ClientPool
from brokers.dialects.answers import at
from brokers.dialects.base import Dialect
from brokers.dialects.binance import BinanceSpot
from brokers.dialects.bybit import BybitLinear, BybitSpot
from brokers.dialects.kraken import KrakenSpot
from brokers.dialects.kraken_futures import KrakenFutures
from brokers.dialects.okx import OkxSpot, OkxSwap
from brokers.dialects.unified import Unified
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    CredentialError,
    HeldBackError,
    NotSupportedError,
    QueryFailedError,
    UnknownSymbolError,
)
from brokers.exchanges import ExchangeProfile, Sandbox, profile_for
from brokers.order_form import check_form, check_grid
from brokers.outcome import SOON, Verdict, judge, unknown
from brokers.streams import OrderStream
from brokers.transport import Attempt, ThrottledError, TooLateError
from brokers.types import (
    AccountConfig,
    BalanceReport,
    CancelResult,
    Candle,
    Environment,
    ExecutionResult,
    FillReport,
    FundingReport,
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
    TradingFees,
)
from brokers.venue_client import OK, Market, VenueClient, VenueRefusedError, check_place

T = TypeVar("T")
Placed = tuple[str, OrderReport | None]
"""The venue's order id and what else the answer to a placement tells."""

DIALECTS: dict[ExchangeProfile, type[Dialect]] = {
    dialect.profile: dialect
    for dialect in (BinanceSpot, KrakenSpot, BybitSpot, BybitLinear, OkxSpot, OkxSwap)
}
"""The exchanges whose answers are read here and not by ccxt."""
READ_IN_PART = {KrakenFutures.profile: KrakenFutures}
"""Those of which some answers are."""
CCXT_TYPES = {
    OrderType.MARKET: "market",
    OrderType.LIMIT: "limit",
    OrderType.STOP: "market",
    OrderType.STOP_LIMIT: "limit",
}
READ_TRIES = 3
"""A read refused for its timestamp or nonce is asked again, an order never."""
DRY_RUN = (
    "a dry-run account of an exchange only reads prices; to rehearse orders use a paper account"
)


class CcxtPlugin(ExecutionPlugin):
    """An account at one exchange. Orders, balances and fills of spot markets."""

    name: ClassVar[str] = "ccxt"
    label: ClassVar[str] = "Crypto exchange (ccxt); dry_run reads prices only"
    credential_fields: ClassVar[tuple[str, ...]] = ("api_key", "api_secret", "api_passphrase")
    optional_credentials: ClassVar[frozenset[str]] = frozenset({"api_passphrase"})
    option_fields: ClassVar[dict[str, str]] = {
        "exchange": "Exchange id; list_exchanges prints them",
        "market_type": "spot (the default), swap or future, as list_exchanges says",
        "unverified_venue": "true lets this account trade at an exchange nobody has verified: "
        "its operator answers for what it makes of an order",
        "watched_stops": "true lets FKS watch stop losses itself where the exchange takes no "
        "stop-market orders: nothing guards the position while FKS is down",
        "base_url": "Send every call to this scheme and host, paths kept: https, or http to this "
        "machine; the account then never reaches the exchange's own host",
        **margin.OPTION_FIELDS,
        **timing.OPTION_FIELDS,
    }

    def init(self, config: AccountConfig) -> None:
        """Check the configuration without any request."""
        self._configure(config)
        self._pool = ClientPool(self._dialect, config)
        self._pool.check()

    def check_config(self, config: AccountConfig) -> None:
        """Everything but what the library itself says of its addresses: a worker hears that."""
        self._configure(config)

    def _configure(self, config: AccountConfig) -> None:
        try:
            profile = profile_for(
                str(config.options.get("exchange", "")),
                str(config.options.get("market_type", "spot")),
            )
        except NotSupportedError as error:
            raise ConfigurationError(str(error), code=error.code) from error
        made = DIALECTS.get(profile) or READ_IN_PART.get(profile)
        self._dialect = Unified(profile) if made is None else made()
        self._dialect.terms = margin.margin_terms(config.options, profile)
        self._prepared: set[str] = set()
        self._profile, self._config = profile, config
        self._capabilities = replace(
            timing.timed(profile.capabilities, config.options),
            watched_stop=_switched_on(config, "watched_stops"),
        )
        self._rehearses = config.environment is Environment.DRY_RUN
        self._check_venue(config)
        check_place(profile, config)
        self._check_credentials(config)

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        """The exchanges tested end to end; ``list_exchanges`` has them all."""
        return [_card(profile) for profile in DIALECTS]

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def client_order_id(self, identity: str) -> str:
        return self._profile.client_id_codec(identity)

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        try:
            if self._rehearses:
                raise NotSupportedError(DRY_RUN)
            check_form(request, self.capabilities, self._profile.label)
            with self._pool.private(refresh=False) as client:
                market = client.market(request.symbol)
                rules = self._dialect.instrument(market)
                check_grid(request, rules)
                self._prepare(client, request, market)
                result = self._place(client, self._dialect.adapted(request, rules), market)
        except BrokerError as error:
            # before the one request: what the venue did not tell now it may tell soon
            again = SOON if isinstance(error, QueryFailedError) else None
            return ExecutionResult(
                Outcome.NOT_SENT,
                code=error.code,
                detail=str(error),
                retry_after=again,
                held_back=isinstance(error, HeldBackError),
            )
        return result

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        if self._rehearses:
            return CancelResult(Outcome.NOT_SENT, NotSupportedError.code, DRY_RUN)
        try:
            with self._pool.private(refresh=False) as client:
                market = client.market(ref.symbol)
                with client.gate.announce(*self._profile.cancel_endpoints) as attempt:
                    result = self._cancel(client, ref, market, attempt)
                self._heal(client, attempt)
        except BrokerError as error:
            return CancelResult(Outcome.NOT_SENT, error.code, str(error))
        return result

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        return self._ask(lambda c: self._dialect.order(c, ref, _listed(c, ref.symbol)))

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        def question(client: VenueClient) -> Sequence[OrderReport]:
            return self._dialect.open_orders(client, _listed(client, symbol) if symbol else None)

        return self._ask(question)

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        return self._ask(lambda c: self._dialect.trades(c, _listed(c, symbol), since))

    def positions(self) -> Sequence[PositionReport]:
        if self._profile.market_type == "spot":
            return ()
        return self._ask(self._dialect.positions)

    def balances(self) -> Sequence[BalanceReport]:
        return self._ask(self._dialect.balances)

    def funding_since(self, since: datetime) -> Sequence[FundingReport]:
        if not self._dialect.tells_funding:
            return super().funding_since(since)
        return self._ask(lambda c: self._dialect.funding(c, since))

    def instrument(self, symbol: str) -> Instrument:
        with self._pool.public() as client:
            return self._dialect.instrument(client.market(symbol))

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        with self._pool.public() as client:
            return self._dialect.quote(client, client.market(symbol))

    @property
    def shares_quotes_as(self) -> str:
        """Prices are asked for without a key: the same for every account of a place."""
        config, profile = self._config, self._profile
        where = config.options.get("base_url", "")
        return f"ccxt {profile.id} {profile.market_type} {config.environment.value} {where}"

    def order_book(self, symbol: str) -> OrderBook:
        with self._pool.public() as client:
            return self._dialect.order_book(client, client.market(symbol))

    def trading_fees(self, symbol: str) -> TradingFees | None:
        with self._pool.public() as client:
            return self._dialect.trading_fees(client.market(symbol))

    def candles(self, symbol: str, count: int) -> Sequence[Candle]:
        with self._pool.public() as client:
            _listed(client, symbol)
            rows = client.ask("fetch_ohlcv", symbol, "1h", None, count)
        return [_candle(row) for row in rows]

    def order_stream(self) -> OrderStream:
        if self._rehearses:
            raise NotSupportedError("a dry-run account has no orders at the exchange to follow")
        if not self._profile.stream:
            raise NotSupportedError(
                f"{self._profile.label} has no order stream that is proven; it is polled"
            )
        from brokers.ccxt_stream import CcxtStream

        with self._pool.public() as symbols:
            return CcxtStream(self._dialect, self._config, symbols, self._pool.private)

    def health_check(self) -> Health:
        try:
            with self._pool.public(markets=False) as client:
                asked, started = datetime.now(UTC), time.monotonic()
                server = self._dialect.server_time(client)
                taken = time.monotonic() - started
        except BrokerError as error:
            return Health(False, str(error))
        skew = None
        if server is not None:
            skew = round((server - asked).total_seconds() * 1000 - taken * 500)
        return Health(True, f"{self._profile.label} answers", round(taken * 1000), skew)

    def check_permissions(self) -> Permissions:
        try:
            return self._ask(self._dialect.permissions)
        except QueryFailedError as error:
            if error.code == CredentialError.code:
                raise CredentialError(str(error)) from error
            raise

    def close(self) -> None:
        self._pool.close()

    def _check_venue(self, config: AccountConfig) -> None:
        """Trading where nothing is proven needs the operator's word, and keys we can hold."""
        profile, dared = self._profile, _switched_on(config, "unverified_venue")
        if profile.verified or self._rehearses:
            return
        if not profile.keys:
            raise ConfigurationError(f"{profile.label} needs credentials FKS has no fields for")
        if not dared:
            raise ConfigurationError(
                f"{profile.label} is not verified: nobody has proven what it makes of an order or "
                "how it fails. Use environment dry_run, or set the option unverified_venue to true "
                "and answer for it yourself",
                code=NotSupportedError.code,
            )

    def _check_credentials(self, config: AccountConfig) -> None:
        missing = [name for name in self._profile.keys if not config.credentials.get(name)]
        if missing and not self._rehearses:
            raise CredentialError(f"{self._profile.label} needs {' and '.join(missing)}")
        self._dialect.check_secret(config.credentials.get("api_secret", ""))

    def _prepare(self, client: VenueClient, request: OrderRequest, market: Market) -> None:
        """Once per symbol: no position is opened on other terms than the account's."""
        if request.reduce_only or request.symbol in self._prepared:
            return
        self._patiently(client, lambda: self._dialect.prepare(client, market))
        self._prepared.add(request.symbol)

    def _place(self, client: VenueClient, request: OrderRequest, market: Market) -> ExecutionResult:
        """The one request that may leave; from here on only evidence counts."""
        dialect = self._dialect
        wire, params = dialect.wire(request, market), dialect.arguments(request, market)
        endpoint, deadline = self._dialect.endpoint(request), request.send_before
        placed: Placed | None
        client.gate.forget()
        with client.gate.announce(endpoint, wire=wire, send_before=deadline) as attempt:
            try:
                answer = client.ccxt.create_order(
                    request.symbol,
                    CCXT_TYPES[request.type],
                    request.side.value,
                    f"{dialect.amount(request, market):f}",
                    None if request.price is None else f"{request.price:f}",
                    params,
                )
                placed = dialect.placed(answer, request, market)
            except Exception as error:
                verdict = self._judge(client, attempt, error)
                placed = self._read_here(client, attempt, error, request, market)
        if placed is not None:
            evidence = client.gate.evidence(attempt)
            return ExecutionResult(Outcome.ACCEPTED, *placed, evidence=evidence)
        self._heal(client, attempt)
        return ExecutionResult(
            verdict.outcome,
            code=verdict.code,
            detail=client.gate.scrub(verdict.detail),
            evidence=client.gate.evidence(attempt),
            retry_after=verdict.retry_after,
            held_back=verdict.held_back,
        )

    def _read_here(
        self,
        client: VenueClient,
        attempt: Attempt,
        error: Exception,
        request: OrderRequest,
        market: Market,
    ) -> Placed | None:
        """What the venue says of an order it took, where ccxt alone could not read the answer."""
        is_ours = self._profile in DIALECTS and not isinstance(error, BrokerError)
        if not is_ours or attempt.status != OK or client.seen(attempt).error is not None:
            return None
        try:
            answer = json.loads(attempt.body, parse_float=str)
            told = at(answer, self._dialect.placement) if self._dialect.placement else answer
            return self._dialect.placed({"info": told}, request, market)
        except Exception:
            # nothing that proves it: the order may exist
            return None

    def _judge(self, client: VenueClient, attempt: Attempt, error: Exception) -> Verdict:
        if not isinstance(error, BrokerError):
            return judge(client.seen(attempt), error, self._profile)
        if attempt.sent:
            return unknown(str(error))
        if isinstance(error, ThrottledError):
            return Verdict(Outcome.NOT_SENT, error.code, str(error), error.seconds, held_back=True)
        again = SOON if isinstance(error, TooLateError | QueryFailedError) else None
        return Verdict(Outcome.NOT_SENT, error.code, str(error), retry_after=again)

    def _heal(self, client: VenueClient, attempt: Attempt) -> None:
        """After a refused timestamp: the next request shall not fail for the same reason."""
        said = client.seen(attempt).error
        if said is None or not said.has(self._profile.clock):
            return
        try:
            self._pool.heal_clock(client)
        except QueryFailedError:
            return

    def _cancel(
        self, client: VenueClient, ref: OrderRef, market: Market, attempt: Attempt
    ) -> CancelResult:
        outcome, code, detail = Outcome.ACCEPTED, "", ""
        try:
            self._dialect.cancel(client, ref, market)
        except BrokerError as error:
            code, detail = error.code, str(error)
            outcome = Outcome.UNKNOWN if attempt.sent else Outcome.NOT_SENT
            if isinstance(error, VenueRefusedError):
                if self._dialect.nothing_to_cancel(error.error):
                    outcome, code = Outcome.REJECTED, "VENUE_REJECTED"
                elif error.error.has(self._profile.throttled | self._profile.clock):
                    outcome = Outcome.NOT_SENT
        return CancelResult(outcome, code, detail, client.gate.evidence(attempt))

    def _ask(self, question: Callable[[VenueClient], T]) -> T:
        """Ask with the account's key. Raises QueryFailedError, whatever happened."""
        with self._pool.private() as client:
            return self._patiently(client, lambda: question(client))

    def _patiently(self, client: VenueClient, question: Callable[[], T]) -> T:
        """Ask again when the venue refused the time or the nonce of the question."""
        for attempt in range(1, READ_TRIES + 1):
            try:
                return question()
            except VenueRefusedError as refusal:
                if attempt == READ_TRIES or not refusal.error.has(self._profile.clock):
                    raise
                self._pool.heal_clock(client)
        raise AssertionError("the last try returns or raises")


def _switched_on(config: AccountConfig, option: str) -> bool:
    """An option that is off unless it says ``true``. Raises ConfigurationError for anything else."""
    value = config.options.get(option, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option} is true or false")
    return value


def _listed(client: VenueClient, symbol: str) -> Market:
    """The market a question is about; an unlisted symbol leaves the question unanswered."""
    try:
        return client.market(symbol)
    except UnknownSymbolError as error:
        raise QueryFailedError(str(error), code=error.code) from error


def _candle(row: Sequence[Any]) -> Candle:
    """ccxt's list: milliseconds, open, high, low, close, volume; numbers as text."""
    try:
        milliseconds, _open, high, low, close = row[:5]
        at = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
        return Candle(at, Decimal(str(high)), Decimal(str(low)), Decimal(str(close)))
    except (ValueError, TypeError, DecimalException) as error:
        raise QueryFailedError("the venue's candles cannot be read") from error


def _card(profile: ExchangeProfile) -> VenueCard:
    where = "where there is no sandbox, with the exchange's smallest order"
    if profile.sandbox is not Sandbox.NONE:
        where = "in its sandbox: check_account NAME --rehearse BTC/USDT"
    return VenueCard(
        profile.label,
        profile.capabilities,
        profile.client_id_field,
        profile.lookup.value,
        f"{where}; then an alert with a stop_loss: both orders must show at the exchange",
    )
