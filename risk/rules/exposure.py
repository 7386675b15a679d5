"""How much may be at stake at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from brokers.types import Side
from risk.book import Exposure
from risk.rules.parameters import Parameter, names
from risk.rules.registry import Start, Unit, compared, failed, known_equity, passed, rule
from risk.types import Facts, Intent, Limit, ReasonCode, Size, Verdict


@rule(
    "max_position_value",
    label="largest position",
    unit=Unit.MONEY,
    default="1000",
    help="Worst case of one symbol's position: held, working on the order's side, and the order "
    "itself. Without this limit no entry passes.",
    start=Start.ENFORCE,
)
def max_position_value(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
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
def max_open_orders(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    return compared(limit, "working orders", Decimal(facts.open_orders + 1), limit.value)


@rule(
    "max_symbol_orders",
    label="most working orders in a symbol",
    unit=Unit.ORDERS,
    default="5",
    help="Working orders of the account in one symbol, those of unknown fate and this one included.",
    needs=["symbol_orders"],
)
def max_symbol_orders(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    working = facts.book.symbol_orders
    if working is None:
        return failed(limit, ReasonCode.MAX_SYMBOL_ORDERS, "working orders are not known")
    return compared(limit, "working orders in the symbol", Decimal(working + 1), limit.value)


@rule(
    "max_account_exposure",
    label="largest exposure of an account",
    unit=Unit.MONEY,
    default="10000",
    help="All positions of the account at their worst case, longs and shorts added up.",
    needs=["exposures"],
)
def max_account_exposure(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    return _gross(limit, "exposure of the account", _of_account(facts), intent, size, facts)


@rule(
    "max_strategy_exposure",
    label="largest exposure of a strategy",
    unit=Unit.MONEY,
    default="10000",
    help="What the strategy's own orders have built up on all its accounts, at its worst case.",
    needs=["strategy_exposures"],
    portfolio=True,
)
def max_strategy_exposure(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    rows = facts.book.strategy_exposures
    return _gross(limit, "exposure of the strategy", rows, intent, size, facts)


@rule(
    "max_gross_exposure",
    label="largest gross exposure",
    unit=Unit.MONEY,
    default="50000",
    help="All positions of all accounts at their worst case, longs and shorts added up.",
    needs=["exposures"],
    portfolio=True,
)
def max_gross_exposure(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    return _gross(limit, "gross exposure", facts.book.exposures, intent, size, facts)


@rule(
    "max_net_exposure",
    label="largest net exposure",
    unit=Unit.MONEY,
    default="25000",
    help="Longs less shorts of all accounts, with every working order of the worse side filled.",
    needs=["exposures"],
    portfolio=True,
)
def max_net_exposure(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    rows = _with_order(facts.book.exposures, intent, size, facts)
    if rows is None:
        return _unknown(limit)
    held = sum((one.held or Decimal(0) for one in rows), Decimal(0))
    longest = held + sum((one.buying for one in rows), Decimal(0))
    shortest = held - sum((one.selling for one in rows), Decimal(0))
    return compared(limit, "net exposure", max(abs(longest), abs(shortest)), limit.value)


@rule(
    "max_group_exposure",
    label="largest exposure of a group",
    unit=Unit.MONEY,
    default="5000",
    help="Worst case of symbols that move together, on all accounts, longs and shorts added up.",
    parameters=[
        Parameter("symbols", names, "", "symbols (BTC/USDT) or base assets (BTC) of the group")
    ],
    needs=["exposures"],
    portfolio=True,
)
def max_group_exposure(
    limit: Limit, intent: Intent, size: Size, facts: Facts, settings: Mapping[str, Any]
) -> Verdict:
    group = settings["symbols"]
    if not group:
        return failed(limit, ReasonCode.MAX_GROUP_EXPOSURE, "the group names no symbols")
    if not _belongs(facts.instrument.symbol, group):
        return passed(limit, "the symbol is not in the group")
    rows = facts.book.exposures
    mine = None if rows is None else [one for one in rows if _belongs(one.symbol, group)]
    return _gross(limit, "exposure of the group", mine, intent, size, facts)


@rule(
    "max_leverage",
    label="highest leverage",
    unit=Unit.TIMES_EQUITY,
    default="1",
    help="Exposure of the account ÷ its equity.",
    needs=["exposures"],
)
def max_leverage(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    equity = known_equity(facts)
    if equity is None:
        return failed(limit, ReasonCode.EQUITY_UNKNOWN, "the account's equity is not known")
    what = "exposure of the account"
    allowed = limit.value * equity
    return _gross(limit, what, _of_account(facts), intent, size, facts, allowed=allowed)


@rule(
    "max_margin_share",
    label="largest share of free funds",
    unit=Unit.FUNDS_FRACTION,
    default="1",
    help="What the order ties up (its value ÷ the account's leverage) ÷ what the venue calls free. "
    "Selling coins on a spot market ties up none.",
    needs=["free_funds"],
)
def max_margin_share(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    if intent.side is Side.SELL and facts.instrument.market_type == "spot" and limit.value > 0:
        return passed(limit, "selling coins ties up no funds")
    free = facts.book.free_funds
    if free is None:
        return failed(limit, ReasonCode.EQUITY_UNKNOWN, "the account's free funds are not known")
    tied = size.value / facts.book.leverage
    return compared(limit, "funds tied up", tied, limit.value * free, free=free)


def _gross(
    limit: Limit,
    what: str,
    rows: Sequence[Exposure] | None,
    intent: Intent,
    size: Size,
    facts: Facts,
    *,
    allowed: Decimal | None = None,
) -> Verdict:
    """Per symbol the worse of all buys and all sells filled: nothing is netted."""
    counted = _with_order(rows, intent, size, facts)
    if counted is None:
        return _unknown(limit)
    worst = sum((_worst(one) for one in counted), Decimal(0))
    return compared(limit, what, worst, limit.value if allowed is None else allowed)


def _worst(one: Exposure) -> Decimal:
    held = one.held or Decimal(0)
    return max(abs(held + one.buying), abs(held - one.selling))


def _with_order(
    rows: Sequence[Exposure] | None, intent: Intent, size: Size, facts: Facts
) -> list[Exposure] | None:
    """``rows`` with the order in its place; ``None`` where a position's value is not known."""
    if rows is None or any(one.held is None for one in rows):
        return None
    here = (facts.book.account_id, facts.instrument.symbol)
    found = next((one for one in rows if (one.account_id, one.symbol) == here), None)
    found = found or Exposure(*here, Decimal(0), Decimal(0), Decimal(0))
    if intent.side is Side.BUY:
        mine = replace(found, buying=found.buying + size.value)
    else:
        mine = replace(found, selling=found.selling + size.value)
    return [mine, *(one for one in rows if (one.account_id, one.symbol) != here)]


def _of_account(facts: Facts) -> list[Exposure] | None:
    rows = facts.book.exposures
    if rows is None:
        return None
    return [one for one in rows if one.account_id == facts.book.account_id]


def _belongs(symbol: str, group: frozenset[str]) -> bool:
    """Whether the group names the symbol, its base asset, or its pair in one word."""
    name = symbol.upper()
    base, _, quote = name.partition(":")[0].partition("/")
    return not group.isdisjoint((name, base, base + quote))


def _unknown(limit: Limit) -> Verdict:
    detail = "the value of a position is not known: its price was never seen"
    return failed(limit, ReasonCode(limit.rule.upper()), detail)
