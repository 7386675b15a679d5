"""Prices of an order as a venue takes them: never on worse terms than asked for."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_UP, Decimal

from brokers.decimals import plain
from brokers.errors import NotSupportedError
from brokers.types import OrderRequest, OrderType, Side, TimeInForce

SLIPPAGE = Decimal("0.01")
"""How far from the reference price a market order may reach where it is sent as a limit order."""
SLIPPAGE_OF_EXITS = Decimal("0.05")
"""The same for one that only reduces: its price may be of minutes ago, and what is held must leave."""


def by_limit(request: OrderRequest, tick: Decimal, label: str) -> OrderRequest:
    """A market order as an immediate one with a limit. Raises NotSupportedError."""
    if request.reference_price is None:
        raise NotSupportedError(f"{label} needs a price to bound a market order")
    slippage = SLIPPAGE_OF_EXITS if request.reduce_only else SLIPPAGE
    reach = request.reference_price * (1 + slippage * request.side.sign)
    kind, until = OrderType.LIMIT, TimeInForce.IOC
    price = _on(tick, reach, request.side)
    return replace(request, type=kind, time_in_force=until, price=price)


def in_digits(request: OrderRequest, digits: int) -> OrderRequest:
    """Prices in so many significant digits; whole numbers are taken as they are.

    Both a limit and a stop keep their sense: a purchase not above it, a sale not below.
    """

    def fitted(price: Decimal | None) -> Decimal | None:
        if price is None:
            return None
        step = min(Decimal(1).scaleb(price.adjusted() + 1 - digits), Decimal(1))
        return price if price % step == 0 else _on(step, price, request.side)

    return replace(request, price=fitted(request.price), stop_price=fitted(request.stop_price))


def _on(step: Decimal, price: Decimal, side: Side) -> Decimal:
    rounding = ROUND_DOWN if side is Side.BUY else ROUND_UP
    return plain((price / step).to_integral_value(rounding) * step)
