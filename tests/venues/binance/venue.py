"""Binance's endpoints: routing, signatures, permissions and account queries."""

from __future__ import annotations

import hashlib
import hmac
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.venues.binance import marketdata, rules
from tests.venues.binance.errors import BinanceError, missing
from tests.venues.binance.trading import (
    ORDER_PARAMETERS,
    canceled,
    instrument_of,
    listed,
    placed,
    queried,
    read_order,
)
from tests.venues.clock import Clock
from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET, Credential
from tests.venues.faults import Endpoint
from tests.venues.ledger import IdRule, Ledger
from tests.venues.market import Market
from tests.venues.orders import Account, Order, Refused
from tests.venues.venue import Answer, Request, Venue, pairs, reply

KEY = re.compile(r"[A-Za-z0-9]{64}")
SIGNATURE = re.compile(r"(^|&)signature=[^&]*")
TIMING = frozenset({"timestamp", "recvWindow", "signature"})
AHEAD_MS = 1000
MAX_RECV_WINDOW_MS = 60_000
DEFAULT_RECV_WINDOW_MS = 5000
FULL_BY_DEFAULT = {"MARKET", "LIMIT"}

READ, TRADE = "enableReading", "enableSpotAndMarginTrading"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint; `permission` empty means public, so unsigned."""

    handler: Callable[[Request], Answer]
    endpoint: Endpoint
    parameters: frozenset[str]
    permission: str = ""


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Binance(Venue):
    """Binance spot. Futures and margin market lists are served empty, so a client may ask for them."""

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
        timestamp = self._integer(request, "timestamp", -1)
        if timestamp < 0:
            raise missing("timestamp")
        window = self._integer(request, "recvWindow", DEFAULT_RECV_WINDOW_MS)
        if window > MAX_RECV_WINDOW_MS:
            raise BinanceError(-1131)
        now = self.clock.now_ms()
        if timestamp >= now + AHEAD_MS:
            raise BinanceError(
                -1021, "Timestamp for this request was 1000ms ahead of the server's time."
            )
        if now - timestamp > window:
            raise BinanceError(-1021)

    def _integer(self, request: Request, name: str, default: int) -> int:
        text = request.params.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit()):
            raise missing(name)
        return int(text)

    def _account(self, request: Request) -> Account:
        assert request.credential is not None
        return self.ledger.account(request.credential.account)

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
        handlers: dict[str, tuple[Callable[[Request], Answer], str]] = {
            "/api/v3/account": (self._balances, "omitZeroBalances"),
            "/api/v3/order": (self._get_order, "symbol orderId origClientOrderId"),
            "/api/v3/openOrders": (self._open_orders, "symbol"),
            "/api/v3/allOrders": (self._all_orders, "symbol orderId startTime endTime limit"),
            "/api/v3/myTrades": (self._trades, "symbol orderId startTime endTime fromId limit"),
            "/sapi/v1/account/apiRestrictions": (self._restrictions, ""),
            "/sapi/v1/capital/config/getall": (self._coins, ""),
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
        limit = self._integer(request, "limit", 100)
        return reply(marketdata.depth(self._market(request), limit, self.clock.now_ms()))

    def _klines(self, request: Request) -> Answer:
        limit = min(self._integer(request, "limit", 500), 1000)
        interval = request.params.get("interval", "")
        return reply(marketdata.klines(self._market(request), interval, limit, self.clock.now_ms()))

    def _balances(self, request: Request) -> Answer:
        self.ledger.advance()
        assert request.credential is not None
        balances = self._account(request).balances.items()
        rows = [
            {"asset": asset, "free": rules.places(held.free), "locked": rules.places(held.locked)}
            for asset, held in balances
        ]
        rate = rules.places(rules.HOUSE.taker_fee)
        return reply(
            {
                "makerCommission": 10,
                "takerCommission": 10,
                "buyerCommission": 0,
                "sellerCommission": 0,
                "commissionRates": dict(maker=rate, taker=rate, buyer="0", seller="0"),
                "canTrade": request.credential.permissions[TRADE],
                "canWithdraw": request.credential.permissions["enableWithdrawals"],
                "canDeposit": True,
                "brokered": False,
                "requireSelfTradePrevention": False,
                "preventSor": False,
                "updateTime": self.clock.now_ms(),
                "accountType": "SPOT",
                "balances": rows,
                "permissions": ["SPOT"],
                "uid": 1,
            }
        )

    def _restrictions(self, request: Request) -> Answer:
        assert request.credential is not None
        return reply({"createTime": 1_623_840_271_000} | request.credential.permissions)

    def _coins(self, request: Request) -> Answer:
        held = self._account(request).balances
        return reply(
            [
                {
                    "coin": asset,
                    "name": asset,
                    "free": rules.places(balance.free),
                    "locked": rules.places(balance.locked),
                    "trading": True,
                    "isLegalMoney": False,
                    "depositAllEnable": True,
                    "withdrawAllEnable": True,
                    "networkList": [],
                }
                for asset, balance in held.items()
            ]
        )

    def _find(self, request: Request, orders: Callable[[Order], bool]) -> Order | None:
        """The order named by orderId, else the newest with that client id, on the symbol."""
        params = request.params
        account = self._account(request)
        symbol = instrument_of(params).symbol
        if params.get("orderId"):
            named = (
                [account.orders[params["orderId"]]] if params["orderId"] in account.orders else []
            )
        elif params.get("origClientOrderId"):
            named = account.by_client_id.get(params["origClientOrderId"], [])
        else:
            raise BinanceError(
                -1102,
                "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
            )
        for order in reversed(named):
            if order.spec.instrument.symbol == symbol and orders(order):
                return order
        return None

    def _get_order(self, request: Request) -> Answer:
        order = self._find(request, lambda order: bool(self.ledger.visible([order])))
        if order is None:
            raise BinanceError(-2013)
        return reply(queried(order))

    def _open_orders(self, request: Request) -> Answer:
        symbol = instrument_of(request.params).symbol if "symbol" in request.params else None
        self.ledger.advance()
        working = self.ledger.visible(self._account(request).open.values())
        rows = [o for o in working if symbol in (None, o.spec.instrument.symbol)]
        return reply([queried(order) for order in rows])

    def _page(self, request: Request, size: int, keys: Sequence[int], first: str) -> slice:
        """Rows from the id in parameter `first` on, else the newest ones."""
        limit = min(self._integer(request, "limit", 500), 1000)
        if first in request.params:
            start = bisect_left(keys, self._integer(request, first, 0))
            return slice(start, start + limit)
        if "startTime" in request.params:
            return slice(0, limit)
        return slice(max(0, size - limit), size)

    def _between(self, request: Request, time: int) -> bool:
        start = self._integer(request, "startTime", 0)
        return start <= time <= self._integer(request, "endTime", 1 << 62)

    def _all_orders(self, request: Request) -> Answer:
        account, symbol = self._account(request), instrument_of(request.params).symbol
        known = self.ledger.visible(account.by_symbol[symbol])
        rows = [order for order in known if self._between(request, order.created_at)]
        shown = rows[self._page(request, len(rows), [o.sequence for o in rows], "orderId")]
        return reply([queried(order) for order in shown])

    def _trades(self, request: Request) -> Answer:
        self.ledger.advance()
        account, symbol = self._account(request), instrument_of(request.params).symbol
        rows = account.trades_by_symbol[symbol]
        if "orderId" in request.params:
            order = account.orders.get(request.params["orderId"])
            rows = [] if order is None else order.trades
        rows = [
            trade
            for trade in rows
            if self._between(request, trade.time)
            and trade.order.spec.instrument.symbol == symbol
            and trade.order.visible_at <= self.clock.now_ms()
        ]
        shown = rows[self._page(request, len(rows), [t.sequence for t in rows], "fromId")]
        times = 2 if request.doubles_fills else 1
        return reply([listed(trade) for trade in shown for _ in range(times)])

    def _place(self, request: Request) -> Answer:
        spec = read_order(request, self._account(request).name, self.ledger)
        order = self.ledger.place(spec)
        default = "FULL" if spec.details["type"] in FULL_BY_DEFAULT else "ACK"
        kind = request.params.get("newOrderRespType", default)
        return replace(reply(placed(order, kind)), order_id=order.id)

    def _test(self, request: Request) -> Answer:
        spec = read_order(request, self._account(request).name, self.ledger)
        self.ledger.place(spec, dry_run=True)
        return reply({})

    def _cancel(self, request: Request) -> Answer:
        order = self._find(request, lambda order: order.live)
        if order is None:
            raise BinanceError(-2011)
        self.ledger.cancel(order)
        return reply(canceled(order, request.params.get("newClientOrderId", "")))

    def _cancel_all(self, request: Request) -> Answer:
        symbol = instrument_of(request.params).symbol
        working = list(self._account(request).open.values())
        found = [order for order in working if order.spec.instrument.symbol == symbol]
        if not found:
            raise BinanceError(-2011)
        for order in found:
            self.ledger.cancel(order)
        return reply([canceled(order, "") for order in found])
