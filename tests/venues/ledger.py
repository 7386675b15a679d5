"""The truth of one venue: who owns what, every accepted order, every trade.

Everything is Decimal. Callers hold `lock` around each use; nothing here sleeps or talks.
Our own trades move the last price, but only a price set from outside sets off triggers.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable
from decimal import ROUND_DOWN, Decimal

from tests.venues.clock import Clock
from tests.venues.house import FEE_QUANTUM, House, IdRule
from tests.venues.market import Market, Side, Take, reaches
from tests.venues.orders import (
    ZERO,
    Account,
    Order,
    OrderSpec,
    Reason,
    Refused,
    Status,
    TimeInForce,
    Trade,
    Trigger,
)


class Ledger:
    """Accounts and orders of one venue, matched against its quoted markets."""

    def __init__(self, house: House, clock: Clock, id_rule: IdRule = IdRule.OPEN) -> None:
        self.lock = threading.Lock()
        self.house = house
        self.clock = clock
        self.id_rule = id_rule
        self.visibility_delay_ms = 0
        self.markets = {item.symbol: Market(item, at) for item, at in house.prices.items()}
        self.accounts: dict[str, Account] = {}
        self.orders: list[Order] = []
        self.trades: list[Trade] = []
        self._delayed: list[tuple[int, int, Order]] = []

    def account(self, name: str) -> Account:
        """The account of that name, opened with the house's balances at its first use."""
        if name not in self.accounts:
            account = self.accounts[name] = Account(name)
            for asset, amount in self.house.balances.items():
                account.balances[asset].total = amount
        return self.accounts[name]

    def place(self, spec: OrderSpec, *, dry_run: bool = False) -> Order:
        """Accept an order and match it; a dry run checks everything and keeps nothing.

        Raises Refused. With `fill_delay_ms` the order rests unmatched for that long.
        """
        self.advance()
        account = self.account(spec.account)
        self._check(account, spec)
        order = self._new_order(spec)
        self._hold(order, self._requirement(order))
        if dry_run:
            self._hold(order, ZERO)
            return order
        self._register(account, order)
        if spec.fill_delay_ms:
            due = order.created_at + spec.fill_delay_ms
            heapq.heappush(self._delayed, (due, order.sequence, order))
        elif spec.trigger is None or self._reached(order):
            self._activate(order)
        return order

    def cancel(self, order: Order) -> None:
        """Cancel a live order, else raise Refused(UNKNOWN_ORDER)."""
        self.advance()
        if not order.live:
            raise Refused(Reason.UNKNOWN_ORDER)
        self._close(order, Status.CANCELED, "User requested", self.clock.now_ms())

    def fill(self, order: Order, quantity: Decimal, price: Decimal | None = None) -> Trade:
        """Execute part of a resting order as maker, at its limit unless a better price is given.

        Raises ValueError when the order is not resting or the terms do not fit it.
        """
        limit = order.spec.price
        price = limit if price is None else price
        if not order.live or order.working_at is None or limit is None or price is None:
            raise ValueError("the order is not resting in the book")
        if not ZERO < quantity <= order.remaining or not reaches(order.spec.side, price, limit):
            raise ValueError("quantity or price does not fit the order")
        return self._execute(order, price, quantity, self.clock.now_ms(), maker=True)

    def fill_resting(self) -> None:
        """Execute all that rests, each order whole at its own limit."""
        for symbol in self.markets:
            for order in self._waiting(symbol):
                if order.working_at is not None and order.spec.price is not None:
                    self.fill(order, order.remaining)

    def move(self, symbol: str, change: Callable[[Market], None]) -> None:
        """Change a market, then trigger and match the orders it reaches, oldest first."""
        self.advance()
        market = self.markets[symbol]
        change(market)
        for order in self._waiting(symbol):
            if order.working_at is None and self._reached(order):
                self._activate(order)
        for order in self._waiting(symbol):
            if order.working_at is not None and order.spec.price is not None:
                self._match(order, self.clock.now_ms(), maker=True)

    def advance(self) -> None:
        """Match the orders whose scripted delay is over."""
        now = self.clock.now_ms()
        while self._delayed and self._delayed[0][0] <= now:
            order = heapq.heappop(self._delayed)[2]
            if order.live and (order.spec.trigger is None or self._reached(order)):
                self._activate(order)

    def _reached(self, order: Order) -> bool:
        return triggered(order.spec, self.markets[order.spec.instrument.symbol].last)

    def visible(self, orders: Iterable[Order]) -> list[Order]:
        """Those of `orders` that queries already show."""
        self.advance()
        now = self.clock.now_ms()
        return [order for order in orders if order.visible_at <= now]

    def _waiting(self, symbol: str) -> list[Order]:
        delayed = {order.sequence for _, _, order in self._delayed}
        waiting = (order for account in self.accounts.values() for order in account.open.values())
        found = [order for order in waiting if order.spec.instrument.symbol == symbol]
        return sorted(
            (order for order in found if order.sequence not in delayed), key=lambda o: o.sequence
        )

    def _check(self, account: Account, spec: OrderSpec) -> None:
        earlier = account.by_client_id.get(spec.client_id, ())
        if self.id_rule is IdRule.FOREVER and earlier:
            raise Refused(Reason.DUPLICATE_CLIENT_ID)
        if self.id_rule is IdRule.OPEN and any(order.live for order in earlier):
            raise Refused(Reason.DUPLICATE_CLIENT_ID)
        market = self.markets[spec.instrument.symbol]
        reached = spec.trigger is not None and triggered(spec, market.last)
        if reached and self.house.refuses_reached_triggers:
            raise Refused(Reason.WOULD_TRIGGER)
        if spec.post_only and spec.price and market.crosses(spec.side, spec.price):
            raise Refused(Reason.WOULD_TAKE)

    def _new_order(self, spec: OrderSpec) -> Order:
        sequence = len(self.orders) + 1
        now = self.clock.now_ms()
        quantity = spec.quantity
        if spec.budget is not None:
            market = self.markets[spec.instrument.symbol]
            quantity = market.affordable(spec.side, spec.budget)
        seen = now + self.visibility_delay_ms
        return Order(sequence, self.house.order_id(sequence), spec, quantity, now, seen, now)

    def _register(self, account: Account, order: Order) -> None:
        self.orders.append(order)
        account.orders[order.id] = order
        account.open[order.id] = order
        if order.spec.client_id:
            account.by_client_id[order.spec.client_id].append(order)
        account.by_symbol[order.spec.instrument.symbol].append(order)

    def _requirement(self, order: Order) -> Decimal:
        """What must be locked for the part still open: base units for a sell, else quote units."""
        spec = order.spec
        fee = self.house.taker_fee
        if spec.side is Side.SELL:
            return order.remaining if spec.fee_in_quote else order.remaining * (1 + fee)
        price = spec.price
        if price is None and order.working_at is None:
            price = spec.trigger_price
        if price is None:
            market = self.markets[spec.instrument.symbol]
            cost = sum((t.cost for t in market.sweep(spec.side, order.remaining, None)), ZERO)
        else:
            cost = order.remaining * price
        return cost * (1 + fee) if spec.fee_in_quote else cost

    def _hold(self, order: Order, amount: Decimal) -> None:
        spec = order.spec
        asset = spec.instrument.base if spec.side is Side.SELL else spec.instrument.quote
        balance = self.account(spec.account).balances[asset]
        if amount > order.held and amount - order.held > balance.free:
            raise Refused(Reason.INSUFFICIENT_FUNDS)
        balance.locked += amount - order.held
        order.held = amount

    def _activate(self, order: Order) -> None:
        """Let an order into the book: match what can be, then rest or expire the remainder."""
        now = order.working_at = self.clock.now_ms()
        spec = order.spec
        if spec.price is None:
            try:
                self._hold(order, self._requirement(order))
            except Refused as refused:
                self._close(order, Status.EXPIRED, refused.reason.value, now)
                return
        if spec.time_in_force is not TimeInForce.FOK or self._fillable(order):
            self._match(order, now, maker=False)
        if order.live and (spec.price is None or spec.time_in_force is not TimeInForce.GTC):
            self._close(order, Status.EXPIRED, "no liquidity", now)

    def _fillable(self, order: Order) -> bool:
        return sum((take.quantity for take in self._takes(order)), ZERO) == order.remaining

    def _takes(self, order: Order) -> list[Take]:
        spec = order.spec
        market = self.markets[spec.instrument.symbol]
        return market.sweep(spec.side, order.remaining, spec.price)

    def _match(self, order: Order, now: int, *, maker: bool) -> None:
        market = self.markets[order.spec.instrument.symbol]
        for take in self._takes(order):
            limit = order.spec.price
            price = limit if maker and limit is not None else take.level.price
            last = market.last
            market.consume(take)
            if maker:
                market.last = last
            self._execute(order, price, take.quantity, now, maker=maker)

    def _execute(
        self, order: Order, price: Decimal, quantity: Decimal, now: int, *, maker: bool
    ) -> Trade:
        """One trade at ``now``; what it completes ends at the same moment."""
        spec = order.spec
        rate = self.house.maker_fee if maker else self.house.taker_fee
        paid = price * quantity if spec.fee_in_quote else quantity
        fee = (paid * rate).quantize(FEE_QUANTUM, ROUND_DOWN)
        asset = spec.instrument.quote if spec.fee_in_quote else spec.instrument.base
        sequence = len(self.trades) + 1
        trade_id = self.house.trade_id(sequence)
        trade = Trade(sequence, trade_id, order, price, quantity, fee, asset, maker, now)
        self._settle(trade)
        order.filled += quantity
        order.cost += trade.cost
        order.fee += fee
        order.updated_at = now
        order.trades.append(trade)
        account = self.account(spec.account)
        self.trades.append(trade)
        account.trades.append(trade)
        account.trades_by_symbol[spec.instrument.symbol].append(trade)
        if order.remaining > 0:
            order.status = Status.PARTIALLY_FILLED
            if spec.price is not None:
                self._hold(order, self._requirement(order))
        else:
            self._close(order, Status.FILLED, "", now)
        return trade

    def _settle(self, trade: Trade) -> None:
        spec = trade.order.spec
        balances = self.account(spec.account).balances
        sign = 1 if spec.side is Side.BUY else -1
        balances[spec.instrument.base].total += sign * trade.quantity
        balances[spec.instrument.quote].total -= sign * trade.cost
        balances[trade.fee_asset].total -= trade.fee

    def _close(self, order: Order, status: Status, reason: str, now: int) -> None:
        order.status = status
        order.reason = reason
        order.updated_at = now
        self._hold(order, ZERO)
        account = self.account(order.spec.account)
        account.open.pop(order.id, None)
        account.closed.append(order)


def triggered(spec: OrderSpec, last: Decimal) -> bool:
    """Whether the last price has reached the trigger of a stop or take-profit order."""
    if spec.trigger_price is None:
        return False
    upwards = (spec.trigger is Trigger.STOP) is (spec.side is Side.BUY)
    return last >= spec.trigger_price if upwards else last <= spec.trigger_price
