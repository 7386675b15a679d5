"""What MetaTrader 5 wants in a request, and what its answers amount to.

Sources: mql5.com/en/docs/python_metatrader5 (order_send), mql5.com/en/docs/constants/errorswarnings
(return codes), the argument checks of the package MetaTrader5 5.0.6231. The package takes prices and
volumes as floats and nothing else; this module is the edge where Decimals become floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.errors import NotSupportedError
from brokers.types import OrderRequest, OrderType, Outcome, Side, TimeInForce

ACCEPTED = frozenset({10008, 10009, 10010})
REJECTED = frozenset(
    {10004, 10006, 10007, *range(10013, 10023), 10024, 10025, 10026, 10027, 10029, 10030}
    | {10032, 10033, 10034, 10035, 10038, *range(10040, 10046)}
)
"""The server says it did nothing. Codes on neither list leave the order's fate open."""
AWAY = frozenset({10011, 10012, 10028, 10031})
"""The server was not reached, or not ready: of a mere question that says nothing."""
NO_PIPE = frozenset({-10003, -10004})
"""There is no connection to the terminal: it may come back."""
NOT_SENT = frozenset({-2, -6, -7, -8}) | NO_PIPE
"""Errors of the package itself that come before the terminal hears of the request."""
CUT_OFF = frozenset(range(-10005, -9999))
"""Errors of the pipe to the terminal: it is not there, or does not answer."""
PASSED = 0
"""order_check's word for a request it would take."""
FOK, IOC, RETURN = 0, 1, 2
ALLOWS_FOK, ALLOWS_IOC = 1, 2
"""Bits of a symbol's filling_mode: not the numbers above, and not exported by the package."""
REQUEST, INSTANT, MARKET, EXCHANGE = 0, 1, 2, 3
DEAL, PENDING, SLTP, REMOVE = 1, 5, 6, 8
GTC, DAY = 0, 1
TYPES = {
    (OrderType.MARKET, Side.BUY): 0,
    (OrderType.MARKET, Side.SELL): 1,
    (OrderType.LIMIT, Side.BUY): 2,
    (OrderType.LIMIT, Side.SELL): 3,
    (OrderType.STOP, Side.BUY): 4,
    (OrderType.STOP, Side.SELL): 5,
    (OrderType.STOP_LIMIT, Side.BUY): 6,
    (OrderType.STOP_LIMIT, Side.SELL): 7,
}


def magic_of(identity: str) -> int:
    """52 bits of the identity: what MetaTrader carries from order to deal to position.

    The last ones: the first bits of an identity may be a time, and then two orders share them.
    """
    return int(identity[-13:], 16)


def decimal(number: object) -> Decimal:
    """A number of the terminal, by its shortest writing."""
    return Decimal(str(number))


def number(value: Decimal) -> float:
    """`value` as the package takes it. Raises NotSupportedError if that is another number."""
    edge = float(value)
    if Decimal(str(edge)) != value:
        raise NotSupportedError(f"{value:f} cannot be told to MetaTrader exactly")
    return edge


def filling(symbol: Any) -> int:
    """How a market order in `symbol` may be filled. Raises NotSupportedError.

    All or nothing comes first: what a server fills in part it cancels in part.
    """
    if symbol.trade_exemode in (REQUEST, INSTANT) or symbol.filling_mode & ALLOWS_FOK:
        return FOK
    if symbol.filling_mode & ALLOWS_IOC:
        return IOC
    if symbol.trade_exemode == EXCHANGE:
        return RETURN
    raise NotSupportedError(f"{symbol.name} allows no way of filling a market order")


def market_order(
    request: OrderRequest, symbol: Any, tick: Any, lots: Decimal, deviation: int
) -> dict[str, Any]:
    """The fields of an order at the market; `deviation` in points."""
    price = tick.ask if request.side is Side.BUY else tick.bid
    return {
        "action": DEAL,
        "symbol": symbol.name,
        "type": TYPES[request.type, request.side],
        "volume": number(lots),
        "price": number(decimal(price)),
        "deviation": deviation,
        "type_filling": filling(symbol),
        "type_time": GTC,
    }


def pending_order(request: OrderRequest, symbol: Any, lots: Decimal) -> dict[str, Any]:
    """The fields of an order that waits: a stop-limit's `price` is the one that wakes it."""
    waits_for = request.price if request.stop_price is None else request.stop_price
    if waits_for is None:
        raise NotSupportedError(f"a {request.type.value} order needs a price")
    fields = {
        "action": PENDING,
        "symbol": symbol.name,
        "type": TYPES[request.type, request.side],
        "volume": number(lots),
        "price": number(waits_for),
        "type_filling": RETURN,
        "type_time": DAY if request.time_in_force is TimeInForce.DAY else GTC,
    }
    if request.type is OrderType.STOP_LIMIT and request.price is not None:
        fields["stoplimit"] = number(request.price)
    return fields


def evidence(fields: Mapping[str, Any], answer: Any, error: tuple[int, str]) -> dict[str, Any]:
    """Request and answer as JSON without floats."""
    told = {name: str(value) for name, value in fields.items()}
    if answer is None:
        return {"request": told, "last_error": [str(part) for part in error]}
    names = ("retcode", "order", "deal", "volume", "price", "comment", "request_id")
    return {"request": told, "answer": {n: str(getattr(answer, n, "")) for n in names}}


def judge(answer: Any, error: tuple[int, str]) -> tuple[Outcome, str]:
    """What order_send came to, and the words for it."""
    if answer is None:
        code, text = error
        if code in NOT_SENT:
            return Outcome.NOT_SENT, f"MetaTrader's package: {text} ({code})"
        return Outcome.UNKNOWN, f"the order may exist: {text} ({code})"
    said = f"{answer.comment} ({answer.retcode})".strip()
    if answer.retcode in ACCEPTED:
        if answer.order:
            return Outcome.ACCEPTED, said
        return Outcome.UNKNOWN, f"the order may exist: accepted without a ticket, {said}"
    if answer.retcode in REJECTED:
        return Outcome.REJECTED, said
    return Outcome.UNKNOWN, f"the order may exist: {said}"
