"""For each rule an order just within its limit and one just beyond: does the control fire, and does
it fire only then? Pure; the facts are made up around the limit's own value and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.types import Instrument, OrderType, Quote, Side
from risk.book import Book, Day, Recent, Resting, Seen, Streak
from risk.rules import RULES
from risk.rules.conduct import may_send
from risk.types import Facts, Intent, Limit, LimitMode, Size, Verdict

PRICE = Decimal(100)
EQUITY = Decimal(1_000_000)
MORE = Decimal("1.01")
_AT = datetime(2026, 1, 5, 15, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Case:
    """One order as a rule sees it."""

    facts: Facts
    intent: Intent
    size: Size


@dataclass(frozen=True, slots=True)
class Result:
    """How one control did. ``detail`` says what went wrong, or what was tried."""

    control: str
    scope: str
    passed: bool
    detail: str


def test(limit: Limit) -> Result:
    """Whether the rule passes the case within ``limit`` and denies the one beyond it."""
    if limit.rule == "message_rate":
        return _test_rate(limit)
    arrange = _CASES.get(limit.rule)
    if arrange is None:
        return Result(limit.rule, limit.scope, False, "there is no test of this rule")
    settings = RULES[limit.rule].settings(limit.parameters)
    within, beyond = (arrange(limit.value, settings, over) for over in (False, True))
    if limit.rule in _NOTHING_WITHIN and limit.value == 0:
        within = replace(within, intent=replace(within.intent, is_exit=True))
    passes, denies = _judge(limit, within), _judge(limit, beyond)
    if not passes.passed:
        return Result(limit.rule, limit.scope, False, f"blocks what is allowed: {passes.detail}")
    if denies.passed:
        return Result(limit.rule, limit.scope, False, f"lets through too much: {denies.detail}")
    return Result(limit.rule, limit.scope, True, f"passed and denied ({denies.detail})")


def _judge(limit: Limit, case: Case) -> Verdict:
    enforced = replace(limit, mode=LimitMode.ENFORCE)
    return RULES[limit.rule].judge(enforced, case.intent, case.size, case.facts)


def _test_rate(limit: Limit) -> Result:
    settings = RULES[limit.rule].settings(limit.parameters)
    value, kept = limit.value, settings["kept"]
    fires = not may_send(value, kept, int(value), is_exit=True)
    is_kept = kept == 0 or value <= 1 or not may_send(value, kept, int(value) - 1, is_exit=False)
    passed = may_send(value, kept, 0, is_exit=False) and fires and is_kept
    return Result(limit.rule, limit.scope, passed, "one more message than allowed waits")


def _case(
    *,
    quantity: Decimal = Decimal(1),
    intent: Intent | None = None,
    book: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Case:
    quote = Quote("SELFTEST/USD", PRICE, PRICE, PRICE, _AT)
    empty = Book(1, exposures=(), strategy_exposures=())
    known = Facts(
        at=_AT,
        instrument=Instrument(
            "SELFTEST/USD", "SELFTEST", "SELFTEST", "USD", Decimal("1E-18"), Decimal("0.01")
        ),
        quote=quote,
        equity=EQUITY,
        position_quantity=Decimal(0),
        working_buy_quantity=Decimal(0),
        working_sell_quantity=Decimal(0),
        open_orders=0,
        book=replace(empty, **(book or {})),
    )
    order = intent or Intent(Side.BUY, OrderType.MARKET, is_exit=False)
    return Case(replace(known, **facts), order, Size(quantity, PRICE, quantity * PRICE, ()))


def _grown(value: Decimal, over: bool) -> Decimal:
    return max(value * MORE, Decimal("0.01")) if over else value


Arrange = Callable[[Decimal, Mapping[str, Any], bool], Case]


def _worth(unit: Decimal = Decimal(1)) -> Arrange:
    """An order worth the limit's value times ``unit``, or a hundredth more."""
    return lambda value, _, over: _case(quantity=_grown(value * unit, over) / PRICE)


def _counted(make: Callable[[int], dict[str, Any]]) -> Arrange:
    """Facts with one fewer than the limit, so that the order is the last one; or with as many."""
    return lambda value, _, over: _case(**make(int(value) if over else max(int(value) - 1, 0)))


def _result(value: Decimal, over: bool) -> dict[str, Day]:
    loss = value if over else value * Decimal("0.99")
    return {"day": Day(-loss, Decimal(0), Decimal(0))}


def _collar(value: Decimal, _: Mapping[str, Any], over: bool) -> Case:
    price = PRICE + PRICE * _grown(value, over)
    return _case(intent=Intent(Side.BUY, OrderType.LIMIT, is_exit=False, price=price))


def _quoted(age: int, spread: Decimal) -> Quote:
    half = spread * PRICE / 2
    at = _AT - timedelta(seconds=age)
    return Quote("SELFTEST/USD", PRICE - half, PRICE + half, PRICE, at)


def _hours(value: Decimal, settings: Mapping[str, Any], over: bool) -> Case:
    """The first noon in the zone on a day of the week, or the time the window closes."""
    zone, closes = settings["zone"], settings["closes"]
    days = [_AT.date() + timedelta(days=step) for step in range(21)]
    opening = [day for day in days if day.weekday() in settings["days"]]
    opens = datetime.combine(opening[7 % len(opening)], settings["opens"], zone)
    shut = datetime.combine(opens.date(), closes, zone)
    shut += timedelta(days=0 if closes > settings["opens"] else 1)
    return _case(at=(shut if over else opens + (shut - opens) / 100).astimezone(UTC))


def _group(value: Decimal, settings: Mapping[str, Any], over: bool) -> Case:
    case = _case(quantity=_grown(value, over) / PRICE)
    named = min(settings["symbols"] or {"SELFTEST"})
    symbol = named if "/" in named else f"{named}/USD"
    return replace(
        case, facts=replace(case.facts, instrument=replace(case.facts.instrument, symbol=symbol))
    )


_NOTHING_WITHIN = frozenset(
    {"daily_loss", "max_drawdown", "reject_streak", "max_open_orders", "max_symbol_orders",
     "repeated_execution"}
)  # fmt: skip
"""Rules whose limit of zero leaves only exits to pass."""

_CASES: dict[str, Arrange] = {
    "max_order_value": _worth(),
    "max_order_quantity": lambda value, _, over: _case(quantity=_grown(value, over)),
    "max_capital_share": _worth(EQUITY),
    "price_collar": _collar,
    "duplicate_order": lambda value, _, over: _case(
        book={
            "recent": (
                Recent(
                    Side.BUY,
                    Decimal(1),
                    None,
                    _AT - timedelta(seconds=int(value) + (0 if over else 1)),
                ),
            )
        }
    ),
    "self_match": lambda _value, _, over: _case(
        book={"resting": (Resting(Side.SELL, PRICE if over else PRICE + 1),)}
    ),
    "max_quote_age": lambda value, _, over: _case(
        quote=_quoted(int(value) + (1 if over else 0), Decimal(0))
    ),
    "max_spread": lambda value, _, over: _case(quote=_quoted(0, _grown(value, over))),
    "max_price_jump": lambda value, _, over: _case(
        book={"previous": Seen(PRICE / (1 + _grown(value, over)), _AT)}
    ),
    "trading_hours": _hours,
    "max_position_value": _worth(),
    "max_open_orders": _counted(lambda count: {"open_orders": count}),
    "max_symbol_orders": _counted(lambda count: {"book": {"symbol_orders": count}}),
    "max_account_exposure": _worth(),
    "max_strategy_exposure": _worth(),
    "max_gross_exposure": _worth(),
    "max_net_exposure": _worth(),
    "max_group_exposure": _group,
    "max_leverage": _worth(EQUITY),
    "max_margin_share": lambda value, _, over: _case(
        quantity=_grown(value * EQUITY, over) / PRICE, book={"free_funds": EQUITY}
    ),
    "risk_per_trade": lambda value, _, over: _case(
        quantity=_grown(value * EQUITY, over) / (PRICE / 2),
        intent=Intent(Side.BUY, OrderType.MARKET, is_exit=False, stop_loss=PRICE / 2),
    ),
    "daily_loss": lambda value, _, over: _case(book=_result(value, over)),
    "max_drawdown": lambda value, _, over: _case(book=_result(value, over)),
    "loss_streak": _counted(lambda count: {"book": {"losses": Streak(count, _AT)}}),
    "repeated_execution": lambda value, settings, over: _case(
        book={"entries_within": {settings["window"]: max(int(value) - (0 if over else 1), 0)}}
    ),
    "reject_streak": _counted(lambda count: {"book": {"rejects": Streak(count, _AT)}}),
}
