"""Kraken's endpoints: routing, signatures, nonces, permissions and order entry."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.venues.clock import Clock
from tests.venues.credentials import KRAKEN_KEY, KRAKEN_SECRET, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.kraken import marketdata
from tests.venues.kraken.account import AccountDesk, account_of, named_orders, result
from tests.venues.kraken.rules import (
    HOUSE,
    PAIRS,
    REFUSALS,
    KrakenError,
    Pair,
    invalid,
    pair_of,
)
from tests.venues.kraken.trading import USERREF, check_deadline, flag, read_order, sentence
from tests.venues.ledger import Ledger
from tests.venues.orders import Order, Reason, Refused
from tests.venues.venue import Answer, Request, Venue, page, pairs

PUBLIC, PRIVATE = "/0/public/", "/0/private/"
FUNDS, OPEN, CLOSED = "query-funds", "query-open-trades", "query-closed-trades"
MODIFY, CLOSE = "modify-trades", "close-trades"
OTHER_PERMISSIONS = ("deposit-funds", "withdraw-funds", "query-ledger", "export-data")


@dataclass(frozen=True, slots=True)
class Route:
    """One private endpoint; any one of `permissions` lets a key use it, none means all may."""

    handler: Callable[[Request], Answer]
    permissions: tuple[str, ...] = ()
    endpoint: Endpoint = Endpoint.QUERY


class Kraken(Venue):
    """Kraken spot."""

    name = "kraken"

    def __init__(self, clock: Clock, id_rule: IdRule) -> None:
        self.clock = clock
        self.ledger = Ledger(HOUSE, clock, id_rule)
        key = Credential(KRAKEN_KEY, KRAKEN_SECRET, permissions=self.default_permissions())
        self.credentials = {key.key: key}
        self.public: dict[str, Callable[[Request], Answer]] = {
            "Time": lambda _: result(marketdata.clock(self.clock.now_ms())),
            "SystemStatus": lambda _: result(marketdata.status(self.clock.now_ms())),
            "Assets": lambda _: result(marketdata.assets()),
            "AssetPairs": self._asset_pairs,
            "Ticker": self._ticker,
            "Depth": self._depth,
            "OHLC": self._candles,
        }
        self.private = self._private_routes()

    def _private_routes(self) -> dict[str, Route]:
        desk = AccountDesk(self.ledger)
        return {
            "Balance": Route(desk.balance, (FUNDS,)),
            "BalanceEx": Route(desk.extended_balance, (FUNDS,)),
            "TradeBalance": Route(desk.trade_balance, (FUNDS,)),
            "OpenOrders": Route(desk.open_orders, (OPEN,)),
            "ClosedOrders": Route(desk.closed_orders, (CLOSED,)),
            "QueryOrders": Route(desk.query_orders, (OPEN, CLOSED)),
            "TradesHistory": Route(desk.trades_history, (OPEN, CLOSED)),
            "QueryTrades": Route(desk.query_trades, (OPEN, CLOSED)),
            "GetApiKeyInfo": Route(desk.key_info),
            "GetWebSocketsToken": Route(self._stream_token),
            "AddOrder": Route(self._add_order, (MODIFY,), Endpoint.ORDER),
            "CancelOrder": Route(self._cancel_order, (MODIFY, CLOSE), Endpoint.CANCEL),
            "CancelAll": Route(self._cancel_all, (MODIFY, CLOSE), Endpoint.CANCEL),
        }

    def _stream_token(self, request: Request) -> Answer:
        """A token for the private WebSocket, good for a quarter of an hour."""
        digest = hashlib.sha256(f"{request.key.key}:{request.key.nonce}".encode()).digest()
        return result({"token": base64.b64encode(digest).decode(), "expires": 900})

    def default_permissions(self) -> dict[str, bool]:
        granted = dict.fromkeys((FUNDS, OPEN, CLOSED, MODIFY, CLOSE), True)
        return granted | dict.fromkeys(OTHER_PERMISSIONS, False)

    def owns(self, path: str) -> bool:
        return path.startswith((PUBLIC, PRIVATE))

    def _route(self, request: Request) -> Route | None:
        if request.method != "POST" or not request.path.startswith(PRIVATE):
            return None
        return self.private.get(request.path.removeprefix(PRIVATE))

    def endpoint(self, request: Request) -> Endpoint:
        route = self._route(request)
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        return KrakenError(code).answer()

    def throttle(self, status: int) -> Answer:
        return page(status, "Too Many Requests")

    def admit(self, request: Request) -> Answer | None:
        route = self._route(request)
        try:
            request.params = self._parameters(request)
            if route is not None:
                self._authenticate(request, route.permissions)
        except KrakenError as error:
            return error.answer()
        return None

    def handle(self, request: Request) -> Answer:
        route = self._route(request)
        handler = route.handler if route else self.public.get(request.path.removeprefix(PUBLIC))
        try:
            if handler is None:
                raise KrakenError("EGeneral:Unknown method")
            return handler(request)
        except KrakenError as error:
            return error.answer()
        except Refused as refused:
            return self.refuse(REFUSALS[refused.reason])

    def _parameters(self, request: Request) -> dict[str, str]:
        if not request.headers.get("content-type", "").startswith("application/json"):
            return dict(pairs(request.query, request.body))
        try:
            sent = json.loads(request.body)
        except ValueError:
            raise invalid() from None
        if not isinstance(sent, dict):
            raise invalid()
        return {name: _text(value) for name, value in sent.items() if value is not None}

    def _authenticate(self, request: Request, permissions: tuple[str, ...]) -> None:
        """Key, signature, nonce, permission; the nonce is used up even by a refused request."""
        credential = self.credentials.get(request.headers.get("api-key", ""))
        if credential is None:
            raise KrakenError("EAPI:Invalid key")
        nonce = request.params.get("nonce", "")
        expected = signature(credential.secret, request.path, nonce, request.body)
        if not hmac.compare_digest(expected, request.headers.get("api-sign", "")):
            raise KrakenError("EAPI:Invalid signature")
        if not (nonce.isascii() and nonce.isdigit()) or int(nonce) <= credential.nonce:
            raise KrakenError("EAPI:Invalid nonce")
        credential.nonce = int(nonce)
        request.credential = credential
        if permissions and not any(credential.permissions[name] for name in permissions):
            raise KrakenError("EGeneral:Permission denied")

    def _pairs(self, request: Request) -> list[Pair] | None:
        names = request.params.get("pair")
        return [pair_of(name) for name in names.split(",")] if names else None

    def _pair(self, request: Request) -> Pair:
        found = self._pairs(request)
        if found is None:
            raise invalid()
        return found[0]

    def _asset_pairs(self, request: Request) -> Answer:
        return result(marketdata.asset_pairs(self._pairs(request)))

    def _ticker(self, request: Request) -> Answer:
        wanted = self._pairs(request) or list(PAIRS.values())
        markets = self.ledger.markets
        rows = {p.id: marketdata.ticker(p, markets[p.instrument.symbol]) for p in wanted}
        return result(rows)

    def _depth(self, request: Request) -> Answer:
        pair, count = self._pair(request), request.params.get("count", "100")
        if not count.isdigit():
            raise invalid("count")
        market = self.ledger.markets[pair.instrument.symbol]
        return result({pair.id: marketdata.depth(pair, market, int(count), self.clock.now_ms())})

    def _candles(self, request: Request) -> Answer:
        pair, interval = self._pair(request), request.params.get("interval", "1")
        if not interval.isdigit():
            raise invalid()
        market = self.ledger.markets[pair.instrument.symbol]
        rows = marketdata.candles(pair, market, int(interval), self.clock.now_ms())
        return result({pair.id: rows, "last": rows[-2][0]})

    def _add_order(self, request: Request) -> Answer:
        check_deadline(request.params, self.clock.now_ms())
        spec = read_order(request, request.key.account, self.ledger)
        dry_run = flag(request.params, "validate")
        order = self.ledger.place(spec, dry_run=dry_run)
        told: dict[str, object] = {"descr": {"order": sentence(order)}}
        if dry_run:
            return result(told)
        return result(told | {"txid": [order.id]}, order_id=order.id)

    def _cancel_order(self, request: Request) -> Answer:
        account, params = account_of(self.ledger, request), request.params
        named = named_orders(account, params)
        if named is None:
            txid = params.get("txid", "")
            if not txid:
                raise invalid("txid")
            by_userref = named_orders(account, {"userref": txid}) if USERREF.fullmatch(txid) else []
            named = [account.orders[txid]] if txid in account.orders else by_userref or []
        return result({"count": self._cancel(named)})

    def _cancel_all(self, request: Request) -> Answer:
        working = list(account_of(self.ledger, request).open.values())
        return result({"count": self._cancel(working) if working else 0})

    def _cancel(self, orders: list[Order]) -> int:
        self.ledger.advance()
        working = [order for order in orders if order.live]
        if not working:
            raise Refused(Reason.UNKNOWN_ORDER)
        for order in working:
            self.ledger.cancel(order)
        return len(working)


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def signature(secret: str, path: str, nonce: str, body: str) -> str:
    """docs.kraken.com, Spot REST authentication: HMAC-SHA512 over path and SHA-256 digest."""
    digest = hashlib.sha256((nonce + body).encode()).digest()
    mac = hmac.new(base64.b64decode(secret), path.encode() + digest, hashlib.sha512)
    return base64.b64encode(mac.digest()).decode()
