"""OANDA's endpoints: routing, token, orders, transactions, positions, prices.

A market order the ledger can fill only in part is filled with that part; a resting one that is
filled in part ends there, as OANDA keeps no rest under the same id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import unquote

from tests.venues.clock import Clock
from tests.venues.credentials import OANDA_TOKEN, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.market import Instrument, Level, Market, Side
from tests.venues.oanda import rules
from tests.venues.oanda.rules import OandaError
from tests.venues.orders import ZERO, Account, Order, Refused, Status, Trade
from tests.venues.venue import Answer, Request, Venue, pairs, reply

Row = dict[str, object]
BASE = f"/v3/accounts/{rules.ACCOUNT}"
FILLED_IN, CANCELLED_IN = 1, 2
"""What is added to an order's id for the transaction that ended it."""


def stamp(milliseconds: int) -> str:
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}123Z"


def name_of(instrument: Instrument) -> str:
    return instrument.symbol.replace("/", "_")


def signed(order: Order, quantity: Decimal) -> str:
    return f"{quantity if order.spec.side is Side.BUY else -quantity:f}"


@dataclass(frozen=True, slots=True)
class Route:
    handler: Callable[[Request], Answer]
    endpoint: Endpoint


class Oanda(Venue):
    """One v20 account in dollars."""

    def __init__(self, clock: Clock) -> None:
        self.name = "oanda"
        self.clock = clock
        self.ledger = Ledger(rules.HOUSE, clock, IdRule.OPEN)
        self.hedged = False
        self.credentials = {OANDA_TOKEN: Credential(OANDA_TOKEN, "")}

    def _route(self, request: Request) -> Route | None:
        query, public, path = Endpoint.QUERY, Endpoint.PUBLIC, request.path
        if path.startswith("/v3/instruments/") and path.endswith("/candles"):
            return Route(self._candles, public)
        rest = path.removeprefix(BASE)
        if rest == "/orders":
            if request.method == "POST":
                return Route(self._create, Endpoint.ORDER)
            return Route(self._orders, query)
        if rest.startswith("/trades/"):
            return Route(self._trade, query)
        if rest.startswith("/orders/"):
            if request.method == "PUT" and rest.endswith("/cancel"):
                return Route(self._cancel, Endpoint.CANCEL)
            return Route(self._order, query)
        if rest.startswith("/transactions/") and not rest.endswith("/idrange"):
            return Route(self._transaction, query)
        return {
            "/summary": Route(self._summary, query),
            "/pendingOrders": Route(self._pending, query),
            "/openPositions": Route(self._positions, query),
            "/transactions": Route(self._pages, query),
            "/transactions/idrange": Route(self._id_range, query),
            "/instruments": Route(self._instruments, public),
            "/pricing": Route(self._pricing, public),
        }.get(rest)

    def default_permissions(self) -> dict[str, bool]:
        return {}

    def owns(self, path: str) -> bool:
        return path.startswith(("/v3/accounts", "/v3/instruments/"))

    def endpoint(self, request: Request) -> Endpoint:
        route = self._route(request)
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        return rules.rejected(code).answer()

    def throttle(self, status: int) -> Answer:
        return reply({"errorMessage": "Rate limit violation."}, status=status, error="throttled")

    def admit(self, request: Request) -> Answer | None:
        request.params = dict(pairs(request.query))
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        credential = self.credentials.get(token)
        if credential is None:
            said = {"errorMessage": "Insufficient authorization to perform request."}
            return reply(said, status=401, error="token")
        request.credential = credential
        return None

    def handle(self, request: Request) -> Answer:
        route = self._route(request)
        if route is None:
            return OandaError(404, "NO_SUCH_ENDPOINT").answer()
        self._keep_stops(self._mine(request))
        try:
            return route.handler(request)
        except OandaError as error:
            return error.answer()

    def _mine(self, request: Request) -> Account:
        return self.ledger.account(request.key.account)

    def _create(self, request: Request) -> Answer:
        sent = rules.read_order(request)
        request.params = {name: str(value) for name, value in sent.items()}
        instrument = rules.check(sent)
        units = Decimal(sent["units"])
        if sent["positionFill"] == "REDUCE_ONLY" and sent["type"] == "MARKET":
            held = self._held(self._mine(request), instrument)
            if held * units >= 0 or abs(units) > abs(held):
                raise rules.rejected("REDUCE_ONLY_WOULD_OPEN")
        try:
            spec = rules.spec_of(sent, request.key.account, request.fill_delay_ms)
            order = self.ledger.place(spec)
        except Refused as refused:
            raise rules.rejected(rules.REASONS[refused.reason]) from None
        body: Row = {
            "orderCreateTransaction": {
                "id": order.id,
                "type": f"{sent['type']}_ORDER",
                "clientExtensions": sent.get("clientExtensions"),
            },
            "lastTransactionID": order.id,
        }
        if order.filled:
            body["orderFillTransaction"] = self._fill(order)
        elif not order.live:
            body["orderCancelTransaction"] = self._ending(order)
        return reply(body, status=201, order_id=order.id)

    def _keep_stops(self, account: Account) -> None:
        """A trade gets the stop it was opened with, and takes it along when it is closed."""
        self.ledger.advance()
        orders = list(account.orders.values())
        hung = {one.spec.details.get("tradeID"): one for one in orders}
        for order in orders:
            stop = hung.get(order.id)
            spec = rules.stop_on(order) if order.filled and stop is None else None
            if spec is not None:
                self.ledger.place(spec)
            elif stop is not None and stop.live and not self._left_of(account, order):
                self.ledger.cancel(stop)

    def _left_of(self, account: Account, order: Order) -> Decimal:
        """What of the trade this order opened is still held, with its side; there is one at a time."""
        held = self._held(account, order.spec.instrument)
        sign = 1 if order.spec.side is Side.BUY else -1
        return min(abs(held), order.filled) * sign if held * sign > 0 else ZERO

    def _trade(self, request: Request) -> Answer:
        account = self._mine(request)
        order = account.orders[request.path.rpartition("/")[2]]
        left = self._left_of(account, order)
        row: Row = {
            "id": order.id,
            "instrument": name_of(order.spec.instrument),
            "state": "OPEN" if left else "CLOSED",
            "initialUnits": signed(order, order.filled),
            "currentUnits": f"{left:f}",
        }
        return reply({"trade": row})

    def _ended(self, order: Order) -> bool:
        """A partial fill ends an order as well."""
        return bool(order.filled) or not order.live

    def _state(self, order: Order) -> str:
        if order.filled:
            return "FILLED"
        return "PENDING" if order.live else "CANCELLED"

    def _row(self, order: Order) -> Row:
        details = order.spec.details
        row: Row = {
            "id": order.id,
            "createTime": stamp(order.created_at),
            "state": self._state(order),
            "type": details["type"],
            "timeInForce": details["timeInForce"],
            "clientExtensions": {"id": order.spec.client_id},
        }
        if "tradeID" in details:
            row["tradeID"] = details["tradeID"]
        else:
            row |= {
                "instrument": name_of(order.spec.instrument),
                "units": signed(order, order.quantity),
                "positionFill": details["positionFill"],
            }
        if details["price"]:
            row["price"] = details["price"]
        if order.filled:
            row["fillingTransactionID"] = str(int(order.id) + FILLED_IN)
        elif not order.live:
            row["cancellingTransactionID"] = str(int(order.id) + CANCELLED_IN)
        return row

    def _fill(self, order: Order) -> Row:
        average = order.average
        return {
            "id": str(int(order.id) + FILLED_IN),
            "type": "ORDER_FILL",
            "time": stamp(order.updated_at),
            "orderID": order.id,
            "clientOrderID": order.spec.client_id,
            "instrument": name_of(order.spec.instrument),
            "units": signed(order, order.filled),
            "price": f"{average:f}",
            "fullVWAP": f"{average:f}",
            "pl": "0.0000",
            "financing": "0.0000",
            "commission": "0.0000",
            "guaranteedExecutionFee": "0.0000",
            "halfSpreadCost": "0.0100",
            "accountBalance": str(rules.BALANCE),
        }

    def _ending(self, order: Order) -> Row:
        why = "CLIENT_REQUEST" if order.status is Status.CANCELED else "BOUNDS_VIOLATION"
        return {
            "id": str(int(order.id) + CANCELLED_IN),
            "type": "ORDER_CANCEL",
            "time": stamp(order.updated_at),
            "orderID": order.id,
            "reason": why,
        }

    def _named(self, request: Request) -> Order:
        name = unquote(request.path.removeprefix(f"{BASE}/orders/")).removesuffix("/cancel")
        account = self._mine(request)
        if name.startswith("@"):
            named = account.by_client_id.get(name[1:], [])
        else:
            named = [one for one in (account.orders.get(name),) if one is not None]
        seen = self.ledger.visible(named)
        if not seen:
            raise OandaError(404, "NO_SUCH_ORDER")
        return seen[-1]

    def _order(self, request: Request) -> Answer:
        return reply({"order": self._row(self._named(request))})

    def _orders(self, request: Request) -> Answer:
        """Newest first; without a state only those that wait."""
        before = int(request.params.get("beforeID", 10**12))
        found = self.ledger.visible(self._mine(request).orders.values())
        if request.params.get("state", "PENDING") != "ALL":
            found = [one for one in found if not self._ended(one)]
        listed = sorted(found, key=lambda one: -one.sequence)
        page = [one for one in listed if int(one.id) <= before]
        return reply({"orders": [self._row(one) for one in page][: int(request.params["count"])]})

    def _pending(self, request: Request) -> Answer:
        found = self.ledger.visible(self._mine(request).open.values())
        rows: list[Row] = [self._row(one) for one in found if not self._ended(one)]
        rows.append({"id": "5", "type": "STOP_LOSS", "state": "PENDING", "tradeID": "4"})
        return reply({"orders": rows})

    def _cancel(self, request: Request) -> Answer:
        try:
            order = self._named(request)
        except OandaError:
            order = None
        if order is None or self._ended(order):
            gone = "orderCancelRejectTransaction"
            raise OandaError(404, "ORDER_DOESNT_EXIST", transaction=gone)
        self.ledger.cancel(order)
        return reply({"orderCancelTransaction": self._ending(order)})

    def _transaction(self, request: Request) -> Answer:
        number = int(request.path.rpartition("/")[2])
        order = self._mine(request).orders.get(str(number - number % 10))
        if order is None or number % 10 not in (FILLED_IN, CANCELLED_IN):
            raise OandaError(404, "INVALID_TRANSACTION_ID")
        told = self._fill(order) if number % 10 == FILLED_IN else self._ending(order)
        return reply({"transaction": told})

    def _fills(self, request: Request) -> list[Order]:
        self.ledger.advance()
        orders = self.ledger.visible(self._mine(request).orders.values())
        return sorted((one for one in orders if one.filled), key=lambda one: one.sequence)

    def _pages(self, request: Request) -> Answer:
        since = datetime.fromisoformat(request.params["from"]).timestamp() * 1000
        ids = [int(one.id) + FILLED_IN for one in self._fills(request) if one.updated_at >= since]
        spans = [(ids[at : at + 2][0], ids[at : at + 2][-1]) for at in range(0, len(ids), 2)]
        host = "https://api-fxpractice.oanda.com"
        pages = [
            f"{host}{BASE}/transactions/idrange?from={first}&to={last}&type=ORDER_FILL"
            for first, last in spans
        ]
        return reply({"count": len(ids), "pageSize": 2, "pages": pages})

    def _id_range(self, request: Request) -> Answer:
        first, last = int(request.params["from"]), int(request.params["to"])
        told = [self._fill(one) for one in self._fills(request)]
        found = [one for one in told if first <= int(str(one["id"])) <= last]
        return reply({"transactions": found})

    def _summary(self, request: Request) -> Answer:
        account = {
            "id": rules.ACCOUNT,
            "currency": "USD",
            "balance": str(rules.BALANCE),
            "NAV": str(rules.NAV),
            "marginAvailable": str(rules.NAV),
            "hedgingEnabled": self.hedged,
        }
        return reply({"account": account, "lastTransactionID": "9999"})

    def _trades(self, account: Account, instrument: Instrument) -> list[Trade]:
        return account.trades_by_symbol[instrument.symbol]

    def _held(self, account: Account, instrument: Instrument) -> Decimal:
        trades = self._trades(account, instrument)
        return sum(
            (t.quantity if t.order.spec.side is Side.BUY else -t.quantity for t in trades), ZERO
        )

    def _positions(self, request: Request) -> Answer:
        account, found = self._mine(request), []
        for instrument in rules.HOUSE.prices:
            units = self._held(account, instrument)
            flat: Row = {"units": "0"}
            held: Row = {
                "units": f"{units:f}",
                "averagePrice": f"{self._trades(account, instrument)[-1].price:f}"
                if units
                else "0",
            }
            if units:
                sides = (
                    {"long": held, "short": flat} if units > 0 else {"long": flat, "short": held}
                )
                found.append({"instrument": name_of(instrument), **sides})
        return reply({"positions": found})

    def _market(self, request: Request) -> Market:
        wanted = rules.INSTRUMENTS.get(request.params.get("instruments", ""))
        if wanted is None:
            said = {"errorMessage": "Invalid value specified for 'instruments'"}
            raise OandaError(400, str(said["errorMessage"]))
        return self.ledger.markets[wanted.symbol]

    def _instruments(self, request: Request) -> Answer:
        wanted = self._market(request).instrument
        price, units = rules.PLACES[wanted.symbol]
        row: Row = {
            "name": name_of(wanted),
            "type": "CFD" if wanted.base == "JP225" else "CURRENCY",
            "displayPrecision": price,
            "tradeUnitsPrecision": units,
            "minimumTradeSize": f"{wanted.minimum:f}",
            "maximumOrderUnits": f"{wanted.maximum:f}",
        }
        return reply({"instruments": [row]})

    def _pricing(self, request: Request) -> Answer:
        market = self._market(request)
        bid, ask = market.best(Side.SELL), market.best(Side.BUY)
        row: Row = {
            "type": "PRICE",
            "time": stamp(self.clock.now_ms()),
            "instrument": name_of(market.instrument),
            "tradeable": bid is not None and ask is not None,
            "bids": [bucket(one) for one in market.bids],
            "asks": [bucket(one) for one in market.asks],
        }
        return reply({"prices": [row]})

    def _candles(self, request: Request) -> Answer:
        name = request.path.split("/")[3]
        if name not in rules.INSTRUMENTS:
            raise OandaError(400, "Invalid value specified for 'instrument'")
        last = self.ledger.markets[rules.INSTRUMENTS[name].symbol].last
        count, hour = int(request.params["count"]), 3_600_000
        now = self.clock.now_ms() // hour * hour
        mid = {"o": f"{last:f}", "h": f"{last + 1:f}", "l": f"{last - 1:f}", "c": f"{last:f}"}
        starts = [now - hour * back for back in reversed(range(count))]
        return reply(
            {"candles": [{"time": stamp(one), "complete": True, "mid": mid} for one in starts]}
        )


def bucket(level: Level) -> Row:
    return {"price": f"{level.price:f}", "liquidity": int(level.shown)}
