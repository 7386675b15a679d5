"""ProjectX (TopstepX and other firms on its platform): futures over the Gateway API
(gateway.docs.projectx.com).

Experimental: nobody has confirmed this against an account yet. Every call is a POST; those that only
ask are told apart here, and only they are repeated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from brokers import projectx_answers as answers
from brokers import timing
from brokers.base import ExecutionPlugin
from brokers.capabilities import Capabilities, IdRule, VenueCard
from brokers.client_ids import hex_digits
from brokers.dialects.answers import Row, member, row, rows, text
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    CredentialError,
    NotSupportedError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.known_rules import KnownRules
from brokers.limiter import Limiter, Limits, Purpose, Rate
from brokers.order_form import check_form, check_grid
from brokers.outcome import unknown
from brokers.projectx_answers import Contract
from brokers.projectx_login import KeyLogin
from brokers.report_trades import with_trades
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
from brokers.venue_http import VenueHttp, before_words

TOPSTEPX = "https://api.topstepx.com"
LIMITS = Limits(address=Rate(180, 60), key=Rate(180, 60), orders=Rate(180, 60))
"""200 requests a minute (Gateway API, Rate Limits); some are left to others."""
EARLIER = timedelta(minutes=1)
"""How far the clocks may differ when orders are looked through."""
LONGEST = timedelta(days=30)
"""How far back an order is looked for whose time of submission is not known."""
LONG_RESTING = timedelta(seconds=30)
LISTED_FOR = 3.0
"""Seconds for which a list of working orders answers for those that have rested so long."""
SECOND, HOUR = 1, 3
"""Units of a bar."""
BARS_OF = timedelta(minutes=10)
_CAPABILITIES = Capabilities(
    order_types=frozenset(answers.TYPES),
    time_in_force=frozenset({TimeInForce.GTC}),
    id_rule=IdRule.FOREVER,
    submit_timeout=10,
    settle_window=30,
    short_selling=True,
    locks_balance=False,
)
DRY_RUN = "a dry-run account of ProjectX only reads; use a simulated one"


_CARDS = (
    VenueCard(
        "ProjectX, TopstepX",
        _CAPABILITIES,
        "customTag",
        "that tag among working orders, then among all since",
        "with a simulated account: check_account NAME --rehearse with the month that trades; then an "
        "alert for one micro contract with a stop_loss: both orders must show on the platform",
    ),
)


class ProjectXPlugin(ExecutionPlugin):
    """One account of one firm."""

    name: ClassVar[str] = "projectx"
    label: ClassVar[str] = "ProjectX, TopstepX: futures (experimental)"
    quote_currency: ClassVar[str] = "USD"
    credential_fields: ClassVar[tuple[str, ...]] = ("api_key", "user_name")
    option_fields: ClassVar[dict[str, str]] = {
        "account": "The account's name, as the platform shows it",
        "base_url": f"The firm's API address, TopstepX's unless given ({TOPSTEPX}): https, or http to "
        "this machine",
        **timing.OPTION_FIELDS,
    }

    def init(self, config: AccountConfig) -> None:
        """Check the configuration without any request."""
        self._name = str(config.options.get("account", ""))
        if not self._name:
            raise ConfigurationError("option account is the account's name on the platform")
        self._environment = config.environment
        self._capabilities = timing.timed(_CAPABILITIES, config.options)
        self._host = checked_base_url(str(config.options.get("base_url") or TOPSTEPX))
        self._http = self._connection(config)
        self._lock = threading.Lock()
        self._account_id = 0
        self._open_lock = threading.Lock()
        self._working: tuple[float, list[Row]] | None = None
        self._contracts = KnownRules[Contract]()

    def _connection(self, config: AccountConfig) -> VenueHttp:
        names = self.credential_fields
        missing = [name for name in names if not config.credentials.get(name)]
        if missing:
            raise CredentialError(f"ProjectX needs {' and '.join(missing)}")
        key, user = (config.credentials[name] for name in names)
        limiter = Limiter.of("projectx", LIMITS, key, self._host)
        login = KeyLogin(f"{self._host}/api/Auth/loginKey", user, key)
        patience = self._capabilities.submit_timeout
        return VenueHttp("ProjectX", {}, (key,), patience, limiter, login)

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        return _CARDS

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def client_order_id(self, identity: str) -> str:
        return hex_digits(identity)

    def _ask(self, path: str, body: dict[str, Any]) -> Row:
        """A question. Raises QueryFailedError where the answer is not a success."""
        answer = row(self._http.ask_by_post(f"{self._host}/api/{path}", body))
        if answer.get("success") is not True:
            said = self._http.scrub(str(answer.get("errorMessage") or ""))
            raise QueryFailedError(f"ProjectX: code {answer.get('errorCode')} {said}".rstrip())
        return answer

    def _accounts(self) -> list[Row]:
        return rows(member(self._ask("Account/search", {"onlyActiveAccounts": True}), "accounts"))

    def _account(self) -> Row:
        """The account as it is now. Raises ConfigurationError where it is not the one meant, or where
        a sandbox account of FKS would trade real money."""
        mine = answers.account_named(self._accounts(), self._name)
        if mine is None:
            raise ConfigurationError(f"the key reaches no active account called {self._name!r}")
        simulated = mine.get("simulated") is True
        if not simulated and self._environment is Environment.SANDBOX:
            raise ConfigurationError(
                f"ProjectX does not say that {self._name} is simulated: "
                "its environment here must be live"
            )
        return mine

    def _id(self) -> int:
        with self._lock:
            if not self._account_id:
                self._account_id = int(text(self._account(), "id"))
            return self._account_id

    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        try:
            body = self._order_form(request)
        except BrokerError as error:
            again = 1 if isinstance(error, QueryFailedError) else None
            return ExecutionResult(
                Outcome.NOT_SENT, code=error.code, detail=str(error), retry_after=again
            )
        self._working = None
        url = f"{self._host}/api/Order/place"
        reply = self._http.act("POST", url, body, Purpose.ORDER, request.send_before)
        evidence = self._http.evidence("POST", url, body, reply)
        order_id = reply.member("orderId")
        if answers.succeeded(reply) and str(order_id or "").isdigit() and str(order_id) != "0":
            return ExecutionResult(Outcome.ACCEPTED, str(order_id), evidence=evidence)
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
        """The order; sizes in contracts, prices as exact numbers. Raises BrokerError when it may not
        leave."""
        if self._environment is Environment.DRY_RUN:
            raise NotSupportedError(DRY_RUN)
        check_form(request, self.capabilities, "ProjectX")
        symbol = request.symbol
        found = self._contracts.of_order(symbol, lambda: self._listed(symbol))
        check_grid(request, answers.instrument(found))
        size = request.quantity / found.multiplier
        body: dict[str, Any] = {
            "accountId": self._id(),
            "contractId": found.id,
            "type": answers.TYPES[request.type],
            "side": answers.SIDES[request.side],
            "size": int(size),
            "customTag": hex_digits(request.identity),
        }
        if request.type is OrderType.LIMIT:
            body["limitPrice"] = request.price
        if request.type is OrderType.STOP:
            body["stopPrice"] = request.stop_price
        return body

    def cancel_order(self, ref: OrderRef) -> CancelResult:
        if self._environment is Environment.DRY_RUN:
            return CancelResult(Outcome.NOT_SENT, NotSupportedError.code, DRY_RUN)
        try:
            order_id = ref.broker_order_id
            if not order_id:
                found = self._find(ref)
                if found is None:
                    said = "ProjectX knows no such order"
                    return CancelResult(Outcome.REJECTED, "VENUE_REJECTED", said)
                order_id = text(found, "id")
            body = {"accountId": self._id(), "orderId": int(order_id)}
        except BrokerError as error:
            return CancelResult(Outcome.NOT_SENT, error.code, str(error))
        self._working = None
        url = f"{self._host}/api/Order/cancel"
        reply = self._http.act("POST", url, body, Purpose.CANCEL)
        evidence = self._http.evidence("POST", url, body, reply)
        if answers.succeeded(reply):
            return CancelResult(Outcome.ACCEPTED, evidence=evidence)
        if reply.status == 200 and reply.member("success") is False:
            said = f"code {reply.member('errorCode')} {reply.member('errorMessage') or ''}".strip()
            return CancelResult(
                Outcome.REJECTED, "VENUE_REJECTED", self._http.scrub(said), evidence
            )
        verdict = before_words(reply) or unknown(f"HTTP {reply.status}")
        return CancelResult(verdict.outcome, verdict.code, verdict.detail, evidence)

    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        found = self._find(ref)
        if found is None:
            return None
        named = text(found, "contractId")
        contract = self._contract(ref.symbol) if ref.identity else self._contract_with(named)

        def trades() -> Sequence[FillReport]:
            listed = self._trades_from(answers.at(found))
            mine = [one for one in listed if str(one.get("orderId")) == text(found, "id")]
            return [answers.fill(one, contract) for one in reversed(mine)]

        return with_trades(answers.order(found, contract), trades)

    def _find(self, ref: OrderRef) -> Row | None:
        """By the venue's id, or our tag where that is not known, among the orders that work, then among
        all since it was submitted. A list may leave the tags out."""
        ours = hex_digits(ref.identity) if ref.identity else ""
        name = "id" if ref.broker_order_id else "customTag"
        wanted = ref.broker_order_id or ours
        for listed in (self._resting(ref), lambda: self._since(ref)):
            found = next((one for one in listed() if str(one.get(name)) == wanted), None)
            if found is None:
                continue
            if ours and found.get("customTag") not in (None, "", ours):
                raise QueryFailedError("ProjectX answered with another order")
            return found
        return None

    def _open(self) -> list[Row]:
        found = self._ask("Order/searchOpen", {"accountId": self._id()})
        return answers.counted(rows(member(found, "orders")), self._trades_from)

    def _resting(self, ref: OrderRef) -> Callable[[], list[Row]]:
        """The working orders; for one that has rested for a while from a list that all such questions
        share: asked one by one, a few of them would use up the minute's requests."""
        if ref.submitted_at is None or datetime.now(UTC) - ref.submitted_at < LONG_RESTING:
            return self._open
        return self._open_lately

    def _open_lately(self) -> list[Row]:
        with self._open_lock:
            if self._working is None or time.monotonic() - self._working[0] > LISTED_FOR:
                asked = time.monotonic()
                self._working = (asked, self._open())
            return self._working[1]

    def _since(self, ref: OrderRef) -> list[Row]:
        start = (ref.submitted_at or datetime.now(UTC) - LONGEST) - EARLIER
        asked = {"accountId": self._id(), "startTimestamp": _stamp(start)}
        found = rows(member(self._ask("Order/search", asked), "orders"))
        return answers.counted(found, self._trades_from)

    def _trades_from(self, start: datetime) -> list[Row]:
        return self._trades(start - EARLIER)

    def _trades(self, since: datetime) -> list[Row]:
        """Trades that stand; newest first, as ProjectX lists them."""
        asked = {"accountId": self._id(), "startTimestamp": _stamp(since)}
        found = rows(member(self._ask("Trade/search", asked), "trades"))
        return [one for one in found if one.get("voided") is not True]

    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        reports = []
        for one in self._open():
            reports.append(answers.order(one, self._contract_with(text(one, "contractId"))))
        return [one for one in reports if symbol in (None, one.symbol)]

    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        contract = self._contract(symbol)
        mine = [one for one in self._trades(since) if one.get("contractId") == contract.id]
        fills = [answers.fill(one, contract) for one in mine]
        return sorted((one for one in fills if one.at >= since), key=lambda one: one.at)

    def positions(self) -> Sequence[PositionReport]:
        asked = {"accountId": self._id()}
        found = rows(member(self._ask("Position/searchOpen", asked), "positions"))
        reports = [
            answers.position(one, self._contract_with(text(one, "contractId"))) for one in found
        ]
        return [one for one in reports if one.quantity]

    def balances(self) -> Sequence[BalanceReport]:
        """The account's money; the platform tells it with some delay."""
        found = answers.balance(self._account())
        return [found] if found.total else []

    def instrument(self, symbol: str) -> Instrument:
        """The rules of ``symbol``, read again after an hour."""
        return answers.instrument(self._contract(symbol))

    def _contract(self, symbol: str) -> Contract:
        """The contract month called ``ESZ6`` in ``ESZ6/USD``. Raises UnknownSymbolError."""
        return self._contracts.get(symbol, lambda: self._listed(symbol))

    def _listed(self, symbol: str) -> Contract:
        name, _, quote = symbol.partition("/")
        if quote != "USD" or not (name.isascii() and name.isalnum()):
            raise UnknownSymbolError(f"{symbol} is not a contract of ProjectX")
        asked = {"searchText": name, "live": False}
        listed = rows(member(self._ask("Contract/search", asked), "contracts"))
        found = next((one for one in listed if one.get("name") == name), None)
        if found is None:
            raise UnknownSymbolError(f"ProjectX does not list {symbol}")
        return answers.contract(found)

    def _contract_with(self, contract_id: str) -> Contract:
        def told() -> Contract:
            answer = self._ask("Contract/searchById", {"contractId": contract_id})
            return answers.contract(row(answer, "contract"))

        return self._contracts.get(contract_id, told)

    def _bars(self, contract: Contract, unit: int, start: datetime, limit: int) -> list[Row]:
        """Newest first."""
        asked = {
            "contractId": contract.id,
            "live": False,
            "startTime": _stamp(start),
            "endTime": _stamp(datetime.now(UTC)),
            "unit": unit,
            "unitNumber": 1,
            "limit": limit,
            "includePartialBar": True,
        }
        return rows(member(self._ask("History/retrieveBars", asked), "bars"))

    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        """From the last bar of a second within ten minutes; the interface has no bid and ask."""
        contract = self._contract(symbol)
        bars = self._bars(contract, SECOND, datetime.now(UTC) - BARS_OF, 1)
        if not bars:
            raise QuoteUnavailableError(f"{symbol} has not traded at ProjectX for ten minutes")
        return answers.quote(bars[0], contract)

    def candles(self, symbol: str, count: int) -> Sequence[Candle]:
        start = datetime.now(UTC) - timedelta(days=30)
        bars = self._bars(self._contract(symbol), HOUR, start, count)
        return [answers.candle(one) for one in reversed(bars)]

    def health_check(self) -> Health:
        started = time.monotonic()
        try:
            self._account()
        except BrokerError as error:
            return Health(False, str(error))
        return Health(True, "ProjectX answers", round((time.monotonic() - started) * 1000))

    def check_permissions(self) -> Permissions:
        account = self._account()
        simulated, kind = account.get("simulated"), "not said to be simulated"
        if isinstance(simulated, bool):
            kind = "simulated" if simulated else "real money"
        # no path of the Gateway API moves money
        detail = f"account {self._name}, {kind}"
        return Permissions(account.get("canTrade") is True, False, None, detail)

    def close(self) -> None:
        self._http.close()


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
