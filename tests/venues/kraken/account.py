"""Kraken's answers about an account: balances, orders, trades, the key itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import TypeVar

from tests.venues.kraken.rules import KrakenError, code_of, invalid
from tests.venues.kraken.trading import Params, flag, order_info, trade_info
from tests.venues.ledger import Ledger
from tests.venues.orders import ZERO, Account, Order, Trade
from tests.venues.venue import Answer, Request, reply

Row = TypeVar("Row", Order, Trade)
PAGE = 50
KEY_CREATED_S = "1772542900"
BALANCE_PLACES = Decimal("0.0000000001")


def result(data: object, *, order_id: str = "") -> Answer:
    return reply({"error": [], "result": data}, order_id=order_id)


def account_of(ledger: Ledger, request: Request) -> Account:
    return ledger.account(request.key.account)


def amount(value: Decimal) -> str:
    return str(value.quantize(BALANCE_PLACES))


def named_orders(account: Account, params: Params) -> list[Order] | None:
    """The orders a client id or a userref names; None when the request names none."""
    if params.get("cl_ord_id"):
        return account.by_client_id.get(params["cl_ord_id"], [])
    if params.get("userref"):
        wanted = params["userref"]
        return [o for o in account.orders.values() if o.spec.details["userref"] == wanted]
    return None


def moment_ms(params: Params, name: str) -> int | None:
    """A unix timestamp parameter in milliseconds."""
    text = params.get(name)
    if text is None:
        return None
    try:
        return int(Decimal(text) * 1000)
    except ArithmeticError:
        raise invalid(name) from None


closed_at = attrgetter("updated_at")


def page(rows: Sequence[Row], time: Callable[[Row], int], params: Params) -> tuple[list[Row], int]:
    """Of rows in order of time: fifty, newest first from `ofs` on, and how many there are."""
    start, end = moment_ms(params, "start"), moment_ms(params, "end")
    first = 0 if start is None else bisect_right(rows, start, key=time)
    last = len(rows) if end is None else bisect_right(rows, end, key=time)
    offset = params.get("ofs", "0")
    if not offset.isdigit():
        raise invalid("ofs")
    newest = rows[first:last][::-1]
    return list(newest[int(offset) : int(offset) + PAGE]), len(newest)


class AccountDesk:
    """Handlers of the private endpoints that only read."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def balance(self, request: Request) -> Answer:
        self.ledger.advance()
        held = account_of(self.ledger, request).balances
        return result({code_of(asset): amount(b.total) for asset, b in held.items()})

    def extended_balance(self, request: Request) -> Answer:
        self.ledger.advance()
        held = account_of(self.ledger, request).balances
        rows = {
            code_of(asset): {"balance": amount(b.total), "hold_trade": amount(b.locked)}
            for asset, b in held.items()
        }
        return result(rows)

    def trade_balance(self, request: Request) -> Answer:
        """Everything at its last dollar price; there is no margin here."""
        self.ledger.advance()
        total = ZERO
        for asset, held in account_of(self.ledger, request).balances.items():
            market = self.ledger.markets.get(f"{asset}/USD")
            total += held.total * (market.last if market else Decimal(asset in ("USD", "USDT")))
        equity, none = f"{total:.4f}", "0.0000"
        names = {"eb": equity, "tb": equity, "m": none, "n": none, "c": none, "v": none}
        return result(names | {"e": equity, "mf": equity})

    def open_orders(self, request: Request) -> Answer:
        account = account_of(self.ledger, request)
        self.ledger.advance()
        named = named_orders(account, request.params)
        working = [o for o in (account.open.values() if named is None else named) if o.live]
        return result({"open": self._orders(request, self.ledger.visible(working))})

    def closed_orders(self, request: Request) -> Answer:
        account, params = account_of(self.ledger, request), request.params
        self.ledger.advance()
        named = named_orders(account, params)
        done = account.closed if named is None else [o for o in named if not o.live]
        shown = sorted(self.ledger.visible(done), key=closed_at)
        orders, count = page(shown, closed_at, params)
        return result({"closed": self._orders(request, orders), "count": count})

    def query_orders(self, request: Request) -> Answer:
        account = account_of(self.ledger, request)
        ids = request.params.get("txid", "").split(",")
        if len(ids) > PAGE or not all(ids):
            raise invalid()
        orders = self.ledger.visible([o for o in map(account.orders.get, ids) if o is not None])
        if len(orders) < len(ids):
            raise KrakenError("EOrder:Unknown order")
        return result(self._orders(request, orders))

    def _orders(self, request: Request, orders: Sequence[Order]) -> dict[str, object]:
        with_trades = flag(request.params, "trades")
        times = 2 if request.doubles_fills else 1
        return {
            order.id: order_info(order, with_trades=with_trades, trade_times=times)
            for order in orders
        }

    def _visible_trades(self, request: Request) -> list[Trade]:
        self.ledger.advance()
        now = self.ledger.clock.now_ms()
        trades = account_of(self.ledger, request).trades
        return [trade for trade in trades if trade.order.visible_at <= now]

    def trades_history(self, request: Request) -> Answer:
        trades, count = page(self._visible_trades(request), attrgetter("time"), request.params)
        rows = {trade.id: trade_info(trade) for trade in trades}
        return result({"trades": rows, "count": count})

    def query_trades(self, request: Request) -> Answer:
        ids = request.params.get("txid", "").split(",")
        known = {trade.id: trade for trade in self._visible_trades(request)}
        if not all(name in known for name in ids):
            raise KrakenError("EOrder:Invalid order")
        return result({name: trade_info(known[name]) for name in ids})

    def key_info(self, request: Request) -> Answer:
        key = request.key
        granted = [name for name, allowed in key.permissions.items() if allowed]
        none = "0"
        return result(
            {
                "apiKeyName": key.account,
                "apiKey": key.key,
                "nonce": str(key.nonce),
                "nonceWindow": 0,
                "permissions": granted,
                "iban": "AA00 N00G 0000 0000",
                "validUntil": none,
                "queryFrom": none,
                "queryTo": none,
                "createdTime": KEY_CREATED_S,
                "modifiedTime": KEY_CREATED_S,
                "ipAllowlist": [],
                "lastUsed": str(self.ledger.clock.now_ms() // 1000),
            }
        )
