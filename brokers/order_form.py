"""Whether an order makes sense as a whole and fits the instrument, before anything is sent."""

from __future__ import annotations

from brokers.capabilities import Capabilities
from brokers.errors import NotSupportedError
from brokers.types import Instrument, OrderRequest, OrderType, TimeInForce

WITH_LIMIT = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
WITH_STOP = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


def check_form(request: OrderRequest, capabilities: Capabilities, venue: str) -> None:
    """Raise NotSupportedError for what ``venue`` lacks or what contradicts itself."""
    capabilities.refuse_unsupported(request, venue)
    prices = {
        "price": (request.price, request.type in WITH_LIMIT),
        "stop price": (request.stop_price, request.type in WITH_STOP),
        "trailing percent": (
            request.trailing_percent,
            request.type is OrderType.TRAILING_STOP,
        ),
    }
    for name, (value, needed) in prices.items():
        if (value is not None) is not needed:
            verb = "needs a" if needed else "takes no"
            raise NotSupportedError(f"a {request.type.value} order {verb} {name}")
    rests = request.type is OrderType.LIMIT and request.time_in_force is TimeInForce.GTC
    if request.post_only and not rests:
        raise NotSupportedError("only a resting limit order can be post-only")
    if request.time_in_force is TimeInForce.FOK and request.type not in WITH_LIMIT:
        raise NotSupportedError("only an order with a limit price can be fill-or-kill")


def check_grid(request: OrderRequest, instrument: Instrument) -> None:
    """Raise NotSupportedError for a number that is not positive or not on the venue's steps.

    Rounding is the caller's decision; here it would change what was approved.
    """
    stop = request.attached_stop
    numbers = {
        "quantity": (request.quantity, instrument.quantity_step),
        "price": (request.price, instrument.price_tick),
        "stop price": (request.stop_price, instrument.price_tick),
        "attached stop": (stop.price if stop else None, instrument.price_tick),
    }
    for name, (value, step) in numbers.items():
        if value is not None and (not value.is_finite() or value <= 0 or value % step):
            raise NotSupportedError(f"{name} {value:f} is not a positive multiple of {step:f}")
