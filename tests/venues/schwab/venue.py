"""Schwab's endpoints: log-in, accounts, orders and market data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.venues.clock import Clock
from tests.venues.credentials import SCHWAB_TOKEN, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.market import Market
from tests.venues.orders import Account, Order, Refused
from tests.venues.schwab import answers, rules
from tests.venues.schwab.logins import Logins, refused
from tests.venues.schwab.rules import SchwabError
from tests.venues.venue import Answer, Request, Venue, pairs, reply

HOUR_MS = 3_600_000
MINE = f"/trader/v1/accounts/{rules.HASHED}"
TOKEN = "/v1/oauth/token"
PREFIXES = ("/v1/oauth/", "/trader/v1/", "/marketdata/v1/")


@dataclass(frozen=True, slots=True)
class Route:
    handler: Callable[[Request], Answer]
    endpoint: Endpoint


class Schwab(Venue):
    """One account with shares, whose orders carry no id of a client's."""

    def __init__(self, clock: Clock) -> None:
        self.name = "schwab"
        self.clock = clock
        self.ledger = Ledger(rules.HOUSE, clock, IdRule.NONE)
        self.is_open = True
        self.logins = Logins()
        self.rejected: dict[str, dict[str, Any]] = {}
        key = Credential(SCHWAB_TOKEN, "", permissions=self.default_permissions())
        self.credentials = {key.key: key}

    def _route(self, request: Request) -> Route | None:
        query, public, path = Endpoint.QUERY, Endpoint.PUBLIC, request.path
        if path == f"{MINE}/orders":
            if request.method == "POST":
                return Route(self._create, Endpoint.ORDER)
            return Route(self._orders, query)
        if path.startswith(f"{MINE}/orders/"):
            if request.method == "DELETE":
                return Route(self._cancel, Endpoint.CANCEL)
            return Route(self._order, query)
        return {
            TOKEN: Route(self.logins.token, query),
            "/v1/oauth/authorize": Route(self.logins.authorise, query),
            "/trader/v1/accounts/accountNumbers": Route(self._numbers, query),
            MINE: Route(self._account, query),
            "/marketdata/v1/instruments": Route(self._instruments, public),
            "/marketdata/v1/quotes": Route(self._quotes, public),
            "/marketdata/v1/pricehistory": Route(self._history, public),
            "/marketdata/v1/markets": Route(self._hours, public),
        }.get(path)

    def default_permissions(self) -> dict[str, bool]:
        """Not Schwab's words: ``location`` off leaves an order's address out of the answer."""
        return {"location": True, "realtime": True, "closing_only": False}

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIXES)

    def endpoint(self, request: Request) -> Endpoint:
        route = self._route(request)
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        if code.islower():
            return refused(code)
        return SchwabError(400, code).answer()

    def throttle(self, status: int) -> Answer:
        return reply({"message": "too many requests"}, status=status, error="throttled")

    def admit(self, request: Request) -> Answer | None:
        request.params = dict(pairs(request.query))
        if request.path.startswith("/v1/oauth/"):
            return None
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.logins.access:
            errors = [{"status": 401, "title": "Unauthorized", "detail": "Client not authorized"}]
            return reply({"errors": errors}, status=401, error="token")
        request.credential = self.credentials[SCHWAB_TOKEN]
        return None

    def handle(self, request: Request) -> Answer:
        route = self._route(request)
        try:
            if route is None:
                raise SchwabError(404, "no such resource")
            return route.handler(request)
        except SchwabError as error:
            return error.answer()

    def _mine(self, request: Request) -> Account:
        return self.ledger.account(request.key.account)

    def _create(self, request: Request) -> Answer:
        sent = rules.read_order(request)
        request.params = {name: str(value) for name, value in sent.items()}
        instrument = rules.check(sent)
        last = self.ledger.markets[instrument.symbol].last
        delay = max(0 if self.is_open else HOUR_MS, request.fill_delay_ms)
        spec = rules.spec_of(sent, request.key.account, last, delay)
        try:
            order_id = self.ledger.place(spec).id
        except Refused:
            order_id = self._taken_and_rejected(sent)
        host = request.headers.get("host", "")
        headers = [("Location", f"https://{host}{MINE}/orders/{order_id}")]
        if not request.key.permissions["location"]:
            headers = []
        return Answer(201, b"", headers=tuple(headers), order_id=order_id)

    def _taken_and_rejected(self, sent: Any) -> str:
        """What the account cannot pay is taken in and rejected a moment later."""
        order_id = str(1_900_000_000 + len(self.rejected))
        leg = sent["orderLegCollection"][0]
        prices = {name: float(sent[name]) for name in ("price", "stopPrice") if name in sent}
        self.rejected[order_id] = {
            **sent,
            **prices,
            "orderId": int(order_id),
            "quantity": float(leg["quantity"]),
            "filledQuantity": 0.0,
            "status": "REJECTED",
            "statusDescription": "You do not have enough available cash for this order.",
            "enteredTime": answers.stamp(self.clock.now_ms()),
        }
        return order_id

    def _found(self, request: Request) -> Order:
        order = self._mine(request).orders.get(request.path.rpartition("/")[2])
        if order is None or not self.ledger.visible([order]):
            raise SchwabError(404, "Order not found")
        return order

    def _order(self, request: Request) -> Answer:
        rejected = self.rejected.get(request.path.rpartition("/")[2])
        return reply(rejected or answers.order_row(self._found(request)))

    def _orders(self, request: Request) -> Answer:
        """Newest first, by the second they were entered in."""
        names = ("fromEnteredTime", "toEnteredTime")
        try:
            first, last = (datetime.fromisoformat(request.params[name]) for name in names)
        except (KeyError, ValueError):
            raise SchwabError(400, "from and to are required") from None
        found = self.ledger.visible(self._mine(request).orders.values())
        rows = [*map(answers.order_row, found), *self.rejected.values()]
        listed = [
            one
            for one in rows
            if first.replace(microsecond=0)
            <= datetime.fromisoformat(str(one["enteredTime"]))
            <= last
        ]
        return reply(listed[::-1][: int(request.params["maxResults"])])

    def _cancel(self, request: Request) -> Answer:
        order = self._found(request)
        if not order.live:
            raise SchwabError(400, "Order cannot be canceled")
        self.ledger.cancel(order)
        return Answer(200, b"")

    def _numbers(self, request: Request) -> Answer:
        return reply([{"accountNumber": rules.ACCOUNT, "hashValue": rules.HASHED}])

    def _account(self, request: Request) -> Answer:
        account = self._mine(request)
        cash = account.balances["USD"]
        held = [
            one
            for one in self.ledger.markets.values()
            if account.balances[one.instrument.base].total
        ]
        told = {
            "type": "CASH",
            "accountNumber": rules.ACCOUNT,
            "isClosingOnlyRestricted": request.key.permissions["closing_only"],
            "positions": [answers.position_row(account, one) for one in held],
            "currentBalances": {
                "totalCash": float(cash.total),
                "cashAvailableForTrading": float(cash.free),
            },
        }
        return reply({"securitiesAccount": told})

    def _market(self, name: str) -> Market | None:
        wanted = rules.INSTRUMENTS.get(name)
        return None if wanted is None else self.ledger.markets[wanted.symbol]

    def _instruments(self, request: Request) -> Answer:
        market = self._market(request.params.get("symbol", ""))
        found = [] if market is None else [answers.security(market.instrument)]
        return reply({"instruments": found} if found else {})

    def _quotes(self, request: Request) -> Answer:
        name = request.params.get("symbols", "")
        market = self._market(name)
        if market is None:
            return reply({"errors": {"invalidSymbols": [name]}})
        realtime = request.key.permissions["realtime"]
        return reply({name: answers.quote_row(market, self.clock.now_ms(), realtime=realtime)})

    def _history(self, request: Request) -> Answer:
        market = self._market(request.params.get("symbol", ""))
        if market is None:
            raise SchwabError(404, "symbol not found")
        last: Decimal = market.last
        bars = answers.half_hours(last, self.clock.now_ms(), 48)
        return reply({"candles": bars, "symbol": request.params["symbol"], "empty": False})

    def _hours(self, request: Request) -> Answer:
        now = self.clock.now_ms()
        start, end = (
            (now - HOUR_MS, now + HOUR_MS) if self.is_open else (now + HOUR_MS, now + 2 * HOUR_MS)
        )
        span = {"start": answers.stamp(start), "end": answers.stamp(end)}
        market = {"isOpen": True, "sessionHours": {"regularMarket": [span]}}
        return reply({"equity": {"EQ": market}})
