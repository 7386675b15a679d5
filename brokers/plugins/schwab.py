"""Charles Schwab: US shares over the Trader API (developer.schwab.com), which followed TD Ameritrade's.

Experimental: Schwab has no test environment, and nobody has confirmed this against an account yet. A
person logs in every seven days. Orders carry no id of ours there: they leave one at a time, and one of
unknown fate is recognised by what it asked for or handed to an operator, never sent again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote as escaped

from brokers import schwab_answers as answers
from brokers import timing
from brokers.base import ExecutionPlugin
from brokers.capabilities import BookDepth, Capabilities, IdRule, VenueCard
from brokers.client_ids import hex_digits
from brokers.decimals import decimal_text
from brokers.dialects.answers import Row, member, row, rows, text
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    CredentialError,
    LoginNeededError,
    NotSupportedError,
    QueryFailedError,
    UnknownSymbolError,
)
from brokers.known_rules import KnownRules
from brokers.limiter import Limiter, Limits, Purpose, Rate
from brokers.market_hours import MarketHours
from brokers.options import choice
from brokers.order_form import check_form, check_grid
from brokers.outcome import unknown
from brokers.schwab_lists import SchwabLists
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
    LoginTerms,
    OrderBook,
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    Permissions,
    PositionReport,
    Quote,
)
from brokers.venue_client import checked_base_url
from brokers.venue_http import RefusedError, VenueHttp, before_words

HOST = "https://api.schwabapi.com"
CALLBACK = "https://127.0.0.1"
LOGIN_LASTS = timedelta(days=7)
"""A refresh token's life (developer.schwab.com, OAuth): then a person logs in again."""
LIMITS = Limits(address=Rate(110, 60), key=Rate(110, 60), orders=Rate(60, 60))
"""120 requests a minute are usual for an application; some are left to others."""
_CAPABILITIES = Capabilities(
    order_book=BookDepth.BEST,
    order_types=frozenset(OrderType),
    time_in_force=frozenset(answers.DURATIONS),
    id_rule=IdRule.NONE,
    submit_timeout=10,
    settle_window=60,
    keeps_our_id=False,
)
DRY_RUN = "a dry-run account of Schwab only reads; it has no test orders"


_CARDS = (
    VenueCard(
        "Charles Schwab (experimental)",
        _CAPABILITIES,
        "",
        "what it asked for, among the orders since; more than one is an operator's decision",
        "there is no demo account: check_account NAME as dry_run; then as live, with FKS_LIVE_TRADING "
        "on, --rehearse F/USD --with-real-money; then an alert for one cheap share with a stop_loss",
    ),
)


class SchwabPlugin(ExecutionPlugin):
    """The shares of one account at Schwab."""

    name: ClassVar[str] = "schwab"
    label: ClassVar[str] = "Charles Schwab: US shares (experimental)"
    quote_currency: ClassVar[str] = "USD"
    credential_fields: ClassVar[tuple[str, ...]] = ("api_key", "api_secret")
    option_fields: ClassVar[dict[str, str]] = {
        "account": "The account's number, digits only; the log-in must reach it",
        "callback_url": "The application's callback URL as Schwab has it on file, to the letter "
        f"({CALLBACK})",
        "outside_hours": "refuse (the default) sends no market order while the stock market is "
        "closed, queue leaves it with Schwab for the next opening",
        "base_url": "Send every call to this scheme and host, paths kept: https, or http to this "
        "machine; the account then never reaches Schwab's own host",
        **timing.OPTION_FIELDS,
    }

    def init(self, config: AccountConfig) -> None:
        """Check the configuration without any request."""
        number = str(config.options.get("account", ""))
        if not (number.isascii() and number.isdigit()):
            raise ConfigurationError("option account is the account's number, digits only")
        self._number = number
        outside = choice(config.options, "outside_hours", "refuse", ("refuse", "queue"))
        self._waits_for_opening = outside == "refuse"
        terms = self.login_terms(config.options)
        if config.environment is Environment.SANDBOX and not config.options.get("base_url"):
            raise ConfigurationError(
                "Schwab has no test environment: use dry_run to read, or live; sandbox needs a base_url"
            )
        self._host = terms.token_url.removesuffix("/v1/oauth/token")
        self._capabilities = timing.timed(_CAPABILITIES, config.options)
        self._rehearses = config.environment is Environment.DRY_RUN
        self._trader, self._data = f"{self._host}/trader/v1", f"{self._host}/marketdata/v1"
        self._http = self._connection(config)
        patience = self._capabilities.submit_timeout + self._capabilities.settle_window
        self._lists = SchwabLists(self._http, self._account, timedelta(seconds=patience))
        self._lock = threading.Lock()
        self._address = ""
        self._hours = MarketHours()
        self._rules = KnownRules[Instrument]()

    def _connection(self, config: AccountConfig) -> VenueHttp:
        names = self.credential_fields
        missing = [name for name in names if not config.credentials.get(name)]
        if missing:
            raise CredentialError(f"Schwab needs {' and '.join(missing)} of an application")
        key, secret = (config.credentials[name] for name in names)
        if not (key + secret).isascii() or any(letter.isspace() for letter in key + secret):
            raise CredentialError("a key of Schwab has no spaces and no letters beyond ASCII")
        limiter = Limiter.of("schwab", LIMITS, key, self._host)
        tokens = config.tokens or _NobodyLoggedIn()
        patience = self._capabilities.submit_timeout
        headers = {"Accept": "application/json"}
        return VenueHttp("Schwab", headers, (key, secret), patience, limiter, tokens)

    @classmethod
    def login_terms(cls, options: Mapping[str, Any]) -> LoginTerms:
        """Schwab's three-legged OAuth. Raises ConfigurationError."""
        base_url, callback = options.get("base_url"), str(options.get("callback_url", CALLBACK))
        host = checked_base_url(str(base_url)) if base_url else HOST
        address = timing.parts_of("callback_url", callback)
        if address.scheme != "https" or not address.hostname:
            raise ConfigurationError(
                "option callback_url is an https address, as on file at Schwab"
            )
        return LoginTerms(
            authorise_url=f"{host}/v1/oauth/authorize",
            token_url=f"{host}/v1/oauth/token",
            callback_url=callback,
            lasts=LOGIN_LASTS,
        )

    @classmethod
    def trades_shares(cls, options: Mapping[str, Any]) -> Shares:
        return Shares.ONLY

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        return _CARDS

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def client_order_id(self, identity: str) -> str:
        """Our own name of the order; Schwab never hears of it."""
        return hex_digits(identity)

    def _account(self) -> str:
        """The account's address, which Schwab writes with a hash for its number.

        Raises QueryFailedError, ConfigurationError where the log-in does not reach the account.
        """
        with self._lock:
            if not self._address:
                found = rows(self._http.ask(f"{self._trader}/accounts/accountNumbers"))
                mine = [one for one in found if one.get("accountNumber") == self._number]
                if not mine:
                    raise ConfigurationError(
                        f"the log-in at Schwab does not reach the account …{self._number[-3:]}"
                    )
                hashed = escaped(text(mine[0], "hashValue"), safe="")
                self._address = f"{self._trader}/accounts/{hashed}"
            return self._address

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        try:
            body, url = self._order_form(request), f"{self._account()}/orders"
        except BrokerError as error:
            again = 1 if isinstance(error, QueryFailedError) else None
            return ExecutionResult(
                Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
            )
        self._lists.forget()
        reply = self._http.act("POST", url, body, Purpose.ORDER, request.send_before)
        evidence = self._http.evidence("POST", url, body, reply) | {"location": reply.location}
        if order_id := answers.placed_id(reply):
            return ExecutionResult(Outcome.ACCEPTED, order_id, evidence=evidence)
        verdict = answers.judged(reply)
        return ExecutionResult(
            verdict.outcome,
            code=verdict.code,
            detail=self._http.scrub(verdict.detail),
            evidence=evidence,
            retry_after=verdict.retry_after,
            held_back=verdict.held_back,
        )

    def _order_form(self, request: OrderRequest) -> dict[str, Any]:
        """The order; prices as text, shares whole. Raises BrokerError when it may not leave."""
        if self._rehearses:
            raise NotSupportedError(DRY_RUN)
        check_form(request, self.capabilities, "Schwab")
        symbol = request.symbol
        rules = self._rules.of_order(symbol, lambda: self._listed_rules(symbol))
        check_grid(request, rules)
        leg = {
            "instruction": request.side.value.upper(),
            "quantity": int(request.quantity),
            "instrument": {"symbol": rules.venue_symbol, "assetType": "EQUITY"},
        }
        order: dict[str, Any] = {
            "orderStrategyType": "SINGLE",
            "session": "NORMAL",
            "duration": answers.duration(request),
            "orderType": request.type.value.upper(),
            "orderLegCollection": [leg],
        }
        numbers = {"price": request.price, "stopPrice": request.stop_price}
        order |= {name: decimal_text(one) for name, one in numbers.items() if one is not None}
        if request.trailing_percent is not None:
            order |= _trailing(request.trailing_percent)
        at_once = request.type is OrderType.MARKET
        if at_once and self._waits_for_opening and not self._is_open():
            raise BrokerError(
                "the stock market is closed; the option outside_hours can queue such orders",
                code="TRADING_HOURS",
            )
        return order

    def _is_open(self) -> bool:
        """Whether the stock market is open. Raises QueryFailedError."""
        return self._hours.is_open(self._told_hours)

    def _told_hours(self, now: datetime) -> tuple[bool, datetime]:
        return answers.opens(
            row(self._http.ask(f"{self._data}/markets", {"markets": "equity"})), now
        )

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        if self._rehearses:
            return CancelResult(Outcome.NOT_SENT, NotSupportedError.code, DRY_RUN)
        try:
            order_id, url = ref.broker_order_id, f"{self._account()}/orders/"
            if not order_id:
                found = self._lists.find(ref, self._venue_symbol(ref.symbol))
                if found is None:
                    said = "Schwab shows no such order"
                    return CancelResult(Outcome.REJECTED, "VENUE_REJECTED", said)
                order_id = text(found, "orderId")
        except BrokerError as error:
            return CancelResult(Outcome.NOT_SENT, error.code, str(error))
        self._lists.forget()
        url += escaped(order_id, safe="")
        reply = self._http.act("DELETE", url, None, Purpose.CANCEL)
        evidence = self._http.evidence("DELETE", url, None, reply)
        if reply.status in (200, 201):
            return CancelResult(Outcome.ACCEPTED, evidence=evidence)
        said = self._http.scrub(answers.refusal(reply))
        if reply.status in (400, 404) and said:
            return CancelResult(Outcome.REJECTED, "VENUE_REJECTED", said, evidence)
        verdict = before_words(reply) or unknown(f"HTTP {reply.status} {said}")
        return CancelResult(verdict.outcome, verdict.code, verdict.detail, evidence)

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        """Raises AmbiguousOrderError where an operator must say which order it is."""
        found = self._lists.find(ref, self._venue_symbol(ref.symbol))
        ours = self.client_order_id(ref.identity) if ref.identity else ""
        return None if found is None else answers.order(found, ours)

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Those entered within 59 days: Schwab lists no older ones."""
        found = [one for one in self._lists.all() if answers.is_working(one)]
        reports = [answers.order(one) for one in found]
        return [one for one in reports if symbol in (None, one.symbol)]

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        reports = [answers.order(one) for one in self._lists.all() if answers.fills(one)]
        fills = [fill for one in reports if one.symbol == symbol for fill in one.fills]
        return sorted((one for one in fills if one.at >= since), key=lambda one: one.at)

    def _securities(self) -> Row:
        answer = row(self._http.ask(self._account(), {"fields": "positions"}))
        return row(answer, "securitiesAccount")

    def positions(self) -> Sequence[PositionReport]:
        """Shares held or owed."""
        return answers.positions(self._securities())

    def balances(self) -> Sequence[BalanceReport]:
        """Dollars, and each holding by its ticker; what is owed is negative."""
        account = self._securities()
        found = [answers.cash(account)]
        for held in answers.positions(account):
            base = held.symbol.partition("/")[0]
            found.append(BalanceReport(base, held.quantity, held.quantity))
        return [one for one in found if one.total]

    def instrument(self, symbol: str) -> Instrument:
        """The rules of ``symbol``, read again after an hour."""
        return self._rules.get(symbol, lambda: self._listed_rules(symbol))

    def _listed_rules(self, symbol: str) -> Instrument:
        venue_symbol = self._venue_symbol(symbol)
        asked = {"symbol": venue_symbol, "projection": "symbol-search"}
        with _listed(symbol):
            answer = row(self._http.ask(f"{self._data}/instruments", asked))
        return answers.instrument(rows(answer.get("instruments") or []), symbol, venue_symbol)

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        return answers.quote(self._quotes(symbol), symbol, self._venue_symbol(symbol))

    def order_book(self, symbol: str) -> OrderBook:
        """The best prices, with the shares offered at them."""
        return answers.best_prices(self._quotes(symbol), symbol, self._venue_symbol(symbol))

    def _quotes(self, symbol: str) -> Row:
        asked = {"symbols": self._venue_symbol(symbol), "fields": "quote,reference"}
        with _listed(symbol):
            return row(self._http.ask(f"{self._data}/quotes", asked))

    def candles(self, symbol: str, count: int) -> Sequence[Candle]:
        """Hours of the last ten trading days in which shares traded."""
        asked = {
            "symbol": self._venue_symbol(symbol),
            "periodType": "day",
            "period": "10",
            "frequencyType": "minute",
            "frequency": "30",
        }
        with _listed(symbol):
            found = answers.candles(row(self._http.ask(f"{self._data}/pricehistory", asked)))
        return found[-count:]

    def _venue_symbol(self, symbol: str) -> str:
        """``BRK.B/USD`` is BRK/B there. Raises UnknownSymbolError."""
        base, _, quote = symbol.partition("/")
        if quote != "USD" or not base.replace(".", "").isalnum() or not base.isascii():
            raise UnknownSymbolError(f"{symbol} is not a share traded for dollars")
        return base.replace(".", "/")

    def health_check(self) -> Health:
        started = time.monotonic()
        try:
            self._http.ask(f"{self._trader}/accounts/accountNumbers")
        except BrokerError as error:
            return Health(False, str(error))
        return Health(True, "Schwab answers", round((time.monotonic() - started) * 1000))

    def check_permissions(self) -> Permissions:
        try:
            account = self._securities()
        except QueryFailedError as error:
            if error.code == CredentialError.code:
                raise CredentialError(str(error)) from error
            raise
        may_trade = member(account, "isClosingOnlyRestricted") is False
        detail = "may trade" if may_trade else "may only close positions"
        # no path of the Trader API moves money
        return Permissions(may_trade, False, None, f"account …{self._number[-3:]} {detail}")

    def close(self) -> None:
        self._http.close()


class _NobodyLoggedIn:
    """In place of tokens while an account is only being checked."""

    def token(self) -> str:
        raise LoginNeededError("nobody has logged in at Schwab")

    def refused(self, token: str) -> None:
        return


def _trailing(percent: Decimal) -> dict[str, Any]:
    """Whole percents, which leave as exact JSON numbers. Raises NotSupportedError for others."""
    if percent % 1 or not 1 <= percent <= 99:
        raise NotSupportedError("a trailing stop at Schwab follows by whole percents from 1 to 99")
    return {
        "stopPriceLinkBasis": "LAST",
        "stopPriceLinkType": "PERCENT",
        "stopPriceOffset": int(percent),
    }


@contextmanager
def _listed(symbol: str) -> Iterator[None]:
    """What Schwab does not know is no symbol of it; every other refusal stays a question unanswered."""
    try:
        yield
    except RefusedError as refused:
        if refused.reply.status in (400, 404):
            raise UnknownSymbolError(f"Schwab does not list {symbol}") from refused
        raise
