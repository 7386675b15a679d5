"""ProjectX's endpoints: log-in, account, contracts, orders, trades, positions and bars."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from tests.venues.clock import Clock
from tests.venues.credentials import PROJECTX_KEY, PROJECTX_USER, Credential
from tests.venues.faults import Endpoint
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.market import Instrument, Side
from tests.venues.orders import ZERO, Account, Order, Refused, Status, Trade
from tests.venues.projectx import rules
from tests.venues.projectx.rules import ProjectXError
from tests.venues.venue import Answer, Request, Venue, pairs, reply

Row = dict[str, object]
LOG_IN = "/api/Auth/loginKey"
STATES = {
    Status.OPEN: 1,
    Status.PARTIALLY_FILLED: 1,
    Status.FILLED: 2,
    Status.CANCELED: 3,
    Status.EXPIRED: 3,
}


def stamp(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def milliseconds(text: object) -> float:
    return datetime.fromisoformat(str(text)).timestamp() * 1000


def contract_row(item: Instrument) -> Row:
    contract_id = next(one for one, known in rules.IDS.items() if known is item)
    return {
        "id": contract_id,
        "name": item.base,
        "description": item.base,
        "tickSize": float(item.tick),
        "tickValue": float(item.tick * rules.MULTIPLIERS[item.base]),
        "activeContract": True,
    }


def order_row(order: Order) -> Row:
    spec = order.spec
    numbers = {"limitPrice": spec.price, "stopPrice": spec.trigger_price}
    return {
        "id": int(order.id),
        "accountId": rules.ACCOUNT_ID,
        "contractId": contract_row(spec.instrument)["id"],
        "creationTimestamp": stamp(order.created_at),
        "updateTimestamp": stamp(order.updated_at),
        "status": STATES[order.status],
        "type": int(spec.details["number"]),
        "side": int(spec.side is Side.SELL),
        "size": int(order.quantity),
        **{name: None if one is None else float(one) for name, one in numbers.items()},
        "fillVolume": int(order.filled),
        "filledPrice": float(order.average) if order.filled else None,
        "customTag": spec.client_id or None,
    }


def trade_row(trade: Trade) -> Row:
    return {
        "id": int(trade.id),
        "accountId": rules.ACCOUNT_ID,
        "contractId": contract_row(trade.order.spec.instrument)["id"],
        "creationTimestamp": stamp(trade.time),
        "price": float(trade.price),
        "profitAndLoss": None,
        "fees": float(rules.FEE),
        "side": int(trade.order.spec.side is Side.SELL),
        "size": int(trade.quantity),
        "voided": False,
        "orderId": int(trade.order.id),
    }


@dataclass(frozen=True, slots=True)
class Route:
    handler: Callable[[Request], Row]
    endpoint: Endpoint


class ProjectX(Venue):
    """One simulated account; every call is a POST."""

    def __init__(self, clock: Clock) -> None:
        self.name = "projectx"
        self.clock = clock
        self.ledger = Ledger(rules.HOUSE, clock, IdRule.FOREVER)
        self.logins = 0
        key = Credential(PROJECTX_KEY, PROJECTX_USER, permissions=self.default_permissions())
        self.credentials = {key.key: key}

    def _route(self, request: Request) -> Route | None:
        query, public = Endpoint.QUERY, Endpoint.PUBLIC
        return {
            LOG_IN: Route(self._log_in, public),
            "/api/Account/search": Route(self._accounts, query),
            "/api/Order/place": Route(self._place, Endpoint.ORDER),
            "/api/Order/cancel": Route(self._cancel, Endpoint.CANCEL),
            "/api/Order/search": Route(self._orders, query),
            "/api/Order/searchOpen": Route(self._open, query),
            "/api/Trade/search": Route(self._trades, query),
            "/api/Position/searchOpen": Route(self._positions, query),
            "/api/Contract/search": Route(self._contracts, public),
            "/api/Contract/searchById": Route(self._contract, public),
            "/api/History/retrieveBars": Route(self._bars, public),
        }.get(request.path)

    def default_permissions(self) -> dict[str, bool]:
        return {"canTrade": True, "simulated": True}

    def owns(self, path: str) -> bool:
        names = ("Auth", "Account", "Order", "Trade", "Position", "Contract", "History")
        return path.startswith(tuple(f"/api/{name}/" for name in names))

    def endpoint(self, request: Request) -> Endpoint:
        route = self._route(request)
        return route.endpoint if route else Endpoint.PUBLIC

    def refuse(self, code: str) -> Answer:
        number, _, message = code.partition(" ")
        return ProjectXError(int(number), message).answer()

    def throttle(self, status: int) -> Answer:
        return Answer(status, b"", error="throttled")

    def admit(self, request: Request) -> Answer | None:
        request.params = dict(pairs(request.query))
        if request.path == LOG_IN:
            return None
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.logins or token != self._token():
            return Answer(401, b"", error="token")
        request.credential = self.credentials[PROJECTX_KEY]
        return None

    def handle(self, request: Request) -> Answer:
        route = self._route(request)
        if route is None:
            return Answer(404, b"", error="HTTP 404")
        try:
            told = route.handler(request)
        except ProjectXError as error:
            return error.answer()
        done = {"success": True, "errorCode": 0, "errorMessage": None}
        return reply({**told, **done}, order_id=str(told.get("orderId") or ""))

    def _token(self) -> str:
        return f"loopback-projectx-token-{self.logins}"

    def _log_in(self, request: Request) -> Row:
        wanted = {"userName": PROJECTX_USER, "apiKey": PROJECTX_KEY}
        if json.loads(request.body) != wanted:
            raise ProjectXError(3, "invalid credentials")
        self.logins = self.logins or 1
        return {"token": self._token()}

    def _mine(self, request: Request) -> Account:
        return self.ledger.account(request.key.account)

    def _accounts(self, request: Request) -> Row:
        account: Row = {
            "id": rules.ACCOUNT_ID,
            "name": rules.ACCOUNT,
            "balance": float(rules.BALANCE),
            "isVisible": True,
            **request.key.permissions,
        }
        return {"accounts": [account]}

    def _place(self, request: Request) -> Row:
        sent = rules.body_of(request)
        request.params = {name: str(value) for name, value in sent.items()}
        rules.check(sent)
        try:
            order = self.ledger.place(
                rules.spec_of(sent, request.key.account, request.fill_delay_ms)
            )
        except Refused as refused:
            said = refused.reason.value.replace("_", " ")
            if rules.CODES[refused.reason] == 2:
                said = "customTag must be unique"
            raise ProjectXError(rules.CODES[refused.reason], said) from None
        return {"orderId": int(order.id)}

    def _cancel(self, request: Request) -> Row:
        sent = rules.body_of(request)
        order = self._mine(request).orders.get(str(sent.get("orderId")))
        if order is None or not order.live:
            raise ProjectXError(5, "order is not open")
        self.ledger.cancel(order)
        return {}

    def _orders(self, request: Request) -> Row:
        start = milliseconds(rules.body_of(request)["startTimestamp"])
        found = self.ledger.visible(self._mine(request).orders.values())
        return {"orders": [order_row(one) for one in found if one.created_at >= start]}

    def _open(self, request: Request) -> Row:
        found = self.ledger.visible(self._mine(request).open.values())
        return {"orders": [order_row(one) for one in found]}

    def _trades(self, request: Request) -> Row:
        start = milliseconds(rules.body_of(request)["startTimestamp"])
        now = self.clock.now_ms()
        self.ledger.advance()
        seen = [one for one in self._mine(request).trades if one.order.visible_at <= now]
        return {"trades": [trade_row(one) for one in reversed(seen) if one.time >= start]}

    def _positions(self, request: Request) -> Row:
        found = []
        for item in rules.HOUSE.prices:
            trades = self._mine(request).trades_by_symbol[item.symbol]
            signed = [
                one.quantity if one.order.spec.side is Side.BUY else -one.quantity for one in trades
            ]
            held: Decimal = sum(signed, ZERO)
            if held:
                found.append(
                    {
                        "id": 1,
                        "contractId": contract_row(item)["id"],
                        "type": 1 if held > 0 else 2,
                        "size": int(abs(held)),
                        "averagePrice": float(trades[-1].price),
                    }
                )
        return {"positions": found}

    def _contracts(self, request: Request) -> Row:
        wanted = str(rules.body_of(request)["searchText"])
        found = [one for one in rules.HOUSE.prices if wanted in one.base]
        return {"contracts": [contract_row(one) for one in found]}

    def _contract(self, request: Request) -> Row:
        item = rules.IDS.get(str(rules.body_of(request)["contractId"]))
        if item is None:
            raise ProjectXError(1, "contract not found")
        return {"contract": contract_row(item)}

    def _bars(self, request: Request) -> Row:
        """Newest first."""
        sent = rules.body_of(request)
        last = self.ledger.markets[rules.IDS[sent["contractId"]].symbol].last
        length = {1: 1000, 3: 3_600_000}[sent["unit"]]
        now = self.clock.now_ms() // length * length
        bar = {
            "o": float(last),
            "h": float(last + 5),
            "l": float(last - 5),
            "c": float(last),
            "v": 1,
        }
        return {"bars": [{"t": stamp(now - length * n), **bar} for n in range(sent["limit"])]}
