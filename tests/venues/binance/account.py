"""Binance's answers about an account: balances, orders, trades, key permissions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeVar

from tests.venues.binance import rules
from tests.venues.binance.errors import BinanceError
from tests.venues.binance.parameters import instrument_of, integer
from tests.venues.binance.trading import listed, queried
from tests.venues.ledger import Ledger
from tests.venues.orders import Account, Order, Trade
from tests.venues.venue import Answer, Request, reply

Row = TypeVar("Row", Order, Trade)
KEY_CREATED_MS = 1_623_840_271_000
READ, TRADE = "enableReading", "enableSpotAndMarginTrading"


def account_of(ledger: Ledger, request: Request) -> Account:
    return ledger.account(request.key.account)


def find_order(ledger: Ledger, request: Request, suits: Callable[[Order], bool]) -> Order | None:
    """The suitable order named by orderId, else the newest one with the client id."""
    params = request.params
    account = account_of(ledger, request)
    symbol = instrument_of(params).symbol
    if params.get("orderId"):
        named = [o for o in (account.orders.get(params["orderId"]),) if o is not None]
    elif params.get("origClientOrderId"):
        named = account.by_client_id.get(params["origClientOrderId"], [])
    else:
        raise BinanceError(
            -1102,
            "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
        )
    found = (o for o in reversed(named) if o.spec.instrument.symbol == symbol and suits(o))
    return next(found, None)


class AccountDesk:
    """Handlers of the signed GET endpoints."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def balances(self, request: Request) -> Answer:
        self.ledger.advance()
        permissions = request.key.permissions
        rate = rules.places(rules.HOUSE.taker_fee)
        held = account_of(self.ledger, request).balances
        rows = [
            {"asset": asset, "free": rules.places(b.free), "locked": rules.places(b.locked)}
            for asset, b in held.items()
        ]
        answer = {
            "makerCommission": 10,
            "takerCommission": 10,
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {"maker": rate, "taker": rate, "buyer": "0", "seller": "0"},
            "canTrade": permissions[TRADE],
            "canWithdraw": permissions["enableWithdrawals"],
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": self.ledger.clock.now_ms(),
            "accountType": "SPOT",
            "balances": rows,
            "permissions": ["SPOT"],
            "uid": 1,
        }
        return reply(answer)

    def restrictions(self, request: Request) -> Answer:
        return reply({"createTime": KEY_CREATED_MS} | request.key.permissions)

    def coins(self, request: Request) -> Answer:
        held = account_of(self.ledger, request).balances
        return reply([coin_row(a, rules.places(b.free)) for a, b in held.items()])

    def order(self, request: Request) -> Answer:
        order = find_order(self.ledger, request, lambda o: bool(self.ledger.visible([o])))
        if order is None:
            raise BinanceError(-2013)
        return reply(queried(order))

    def open_orders(self, request: Request) -> Answer:
        symbol = instrument_of(request.params).symbol if "symbol" in request.params else None
        self.ledger.advance()
        working = self.ledger.visible(account_of(self.ledger, request).open.values())
        shown = [o for o in working if symbol in (None, o.spec.instrument.symbol)]
        return reply([queried(order) for order in shown])

    def all_orders(self, request: Request) -> Answer:
        self.ledger.advance()
        account, symbol = account_of(self.ledger, request), instrument_of(request.params).symbol
        shown = page(account.by_symbol[symbol], attrgetter("created_at"), request, "orderId")
        return reply([queried(order) for order in self.ledger.visible(shown)])

    def trades(self, request: Request) -> Answer:
        self.ledger.advance()
        now = self.ledger.clock.now_ms()
        shown = page(self._executed(request), attrgetter("time"), request, "fromId")
        times = 2 if request.doubles_fills else 1
        known = [trade for trade in shown if trade.order.visible_at <= now]
        return reply([listed(trade) for trade in known for _ in range(times)])

    def _executed(self, request: Request) -> Sequence[Trade]:
        account, symbol = account_of(self.ledger, request), instrument_of(request.params).symbol
        if "orderId" not in request.params:
            return account.trades_by_symbol[symbol]
        order = account.orders.get(request.params["orderId"])
        return order.trades if order and order.spec.instrument.symbol == symbol else []


def coin_row(asset: str, free: str) -> dict[str, object]:
    return {
        "coin": asset,
        "name": asset,
        "free": free,
        "trading": True,
        "isLegalMoney": False,
        "depositAllEnable": True,
        "withdrawAllEnable": True,
        "networkList": [],
    }


def page(
    rows: Sequence[Row], time: Callable[[Row], int], request: Request, first_id: str
) -> Sequence[Row]:
    """Of rows in order of time and id: those from an id or a time on, else the newest."""
    params = request.params
    limit = min(integer(params, "limit", 500), 1000)
    if "endTime" in params:
        rows = rows[: bisect_right(rows, integer(params, "endTime", 0), key=time)]
    if first_id in params:
        first = integer(params, first_id, 0)
        return rows[bisect_left(rows, first, key=attrgetter("sequence")) :][:limit]
    if "startTime" in params:
        return rows[bisect_left(rows, integer(params, "startTime", 0), key=time) :][:limit]
    return rows[max(0, len(rows) - limit) :]
