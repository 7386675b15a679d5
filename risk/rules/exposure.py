"""How much may be at stake at once."""

from __future__ import annotations

from decimal import Decimal

from brokers.types import Side
from risk.rules.registry import Unit, compared, rule
from risk.types import Facts, Intent, Limit, Size, Verdict


@rule(
    "max_position_value",
    label="largest position",
    unit=Unit.MONEY,
    default="1000",
    help="Worst case of one symbol's position: held, working on the order's side, and the order "
    "itself. Without this limit no entry passes.",
)
def max_position_value(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
    """What is held and working counts at the market, this order at its own price.

    Otherwise a limit far from the market would make the position look small.
    """
    working = facts.working_buy_quantity if intent.side is Side.BUY else facts.working_sell_quantity
    before = facts.position_quantity + working * intent.side.sign
    market = facts.quote.worst(intent.side) * facts.to_account_currency
    worst = abs(before * market + size.value * intent.side.sign)
    return compared(
        limit,
        "worst-case position value",
        worst,
        limit.value,
        position=facts.position_quantity,
        working=working,
        quantity=size.quantity,
        price=size.reference_price,
    )


@rule(
    "max_open_orders",
    label="most working orders",
    unit=Unit.ORDERS,
    default="20",
    help="Working orders of the account, those of unknown fate and this one included.",
)
def max_open_orders(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
    return compared(limit, "working orders", Decimal(facts.open_orders + 1), limit.value)
