"""How much to trade. Pure: numbers in, a size or a refusal out.

Quantities are in the base asset, prices in the quote asset, equity and values in the account's
currency (quote amount × ``Facts.to_account_currency``). Everything is rounded toward less risk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, DecimalException, localcontext

from brokers.types import Side
from risk.arithmetic import ARITHMETIC, floor_to, is_positive, shown, text
from risk.prices import entry_price, stop_distance
from risk.types import (
    Facts,
    Intent,
    Limit,
    LimitMode,
    QuantityType,
    ReasonCode,
    Refusal,
    Size,
    SizingMethod,
    SizingPolicy,
    Step,
)

LARGEST = Decimal(10) ** 20
"""Quantities and values stay below this: what a money column holds before the point."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One sizing under way; ``steps`` is the arithmetic so far."""

    intent: Intent
    policy: SizingPolicy
    facts: Facts
    entry: Decimal
    limits: Sequence[Limit] = ()
    steps: list[Step] = field(default_factory=list)

    def note(self, label: str, formula: str, result: Decimal) -> Decimal:
        self.steps.append(Step(label, formula, shown(result)))
        return result


def size(intent: Intent, policy: SizingPolicy, facts: Facts, limits: Sequence[Limit] = ()) -> Size:
    """The quantity of an order on the instrument's grid, and the arithmetic that led to it.

    An entry of method ``fixed_quantity`` trades what the alert asks for, else what the policy says;
    the other methods compute, and the alert's quantity and the room ``limits`` leave are caps. An
    exit trades what the alert asks for, else (and for ``risk_percent``, which means nothing without
    an entry, and a share of an equity nobody knows) the whole position, and never more than that;
    working exits are not subtracted.

    Raises Refusal with the numbers. A quantity is never rounded up to a venue's minimum.
    """
    with localcontext(ARITHMETIC):
        try:
            case = _Case(intent, policy, facts, entry_price(intent, facts.quote), limits)
            if not is_positive(facts.to_account_currency):
                raise Refusal(
                    ReasonCode.CURRENCY_MISMATCH,
                    f"no rate from {facts.instrument.quote} to the account's currency",
                )
            wanted = _exit_quantity(case) if intent.is_exit else _entry_quantity(case)
            return _fitted(case, wanted)
        except DecimalException as error:
            raise Refusal(
                ReasonCode.SIZE_TOO_LARGE, "the numbers of this order are out of all bounds"
            ) from error


def in_base(intent: Intent, policy: SizingPolicy, facts: Facts) -> Decimal | None:
    """What ``intent`` asks for, in the base asset; ``None`` where that cannot be known."""
    with localcontext(ARITHMETIC):
        try:
            return shown(_asked(_Case(intent, policy, facts, entry_price(intent, facts.quote))))
        except (Refusal, DecimalException):
            return None


def at_most(sized: Size, quantity: Decimal) -> Size:
    """``sized`` cut down to ``quantity``, which lies on the instrument's grid."""
    if sized.quantity <= quantity:
        return sized
    formula = f"min({text(sized.quantity)}, {text(quantity)})"
    with localcontext(ARITHMETIC):
        value = shown(sized.value * quantity / sized.quantity)
    step = Step("capped at what was approved", formula, quantity)
    return replace(sized, quantity=quantity, value=value, steps=(*sized.steps, step))


def _entry_quantity(case: _Case) -> Decimal:
    method = case.policy.method
    asked = None if case.intent.quantity is None else _asked(case)
    if method is SizingMethod.FIXED_QUANTITY:
        return _policy_quantity(case) if asked is None else asked
    if method is SizingMethod.FIXED_PERCENT:
        computed = _worth(case, _share(case, _policy_percent(case), "share of equity"))
    else:
        distance = _distance(case) if method is SizingMethod.RISK else _atr_distance(case)
        computed = _at_risk(case, _policy_percent(case), distance)
    if asked is not None and asked < computed:
        computed = case.note(
            "capped at the quantity asked for", f"min({text(computed)}, {text(asked)})", asked
        )
    return _within_limits(case, computed)


def _within_limits(case: _Case, computed: Decimal) -> Decimal:
    """A size FKS computed itself fits into what the limits leave; without any room they refuse it."""
    room = _room(case)
    if room is None or room <= 0:
        return computed
    most = room / (case.entry * case.facts.to_account_currency)
    if computed <= most:
        return computed
    formula = f"min({text(computed)}, {text(room)} ÷ {text(case.entry)})"
    return case.note("capped at the room the limits leave", formula, most)


def _room(case: _Case) -> Decimal | None:
    """What the order may be worth by the enforced limits, in the account's currency."""
    enforced = [one for one in case.limits if one.mode is LimitMode.ENFORCE]
    rooms = [room for one in enforced if (room := _room_of(one, case)) is not None]
    return min(rooms, default=None)


def _room_of(limit: Limit, case: _Case) -> Decimal | None:
    facts, side = case.facts, case.intent.side
    match limit.rule:
        case "max_order_value":
            return limit.value
        case "max_order_quantity":
            return limit.value * case.entry * facts.to_account_currency
        case "max_capital_share":
            return None if facts.equity is None else limit.value * facts.equity
        case "max_position_value":
            buying, selling = facts.working_buy_quantity, facts.working_sell_quantity
            before = facts.position_quantity * side.sign + (buying if side is Side.BUY else selling)
            return limit.value - before * facts.quote.worst(side) * facts.to_account_currency
    return None


def _exit_quantity(case: _Case) -> Decimal:
    held = -case.facts.position_quantity * case.intent.side.sign
    if held <= 0:
        raise Refusal(
            ReasonCode.NOTHING_TO_CLOSE,
            f"there is no position a {case.intent.side.value} would reduce",
            {"position": case.facts.position_quantity},
        )
    if case.intent.quantity is None or _is_unknown_share(case):
        return case.note("whole position", text(held), held)
    asked = _asked(case)
    if asked > held:
        return case.note("capped at the open position", f"min({text(asked)}, {text(held)})", held)
    return asked


def _is_unknown_share(case: _Case) -> bool:
    """Whether how much the exit is meant to be cannot be known: then it is all, not nothing."""
    unit, equity = case.intent.quantity_type, case.facts.equity
    has_no_equity = equity is None or not equity.is_finite()
    return unit is QuantityType.RISK_PERCENT or (
        unit is QuantityType.PERCENT_OF_EQUITY and has_no_equity
    )


def _asked(case: _Case) -> Decimal:
    """The alert's quantity in base units."""
    quantity, unit = case.intent.quantity, case.intent.quantity_type
    if quantity is None or not is_positive(quantity):
        raise Refusal(ReasonCode.SIZE_MISSING, "the alert's quantity is not a positive number")
    if unit is QuantityType.BASE:
        return case.note("quantity asked for", text(quantity), quantity)
    if unit is QuantityType.QUOTE:
        formula = f"{text(quantity)} ÷ {text(case.entry)}"
        return case.note("amount ÷ price", formula, quantity / case.entry)
    if unit is QuantityType.PERCENT_OF_POSITION:
        held = abs(case.facts.position_quantity)
        formula = f"{text(held)} × {text(quantity)} %"
        return case.note("share of the position", formula, held * quantity / 100)
    if unit is QuantityType.PERCENT_OF_EQUITY:
        return _worth(case, _share(case, quantity / 100, "share of equity"))
    return _at_risk(case, quantity / 100, _distance(case))


def _policy_quantity(case: _Case) -> Decimal:
    quantity = case.policy.quantity
    if quantity is None or not is_positive(quantity):
        raise Refusal(
            ReasonCode.SIZE_MISSING, "neither the alert nor the route's sizing names a quantity"
        )
    return case.note("quantity of the route", text(quantity), quantity)


def _policy_percent(case: _Case) -> Decimal:
    percent = case.policy.percent
    if percent is None or not is_positive(percent):
        raise Refusal(ReasonCode.SIZE_MISSING, "the route's sizing names no percent of equity")
    return percent


def _share(case: _Case, fraction: Decimal, label: str) -> Decimal:
    """That fraction of equity, in the account's currency."""
    equity = case.facts.equity
    if equity is None or not equity.is_finite():
        raise Refusal(ReasonCode.EQUITY_UNKNOWN, "the account's equity is not known")
    return case.note(f"equity × {label}", f"{text(equity)} × {text(fraction)}", equity * fraction)


def _worth(case: _Case, amount: Decimal) -> Decimal:
    return _divided(case, "amount ÷ price", amount, case.entry)


def _at_risk(case: _Case, fraction: Decimal, distance: Decimal) -> Decimal:
    return _divided(
        case, "risk ÷ stop distance", _share(case, fraction, "risk per trade"), distance
    )


def _divided(case: _Case, label: str, amount: Decimal, per_unit: Decimal) -> Decimal:
    """``amount`` of the account's currency ÷ ``per_unit`` of the quote asset."""
    rate = case.facts.to_account_currency
    divisor = text(per_unit) if rate == 1 else f"({text(per_unit)} × {text(rate)})"
    return case.note(label, f"{text(amount)} ÷ {divisor}", amount / (per_unit * rate))


def _distance(case: _Case) -> Decimal:
    stop_loss = case.intent.stop_loss
    if stop_loss is None:
        raise Refusal(
            ReasonCode.STOP_LOSS_MISSING, "sizing by risk needs a stop loss, and the alert has none"
        )
    distance = stop_distance(case.intent.side, case.entry, stop_loss)
    return case.note("stop distance", f"|{text(case.entry)} − {text(stop_loss)}|", distance)


def _atr_distance(case: _Case) -> Decimal:
    atr, multiple = case.facts.atr, case.policy.atr_multiple
    if atr is None or not is_positive(atr):
        raise Refusal(ReasonCode.REFERENCE_UNAVAILABLE, "the average true range is not known")
    if multiple is None or not is_positive(multiple):
        raise Refusal(ReasonCode.SIZE_MISSING, "the route's sizing names no multiple of the ATR")
    return case.note("ATR × multiple", f"{text(atr)} × {text(multiple)}", atr * multiple)


def _fitted(case: _Case, wanted: Decimal) -> Size:
    """``wanted`` within the venue's rules: capped, rounded down, refused when too small. An exit that
    may go out in several orders is not capped: it leaves nothing behind.
    """
    rules = case.facts.instrument
    quantity = max(wanted, Decimal(0))
    if (
        rules.max_quantity is not None
        and quantity > rules.max_quantity
        and not (case.intent.is_exit and case.intent.may_divide)
    ):
        formula = f"min({text(quantity)}, {text(rules.max_quantity)})"
        quantity = case.note("capped at the venue's maximum", formula, rules.max_quantity)
    rounded = floor_to(quantity, rules.quantity_step)
    if rounded != quantity:
        formula = f"{text(quantity)} in steps of {text(rules.quantity_step)}"
        case.note("rounded down", formula, rounded)
    _refuse_unusable(case, wanted, rounded)
    worth = rounded * case.entry * case.facts.to_account_currency
    if max(rounded, worth) >= LARGEST:
        raise Refusal(
            ReasonCode.SIZE_TOO_LARGE,
            "the order is larger than any account",
            {"quantity": shown(rounded), "value": shown(worth)},
        )
    return Size(rounded, case.entry, shown(worth), tuple(case.steps))


def _refuse_unusable(case: _Case, wanted: Decimal, rounded: Decimal) -> None:
    """Raises Refusal for what the venue takes no order for, and for an entry too small for its stop."""
    intent, rules = case.intent, case.facts.instrument
    rules = rules.of_exits if intent.is_exit else rules
    least = max(rules.min_quantity or Decimal(0), rules.quantity_step)
    numbers = {"wanted": shown(wanted), "quantity": rounded, "price": case.entry}
    if rounded < least:
        raise Refusal(
            ReasonCode.SIZE_TOO_SMALL,
            f"{text(wanted)} {rules.base} is below the smallest order of {text(least)}",
            {**numbers, "min_quantity": least},
        )
    worth = rounded * case.entry
    if rules.min_value is not None and worth < rules.min_value:
        raise Refusal(
            ReasonCode.SIZE_TOO_SMALL,
            f"an order of {text(worth)} {rules.quote} is below the smallest of "
            f"{text(rules.min_value)}",
            {**numbers, "value": shown(worth), "min_value": rules.min_value},
        )
    least_stop, stop = rules.of_exits.min_value, intent.stop_loss
    if intent.is_exit or stop is None or least_stop is None:
        return
    if (left := rounded * stop) < least_stop:
        raise Refusal(
            ReasonCode.SIZE_TOO_SMALL,
            f"its stop at {text(stop)} would be worth {text(left)} {rules.quote}: the venue takes none "
            f"below {text(least_stop)}, and the position would stay unguarded",
            {**numbers, "stop": stop, "value": shown(left), "min_value": least_stop},
        )
