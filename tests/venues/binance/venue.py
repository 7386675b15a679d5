"""Binance's endpoints: routing, signatures, permissions and account queries."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.venues.binance import marketdata, rules
from tests.venues.binance.account import READ, TRADE, AccountDesk, account_of, find_order
from tests.venues.binance.errors import BinanceError, missing
from tests.venues.binance.parameters import instrument_of, integer, names
from tests.venues.binance.trading import ORDER_PARAMETERS, canceled, placed, read_order
from tests.venues.clock import Clock
from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.market import Market
from tests.venues.orders import Refused
from tests.venues.venue import Answer, Request, Venue, pairs, reply

KEY = re.compile(r"[A-Za-z0-9]{64}")
SIGNATURE = re.compile(r"(^|&)signature=[^&]*")
TIMING = frozenset({"timestamp", "recvWindow", "signature"})
AHEAD_MS = 1000
MAX_RECV_WINDOW_MS = 60_000
DEFAULT_RECV_WINDOW_MS = 5000
FULL_BY_DEFAULT = {"MARKET", "LIMIT"}


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint; `permission` empty means public, so unsigned."""

    handler: Callable[[Request], Answer]
    endpoint: Endpoint
    parameters: frozenset[str]
    permission: str = ""


class Binance(Venue):
    """Binance spot; the lists of futures and margin markets exist but are empty."""

    name = "binance"

    def __init__(self, clock: Clock, id_rule: IdRule) -> None:
        self.clock = clock
        self.ledger = Ledger(rules.HOUSE, clock, id_rule)
        key = Credential(BINANCE_KEY, BINANCE_SECRET, permissions=self.default_permissions())
        self.credentials = {key.key: key}
        self.routes = self._public_routes() | self._account_routes() | self._trade_routes()

    def default_permissions(self) -> dict[str, bool]:
        off = "ipRestrict enableWithdrawals enableInternalTransfer permitsUniversalTransfer "
        off += "enableMargin enableFutures enableVanillaOptions enablePortfolioMarginTrading "
        off += "enableFixApiTrade enableFixReadOnly"
        return {READ: True, TRADE: True} | dict.fromkeys(off.split(), False)

    def owns(self, path: str) -> bool:
        return path.startswith(("/api/v3/", "/sapi/v1/", "/fapi/v1/", "/dapi/v1/"))

    def endpoint(self, request: Request) -> Endpoint:
        route = self.routes.get((request.method, request.path))
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        return BinanceError(int(code)).answer()

    def throttle(self, status: int) -> Answer:
        return BinanceError(-1003).answer(status)

    def admit(self, request: Request) -> Answer | None:
        route = self.routes.get((request.method, request.path))
        try:
            request.params = self._parameters(request, route)
            if route is not None and route.permission:
                self._authenticate(request, route.permission)
        except BinanceError as error:
            return error.answer()
        return None

    def handle(self, request: Request) -> Answer:
        route = self.routes.get((request.method, request.path))
        if route is None:
            return Answer(404, b"", error="HTTP 404")
        try:
            if route.permission:
                self._check_window(request)
            return route.handler(request)
        except BinanceError as error:
            return error.answer()
        except Refused as refused:
            return BinanceError.refused(refused.reason).answer()

    def _parameters(self, request: Request, route: Route | None) -> dict[str, str]:
        sent = pairs(request.body, request.query)
        params = dict(sent)
        if route is None:
            return params
        if len(params) < len(sent):
            raise BinanceError(-1101, "Duplicate values for a parameter detected.")
        known = route.parameters | TIMING if route.permission else route.parameters
        read = sum(1 for name in params if name in known)
        if read < len(params):
            raise BinanceError(
                -1104,
                f"Not all sent parameters were read; read '{read}' parameter(s) "
                f"but was sent '{len(params)}'.",
            )
        return params

    def _authenticate(self, request: Request, permission: str) -> None:
        key = request.headers.get("x-mbx-apikey", "")
        if not KEY.fullmatch(key):
            raise BinanceError(-2014)
        credential = self.credentials.get(key)
        if credential is None or not credential.permissions[permission]:
            raise BinanceError(-2015)
        self._check_window(request)
        given = request.params.get("signature")
        if not given:
            raise missing("signature")
        payload = SIGNATURE.sub("", request.query) + SIGNATURE.sub("", request.body)
        secret = credential.secret.encode()
        expected = hmac.new(secret, payload.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, given.lower()):
            raise BinanceError(-1022)
        request.credential = credential

    def _check_window(self, request: Request) -> None:
        """Both on arrival and again before the matching engine (rest-api.md, Timing security)."""
        timestamp = integer(request.params, "timestamp", -1)
        if timestamp < 0:
            raise missing("timestamp")
        window = integer(request.params, "recvWindow", DEFAULT_RECV_WINDOW_MS)
        if window > MAX_RECV_WINDOW_MS:
            raise BinanceError(-1131)
        now = self.clock.now_ms()
        if timestamp >= now + AHEAD_MS:
            raise BinanceError(
                -1021, "Timestamp for this request was 1000ms ahead of the server's time."
            )
        if now - timestamp > window:
            raise BinanceError(-1021)

    def _public_routes(self) -> dict[tuple[str, str], Route]:
        tickers: dict[str, Callable[[Market], object]] = {
            "price": marketdata.price,
            "bookTicker": marketdata.book_ticker,
            "24hr": lambda market: marketdata.day_ticker(market, self.clock.now_ms()),
        }
        handlers: dict[str, tuple[Callable[[Request], Answer], str]] = {
            "/api/v3/ping": (lambda _: reply({}), ""),
            "/api/v3/time": (lambda _: reply({"serverTime": self.clock.now_ms()}), ""),
            "/api/v3/exchangeInfo": (self._exchange_info, "symbol symbols permissions"),
            "/api/v3/depth": (self._depth, "symbol limit"),
            "/api/v3/klines": (self._klines, "symbol interval startTime endTime limit"),
            "/fapi/v1/exchangeInfo": (lambda _: reply({"symbols": []}), ""),
            "/dapi/v1/exchangeInfo": (lambda _: reply({"symbols": []}), ""),
        }
        for kind, show in tickers.items():
            handlers[f"/api/v3/ticker/{kind}"] = (self._ticker(show), "symbol symbols type")
        return {
            ("GET", path): Route(handler, Endpoint.PUBLIC, names(known))
            for path, (handler, known) in handlers.items()
        }

    def _account_routes(self) -> dict[tuple[str, str], Route]:
        desk = AccountDesk(self.ledger)
        handlers: dict[str, tuple[Callable[[Request], Answer], str]] = {
            "/api/v3/account": (desk.balances, "omitZeroBalances"),
            "/api/v3/order": (desk.order, "symbol orderId origClientOrderId"),
            "/api/v3/openOrders": (desk.open_orders, "symbol"),
            "/api/v3/allOrders": (desk.all_orders, "symbol orderId startTime endTime limit"),
            "/api/v3/myTrades": (desk.trades, "symbol orderId startTime endTime fromId limit"),
            "/sapi/v1/account/apiRestrictions": (desk.restrictions, ""),
            "/sapi/v1/capital/config/getall": (desk.coins, ""),
            "/sapi/v1/margin/allPairs": (lambda _: reply([]), ""),
            "/sapi/v1/margin/isolated/allPairs": (lambda _: reply([]), ""),
        }
        return {
            ("GET", path): Route(handler, Endpoint.QUERY, names(known), READ)
            for path, (handler, known) in handlers.items()
        }

    def _trade_routes(self) -> dict[tuple[str, str], Route]:
        named = names("symbol orderId origClientOrderId newClientOrderId")
        test = ORDER_PARAMETERS | {"computeCommissionRates"}
        order, cancel = Endpoint.ORDER, Endpoint.CANCEL
        return {
            ("POST", "/api/v3/order"): Route(self._place, order, ORDER_PARAMETERS, TRADE),
            ("POST", "/api/v3/order/test"): Route(self._test, Endpoint.QUERY, test, TRADE),
            ("DELETE", "/api/v3/order"): Route(self._cancel, cancel, named, TRADE),
            ("DELETE", "/api/v3/openOrders"): Route(
                self._cancel_all, cancel, names("symbol"), TRADE
            ),
        }

    def _exchange_info(self, request: Request) -> Answer:
        info = marketdata.exchange_info(self.clock.now_ms())
        if "symbol" in request.params:
            info["symbols"] = [rules.symbol_info(instrument_of(request.params))]
        return reply(info)

    def _market(self, request: Request) -> Market:
        return self.ledger.markets[instrument_of(request.params).symbol]

    def _ticker(self, show: Callable[[Market], object]) -> Callable[[Request], Answer]:
        def handler(request: Request) -> Answer:
            if "symbol" in request.params:
                return reply(show(self._market(request)))
            wanted = request.params.get("symbols")
            markets = self.ledger.markets.values()
            if wanted is None:
                return reply([show(market) for market in markets])
            found = [m for m in markets if f'"{rules.market_id(m.instrument)}"' in wanted]
            return reply([show(market) for market in found])

        return handler

    def _depth(self, request: Request) -> Answer:
        limit = integer(request.params, "limit", 100)
        return reply(marketdata.depth(self._market(request), limit, self.clock.now_ms()))

    def _klines(self, request: Request) -> Answer:
        limit = min(integer(request.params, "limit", 500), 1000)
        interval = request.params.get("interval", "")
        return reply(marketdata.klines(self._market(request), interval, limit, self.clock.now_ms()))

    def _place(self, request: Request) -> Answer:
        spec = read_order(request, request.key.account, self.ledger)
        order = self.ledger.place(spec)
        default = "FULL" if spec.details["type"] in FULL_BY_DEFAULT else "ACK"
        kind = request.params.get("newOrderRespType", default)
        return replace(reply(placed(order, kind)), order_id=order.id)

    def _test(self, request: Request) -> Answer:
        spec = read_order(request, request.key.account, self.ledger)
        self.ledger.place(spec, dry_run=True)
        return reply({})

    def _cancel(self, request: Request) -> Answer:
        order = find_order(self.ledger, request, lambda order: order.live)
        if order is None:
            raise BinanceError(-2011)
        self.ledger.cancel(order)
        return reply(canceled(order, request.params.get("newClientOrderId", "")))

    def _cancel_all(self, request: Request) -> Answer:
        symbol = instrument_of(request.params).symbol
        working = list(account_of(self.ledger, request).open.values())
        found = [order for order in working if order.spec.instrument.symbol == symbol]
        if not found:
            raise BinanceError(-2011)
        for order in found:
            self.ledger.cancel(order)
        return reply([canceled(order, "") for order in found])
