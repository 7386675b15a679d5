"""Bybit's endpoints: routing, signatures, permissions, order entry and account queries.

One object serves one category with a ledger of its own, opened by a key of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from tests.venues.bybit.rules import (
    HOUSES,
    INSTRUMENTS,
    LINEAR,
    REFUSALS,
    SPOT,
    UNSEEN_COINS,
    BybitError,
    instrument_info,
    result,
    text,
)
from tests.venues.bybit.trading import (
    KINDS,
    instrument_of,
    kind_of,
    order_row,
    position,
    read_order,
    trade_row,
)
from tests.venues.clock import Clock
from tests.venues.credentials import BYBIT_KEYS, BYBIT_SECRET, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.orders import Account, Order, Reason, Refused, Trade
from tests.venues.venue import Answer, Request, Venue, pairs

Row = TypeVar("Row", Order, Trade)
AHEAD_MS = 1000
HOUR_MS = 3_600_000
READ, TRADE, WITHDRAW, BOUND = "read", "trade", "withdraw", "ip_bound"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint; `permission` empty means public, so unsigned."""

    handler: Callable[[Request], Answer]
    endpoint: Endpoint
    permission: str = ""


class Bybit(Venue):
    """One category of a Bybit unified account."""

    def __init__(self, clock: Clock, category: str) -> None:
        self.name = "bybit" if category == SPOT else f"bybit-{category}"
        self.category = category
        self.clock = clock
        self.ledger = Ledger(HOUSES[category], clock, IdRule.FOREVER)
        self.leverage: dict[str, str] = {}
        self.isolated = False
        self.hedged = False
        self.funding: list[dict[str, str]] = []
        secret = BYBIT_SECRET
        key = Credential(BYBIT_KEYS[category], secret, permissions=self.default_permissions())
        self.credentials = {key.key: key}
        self.routes = self._routes()

    def _routes(self) -> dict[tuple[str, str], Route]:
        public, query = Endpoint.PUBLIC, Endpoint.QUERY
        return {
            ("GET", "/v5/market/time"): Route(self._time, public),
            ("GET", "/v5/market/instruments-info"): Route(self._instruments, public),
            ("GET", "/v5/market/tickers"): Route(self._tickers, public),
            ("GET", "/v5/market/orderbook"): Route(self._order_book, public),
            ("GET", "/v5/market/kline"): Route(self._candles, public),
            ("GET", "/v5/user/query-api"): Route(self._key_info, query, READ),
            ("GET", "/v5/account/wallet-balance"): Route(self._wallet, query, READ),
            ("GET", "/v5/account/info"): Route(self._account_info, query, READ),
            ("GET", "/v5/order/realtime"): Route(self._realtime, query, READ),
            ("GET", "/v5/order/history"): Route(self._history, query, READ),
            ("GET", "/v5/execution/list"): Route(self._executions, query, READ),
            ("GET", "/v5/position/list"): Route(self._positions, query, READ),
            ("GET", "/v5/account/transaction-log"): Route(self._transactions, query, READ),
            ("POST", "/v5/position/set-leverage"): Route(self._set_leverage, query, TRADE),
            ("POST", "/v5/order/create"): Route(self._create, Endpoint.ORDER, TRADE),
            ("POST", "/v5/order/cancel"): Route(self._cancel, Endpoint.CANCEL, TRADE),
        }

    def default_permissions(self) -> dict[str, bool]:
        return {READ: True, TRADE: True, WITHDRAW: False, BOUND: False}

    def owns(self, path: str) -> bool:
        return path.startswith("/v5/")

    def claims(self, request: Request) -> bool:
        if not self.owns(request.path):
            return False
        key = request.headers.get("x-bapi-api-key")
        if key is not None:
            return key in self.credentials or self.category == SPOT
        return (f"category={LINEAR}" in request.query) is (self.category == LINEAR)

    def endpoint(self, request: Request) -> Endpoint:
        route = self.routes.get((request.method, request.path))
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        return BybitError(int(code)).answer(self.clock.now_ms())

    def throttle(self, status: int) -> Answer:
        return BybitError(10006).answer(self.clock.now_ms(), status)

    def admit(self, request: Request) -> Answer | None:
        route = self.routes.get((request.method, request.path))
        try:
            request.params = self._parameters(request)
            if route is not None and route.permission:
                self._authenticate(request, route.permission)
        except BybitError as error:
            return error.answer(self.clock.now_ms())
        return None

    def handle(self, request: Request) -> Answer:
        route = self.routes.get((request.method, request.path))
        if route is None:
            return Answer(404, b"", error="HTTP 404")
        try:
            return route.handler(request)
        except BybitError as error:
            return error.answer(self.clock.now_ms())
        except Refused as refused:
            code = REFUSALS[self.category].get(refused.reason, 10001)
            return BybitError(code).answer(self.clock.now_ms())

    def _parameters(self, request: Request) -> dict[str, str]:
        if request.method != "POST":
            return dict(pairs(request.query))
        try:
            sent = json.loads(request.body)
        except ValueError:
            raise BybitError(10001) from None
        if not isinstance(sent, dict):
            raise BybitError(10001)
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in sent.items()}

    def _authenticate(self, request: Request, permission: str) -> None:
        """The signature covers timestamp, key, window and payload (v5 docs, Integration guide)."""
        headers = request.headers
        credential = self.credentials.get(headers.get("x-bapi-api-key", ""))
        if credential is None:
            raise BybitError(10003)
        stamp, window = headers.get("x-bapi-timestamp", ""), headers.get("x-bapi-recv-window", "")
        if not stamp.isdigit() or not window.isdigit():
            raise BybitError(10001)
        payload = request.body if request.method == "POST" else request.query
        signed = f"{stamp}{credential.key}{window}{payload}".encode()
        expected = hmac.new(credential.secret.encode(), signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, headers.get("x-bapi-sign", "")):
            raise BybitError(10004)
        now = self.clock.now_ms()
        if not now - int(window) <= int(stamp) < now + AHEAD_MS:
            raise BybitError(10002)
        if not credential.permissions[permission]:
            raise BybitError(10005)
        request.credential = credential

    def _told(self, data: object, order_id: str = "") -> Answer:
        return result(data, self.clock.now_ms(), order_id=order_id)

    def _listed(self, rows: Sequence[Mapping[str, Any] | list[str]]) -> Answer:
        page = {"category": self.category, "list": list(rows), "nextPageCursor": ""}
        return self._told(page)

    def _account(self, request: Request) -> Account:
        return self.ledger.account(request.key.account)

    def _time(self, _: Request) -> Answer:
        now = self.clock.now_ms()
        return self._told({"timeSecond": str(now // 1000), "timeNano": str(now * 1_000_000)})

    def _instruments(self, request: Request) -> Answer:
        if request.params.get("category") != self.category or "status" in request.params:
            return self._listed([])
        known = INSTRUMENTS[self.category].values()
        return self._listed([instrument_info(self.category, item) for item in known])

    def _tickers(self, request: Request) -> Answer:
        item = instrument_of(request.params, self.category)
        market = self.ledger.markets[item.symbol]
        bid, ask = market.bids[:1], market.asks[:1]
        row = {
            "symbol": item.base + item.quote,
            "lastPrice": text(market.last),
            "bid1Price": text(bid[0].price) if bid else "",
            "bid1Size": text(bid[0].shown) if bid else "",
            "ask1Price": text(ask[0].price) if ask else "",
            "ask1Size": text(ask[0].shown) if ask else "",
        }
        return self._listed([row])

    def _order_book(self, request: Request) -> Answer:
        item = instrument_of(request.params, self.category)
        market, most = self.ledger.markets[item.symbol], int(request.params.get("limit", "1"))
        now = self.clock.now_ms()
        sides = {"b": market.bids, "a": market.asks}
        book = {
            name: [[text(one.price), text(one.shown)] for one in levels[:most]]
            for name, levels in sides.items()
        }
        return self._told({"s": item.base + item.quote, "ts": now, "u": 1, "seq": 1} | book)

    def _candles(self, request: Request) -> Answer:
        """Hours that open and close at the last price, newest first (v5 docs, Get Kline)."""
        item = instrument_of(request.params, self.category)
        if request.params.get("interval") != "60":
            raise BybitError(10001)
        last, newest = self.ledger.markets[item.symbol].last, self.clock.now_ms()
        prices = [text(one) for one in (last, last + item.tick, last - item.tick, last)]
        starts = [
            newest // HOUR_MS * HOUR_MS - age * HOUR_MS
            for age in range(int(request.params.get("limit", "200")))
        ]
        return self._listed([[str(at), *prices, "1", text(last)] for at in starts])

    def _key_info(self, request: Request) -> Answer:
        granted = request.key.permissions
        trade = ["SpotTrade"] if granted[TRADE] and self.category == SPOT else []
        contract = ["Order", "Position"] if granted[TRADE] and self.category == LINEAR else []
        wallet = ["AccountTransfer"] + (["Withdraw"] if granted[WITHDRAW] else [])
        return self._told(
            {
                "readOnly": 0 if granted[TRADE] else 1,
                "permissions": {"Spot": trade, "ContractTrade": contract, "Wallet": wallet},
                "ips": ["203.0.113.7"] if granted[BOUND] else ["*"],
                "uta": 1,
            }
        )

    def _account_info(self, _: Request) -> Answer:
        mode = "ISOLATED_MARGIN" if self.isolated else "REGULAR_MARGIN"
        return self._told({"marginMode": mode, "unifiedMarginStatus": 6})

    def _wallet(self, request: Request) -> Answer:
        self.ledger.advance()
        held = self._account(request).balances
        coins = []
        for asset, balance in held.items():
            if self.category == LINEAR and asset in UNSEEN_COINS:
                continue
            locked = balance.locked if self.category == SPOT else Decimal(0)
            total = balance.total if self.category == SPOT else self._cash(request, balance.total)
            coins.append(
                {
                    "coin": asset,
                    "walletBalance": text(total),
                    "locked": text(locked),
                    "totalOrderIM": "0",
                    "totalPositionIM": "0",
                }
            )
        return self._told({"list": [{"accountType": "UNIFIED", "coin": coins}]})

    def _cash(self, request: Request, total: Decimal) -> Decimal:
        """A perpetual is not paid for: what the ledger paid for the open part comes back."""
        for item in INSTRUMENTS[LINEAR].values():
            held, entry, _ = position(self.ledger, request.key.account, item.symbol)
            total += held * entry
        return total

    def _positions(self, request: Request) -> Answer:
        self.ledger.advance()
        wanted = request.params.get("symbol")
        rows = []
        coin = request.params.get("settleCoin")
        if wanted is None and coin is None:
            raise BybitError(10001, "symbol or settleCoin is required")
        for name, item in INSTRUMENTS[self.category].items():
            if coin not in (None, item.quote):
                continue
            held, entry, _ = position(self.ledger, request.key.account, item.symbol)
            if wanted not in (None, name) or not (held or wanted):
                continue
            row = {
                "symbol": name,
                "side": "Buy" if held > 0 else "Sell" if held else "",
                "size": text(abs(held)),
                "avgPrice": text(entry),
                "leverage": self.leverage.get(name, "10"),
                "tradeMode": 0,
                "autoAddMargin": 0,
            }
            sides = (1, 2) if self.hedged else (0,)
            rows += [row | {"positionIdx": index} for index in sides]
        return self._listed(rows)

    def pay_funding(self, symbol: str, amount: str, at: int) -> None:
        """Beside each payment stands a settlement that is none."""
        log = {"symbol": symbol, "currency": "USDT", "type": "SETTLEMENT", "cashFlow": "0"}
        log |= {"category": self.category, "transactionTime": str(at)}
        for funding in (amount, ""):
            number = f"592324_{symbol}_{len(self.funding)}"
            self.funding.append(log | {"id": number, "funding": funding})

    def _transactions(self, request: Request) -> Answer:
        """Newest first, at most seven days (v5 docs, Get Transaction Log)."""
        params = request.params
        start, end = int(params["startTime"]), int(params["endTime"])
        if end - start > 7 * 86_400_000 or params.get("accountType") != "UNIFIED":
            raise BybitError(10001)
        kind, limit = params.get("type"), int(params.get("limit", 20))
        found = [
            row
            for row in reversed(self.funding)
            if start <= int(row["transactionTime"]) <= end and kind in (None, row["type"])
        ]
        offset = int(params.get("cursor") or 0)
        cursor = str(offset + limit) if offset + limit < len(found) else ""
        page = {"list": found[offset : offset + limit], "nextPageCursor": cursor}
        return self._told(page)

    def _set_leverage(self, request: Request) -> Answer:
        params = request.params
        instrument_of(params, self.category)
        if params.get("buyLeverage") != params.get("sellLeverage") or self.category != LINEAR:
            raise BybitError(10001)
        if int(params["buyLeverage"]) > 100:
            raise BybitError(110013, "Cannot set leverage due to risk limit level.")
        if self.leverage.get(params["symbol"], "10") == params["buyLeverage"]:
            raise BybitError(110043, "Set leverage has not been modified.")
        self.leverage[params["symbol"]] = params["buyLeverage"]
        return self._told({})

    def _named(self, request: Request, orders: Sequence[Order]) -> list[Order]:
        params = request.params
        if "symbol" in params:
            symbol = instrument_of(params, self.category).symbol
            orders = [order for order in orders if order.spec.instrument.symbol == symbol]
        if "settleCoin" in params:
            orders = [o for o in orders if o.spec.instrument.quote == params["settleCoin"]]
        if "orderId" in params:
            return [order for order in orders if order.id == params["orderId"]]
        if "orderLinkId" in params:
            return [order for order in orders if order.spec.client_id == params["orderLinkId"]]
        return list(orders)

    def _realtime(self, request: Request) -> Answer:
        """Working orders; named ones also while recently closed (v5 docs, Get Open Orders)."""
        account = self._account(request)
        named = "orderId" in request.params or "orderLinkId" in request.params
        orders = list(account.orders.values()) if named else list(account.open.values())
        visible = self.ledger.visible(self._named(request, orders))
        return self._listed([order_row(order) for order in visible])

    def _history(self, request: Request) -> Answer:
        orders = [o for o in self._account(request).orders.values() if not o.live]
        visible = self.ledger.visible(self._named(request, orders))
        return self._listed([order_row(order) for order in visible])

    def _executions(self, request: Request) -> Answer:
        self.ledger.advance()
        params, now = request.params, self.clock.now_ms()
        trades = self._account(request).trades
        if "symbol" in params:
            trades = self._account(request).trades_by_symbol[
                instrument_of(params, self.category).symbol
            ]
        start, end = int(params.get("startTime", 0)), int(params.get("endTime", now + 1))
        wanted = params.get("orderId")
        found = [
            trade
            for trade in trades
            if start <= trade.time <= end
            and wanted in (None, trade.order.id)
            and trade.order.visible_at <= now
        ]
        times = 2 if request.doubles_fills else 1
        limit, offset = int(params.get("limit", 50)), int(params.get("cursor") or 0)
        newest = list(reversed(found))
        page = newest[offset : offset + limit]
        cursor = str(offset + limit) if offset + limit < len(newest) else ""
        rows = [trade_row(trade) for trade in page for _ in range(times)]
        return self._told({"category": self.category, "list": rows, "nextPageCursor": cursor})

    def _create(self, request: Request) -> Answer:
        if request.params.get("category") != self.category:
            raise BybitError(10001, "category invalid")
        if self.hedged and request.params.get("positionIdx", "0") == "0":
            raise BybitError(10001, "position idx not match position mode")
        account = request.key.account
        spec = read_order(request.params, self.category, account, self.ledger)
        spec.fill_delay_ms = request.fill_delay_ms
        try:
            order = self.ledger.place(spec)
        except Refused as refused:
            if refused.reason is not Reason.WOULD_TAKE or self.category == SPOT:
                raise
            spec.post_only = False
            order = self._place_and_cancel(spec)
        data = {"orderId": order.id, "orderLinkId": spec.client_id}
        return self._told(data, order_id=order.id)

    def _place_and_cancel(self, spec: Any) -> Order:
        """On contracts a post-only order that would take is taken in, then cancelled."""
        spec.fill_delay_ms = 1 << 40
        order = self.ledger.place(spec)
        self.ledger.cancel(order)
        return order

    def _cancel(self, request: Request) -> Answer:
        """On spot of one kind only, `Order` unless told otherwise (v5 docs, Cancel Order)."""
        if not ({"orderId", "orderLinkId"} & set(request.params)):
            raise BybitError(10001, "orderId or orderLinkId is required")
        kind = request.params.get("orderFilter", "Order")
        if self.category == SPOT and kind not in KINDS:
            raise BybitError(10001, "orderFilter invalid")
        found = [
            o
            for o in self._named(request, [*self._account(request).open.values()])
            if o.live and (self.category != SPOT or kind_of(o) == kind)
        ]
        if not found:
            raise Refused(Reason.UNKNOWN_ORDER)
        self.ledger.cancel(found[0])
        return self._told({"orderId": found[0].id, "orderLinkId": found[0].spec.client_id})
