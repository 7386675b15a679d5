"""Alpaca: US shares or crypto, over its own REST interface (docs.alpaca.markets).

The vendor's library is not used: it retries a placement by itself and knows no timeout. One account
of FKS trades one market, shares or crypto, because they differ in almost every rule.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote as escaped

from brokers import alpaca_answers as answers
from brokers import timing
from brokers.alpaca_answers import ASSET_CLASS, CRYPTO, STOCKS
from brokers.alpaca_lists import AlpacaLists
from brokers.base import ExecutionPlugin
from brokers.capabilities import BookDepth, Capabilities, IdRule, VenueCard
from brokers.client_ids import hex_digits
from brokers.decimals import decimal_text
from brokers.dialects.answers import Row, number, number_if_told, row, rows, text
from brokers.errors import (
    BrokerError,
    CredentialError,
    NotSupportedError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.known_rules import KnownRules
from brokers.limiter import Limiter, Limits, Purpose, Rate
from brokers.market_hours import MarketHours
from brokers.options import basis_points, choice, flag
from brokers.order_form import check_form, check_grid
from brokers.outcome import unknown
from brokers.report_trades import with_trades
from brokers.symbols import Shares
from brokers.types import (
    AccountConfig,
    BalanceReport,
    CancelResult,
    Candle,
    Environment,
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
)
from brokers.venue_client import checked_base_url
from brokers.venue_http import RefusedError, VenueHttp, before_words

LIVE, PAPER = "https://api.alpaca.markets", "https://paper-api.alpaca.markets"
DATA = "https://data.alpaca.markets"
LIMITS = Limits(address=Rate(200, 60), key=Rate(200, 60), orders=Rate(200, 60))
"""200 requests a minute and account (alpaca.markets/support, usage limit of API calls)."""
IMMEDIATE = frozenset({OrderType.MARKET, OrderType.TRAILING_STOP})
STOPS = frozenset({OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP})

_STOCKS = Capabilities(
    order_book=BookDepth.BEST,
    order_types=frozenset(OrderType),
    time_in_force=frozenset(TimeInForce),
    id_rule=IdRule.FOREVER,
    submit_timeout=10,
    settle_window=30,
)
_CRYPTO = Capabilities(
    order_book=BookDepth.LEVELS,
    order_types=frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT}),
    time_in_force=frozenset({TimeInForce.GTC, TimeInForce.IOC}),
    id_rule=IdRule.FOREVER,
    submit_timeout=10,
    settle_window=30,
)
DRY_RUN = "a dry-run account of Alpaca only reads; rehearse on paper"


_TO_PROVE = (
    "with the paper key: check_account NAME --rehearse {0}; then an alert for one with a stop_loss "
    "while its market is open: both orders must show at Alpaca"
)
_CARDS = (
    VenueCard(
        "Alpaca, shares",
        _STOCKS,
        "client_order_id",
        "client_order_id",
        _TO_PROVE.format("AAPL/USD"),
    ),
    VenueCard(
        "Alpaca, crypto", _CRYPTO, "client_order_id", "client_order_id", _TO_PROVE.format("BTC/USD")
    ),
)


class AlpacaPlugin(ExecutionPlugin):
    """One market of one account at Alpaca."""

    name: ClassVar[str] = "alpaca"
    label: ClassVar[str] = "Alpaca: US shares, crypto"
    quote_currency: ClassVar[str] = "USD"
    credential_fields: ClassVar[tuple[str, ...]] = ("api_key", "api_secret")
    option_fields: ClassVar[dict[str, str]] = {
        "market": "stocks (the default) or crypto",
        "fractional": "true trades parts of a share; such orders are good for the day only",
        "shorting": "true lets the account sell shares it does not hold",
        "outside_hours": "refuse (the default) sends no market order while the stock market is "
        "closed, queue leaves it with Alpaca for the next opening",
        "feed": "Where share prices come from: iex (the default), sip or delayed_sip, as subscribed",
        "crypto_fee_bps": "What a crypto trade costs in basis points (25): Alpaca does not tell",
        "base_url": "Send every call to this scheme and host, paths kept: https, or http to this "
        "machine; the account then never reaches Alpaca's own hosts",
        **timing.OPTION_FIELDS,
    }

    def init(self, config: AccountConfig) -> None:
        """Check the configuration without any request."""
        options = config.options
        self._market = choice(options, "market", STOCKS, (STOCKS, CRYPTO))
        self._feed = choice(options, "feed", "iex", ("iex", "sip", "delayed_sip"))
        outside = choice(options, "outside_hours", "refuse", ("refuse", "queue"))
        self._waits_for_opening = self._market == STOCKS and outside == "refuse"
        self._fractional = flag(options, "fractional")
        self._crypto_fee = basis_points(options, "crypto_fee_bps", "25")
        self._rehearses = config.environment is Environment.DRY_RUN
        plain = _STOCKS if self._market == STOCKS else _CRYPTO
        self._capabilities = timing.timed(
            replace(plain, short_selling=self._market == STOCKS and flag(options, "shorting")),
            options,
        )
        self._trading, self._data = _hosts(config)
        self._http = self._connection(config)
        self._lists = AlpacaLists(self._http, self._trading)
        self._hours = MarketHours()
        self._rules = KnownRules[Instrument]()

    def _connection(self, config: AccountConfig) -> VenueHttp:
        names = self.credential_fields
        missing = [name for name in names if not config.credentials.get(name)]
        if missing:
            raise CredentialError(f"Alpaca needs {' and '.join(missing)}")
        key, secret = (config.credentials[name] for name in names)
        if not (key + secret).isascii() or any(letter.isspace() for letter in key + secret):
            raise CredentialError("a key of Alpaca has no spaces and no letters beyond ASCII")
        limiter = Limiter.of("alpaca", LIMITS, key, self._trading)
        headers = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret}
        patience = self._capabilities.submit_timeout
        return VenueHttp("Alpaca", headers, (key, secret), patience, limiter)

    @classmethod
    def trades_shares(cls, options: Mapping[str, Any]) -> Shares:
        return Shares.ONLY if str(options.get("market", STOCKS)) == STOCKS else Shares.NONE

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        return _CARDS

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def client_order_id(self, identity: str) -> str:
        return hex_digits(identity)

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        try:
            body = self._order_form(request)
        except BrokerError as error:
            again = 1 if isinstance(error, QueryFailedError) else None
            return ExecutionResult(
                Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
            )
        self._lists.forget()
        url = f"{self._trading}/v2/orders"
        reply = self._http.act("POST", url, body, Purpose.ORDER, request.send_before)
        evidence = self._http.evidence("POST", url, body, reply)
        if answers.is_placed(reply, body["client_order_id"]):
            return ExecutionResult(Outcome.ACCEPTED, str(reply.member("id")), evidence=evidence)
        verdict = answers.judged(reply)
        return ExecutionResult(
            verdict.outcome,
            code=verdict.code,
            detail=self._http.scrub(verdict.detail),
            evidence=evidence,
            retry_after=verdict.retry_after,
            held_back=verdict.held_back,
        )

    def _order_form(self, request: OrderRequest) -> dict[str, str]:
        """The body of the order, every number as text. Raises BrokerError when it may not leave."""
        if self._rehearses:
            raise NotSupportedError(DRY_RUN)
        check_form(request, self.capabilities, "Alpaca")
        symbol = request.symbol
        rules = self._rules.of_order(symbol, lambda: self._listed_rules(symbol))
        check_grid(request, rules)
        body = {
            "symbol": rules.venue_symbol,
            "qty": decimal_text(request.quantity),
            "side": request.side.value,
            "type": request.type.value,
            "time_in_force": self._time_in_force(request).value,
            "client_order_id": hex_digits(request.identity),
        }
        numbers = {
            "limit_price": request.price,
            "stop_price": request.stop_price,
            "trail_percent": request.trailing_percent,
        }
        body |= {name: decimal_text(one) for name, one in numbers.items() if one is not None}
        if self._waits_for_opening and request.type in IMMEDIATE - STOPS and not self._is_open():
            raise BrokerError(
                "the stock market is closed; the option outside_hours can queue such orders",
                code="TRADING_HOURS",
            )
        return body

    def _time_in_force(self, request: OrderRequest) -> TimeInForce:
        """Market orders in shares, and all for parts of one, are good for the day: Alpaca takes parts
        only so (docs.alpaca.markets, Fractional Trading)."""
        asked = request.time_in_force
        if self._market != STOCKS or asked is not TimeInForce.GTC:
            return asked
        in_parts = request.quantity % 1 != 0
        return TimeInForce.DAY if in_parts or request.type is OrderType.MARKET else asked

    def _is_open(self) -> bool:
        """Whether the stock market is open. Raises QueryFailedError."""
        return self._hours.is_open(lambda _: self._clock()[:2])

    def _clock(self) -> tuple[bool, datetime, datetime]:
        return answers.clock(row(self._http.ask(f"{self._trading}/v2/clock")))

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        if self._rehearses:
            return CancelResult(Outcome.NOT_SENT, NotSupportedError.code, DRY_RUN)
        try:
            found = self._lists.find(ref)
        except BrokerError as error:
            return CancelResult(Outcome.NOT_SENT, error.code, str(error))
        if found is None:
            return CancelResult(Outcome.REJECTED, "VENUE_REJECTED", "Alpaca knows no such order")
        self._lists.forget()
        url = f"{self._trading}/v2/orders/{escaped(text(found, 'id'), safe='')}"
        reply = self._http.act("DELETE", url, None, Purpose.CANCEL)
        evidence = self._http.evidence("DELETE", url, None, reply)
        if reply.status in (200, 204):
            return CancelResult(Outcome.ACCEPTED, evidence=evidence)
        if reply.status in (404, 422) and reply.member("message"):
            said = self._http.scrub(str(reply.member("message")))
            return CancelResult(Outcome.REJECTED, "VENUE_REJECTED", said, evidence)
        verdict = before_words(reply) or unknown(f"HTTP {reply.status}")
        return CancelResult(verdict.outcome, verdict.code, verdict.detail, evidence)

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        found = self._lists.resting(ref) or self._lists.find(ref)
        if found is None:
            return None
        order_id, symbol = text(found, "id"), ref.symbol if ref.identity else self._symbol(found)

        def trades() -> Sequence[FillReport]:
            listed = self._lists.activities({"order_id": order_id, "direction": "asc"})
            return [self._fill(one, symbol) for one in listed if one.get("order_id") == order_id]

        return with_trades(answers.order(found, symbol), trades)

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        found = self._lists.open_orders({"symbols": self._venue_symbol(symbol)} if symbol else {})
        ours = [one for one in found if one.get("asset_class") == ASSET_CLASS[self._market]]
        return [answers.order(one, self._symbol(one)) for one in ours]

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        # Alpaca's "after" leaves out what happened at that very moment
        moment = since.astimezone(UTC) - timedelta(milliseconds=1)
        after = moment.isoformat().replace("+00:00", "Z")
        found = self._lists.activities({"after": after, "direction": "asc"})
        mine = [self._fill(one, symbol) for one in found if self._is_of(one, symbol)]
        return [one for one in mine if one.at >= since]

    def _is_of(self, activity: Mapping[str, Any], symbol: str) -> bool:
        said = text(activity, "symbol")
        return said.replace("/", "") == self._venue_symbol(symbol).replace("/", "")

    def _fill(self, activity: Mapping[str, Any], symbol: str) -> FillReport:
        return answers.fill(activity, symbol, self._market, self._crypto_fee)

    def positions(self) -> Sequence[PositionReport]:
        """Shares held or owed; coins are balances."""
        if self._market == CRYPTO:
            return ()
        return [answers.position(one, self._market) for one in self._holdings()]

    def _holdings(self) -> list[Mapping[str, Any]]:
        wanted = ASSET_CLASS[self._market]
        return [one for one in self._lists.holdings() if one.get("asset_class") == wanted]

    def balances(self) -> Sequence[BalanceReport]:
        """Dollars, and each holding by its ticker; what is owed is negative."""
        account = row(self._http.ask(f"{self._trading}/v2/account"))
        cash, power = (
            number(account, "cash"),
            number_if_told(account, "non_marginable_buying_power"),
        )
        free = max(Decimal(0), cash if power is None else min(cash, power))
        found = [BalanceReport(text(account, "currency"), cash, free)]
        for one in self._holdings():
            held = answers.position(one, self._market)
            told = number_if_told(one, "qty_available") if held.quantity > 0 else None
            free = held.quantity if told is None else told
            found.append(BalanceReport(held.symbol.partition("/")[0], held.quantity, free))
        return [one for one in found if one.total]

    def instrument(self, symbol: str) -> Instrument:
        """The rules of ``symbol``, read again after an hour."""
        return self._rules.get(symbol, lambda: self._listed_rules(symbol))

    def _listed_rules(self, symbol: str) -> Instrument:
        venue_symbol = self._venue_symbol(symbol)
        url = f"{self._trading}/v2/assets/{escaped(venue_symbol, safe='')}"
        with _listed(symbol):
            asset = row(self._http.ask(url))
        return answers.instrument(asset, symbol, self._market, fractional=self._fractional)

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        if self._market == STOCKS:
            return answers.quote(self._snapshot(symbol), symbol)
        return answers.quote(self._coin("snapshots", "snapshots", symbol), symbol)

    def order_book(self, symbol: str) -> OrderBook:
        """Coins: Alpaca's own book. Shares: the best prices of the feed, with their sizes."""
        if self._market == STOCKS:
            return answers.best_prices(self._snapshot(symbol), symbol)
        return answers.order_book(self._coin("latest/orderbooks", "orderbooks", symbol), symbol)

    def _snapshot(self, symbol: str) -> Row:
        url = f"{self._data}/v2/stocks/{escaped(self._venue_symbol(symbol), safe='')}/snapshot"
        with self._priced(symbol):
            return row(self._http.ask(url, {"feed": self._feed}))

    def _coin(self, path: str, where: str, symbol: str) -> Row:
        """What Alpaca's data tell of one pair. Raises QuoteUnavailableError where that is nothing."""
        venue_symbol = self._venue_symbol(symbol)
        url = f"{self._data}/v1beta3/crypto/us/{path}"
        with self._priced(symbol):
            found = row(row(self._http.ask(url, {"symbols": venue_symbol})), where)
        if venue_symbol not in found:
            raise QuoteUnavailableError(f"Alpaca has no price of {symbol}")
        return row(found, venue_symbol)

    @contextmanager
    def _priced(self, symbol: str) -> Iterator[None]:
        """What the data refuse of an asset that Alpaca lists is a price that is missing."""
        try:
            with _listed(symbol):
                yield
        except UnknownSymbolError as refused:
            self.instrument(symbol)
            raise QuoteUnavailableError(f"Alpaca has no price of {symbol}") from refused

    def candles(self, symbol: str, count: int) -> Sequence[Candle]:
        """Hours in which nothing traded are missing; looked for as far back as a month."""
        venue_symbol = self._venue_symbol(symbol)
        start = datetime.now(UTC) - timedelta(days=30)
        asked = {
            "timeframe": "1Hour",
            "start": f"{start:%Y-%m-%dT%H:%M:%SZ}",
            "limit": str(count),
            "sort": "desc",
        }
        with _listed(symbol):
            if self._market == STOCKS:
                url = f"{self._data}/v2/stocks/{escaped(venue_symbol, safe='')}/bars"
                bars = row(self._http.ask(url, asked | {"feed": self._feed})).get("bars")
            else:
                url = f"{self._data}/v1beta3/crypto/us/bars"
                answer = row(self._http.ask(url, asked | {"symbols": venue_symbol}))
                bars = row(answer, "bars").get(venue_symbol)
        return [answers.candle(one) for one in reversed(rows(bars or []))]

    def _venue_symbol(self, symbol: str) -> str:
        """``AAPL/USD`` is AAPL there. Raises UnknownSymbolError for what is not of this market."""
        base, _, quote = symbol.partition("/")
        if not base or not quote or (self._market == STOCKS and quote != "USD"):
            raise UnknownSymbolError(f"{symbol} is not traded for dollars at Alpaca")
        return base if self._market == STOCKS else symbol

    def _symbol(self, answer: Mapping[str, Any]) -> str:
        return answers.symbol_of(text(answer, "symbol"), self._market)

    def health_check(self) -> Health:
        try:
            asked, started = datetime.now(UTC), time.monotonic()
            is_open, _, at = self._clock()
            taken = time.monotonic() - started
        except RefusedError:
            return self._health_without_hours()
        except BrokerError as error:
            return Health(False, str(error))
        hours = "open" if is_open else "closed"
        skew = round((at - asked).total_seconds() * 1000 - taken * 500)
        detail = f"Alpaca answers; the stock market is {hours}"
        return Health(True, detail, round(taken * 1000), skew)

    def _health_without_hours(self) -> Health:
        started = time.monotonic()
        try:
            self._http.ask(f"{self._trading}/v2/account")
        except BrokerError as error:
            return Health(False, str(error))
        taken = round((time.monotonic() - started) * 1000)
        return Health(True, "Alpaca answers, and does not tell the market's hours", taken)

    def check_permissions(self) -> Permissions:
        try:
            account = row(self._http.ask(f"{self._trading}/v2/account"))
        except QueryFailedError as error:
            if error.code == CredentialError.code:
                raise CredentialError(str(error)) from error
            raise
        blocks = ("trading_blocked", "account_blocked", "trade_suspended_by_user")
        blocked = [name for name in blocks if account.get(name) is not False]
        status = "status" if self._market == STOCKS else "crypto_status"
        may_trade = not blocked and account.get(status) == "ACTIVE"
        detail = f"account {account.get(status)}, {', '.join(blocked) or 'not blocked'}"
        # a key may ask for crypto transfers (Crypto Funding), unless the account blocks them
        may_withdraw = False if account.get("transfers_blocked") is True else None
        return Permissions(may_trade, may_withdraw, None, detail)

    def close(self) -> None:
        self._http.close()


@contextmanager
def _listed(symbol: str) -> Iterator[None]:
    """What Alpaca does not know is no symbol of it; every other refusal stays a question unanswered."""
    try:
        yield
    except RefusedError as refused:
        if refused.reply.status in (400, 404, 422):
            raise UnknownSymbolError(f"Alpaca does not list {symbol}") from refused
        raise


def _hosts(config: AccountConfig) -> tuple[str, str]:
    """Where orders and where prices are asked for; only ``live`` ever names the live host."""
    base_url = config.options.get("base_url")
    if base_url:
        target = checked_base_url(str(base_url))
        return target, target
    return (LIVE if config.environment is Environment.LIVE else PAPER), DATA
