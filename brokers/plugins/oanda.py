"""OANDA: currencies and CFDs over the v20 REST interface (developer.oanda.com).

Netting accounts only. An order ends in transactions, which are read for what became of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from urllib.parse import quote as escaped

from brokers import oanda_answers as answers
from brokers import timing
from brokers.base import ExecutionPlugin
from brokers.capabilities import Balances, BookDepth, Capabilities, IdRule, VenueCard
from brokers.client_ids import hex_digits
from brokers.decimals import decimal_text
from brokers.dialects.answers import Row, iso_moment, member, number, row, rows, text
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    CredentialError,
    NotShownError,
    NotSupportedError,
    QueryFailedError,
    UnknownSymbolError,
)
from brokers.known_rules import KnownRules
from brokers.limiter import Limiter, Limits, Purpose, Rate
from brokers.order_form import check_form, check_grid
from brokers.outcome import unknown
from brokers.types import (
    AccountConfig,
    AttachedStop,
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
    Side,
    TimeInForce,
)
from brokers.venue_client import checked_base_url
from brokers.venue_http import RefusedError, VenueHttp, before_words

LIVE, PRACTICE = "https://api-fxtrade.oanda.com", "https://api-fxpractice.oanda.com"
LIMITS = Limits(address=Rate(100, 1), key=Rate(100, 1), orders=Rate(100, 1))
"""120 requests a second and address (developer.oanda.com, Best Practices); some are left to others."""
PAGE = 500
MOST_PAGES = 20
EARLIER = timedelta(minutes=1)
"""How far the clocks may differ when orders are looked through."""
IMMEDIATE = frozenset({TimeInForce.IOC, TimeInForce.FOK})
TERMS = {
    TimeInForce.GTC: "GTC",
    TimeInForce.DAY: "GFD",
    TimeInForce.IOC: "IOC",
    TimeInForce.FOK: "FOK",
}
_CAPABILITIES = Capabilities(
    order_book=BookDepth.LEVELS,
    order_types=frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP}),
    time_in_force=frozenset(TimeInForce),
    id_rule=IdRule.OPEN,
    submit_timeout=10,
    settle_window=30,
    reduce_only=True,
    short_selling=True,
    locks_balance=False,
    attached_stop=True,
    balances=Balances.WORTH,
)
DRY_RUN = "a dry-run account of OANDA only reads; rehearse on practice"


_CARDS = (
    VenueCard(
        "OANDA v20",
        _CAPABILITIES,
        "clientExtensions.id",
        "that id, then among all orders since",
        "with a practice token: check_account NAME --rehearse EUR/USD; then an alert for 1 unit with a "
        "stop_loss: both orders must show in OANDA's platform",
    ),
)


class OandaPlugin(ExecutionPlugin):
    """One v20 account."""

    name: ClassVar[str] = "oanda"
    label: ClassVar[str] = "OANDA (v20): currencies, CFDs"
    quote_currency: ClassVar[str] = "USD"
    credential_fields: ClassVar[tuple[str, ...]] = ("api_key",)
    option_fields: ClassVar[dict[str, str]] = {
        "account": "The v20 account's number, such as 101-004-1234567-001",
        "base_url": "Send every call to this scheme and host, paths kept: https, or http to this "
        "machine; the account then never reaches OANDA's own hosts",
        **timing.OPTION_FIELDS,
    }

    def init(self, config: AccountConfig) -> None:
        """Check the configuration without any request."""
        account = str(config.options.get("account", ""))
        if not account or not set(account) <= set("0123456789-"):
            raise ConfigurationError("option account is the v20 number, like 101-004-1234567-001")
        self._capabilities = timing.timed(_CAPABILITIES, config.options)
        self._rehearses = config.environment is Environment.DRY_RUN
        host = LIVE if config.environment is Environment.LIVE else PRACTICE
        if config.options.get("base_url"):
            host = checked_base_url(str(config.options["base_url"]))
        self._host = host
        self._account = f"{host}/v3/accounts/{account}"
        self._http = self._connection(config)
        self._lock = threading.Lock()
        self._currency = ""
        self._rules = KnownRules[Instrument]()

    def _connection(self, config: AccountConfig) -> VenueHttp:
        token = config.credentials.get("api_key", "")
        if not token or not token.isascii() or any(letter.isspace() for letter in token):
            raise CredentialError("OANDA needs a personal access token as api_key")
        limiter = Limiter.of("oanda", LIMITS, token, self._host)
        headers = {"Authorization": f"Bearer {token}", "Accept-Datetime-Format": "RFC3339"}
        return VenueHttp("OANDA", headers, (token,), self._capabilities.submit_timeout, limiter)

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
            body = {"order": self._order_form(request)}
        except BrokerError as error:
            again = 1 if isinstance(error, QueryFailedError) else None
            return ExecutionResult(
                Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
            )
        url, identity = f"{self._account}/orders", hex_digits(request.identity)
        reply = self._http.act("POST", url, body, Purpose.ORDER, request.send_before)
        evidence = self._http.evidence("POST", url, body, reply)
        if answers.is_placed(reply, identity):
            order_id = str(reply.member("orderCreateTransaction")["id"])
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
        """The order, every number as text. Raises BrokerError when it may not leave.

        A limit order that may not rest is a market order that goes no further than its limit.
        """
        if self._rehearses:
            raise NotSupportedError(DRY_RUN)
        check_form(request, self.capabilities, "OANDA")
        symbol = request.symbol
        rules = self._rules.of_order(symbol, lambda: self._listed_rules(symbol))
        check_grid(request, rules)
        self._home()
        sign = "" if request.side is Side.BUY else "-"
        order: dict[str, Any] = {
            "type": request.type.value.upper(),
            "instrument": rules.venue_symbol,
            "units": sign + decimal_text(request.quantity),
            "timeInForce": TERMS[request.time_in_force],
            "positionFill": "REDUCE_ONLY" if request.reduce_only else "DEFAULT",
            "clientExtensions": {"id": hex_digits(request.identity)},
        }
        if request.attached_stop is not None:
            order["stopLossOnFill"] = _stop_form(request.attached_stop)
        price = request.price if request.stop_price is None else request.stop_price
        if request.type is OrderType.LIMIT and request.time_in_force in IMMEDIATE:
            order |= {"type": "MARKET", "priceBound": decimal_text(price or Decimal(0))}
        elif price is not None:
            order["price"] = decimal_text(price)
        elif request.time_in_force not in IMMEDIATE:
            order["timeInForce"] = TERMS[TimeInForce.FOK]
        if request.type is OrderType.STOP and request.time_in_force in IMMEDIATE:
            raise NotSupportedError("stops at OANDA stay until canceled or for the day")
        return order

    def _home(self) -> str:
        """The account's currency. Raises ConfigurationError for a hedging account."""
        with self._lock:
            if not self._currency:
                account = self._summary()
                if account.get("hedgingEnabled") is True:
                    raise ConfigurationError(
                        "this OANDA account holds long and short side by side; FKS needs one that nets"
                    )
                self._currency = text(account, "currency")
            return self._currency

    def _summary(self) -> Row:
        return row(row(self._http.ask(f"{self._account}/summary")), "account")

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        if self._rehearses:
            return CancelResult(Outcome.NOT_SENT, NotSupportedError.code, DRY_RUN)
        url = f"{self._account}/orders/{_named(ref)}/cancel"
        reply = self._http.act("PUT", url, None, Purpose.CANCEL)
        evidence = self._http.evidence("PUT", url, None, reply)
        if reply.status == 200 and reply.member("orderCancelTransaction"):
            return CancelResult(Outcome.ACCEPTED, evidence=evidence)
        said = self._http.scrub(answers.refusal(reply))
        if reply.status == 404 and said:
            return CancelResult(Outcome.REJECTED, "VENUE_REJECTED", said, evidence)
        verdict = before_words(reply) or unknown(f"HTTP {reply.status} {said}")
        return CancelResult(verdict.outcome, verdict.code, verdict.detail, evidence)

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        found = self._find(ref)
        if found is None:
            return None
        if ref.identity and answers.client_id(found) != hex_digits(ref.identity):
            raise QueryFailedError("OANDA answered with another order")
        return self._report(found)

    def _report(self, found: Row) -> OrderReport:
        state = text(found, "state")
        by = {"FILLED": "fillingTransactionID", "CANCELLED": "cancellingTransactionID"}.get(state)
        ended_by = None
        if by is not None:
            url = f"{self._account}/transactions/{escaped(text(found, by), safe='')}"
            ended_by = row(row(self._http.ask(url)), "transaction")
        if found.get("type") in answers.OF_A_TRADE:
            url = f"{self._account}/trades/{escaped(text(found, 'tradeID'), safe='')}"
            found = answers.of_trade(found, row(row(self._http.ask(url)), "trade"), ended_by)
        return answers.order(found, ended_by, self._home())

    def _find(self, ref: OrderRef) -> Row | None:
        """By its id there or ours; then among all orders since it was submitted, because nobody
        promises that our id still names an order that has ended."""
        try:
            url = f"{self._account}/orders/{_named(ref)}"
            return row(row(self._http.ask(url)), "order")
        except RefusedError as refused:
            if refused.reply.status != 404:
                raise
            if refused.reply.member("errorCode") not in answers.NO_ORDER:
                raise
        return self._look_through(ref) if ref.identity else None

    def _look_through(self, ref: OrderRef) -> Row | None:
        asked = {"state": "ALL", "count": str(PAGE)}
        for _ in range(MOST_PAGES):
            page = rows(member(row(self._http.ask(f"{self._account}/orders", asked)), "orders"))
            for found in page:
                if answers.client_id(found) == hex_digits(ref.identity):
                    return found
            if len(page) < PAGE or ref.submitted_at is None:
                return None
            oldest = min(page, key=lambda one: number(one, "id"))
            if iso_moment(oldest, "createTime") < ref.submitted_at - EARLIER:
                return None
            asked["beforeID"] = str(number(oldest, "id") - 1)
        raise NotShownError(f"OANDA lists more than {PAGE * MOST_PAGES} orders since then")

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Orders of their own; stops and targets that hang on a trade are not among them."""
        url = f"{self._account}/pendingOrders"
        found = rows(member(row(self._http.ask(url)), "orders"))
        own = [one for one in found if one.get("type") not in answers.OF_A_TRADE]
        reports = [answers.order(one, None, "") for one in own]
        return [one for one in reports if symbol in (None, one.symbol)]

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        """From the account's transactions, page by page as OANDA names them."""
        asked = {"from": _stamp(since), "type": "ORDER_FILL", "pageSize": "1000"}
        first = row(self._http.ask(f"{self._account}/transactions", asked))
        pages = member(first, "pages")
        if not isinstance(pages, list) or not all(isinstance(one, str) for one in pages):
            raise QueryFailedError("unreadable answer: pages is no list of addresses")
        found: list[Row] = []
        for page in pages:
            params = {name: values[0] for name, values in parse_qs(urlsplit(page).query).items()}
            answer = row(self._http.ask(f"{self._account}/transactions/idrange", params))
            found += rows(member(answer, "transactions"))
        mine = [one for one in found if one.get("instrument") == self._venue_symbol(symbol)]
        fills = [answers.fill(one, self._home()) for one in mine if one.get("type") == "ORDER_FILL"]
        return sorted((one for one in fills if one.at >= since), key=lambda one: one.at)

    def positions(self) -> Sequence[PositionReport]:
        answer = row(self._http.ask(f"{self._account}/openPositions"))
        found = [answers.position(one) for one in rows(member(answer, "positions"))]
        return [one for one in found if one.quantity]

    def balances(self) -> Sequence[BalanceReport]:
        """The account's money with what open trades have won and lost; free is its margin left."""
        account = self._summary()
        worth, free = number(account, "NAV"), number(account, "marginAvailable")
        return [BalanceReport(text(account, "currency"), worth, free)] if worth else []

    def instrument(self, symbol: str) -> Instrument:
        """The rules of ``symbol``, read again after an hour."""
        return self._rules.get(symbol, lambda: self._listed_rules(symbol))

    def _listed_rules(self, symbol: str) -> Instrument:
        found = self._listed(f"{self._account}/instruments", symbol, "instruments", "name")
        return answers.instrument(found, symbol)

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        return answers.quote(self._pricing(symbol), symbol)

    def order_book(self, symbol: str) -> OrderBook:
        """OANDA's own prices, each with the units it is good for."""
        return answers.order_book(self._pricing(symbol), symbol)

    def _pricing(self, symbol: str) -> Row:
        return self._listed(f"{self._account}/pricing", symbol, "prices", "instrument")

    def candles(self, symbol: str, count: int) -> Sequence[Candle]:
        url = f"{self._host}/v3/instruments/{self._venue_symbol(symbol)}/candles"
        asked = {"granularity": "H1", "count": str(count), "price": "M"}
        found = rows(member(row(self._http.ask(url, asked)), "candles"))
        return [answers.candle(one) for one in found]

    def _listed(self, url: str, symbol: str, where: str, name: str) -> Row:
        """The one row about ``symbol``. Raises UnknownSymbolError."""
        wanted = self._venue_symbol(symbol)
        try:
            found = rows(member(row(self._http.ask(url, {"instruments": wanted})), where))
        except RefusedError as refused:
            if refused.reply.status in (400, 404):
                raise UnknownSymbolError(f"OANDA does not list {symbol}") from refused
            raise
        for one in found:
            if one.get(name) == wanted:
                return one
        raise UnknownSymbolError(f"OANDA does not list {symbol}")

    def _venue_symbol(self, symbol: str) -> str:
        base, _, quote = symbol.partition("/")
        if not (base.isalnum() and quote.isalnum()):
            raise UnknownSymbolError(f"{symbol} is not a symbol of OANDA")
        return f"{base}_{quote}"

    def health_check(self) -> Health:
        started = time.monotonic()
        try:
            self._summary()
        except BrokerError as error:
            return Health(False, str(error))
        return Health(True, "OANDA answers", round((time.monotonic() - started) * 1000))

    def check_permissions(self) -> Permissions:
        try:
            account = self._summary()
        except QueryFailedError as error:
            if error.code == CredentialError.code:
                raise CredentialError(str(error)) from error
            raise
        hedges = account.get("hedgingEnabled")
        nets, detail = hedges is not True, "does not tell whether it nets"
        if isinstance(hedges, bool):
            detail = "nets" if nets else "holds long and short side by side, which FKS cannot"
        # no path of the v20 interface moves money
        return Permissions(nets, False, None, f"account {text(account, 'id')} {detail}")

    def close(self) -> None:
        self._http.close()


def _stop_form(stop: AttachedStop) -> dict[str, Any]:
    """What becomes a stop of its own, on the trade the entry opens (v20, StopLossDetails)."""
    return {
        "price": decimal_text(stop.price),
        "timeInForce": "GTC",
        "clientExtensions": {"id": hex_digits(stop.identity)},
    }


def _named(ref: OrderRef) -> str:
    """How OANDA finds an order: its own id, or ours behind an @."""
    return escaped(ref.broker_order_id or f"@{hex_digits(ref.identity)}", safe="@")


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
