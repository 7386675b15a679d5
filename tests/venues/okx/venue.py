"""OKX's endpoints: routing, signatures, permissions, order entry and account queries.

One object serves one kind of instrument with a ledger of its own, opened by a key of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.venues.bybit.trading import position
from tests.venues.clock import Clock
from tests.venues.credentials import OKX_KEYS, OKX_PASSPHRASE, OKX_SECRET, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.okx import trading
from tests.venues.okx.rules import (
    HOUSES,
    INSTRUMENTS,
    REFUSALS,
    SPOT,
    SWAP,
    UNSEEN_COINS,
    OkxError,
    instrument_info,
    result,
    text,
    unit,
)
from tests.venues.okx.trading import instrument_of, is_algo, plain_id
from tests.venues.orders import Account, Order, OrderSpec, Reason, Refused
from tests.venues.venue import Answer, Request, Venue, pairs

PREFIX = "/api/v5/"
WINDOW_MS = 30_000
HOUR_MS = 3_600_000
READ, TRADE, WITHDRAW, BOUND = "read_only", "trade", "withdraw", "ip_bound"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint; `permission` empty means public, so unsigned."""

    handler: Callable[[Request], Answer]
    endpoint: Endpoint
    permission: str = ""


class Okx(Venue):
    """One kind of instrument of an OKX account."""

    def __init__(self, clock: Clock, id_rule: IdRule, kind: str) -> None:
        self.name = "okx" if kind == SPOT else "okx-swap"
        self.kind = kind
        self.clock = clock
        self.ledger = Ledger(HOUSES[kind], clock, id_rule)
        self.hedged = False
        self.funding: list[dict[str, str]] = []
        self.leverage: dict[tuple[str, str], str] = {}
        key = Credential(OKX_KEYS[kind], OKX_SECRET, permissions=self.default_permissions())
        key.passphrase = OKX_PASSPHRASE
        self.credentials = {key.key: key}
        self.routes = self._routes()

    def _routes(self) -> dict[tuple[str, str], Route]:
        public, query = Endpoint.PUBLIC, Endpoint.QUERY
        order, cancel = Endpoint.ORDER, Endpoint.CANCEL
        named = {
            ("GET", "public/time"): Route(self._time, public),
            ("GET", "public/instruments"): Route(self._instruments, public),
            ("GET", "market/ticker"): Route(self._ticker, public),
            ("GET", "market/books"): Route(self._books, public),
            ("GET", "market/candles"): Route(self._candles, public),
            ("GET", "account/config"): Route(self._config, query, READ),
            ("GET", "account/balance"): Route(self._balance, query, READ),
            ("GET", "account/leverage-info"): Route(self._leverage_info, query, READ),
            ("POST", "account/set-leverage"): Route(self._set_leverage, query, TRADE),
            ("GET", "account/positions"): Route(self._positions, query, READ),
            ("GET", "account/bills-archive"): Route(self._bills, query, READ),
            ("GET", "trade/order"): Route(self._order, query, READ),
            ("GET", "trade/orders-pending"): Route(self._pending, query, READ),
            ("GET", "trade/order-algo"): Route(self._algo, query, READ),
            ("GET", "trade/orders-algo-pending"): Route(self._algo_pending, query, READ),
            ("GET", "trade/fills"): Route(self._fills, query, READ),
            ("GET", "trade/fills-history"): Route(self._fills, query, READ),
            ("POST", "trade/order"): Route(self._place, order, TRADE),
            ("POST", "trade/order-algo"): Route(self._place_algo, order, TRADE),
            ("POST", "trade/cancel-order"): Route(self._cancel, cancel, TRADE),
            ("POST", "trade/cancel-algos"): Route(self._cancel_algos, cancel, TRADE),
        }
        return {(method, PREFIX + path): route for (method, path), route in named.items()}

    def default_permissions(self) -> dict[str, bool]:
        return {READ: True, TRADE: True, WITHDRAW: False, BOUND: False}

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIX)

    def claims(self, request: Request) -> bool:
        if not self.owns(request.path):
            return False
        key = request.headers.get("ok-access-key")
        if key is not None:
            return key in self.credentials or self.kind == SPOT
        return ("SWAP" in request.query) is (self.kind == SWAP)

    def endpoint(self, request: Request) -> Endpoint:
        route = self.routes.get((request.method, request.path))
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        return OkxError(int(code)).answer()

    def throttle(self, status: int) -> Answer:
        return OkxError(50011).answer(status)

    def admit(self, request: Request) -> Answer | None:
        route = self.routes.get((request.method, request.path))
        try:
            request.params = self._parameters(request)
            if route is not None and route.permission:
                self._authenticate(request, route.permission)
        except OkxError as error:
            return error.answer()
        return None

    def handle(self, request: Request) -> Answer:
        route = self.routes.get((request.method, request.path))
        if route is None:
            return Answer(404, b"", error="HTTP 404")
        try:
            return route.handler(request)
        except OkxError as error:
            return error.answer()
        except Refused as refused:
            return OkxError(REFUSALS.get(refused.reason, 51000), item=True).answer()

    def _parameters(self, request: Request) -> dict[str, str]:
        """The fields of the query or body; a list of one is read as that one."""
        if request.method != "POST":
            return dict(pairs(request.query))
        try:
            sent = json.loads(request.body)
        except ValueError:
            raise OkxError(51000) from None
        sent = sent[0] if isinstance(sent, list) and len(sent) == 1 else sent
        if not isinstance(sent, dict):
            raise OkxError(51000)
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in sent.items()}

    def _authenticate(self, request: Request, permission: str) -> None:
        """The signature covers timestamp, method, path and body (docs-v5, REST authentication)."""
        headers = request.headers
        credential = self.credentials.get(headers.get("ok-access-key", ""))
        if credential is None:
            raise OkxError(50111)
        if headers.get("ok-access-passphrase") != credential.passphrase:
            raise OkxError(50105)
        stamp = headers.get("ok-access-timestamp", "")
        target = request.path + (f"?{request.query}" if request.query else "")
        signed = f"{stamp}{request.method}{target}{request.body}".encode()
        mac = hmac.new(credential.secret.encode(), signed, hashlib.sha256).digest()
        if not hmac.compare_digest(
            base64.b64encode(mac).decode(), headers.get("ok-access-sign", "")
        ):
            raise OkxError(50113)
        at = datetime.fromisoformat(stamp).astimezone(UTC).timestamp() * 1000
        if abs(self.clock.now_ms() - at) > WINDOW_MS:
            raise OkxError(50102)
        if not credential.permissions[permission]:
            raise OkxError(50120)
        request.credential = credential

    def _account(self, request: Request) -> Account:
        return self.ledger.account(request.key.account)

    def _time(self, _: Request) -> Answer:
        return result({"ts": str(self.clock.now_ms())})

    def _instruments(self, request: Request) -> Answer:
        if request.params.get("instType") != self.kind:
            return result()
        return result(*(instrument_info(self.kind, i) for i in INSTRUMENTS[self.kind].values()))

    def _ticker(self, request: Request) -> Answer:
        item = instrument_of(request.params, self.kind)
        market = self.ledger.markets[item.symbol]
        bid, ask = market.bids[:1], market.asks[:1]
        row = {"instType": self.kind, "instId": request.params["instId"], "last": text(market.last)}
        row |= {
            "bidPx": text(bid[0].price) if bid else "",
            "askPx": text(ask[0].price) if ask else "",
        }
        return result(row | {"ts": str(self.clock.now_ms())})

    def _books(self, request: Request) -> Answer:
        item = instrument_of(request.params, self.kind)
        market, most = self.ledger.markets[item.symbol], int(request.params.get("sz", "1"))
        size = unit(self.kind, item)
        sides = {"bids": market.bids, "asks": market.asks}
        book = {
            name: [[text(one.price), text(one.shown / size), "0", "1"] for one in levels[:most]]
            for name, levels in sides.items()
        }
        return result(book | {"ts": str(self.clock.now_ms())})

    def _candles(self, request: Request) -> Answer:
        """Flat hours at the last price, newest first (docs-v5, GET / Candlesticks)."""
        market = self.ledger.markets[instrument_of(request.params, self.kind).symbol]
        if request.params.get("bar") != "1H":
            raise OkxError(51000, "Parameter bar error")
        newest, price = self.clock.now_ms() // HOUR_MS * HOUR_MS, text(market.last)
        most = int(request.params.get("limit", "100"))
        starts = [newest - age * HOUR_MS for age in range(most)]
        rows = [[str(at), *[price] * 4, *["1"] * 3, "01"[at < newest]] for at in starts]
        return result(*rows)

    def _config(self, request: Request) -> Answer:
        granted = request.key.permissions
        named = ",".join(name for name in (READ, TRADE, WITHDRAW) if granted[name])
        mode = "long_short_mode" if self.hedged else "net_mode"
        level = "1" if self.kind == SPOT else "2"
        address = "203.0.113.7" if granted[BOUND] else ""
        return result({"perm": named, "ip": address, "posMode": mode, "acctLv": level})

    def _balance(self, request: Request) -> Answer:
        self.ledger.advance()
        rows = []
        for asset, held in self._account(request).balances.items():
            if self.kind == SWAP and asset in UNSEEN_COINS:
                continue
            locked = held.locked if self.kind == SPOT else Decimal(0)
            total = held.total if self.kind == SPOT else self._cash(request, held.total)
            row = {"ccy": asset, "cashBal": text(total), "availBal": text(total - locked)}
            rows.append(row | {"frozenBal": text(locked), "eq": text(total)})
        return result({"details": rows, "uTime": str(self.clock.now_ms())})

    def _cash(self, request: Request, total: Decimal) -> Decimal:
        """A perpetual is not paid for: what the ledger paid for the open part comes back."""
        for item in INSTRUMENTS[SWAP].values():
            held, entry, _ = position(self.ledger, request.key.account, item.symbol)
            total += held * entry
        return total

    def _leverage_of(self, params: dict[str, str]) -> dict[str, str]:
        instrument_of(params, self.kind)
        where = params["instId"], params.get("mgnMode", "")
        if where[1] not in ("cross", "isolated") or self.kind == SPOT:
            raise OkxError(51000, "Parameter mgnMode error")
        lever = self.leverage.get(where, "3")
        return {"instId": where[0], "mgnMode": where[1], "posSide": "net", "lever": lever}

    def _leverage_info(self, request: Request) -> Answer:
        return result(self._leverage_of(request.params))

    def _set_leverage(self, request: Request) -> Answer:
        params = request.params
        self._leverage_of(params)
        if int(params["lever"]) > 100:
            raise OkxError(59102, "Leverage exceeds the maximum limit.")
        self.leverage[params["instId"], params["mgnMode"]] = params["lever"]
        return result(self._leverage_of(params))

    def _positions(self, request: Request) -> Answer:
        self.ledger.advance()
        rows = []
        for name, item in INSTRUMENTS[SWAP].items() if self.kind == SWAP else ():
            held, entry, _ = position(self.ledger, request.key.account, item.symbol)
            if held:
                row = {"instId": name, "instType": SWAP, "mgnMode": "cross", "avgPx": text(entry)}
                side = "long" if self.hedged else "net"
                rows.append(row | {"pos": text(held / unit(SWAP, item)), "posSide": side})
        return result(*rows)

    def pay_funding(self, symbol: str, amount: str, at: int) -> None:
        """Every second one is of an isolated position, whose own balance it changes."""
        number = len(self.funding)
        own, other = ("balChg", "posBalChg") if number % 2 == 0 else ("posBalChg", "balChg")
        bill = {"instId": symbol, "instType": SWAP, "ccy": "USDT", "type": "8", "ts": str(at)}
        self.funding.append(bill | {"billId": str(1000 + number), own: amount, other: "0"})

    def _bills(self, request: Request) -> Answer:
        params = request.params
        older = int(params.get("after", 1 << 62))
        found = [
            row
            for row in reversed(self.funding)
            if row["type"] == params.get("type", row["type"])
            and int(row["ts"]) >= int(params.get("begin", 0))
            and int(row["billId"]) < older
        ]
        return result(*found[: int(params.get("limit", 100))])

    def _named(self, request: Request, by: dict[str, Callable[[Order], str]]) -> Order:
        """The newest visible order the request names; raises OkxError."""
        for name, of in by.items():
            if request.params.get(name):
                orders = self.ledger.visible(reversed(self._account(request).orders.values()))
                found = [order for order in orders if of(order) == request.params[name]]
                if found:
                    return found[0]
                raise OkxError(51603)
        raise OkxError(51000)

    def _plain(self, request: Request) -> Order:
        instrument_of(request.params, self.kind)

        def client_id(o: Order) -> str:
            return "" if is_algo(o) else o.spec.client_id

        order = self._named(request, {"ordId": plain_id, "clOrdId": client_id})
        if is_algo(order) and order.working_at is None:
            raise OkxError(51603)
        return order

    def _order(self, request: Request) -> Answer:
        return result(trading.order_row(self.kind, self._plain(request)))

    def _algo_named(self, request: Request) -> Order:
        def algo_id(o: Order) -> str:
            return o.id if is_algo(o) else ""

        def client_id(o: Order) -> str:
            return o.spec.client_id if is_algo(o) else ""

        return self._named(request, {"algoId": algo_id, "algoClOrdId": client_id})

    def _algo(self, request: Request) -> Answer:
        return result(trading.algo_row(self.kind, self._algo_named(request)))

    def _pending(self, request: Request) -> Answer:
        self.ledger.advance()
        orders = [o for o in self._shown(request) if not is_algo(o) or o.working_at is not None]
        return result(*(trading.order_row(self.kind, order) for order in orders))

    def _algo_pending(self, request: Request) -> Answer:
        if request.params.get("ordType") != "conditional":
            raise OkxError(51000, "Parameter ordType error")
        self.ledger.advance()
        orders = [o for o in self._shown(request) if is_algo(o) and o.working_at is None]
        return result(*(trading.algo_row(self.kind, order) for order in orders))

    def _shown(self, request: Request) -> list[Order]:
        wanted = request.params.get("instId")
        symbol = instrument_of(request.params, self.kind).symbol if wanted else None
        visible = self.ledger.visible(self._account(request).open.values())
        return [o for o in visible if symbol in (None, o.spec.instrument.symbol)]

    def _fills(self, request: Request) -> Answer:
        self.ledger.advance()
        params, now = request.params, self.clock.now_ms()
        trades = self._account(request).trades
        symbol = instrument_of(params, self.kind).symbol if "instId" in params else None
        begin, wanted = int(params.get("begin", 0)), params.get("ordId")
        found = [
            trading.trade_row(self.kind, trade)
            for trade in reversed(trades)
            if trade.time >= begin
            and symbol in (None, trade.order.spec.instrument.symbol)
            and wanted in (None, plain_id(trade.order))
            and trade.order.visible_at <= now
        ]
        if "after" in params:
            found = [row for row in found if int(row["billId"]) < int(params["after"])]
        times = 2 if request.doubles_fills else 1
        page = found[: int(params.get("limit", 100))]
        return result(*(row for row in page for _ in range(times)))

    def _place(self, request: Request) -> Answer:
        spec = self._read(request, algo=False)
        try:
            order = self.ledger.place(spec)
        except Refused as refused:
            if refused.reason is not Reason.WOULD_TAKE:
                raise
            order = self._place_and_cancel(spec)
        row = {"ordId": order.id, "clOrdId": spec.client_id, "tag": "", "sCode": "0", "sMsg": ""}
        return result(row, order_id=order.id)

    def _place_and_cancel(self, spec: OrderSpec) -> Order:
        """A post-only order that would take is taken in, then cancelled (cancelSource 31)."""
        spec.post_only, spec.fill_delay_ms = False, 1 << 40
        order = self.ledger.place(spec)
        self.ledger.cancel(order)
        return order

    def _place_algo(self, request: Request) -> Answer:
        spec = self._read(request, algo=True)
        order = self.ledger.place(spec)
        row = {"algoId": order.id, "algoClOrdId": spec.client_id, "sCode": "0", "sMsg": ""}
        return result(row, order_id=order.id)

    def _read(self, request: Request, *, algo: bool) -> OrderSpec:
        if self.hedged and not request.params.get("posSide"):
            raise OkxError(51000, "Parameter posSide error", item=True)
        account = request.key.account
        spec = trading.read_order(request.params, self.kind, account, self.ledger, algo=algo)
        spec.fill_delay_ms = request.fill_delay_ms
        return spec

    def _cancel(self, request: Request) -> Answer:
        try:
            order = self._plain(request)
        except OkxError as error:
            raise OkxError(51400, item=True) if error.code == 51603 else error from None
        self.ledger.cancel(order)
        row: dict[str, Any] = {"ordId": plain_id(order), "clOrdId": order.spec.client_id}
        return result(row | {"sCode": "0", "sMsg": ""})

    def _cancel_algos(self, request: Request) -> Answer:
        try:
            order = self._algo_named(request)
        except OkxError as error:
            raise OkxError(51400, item=True) if error.code == 51603 else error from None
        if order.working_at is not None:
            raise Refused(Reason.UNKNOWN_ORDER)
        self.ledger.cancel(order)
        return result({"algoId": order.id, "sCode": "0", "sMsg": ""})
