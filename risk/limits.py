"""The limits operators set: which are in force for an order, and how one is changed."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction
from django.db.models import Q

from brokers.decimals import plain
from brokers.models import Account
from risk import audit
from risk.arithmetic import text
from risk.models import RiskLimit, RiskPolicy
from risk.rules import RULES, Unit
from risk.types import Limit, LimitMode


def limits_for(account_id: int, strategy_slug: str, symbol: str) -> tuple[Limit, ...]:
    """Every limit that is not off and whose scope covers this order. One query."""
    rows = (
        RiskLimit.objects.exclude(mode=RiskLimit.Mode.OFF)
        .filter(
            Q(policy__account=None) | Q(policy__account_id=account_id),
            policy__strategy__in=("", strategy_slug),
            policy__symbol__in=("", symbol),
        )
        .select_related("policy__account")
        .order_by("rule", "pk")
    )
    return tuple(
        Limit(row.rule, row.value, LimitMode(row.mode), scope=str(row.policy)) for row in rows
    )


def set_limit(
    rule: str,
    value: Decimal,
    *,
    account: Account | None = None,
    strategy: str = "",
    symbol: str = "",
    mode: LimitMode = LimitMode.ENFORCE,
    reason: str,
) -> RiskLimit:
    """Set one limit of one scope, with its audit row; in force for the next order judged.

    Raises ValueError, in a sentence for the operator, for an unknown rule, a value its unit forbids
    (fractions are at most 1, orders are counted whole) or a missing reason.
    """
    _refuse_invalid(rule, value, reason)
    with transaction.atomic():
        policy, _ = RiskPolicy.objects.get_or_create(
            account=account, strategy=strategy, symbol=symbol
        )
        # The policy's lock puts two changes of one limit in order, also while its row is missing.
        policy = RiskPolicy.objects.select_for_update(of=("self",)).get(pk=policy.pk)
        limit = RiskLimit.objects.filter(policy=policy, rule=rule).first()
        before = None if limit is None else _state(limit)
        limit = limit or RiskLimit(policy=policy, rule=rule)
        limit.value, limit.mode = plain(value), RiskLimit.Mode(mode.value)
        limit.save()
        audit.record(
            "limit.changed",
            f"limit {rule} ({policy})",
            before=before,
            after=_state(limit),
            reason=reason,
        )
    return limit


def _refuse_invalid(rule: str, value: Decimal, reason: str) -> None:
    if rule not in RULES:
        raise ValueError(f"there is no rule {rule!r}; known: {', '.join(sorted(RULES))}")
    if not value.is_finite() or not 0 <= value < Decimal(10) ** 20:
        raise ValueError(f"a limit is a number of at least 0, not {value}")
    if -int(value.normalize().as_tuple().exponent) > 18:
        raise ValueError(f"a limit has at most 18 decimals, {value} has more")
    unit = RULES[rule].unit
    if unit is Unit.FRACTION and value > 1:
        raise ValueError(f"{rule} is a {unit.value}: 0.02 means 2 %, and {value} is above 1")
    if unit is Unit.ORDERS and value != value.to_integral_value():
        raise ValueError(f"{rule} counts orders: {value} is not a whole number")
    if not reason.strip():
        raise ValueError("a change of a limit needs a reason")


def _state(limit: RiskLimit) -> dict[str, str]:
    return {"value": text(limit.value), "mode": str(limit.mode)}
