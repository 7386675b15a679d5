"""Alpaca's endpoints: routing, keys, orders, activities, account, clock and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from tests.venues.alpaca import answers, rules
from tests.venues.alpaca.rules import AlpacaError
from tests.venues.clock import Clock
from tests.venues.credentials import ALPACA_KEY, ALPACA_SECRET, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.orders import Account, Order, Refused, Trade
from tests.venues.venue import Answer, Request, Venue, pairs, reply

HOUR_MS = 3_600_000
NO_CONTENT = 204


@dataclass(frozen=True, slots=True)
class Route:
    handler: Callable[[Request], Answer]
    endpoint: Endpoint


class Alpaca(Venue):
    """One account with shares and crypto; the stock market is open until it is closed."""

    def __init__(self, clock: Clock) -> None:
        self.name = "alpaca"
        self.clock = clock
        self.ledger = Ledger(rules.HOUSE, clock, IdRule.FOREVER)
        self.is_open = True
        key = Credential(ALPACA_KEY, ALPACA_SECRET, permissions=self.default_permissions())
        self.credentials = {key.key: key}

    def _route(self, request: Request) -> Route | None:
        query, public = Endpoint.QUERY, Endpoint.PUBLIC
        path = request.path
        if path == "/v2/orders":
            if request.method == "POST":
                return Route(self._create, Endpoint.ORDER)
            return Route(self._open_orders, query)
        if path.startswith("/v2/orders/"):
            if request.method == "DELETE":
                return Route(self._cancel, Endpoint.CANCEL)
            return Route(self._order, query)
        if path.startswith("/v2/assets/"):
            return Route(self._asset, public)
        if path.startswith("/v2/stocks/"):
            return Route(self._bars if path.endswith("/bars") else self._stock, public)
        return {
            "/v2/orders:by_client_order_id": Route(self._by_client_id, query),
            "/v2/account": Route(self._account, query),
            "/v2/account/activities/FILL": Route(self._activities, query),
            "/v2/positions": Route(self._positions, query),
            "/v2/clock": Route(self._clock, public),
            "/v1beta3/crypto/us/snapshots": Route(self._coins, public),
            "/v1beta3/crypto/us/latest/orderbooks": Route(self._coin_books, public),
            "/v1beta3/crypto/us/bars": Route(self._coin_bars, public),
        }.get(path)

    def default_permissions(self) -> dict[str, bool]:
        names = ("trading_blocked", "account_blocked", "trade_suspended_by_user")
        return dict.fromkeys((*names, "transfers_blocked"), False)

    def owns(self, path: str) -> bool:
        return path.startswith(("/v2/", "/v1beta3/"))

    def endpoint(self, request: Request) -> Endpoint:
        route = self._route(request)
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        return AlpacaError(int(code)).answer()

    def throttle(self, status: int) -> Answer:
        return reply({"message": "too many requests."}, status=status, error="throttled")

    def admit(self, request: Request) -> Answer | None:
        request.params = dict(pairs(request.query))
        headers = request.headers
        credential = self.credentials.get(headers.get("apca-api-key-id", ""))
        if credential is None or credential.secret != headers.get("apca-api-secret-key"):
            return AlpacaError(40110000).answer()
        request.credential = credential
        return None

    def handle(self, request: Request) -> Answer:
        route = self._route(request)
        if route is None:
            return reply({"message": "endpoint not found."}, status=404, error="HTTP 404")
        try:
            return route.handler(request)
        except AlpacaError as error:
            return error.answer()
        except Refused as refused:
            return AlpacaError(rules.REFUSALS[refused.reason]).answer()

    def _mine(self, request: Request) -> Account:
        return self.ledger.account(request.key.account)

    def _create(self, request: Request) -> Answer:
        form = rules.read_form(request)
        request.params = dict(form.fields)
        blocks = set(request.key.permissions) - {"transfers_blocked"}
        if any(request.key.permissions[name] for name in blocks):
            raise AlpacaError(40310000, "account is restricted")
        rules.check_form(form)
        waits = 0 if self.is_open or form.is_coin else HOUR_MS
        last = self.ledger.markets[form.instrument.symbol].last
        delay = max(waits, request.fill_delay_ms)
        order = self.ledger.place(rules.spec_of(form, request.key.account, last, delay))
        # an order is acknowledged before it is matched
        row = answers.order_row(order) | {
            "status": "pending_new", "filled_qty": "0", "filled_avg_price": None, "filled_at": None,
        }  # fmt: skip
        return reply(row, order_id=order.id)

    def _found(self, request: Request) -> Order:
        order = self._mine(request).orders.get(unquote(request.path.rpartition("/")[2]))
        if order is None or not self.ledger.visible([order]):
            raise AlpacaError(40410000)
        return order

    def _order(self, request: Request) -> Answer:
        return reply(answers.order_row(self._found(request)))

    def _by_client_id(self, request: Request) -> Answer:
        named = self._mine(request).by_client_id.get(request.params.get("client_order_id", ""), [])
        seen = self.ledger.visible(named)
        if not seen:
            raise AlpacaError(40410000)
        return reply(answers.order_row(seen[-1]))

    def _open_orders(self, request: Request) -> Answer:
        wanted = request.params.get("symbols")
        found = self.ledger.visible(self._mine(request).open.values())
        listed = [answers.order_row(order) for order in found]
        return reply([row for row in listed if wanted in (None, row["symbol"])])

    def _cancel(self, request: Request) -> Answer:
        order = self._found(request)
        if not order.live:
            state = answers.WORDS[order.status]
            raise AlpacaError(42210000, f'order is already in "{state}" state')
        self.ledger.cancel(order)
        return Answer(NO_CONTENT, b"")

    def _activities(self, request: Request) -> Answer:
        params = request.params
        self.ledger.advance()
        now = self.clock.now_ms()
        trades = [one for one in self._mine(request).trades if one.order.visible_at <= now]
        if "order_id" in params:
            trades = [one for one in trades if one.order.id == params["order_id"]]
        if "after" in params:
            after = datetime.fromisoformat(params["after"]).timestamp() * 1000
            trades = [one for one in trades if one.time > after]
        return reply([answers.activity_row(one) for one in self._page(trades, params)])

    def _page(self, trades: Sequence[Trade], params: dict[str, str]) -> list[Trade]:
        listed = list(trades)
        if params.get("direction", "desc") == "desc":
            listed.reverse()
        ids = [answers.activity_id(one) for one in listed]
        if params.get("page_token") in ids:
            listed = listed[ids.index(params["page_token"]) + 1 :]
        return listed[: int(params.get("page_size", "100"))]

    def _account(self, request: Request) -> Answer:
        cash = self._mine(request).balances["USD"]
        row: dict[str, object] = {
            "id": "1d9eed04-be39-4e01-9b84-a48ac5bbafcf",
            "account_number": "PALPACA_123",
            "status": "ACTIVE",
            "crypto_status": "ACTIVE",
            "currency": "USD",
            "cash": answers.text(cash.total),
            "buying_power": answers.text(cash.free * 2),
            "non_marginable_buying_power": answers.text(cash.free),
            "shorting_enabled": True,
        }
        return reply(row | request.key.permissions)

    def _positions(self, request: Request) -> Answer:
        account = self._mine(request)
        held = [
            m for m in self.ledger.markets.values() if account.balances[m.instrument.base].total
        ]
        return reply([answers.position_row(account, market) for market in held])

    def _clock(self, request: Request) -> Answer:
        now = self.clock.now_ms()
        later = [answers.stamp(now + HOUR_MS), answers.stamp(now + 20 * HOUR_MS)]
        closing, opening = later if self.is_open else later[::-1]
        return reply(
            {
                "timestamp": answers.stamp(now),
                "is_open": self.is_open,
                "next_open": opening,
                "next_close": closing,
            }
        )

    def _asset(self, request: Request) -> Answer:
        wanted = unquote(request.path.removeprefix("/v2/assets/"))
        if wanted not in rules.INSTRUMENTS:
            raise AlpacaError(40410000, f"asset not found for {wanted}")
        return reply(answers.asset_row(rules.INSTRUMENTS[wanted]))

    def _snapshot(self, wanted: str) -> dict[str, object]:
        market = self.ledger.markets[rules.INSTRUMENTS[wanted].symbol]
        return answers.snapshot(market, self.clock.now_ms())

    def _stock(self, request: Request) -> Answer:
        wanted = unquote(request.path.split("/")[3])
        if wanted not in rules.INSTRUMENTS or "/" in wanted:
            return reply({"message": f"invalid symbol: {wanted}"}, status=400, error="symbol")
        return reply({"symbol": wanted, **self._snapshot(wanted)})

    def _hours(self, wanted: str, count: int) -> list[dict[str, object]]:
        """Newest first, as asked."""
        last = float(self.ledger.markets[rules.INSTRUMENTS[wanted].symbol].last)
        now = self.clock.now_ms() // HOUR_MS * HOUR_MS
        bar = {"o": last, "h": last + 1, "l": last - 1, "c": last, "v": 10}
        return [{"t": answers.stamp(now - HOUR_MS * back), **bar} for back in range(count)]

    def _bars(self, request: Request) -> Answer:
        wanted = unquote(request.path.split("/")[3])
        if wanted not in rules.INSTRUMENTS or request.params.get("timeframe") != "1Hour":
            return reply({"message": f"invalid symbol: {wanted}"}, status=400, error="symbol")
        bars = self._hours(wanted, int(request.params["limit"]))
        return reply({"bars": bars, "symbol": wanted, "next_page_token": None})

    def _coin_bars(self, request: Request) -> Answer:
        wanted = request.params.get("symbols", "")
        known = wanted in rules.INSTRUMENTS
        bars = {wanted: self._hours(wanted, int(request.params["limit"]))} if known else {}
        return reply({"bars": bars, "next_page_token": None})

    def _coins(self, request: Request) -> Answer:
        wanted = [one for one in request.params.get("symbols", "").split(",") if "/" in one]
        known = [one for one in wanted if one in rules.INSTRUMENTS]
        return reply({"snapshots": {one: self._snapshot(one) for one in known}})

    def _coin_books(self, request: Request) -> Answer:
        wanted = [one for one in request.params.get("symbols", "").split(",") if "/" in one]
        known = {one: rules.INSTRUMENTS[one].symbol for one in wanted if one in rules.INSTRUMENTS}
        now, markets = self.clock.now_ms(), self.ledger.markets
        books = {one: answers.order_book(markets[symbol], now) for one, symbol in known.items()}
        return reply({"orderbooks": books})
