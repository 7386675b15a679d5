"""How large one order may be."""

from __future__ import annotations

from risk.rules.registry import Unit, compared, failed, known_equity, rule
from risk.types import Facts, Intent, Limit, ReasonCode, Size, Verdict


@rule(
    "max_order_value",
    label="largest order",
    unit=Unit.MONEY,
    default="10000",
    help="Quantity × price of a single entry order. Without this limit no entry passes.",
)
def max_order_value(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
    return compared(
        limit,
        "order value",
        size.value,
        limit.value,
        quantity=size.quantity,
        price=size.reference_price,
    )


@rule(
    "max_capital_share",
    label="largest share of capital",
    unit=Unit.FRACTION,
    default="0.01",
    help="Value of a single entry order ÷ equity, e.g. 0.01 for 1 %.",
)
def max_capital_share(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
    equity = known_equity(facts)
    if equity is None:
        return failed(limit, ReasonCode.EQUITY_UNKNOWN, "the account's equity is not known")
    return compared(limit, "order value", size.value, limit.value * equity, equity=equity)
