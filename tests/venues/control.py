"""The control side under /_venue/: tests arrange the venues and read their ledgers here.

Every request and answer is JSON; amounts are decimal strings. Errors are 400 with `error`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl

from tests.venues.credentials import MAIN_ACCOUNT, Credential
from tests.venues.exchange import Exchange
from tests.venues.faults import Fault
from tests.venues.house import IdRule
from tests.venues.ledger import Ledger
from tests.venues.market import Level
from tests.venues.orders import Order, Trade
from tests.venues.venue import Answer, Request, Venue, reply

PREFIX = "/_venue/"
Payload = dict[str, Any]


def order_row(order: Order) -> dict[str, object]:
    spec = order.spec
    return {
        "sequence": order.sequence,
        "id": order.id,
        "account": spec.account,
        "client_id": spec.client_id,
        "symbol": spec.instrument.symbol,
        "side": spec.side.value,
        "type": spec.details["type"],
        "quantity": str(order.quantity),
        "price": None if spec.price is None else str(spec.price),
        "trigger_price": None if spec.trigger_price is None else str(spec.trigger_price),
        "status": order.status.value,
        "filled": str(order.filled),
        "cost": str(order.cost),
        "created_at": order.created_at,
    }


def trade_row(trade: Trade) -> dict[str, object]:
    return {
        "sequence": trade.sequence,
        "id": trade.id,
        "order_id": trade.order.id,
        "client_id": trade.order.spec.client_id,
        "price": str(trade.price),
        "quantity": str(trade.quantity),
        "fee": str(trade.fee),
        "fee_asset": trade.fee_asset,
        "maker": trade.maker,
        "time": trade.time,
    }


class Control:
    """Answers control requests; anything else goes to the exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.reads: dict[str, Callable[[Payload], object]] = {
            "health": lambda _: {"venues": list(self.exchange.venues)},
            "ledger": self._ledger,
            "requests": self._requests,
            "faults": lambda _: [fault.as_json() for fault in self.exchange.faults.pending()],
        }
        self.writes: dict[str, Callable[[Payload], object]] = {
            "price": self._price,
            "depth": self._depth,
            "fill": self._fill,
            "faults": self._faults,
            "latency": self._latency,
            "visibility": self._visibility,
            "clock": self._clock,
            "balances": self._balances,
            "permissions": self._permissions,
            "keys": self._keys,
            "id_rule": self._id_rule,
            "hedge_mode": self._hedge_mode,
            "funding": self._funding,
            "market_hours": self._market_hours,
            "reset": self._reset,
        }

    def answer(self, request: Request) -> Answer:
        if not request.path.startswith(PREFIX):
            return self.exchange.answer(request)
        actions = self.writes if request.method == "POST" else self.reads
        action = actions.get(request.path.removeprefix(PREFIX))
        if action is None:
            return reply({"error": f"no {request.method} {request.path}"}, status=404)
        try:
            text = request.body if request.method == "POST" else ""
            payload = json.loads(text) if text else dict(parse_qsl(request.query))
            return reply(action(payload))
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            return reply({"error": f"{type(error).__name__}: {error}"}, status=400)

    def _venue(self, payload: Payload) -> Venue:
        return self.exchange.venues[payload["venue"]]

    def _chosen(self, payload: Payload) -> list[Ledger]:
        if payload.get("venue") is not None:
            return [self._venue(payload).ledger]
        return [venue.ledger for venue in self.exchange.venues.values()]

    def _ledger(self, payload: Payload) -> object:
        venue = self._venue(payload)
        ledger, since = venue.ledger, int(payload.get("since", 0))
        trades_since = int(payload.get("trades_since", 0))
        with ledger.lock:
            ledger.advance()
            return {
                "counts": self.exchange.journal.counts(venue.name),
                "balances": {
                    name: {
                        asset: {"free": str(held.free), "locked": str(held.locked)}
                        for asset, held in account.balances.items()
                    }
                    for name, account in ledger.accounts.items()
                },
                "orders": [order_row(order) for order in ledger.orders[since:]],
                "trades": [trade_row(trade) for trade in ledger.trades[trades_since:]],
            }

    def _requests(self, payload: Payload) -> object:
        entries = self.exchange.journal.since(int(payload.get("since", 0)))
        return [entry.as_json() for entry in entries]

    def _price(self, payload: Payload) -> object:
        last = Decimal(payload["last"])
        spread = None if payload.get("spread") is None else Decimal(payload["spread"])
        ledger = self._venue(payload).ledger
        with ledger.lock:
            ledger.move(payload["symbol"], lambda market: market.quote(last, spread))
        return {}

    def _depth(self, payload: Payload) -> object:
        ledger = self._venue(payload).ledger
        rows = {side: payload.get(side) for side in ("bids", "asks")}
        with ledger.lock:
            market = ledger.markets[payload["symbol"]]
            for side, given in rows.items():
                if given is not None:
                    setattr(market, side, [Level(Decimal(p), Decimal(q)) for p, q in given])
            ledger.move(payload["symbol"], lambda _: None)
        return {}

    def _fill(self, payload: Payload) -> object:
        ledger = self._venue(payload).ledger
        price = None if payload.get("price") is None else Decimal(payload["price"])
        with ledger.lock:
            account = ledger.account(payload.get("account", MAIN_ACCOUNT))
            trade = ledger.fill(
                account.orders[payload["order_id"]], Decimal(payload["quantity"]), price
            )
            return trade_row(trade)

    def _faults(self, payload: Payload) -> object:
        if payload.get("clear"):
            self.exchange.faults.clear()
        self.exchange.faults.load(
            [Fault.from_json(raw) for raw in payload.get("queue", ())],
            [Fault.from_json(raw) for raw in payload.get("rates", ())],
        )
        return {}

    def _latency(self, payload: Payload) -> object:
        self.exchange.latency_s = float(payload["ms"]) / 1000
        return {}

    def _visibility(self, payload: Payload) -> object:
        for ledger in self._chosen(payload):
            ledger.visibility_delay_ms = int(payload["ms"])
        return {}

    def _clock(self, payload: Payload) -> object:
        self.exchange.clock.offset_ms = int(payload["ms"])
        return {}

    def _balances(self, payload: Payload) -> object:
        ledger = self._venue(payload).ledger
        with ledger.lock:
            account = ledger.account(payload.get("account", MAIN_ACCOUNT))
            for asset, free in payload["balances"].items():
                held = account.balances[asset]
                held.total = held.locked + Decimal(free)
        return {}

    def _permissions(self, payload: Payload) -> object:
        venue = self._venue(payload)
        key = payload.get("key") or next(iter(venue.credentials))
        known, given = venue.credentials[key].permissions, payload["permissions"]
        if not set(given) <= set(known) or not all(type(v) is bool for v in given.values()):
            raise ValueError(f"permissions are {sorted(known)}, true or false")
        with venue.ledger.lock:
            known.update(given)
        return {}

    def _keys(self, payload: Payload) -> object:
        venue = self._venue(payload)
        key = Credential(payload["key"], payload["secret"], payload["account"])
        key.permissions = venue.default_permissions()
        with venue.ledger.lock:
            venue.credentials[key.key] = key
        return {}

    def _hedge_mode(self, payload: Payload) -> object:
        venue = self._venue(payload)
        if not hasattr(venue, "hedged"):
            raise ValueError(f"{venue.name} has no positions")
        venue.hedged = bool(payload["hedged"])
        return {}

    def _funding(self, payload: Payload) -> object:
        venue = self._venue(payload)
        if not hasattr(venue, "pay_funding"):
            raise ValueError(f"{venue.name} has no funding")
        venue.pay_funding(payload["symbol"], payload["amount"], int(payload["at"]))
        return {}

    def _market_hours(self, payload: Payload) -> object:
        venue = self._venue(payload)
        if not hasattr(venue, "is_open"):
            raise ValueError(f"{venue.name} never closes")
        venue.is_open = bool(payload["open"])
        return {}

    def _id_rule(self, payload: Payload) -> object:
        self.exchange.id_rule = IdRule(payload["rule"])
        for ledger in self._chosen({}):
            ledger.id_rule = self.exchange.id_rule
        return {}

    def _reset(self, payload: Payload) -> object:
        self.exchange.reset()
        return {}
