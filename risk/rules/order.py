"""How large one order may be, and how it may meet the market."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.types import OrderType
from risk.arithmetic import shown, text
from risk.prices import collar_bound
from risk.rules.parameters import Parameter, one_of
from risk.rules.registry import Start, Unit, compared, failed, known_equity, passed, rule
from risk.types import Facts, Intent, Limit, LimitMode, ReasonCode, Size, Verdict

WITH_LIMIT = (OrderType.LIMIT, OrderType.STOP_LIMIT)


@rule(
    "max_order_value",
    label="largest order",
    unit=Unit.MONEY,
    default="10000",
    help="Quantity × price of a single entry order. Without this limit no entry passes.",
    start=Start.ENFORCE,
)
def max_order_value(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    return compared(
        limit,
        "order value",
        size.value,
        limit.value,
        quantity=size.quantity,
        price=size.reference_price,
    )


@rule(
    "max_order_quantity",
    label="largest quantity",
    unit=Unit.QUANTITY,
    default="10",
    help="Quantity of a single entry order in the base asset; set it for a symbol.",
)
def max_order_quantity(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    return compared(limit, "quantity", size.quantity, limit.value)


@rule(
    "max_capital_share",
    label="largest share of capital",
    unit=Unit.FRACTION,
    default="0.01",
    help="Value of a single entry order ÷ equity, e.g. 0.01 for 1 %.",
)
def max_capital_share(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    equity = known_equity(facts)
    if equity is None:
        return failed(limit, ReasonCode.EQUITY_UNKNOWN, "the account's equity is not known")
    return compared(limit, "order value", size.value, limit.value * equity, equity=equity)


@rule(
    "price_collar",
    label="price collar",
    unit=Unit.PRICE_FRACTION,
    default="0.05",
    help="How far beyond the market an entry may buy or sell. A market order goes out as an "
    "immediate-or-cancel limit at the collar where the venue takes one, once this is enforced.",
    parameters=[
        Parameter(
            "market_orders",
            one_of("allow", "deny"),
            "allow",
            "where the venue takes no such limit, allow or deny market orders",
        )
    ],
    start=Start.OBSERVE,
)
def price_collar(
    limit: Limit, intent: Intent, size: Size, facts: Facts, settings: Mapping[str, Any]
) -> Verdict:
    """Prices on the passive side of the market are no danger and pass."""
    market = facts.quote.worst(intent.side)
    bound = collar_bound(intent.side, market, limit.value)
    if intent.type is OrderType.MARKET:
        if facts.caps_market_orders and bound > 0 and limit.value > 0:
            sent = "sent" if limit.mode is LimitMode.ENFORCE else "would be sent"
            return passed(limit, f"{sent} as a limit, immediate or cancel, within {text(bound)}")
        if settings["market_orders"] == "allow" and limit.value > 0:
            return passed(limit, "the venue takes no limit in place of a market order")
        return failed(limit, ReasonCode.PRICE_COLLAR, "a market order has no price to hold to")
    if intent.type not in WITH_LIMIT or intent.price is None:
        return passed(limit, "its price is not known before it triggers")
    start = market if intent.stop_price is None else intent.stop_price
    beyond = max((intent.price - start) * intent.side.sign, Decimal(0))
    return compared(
        limit, "distance beyond the market", beyond, limit.value * start, market=start,
        price=intent.price,
    )  # fmt: skip


@rule(
    "duplicate_order",
    label="duplicate order",
    unit=Unit.SECONDS,
    default="5",
    help="Refuse an entry of the same account, symbol, side, quantity and price as one decided this "
    "many seconds ago or less, whatever id its alert had.",
    needs=["recent"],
    start=Start.OBSERVE,
    more_is_stricter=True,
    least=Decimal(1),
)
def duplicate_order(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    if facts.book.recent is None:
        return failed(limit, ReasonCode.DUPLICATE_ORDER, "earlier orders are not known")
    price = intent.price if intent.type in WITH_LIMIT else intent.stop_price
    ages = [
        abs((facts.at - one.at).total_seconds())
        for one in facts.book.recent
        if (one.side, one.quantity, one.price) == (intent.side, size.quantity, price)
    ]
    age = shown(Decimal(str(min(ages)))) if ages else None
    if age is None or age > limit.value:
        return passed(limit, "no such order in the window")
    detail = f"the same order was decided {text(age)} s ago ({limit.scope})"
    return failed(limit, ReasonCode.DUPLICATE_ORDER, detail, measured=age)


@rule(
    "self_match",
    label="trading with oneself",
    unit=Unit.SWITCH,
    default="1",
    help="Refuse an entry that would trade with an order of ours that rests in the same symbol at the "
    "same venue.",
    needs=["resting"],
    start=Start.ENFORCE,
    more_is_stricter=True,
    least=Decimal(1),
)
def self_match(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    if facts.book.resting is None:
        return failed(limit, ReasonCode.SELF_MATCH, "own resting orders are not known")
    if intent.type in (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP):
        return passed(limit, "it waits for its trigger")
    price = intent.price if intent.type is OrderType.LIMIT else None
    reach = facts.quote.worst(intent.side) if price is None else price
    met = [
        one.price
        for one in facts.book.resting
        if one.side is intent.side.opposite and (one.price - reach) * intent.side.sign <= 0
    ]
    if not met:
        return passed(limit, "no order of ours is in its way")
    detail = f"it would meet our own {intent.side.opposite.value} order at {text(met[0])}"
    return failed(limit, ReasonCode.SELF_MATCH, detail, price=shown(reach), own=shown(met[0]))
