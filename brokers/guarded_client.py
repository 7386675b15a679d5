"""The library's client of an exchange with a gate in front, and with what it reads wrongly put right.

ccxt is untyped and imported late: it costs half a second and tens of MiB.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import cache, partial
from types import MethodType
from typing import Any

from brokers.exchanges import PROFILES, VERIFIED
from brokers.key_turns import Turn
from brokers.transport import Gate

READ_HERE = frozenset(profile.id for profile in PROFILES.values() if profile.tier == VERIFIED)
"""The exchanges whose answers are read by dialects of ours, and not by ccxt."""

ORDER_TYPES = {
    "binance": ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"),
    "binanceusdm": ("LIMIT", "MARKET", "STOP", "STOP_MARKET"),
}
"""What is taken for a market's kinds of orders: the venue refuses what it does not take. ccxt sends
none it does not find listed, and a list may be short or not there at all."""


class _Exact:
    """Numbers and markets as they are, where ccxt would round or refuse them."""

    market: Callable[[str], Mapping[str, Any]]
    safe_string: Callable[..., str]
    _order_types: Sequence[str] = ()

    def parse_market(self, market: Any) -> Any:
        if self._order_types:
            market = {**market, "orderTypes": list(self._order_types)}
        return super().parse_market(market)  # type: ignore[misc]

    def amount_to_precision(self, symbol: str, amount: Any) -> Any:
        return self._in_steps("amount", symbol, amount)

    def price_to_precision(self, symbol: str, price: Any) -> Any:
        return self._in_steps("price", symbol, price)

    def _in_steps(self, name: str, symbol: str, number: Any) -> Any:
        """As it is where ccxt knows no step: the dialect does, and the gate compares what leaves."""
        if not self.market(symbol)["precision"][name]:
            return number
        return getattr(super(), f"{name}_to_precision")(symbol, number)

    def parse_order_book_bid_ask(
        self, bidask: Any, priceKey: Any = 0, amountKey: Any = 1, *_: Any, **__: Any
    ) -> list[Decimal]:
        # ccxt reads these as floats, even where numbers are asked for as text
        return [Decimal(self.safe_string(bidask, key)) for key in (priceKey, amountKey)]


@cache
def guarded_class(exchange: str, *, increasing: bool) -> Any:
    """The ccxt class of ``exchange``, with every request and answer passing the gate."""
    import ccxt

    base: Any = getattr(ccxt, exchange)

    class Guarded(_Exact, base):  # type: ignore[misc]
        gate: Gate
        turn: Callable[[], AbstractContextManager[Turn]] | None = None
        last_nonce = 0
        fields: frozenset[str] | None = None

        def __dir__(self) -> Iterable[str]:
            # for each new client ccxt goes through all names to offer them in camel case as well; what
            # it does for methods it does to the class, and there the first client was enough
            return super().__dir__() if self.fields is None else (*self.fields, *vars(self))

        def nonce(self) -> Any:
            if not increasing:
                return super().nonce()
            # the clients of one key share its nonces: milliseconds are too coarse to keep order
            self.last_nonce = max(time.time_ns() // 1000, self.last_nonce + 1)
            return self.last_nonce

        def fetch2(
            self, path: str, api: Any = "public", method: str = "GET", params: Any = None,
            config: Any = None,
        ) -> Any:  # fmt: skip
            request = path, api, method, params or {}
            if self.turn is None:
                return super().fetch2(*request, config or {})
            # the turn is held for the request alone, not while its room is waited for
            with self.gate.room(self.sign(*request)["url"], method), self.turn() as turn:
                self.last_nonce = max(self.last_nonce, turn.last)
                try:
                    return super().fetch2(*request, config or {})
                finally:
                    turn.last = self.last_nonce

        def fetch(
            self, url: str, method: str = "GET", headers: Any = None, body: Any = None
        ) -> Any:
            self.gate.inspect(url, method, body)
            return super().fetch(url, method, headers, body)

        def on_rest_response(
            self, code: int, reason: str, url: str, method: str, headers: Any, body: str, *rest: Any
        ) -> Any:
            self.gate.answered(url, method, code, headers, body)
            return super().on_rest_response(code, reason, url, method, headers, body, *rest)

    if exchange in READ_HERE:
        # no number in an answer goes through a binary fraction
        Guarded.on_json_response = staticmethod(partial(json.loads, parse_float=str))
    Guarded._order_types = ORDER_TYPES.get(exchange, ())
    first = Guarded()
    names = set(dir(first)) - vars(first).keys()
    Guarded.fields = frozenset(
        name for name in names if not isinstance(getattr(first, name), MethodType)
    )
    return Guarded
