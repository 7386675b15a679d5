"""Stops and targets that senders give relative to a price: turned into prices, or refused."""

from __future__ import annotations

from decimal import Decimal, localcontext

from brokers.types import Side
from execution.alerts import Action, TakeProfit
from execution.parsing import FINEST
from execution.schema import Fields
from risk.arithmetic import ARITHMETIC

HUNDRED = Decimal(100)


def side_of(action: Action | None) -> Side:
    return Side.SELL if action is Action.SELL else Side.BUY


def away(
    fields: Fields,
    name: str,
    side: Side,
    reference: Decimal | None,
    *,
    percent: Decimal | None = None,
    amount: Decimal | None = None,
    gain: bool,
) -> Decimal | None:
    """The price ``percent`` or ``amount`` away from ``reference``, in the position's favour for a
    ``gain``. Complains when there is no reference, and when the result is no price.
    """
    if percent is None and amount is None:
        return None
    if reference is None:
        detail = "is relative, and the alert carries no price to count from"
        fields.complain(name, detail, "PRICE_MISSING")
        return None
    with localcontext(ARITHMETIC):
        distance = amount if amount is not None else reference * (percent or Decimal(0)) / HUNDRED
        price = reference + distance * side.sign * (1 if gain else -1)
        price = price.quantize(FINEST).normalize()
    if price <= 0:
        fields.complain(name, f"puts the price at {price:f}", "OUT_OF_RANGE")
        return None
    return price


def evenly(prices: list[Decimal]) -> tuple[TakeProfit, ...]:
    """One target per price, each closing the same share of the position; the last takes the rest."""
    if not prices:
        return ()
    share = (HUNDRED / len(prices)).quantize(Decimal("0.01"))
    shares = [share] * (len(prices) - 1)
    shares.append(HUNDRED - sum(shares, Decimal(0)))
    return tuple(TakeProfit(price, part) for price, part in zip(prices, shares, strict=True))
