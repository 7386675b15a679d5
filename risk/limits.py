"""The limits operators set: which are in force for an order, and how one is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from brokers.decimals import plain
from brokers.models import Account
from brokers.prepared import Prepared, given
from risk import audit, scopes
from risk.arithmetic import text
from risk.book import LOOKED_BACK
from risk.models import RiskLimit, RiskPolicy
from risk.rules import RULES, Start, Unit
from risk.types import Limit, LimitMode

PORTFOLIO_LOCK = 0x464B5303
STRATEGY_LOCK = 0x464B5304
LONGEST = 31 * 86400
"""The most seconds or minutes a limit counts: far more no calendar can reckon with."""
_TAKE_TURNS = """
SELECT CASE WHEN EXISTS (SELECT FROM risk_risklimit WHERE rule = ANY(%s) AND mode <> 'off')
       THEN pg_advisory_xact_lock(%s) END,
       pg_advisory_xact_lock(%s, %s)
"""
_READ = ("rule", "value", "mode", "parameters")


def limits_for(
    account_id: int, strategy_slug: str, symbol: str, *, rule: str = ""
) -> tuple[Limit, ...]:
    """Every limit (of ``rule``, if named) that is not off and covers this order. One query."""
    place = {"account": account_id, "strategy": strategy_slug, "symbol": symbol}
    rows = _covering_by(rule=rule, **place) if rule else _covering(**place)
    return tuple(
        Limit(row.rule, row.value, LimitMode(row.mode), str(row.policy), row.parameters)
        for row in rows
    )


@Prepared
def _covering() -> QuerySet[RiskLimit]:
    return (
        RiskLimit.objects.exclude(mode=RiskLimit.Mode.OFF)
        .filter(
            Q(policy__account=None) | Q(policy__account=given("account")),
            policy__strategy__in=("", given("strategy")),
            policy__symbol__in=("", given("symbol")),
        )
        .select_related("policy__account")
        .only(*_READ, "policy__account__name", "policy__strategy", "policy__symbol")
        .order_by("rule", "pk")
    )


def limits_of(rule: str) -> QuerySet[RiskLimit]:
    """Every limit of ``rule`` that is not off, whatever it covers."""
    return RiskLimit.objects.filter(rule=rule).exclude(mode=RiskLimit.Mode.OFF)


@Prepared
def _covering_by() -> QuerySet[RiskLimit]:
    return _covering.queryset().filter(rule=given("rule"))


def take_turns(strategy_id: int) -> None:
    """Hold off other decisions that count the same things, until the caller's transaction ends: those
    of the strategy, and all of them while a limit looks beyond one account. Before any row is locked.
    """
    names = [rule.name for rule in RULES.values() if rule.portfolio]
    with connection.cursor() as cursor:
        cursor.execute(_TAKE_TURNS, [names, PORTFOLIO_LOCK, STRATEGY_LOCK, strategy_id % 2**31])


def usual_limits(given: Mapping[str, Decimal]) -> Iterator[tuple[str, Decimal, LimitMode]]:
    """What an installation begins with: rule, value (its default, or the one ``given``) and mode."""
    for rule in RULES.values():
        if rule.start is not Start.UNSET:
            yield rule.name, given.get(rule.name, rule.default), LimitMode(rule.start.value)


def first_limits(given: Mapping[str, Decimal]) -> None:
    """Set the usual limits of a new installation, before anybody works with it."""
    for rule, value, mode in usual_limits(given):
        set_limit(rule, value, mode=mode, reason="default of a new installation")


def set_limit(
    rule: str,
    value: Decimal,
    *,
    account: Account | None = None,
    strategy: str = "",
    symbol: str = "",
    mode: LimitMode = LimitMode.ENFORCE,
    parameters: Mapping[str, str] | None = None,
    reason: str,
) -> RiskLimit:
    """Set one limit of one scope, with its audit row; in force for the next order judged.

    ``parameters`` replace those of the limit; ``None`` keeps them. Raises ValueError, in a sentence
    for the operator, for an unknown rule or parameter, a value its unit forbids (fractions are at most
    1, orders are counted whole), a scope no order is in or a missing reason.
    """
    refuse_invalid(rule, value, parameters or {})
    symbol = symbol_in_scope(account, strategy, symbol, mode)
    if not reason.strip():
        raise ValueError("a change of a limit needs a reason")
    with transaction.atomic():
        policy, _ = RiskPolicy.objects.get_or_create(
            account=account, strategy=strategy, symbol=symbol
        )
        # The policy's lock puts two changes of one limit in order, also while its row is missing.
        policy = RiskPolicy.objects.select_for_update(of=("self",)).get(pk=policy.pk)
        limit = RiskLimit.objects.filter(policy=policy, rule=rule).first()
        before = None if limit is None else state_of(limit)
        limit = limit or RiskLimit(policy=policy, rule=rule)
        limit.value, limit.mode = plain(value), RiskLimit.Mode(mode.value)
        if parameters is not None:
            told = scopes.group_of(rule, parameters)
            limit.parameters = {name: text for name, text in told.items() if text}
        limit.save()
        audit.record(
            "limit.changed",
            f"limit {rule} ({policy})",
            before=before,
            after=state_of(limit),
            reason=reason,
        )
    return limit


def symbol_in_scope(account: Account | None, strategy: str, symbol: str, mode: LimitMode) -> str:
    """``symbol`` as orders carry it. Raises ValueError for what no order can have, and for a strategy
    nobody has; a limit may be switched off where it is, whatever its scope has become.
    """
    where = RiskPolicy.objects.filter(account=account, strategy=strategy, symbol=symbol)
    if mode is LimitMode.OFF and where.exists():
        return symbol
    scopes.strategy_of(strategy)
    return scopes.symbol_of(symbol, account)


def refuse_invalid(rule: str, value: Decimal, parameters: Mapping[str, str]) -> None:
    """Raise ValueError, in a sentence for the operator, for what cannot be a limit of ``rule``."""
    if rule not in RULES:
        raise ValueError(f"there is no rule {rule!r}; known: {', '.join(sorted(RULES))}")
    if not value.is_finite() or not 0 <= value < Decimal(10) ** 20:
        raise ValueError(f"a limit is a number of at least 0, not {value}")
    if -int(value.normalize().as_tuple().exponent) > 18:
        raise ValueError(f"a limit has at most 18 decimals, {value} has more")
    _refuse_unit(rule, value)
    RULES[rule].settings(parameters)


def _refuse_unit(rule: str, value: Decimal) -> None:
    unit, least = RULES[rule].unit, RULES[rule].least
    if unit.is_fraction and value > 1:
        raise ValueError(f"{rule} is a {unit.value}: 0.02 means 2 %, and {value} is above 1")
    if unit.is_whole and value != value.to_integral_value():
        raise ValueError(f"{rule} counts {unit.value}: {value} is not a whole number")
    if unit.is_time and value > LONGEST:
        raise ValueError(f"{rule} is at most {LONGEST} {unit.value}, not {value}")
    if unit is Unit.TIMES and value > LOOKED_BACK:
        raise ValueError(
            f"{rule} looks back at {LOOKED_BACK} orders: {value} would never be reached"
        )
    if value < least:
        raise ValueError(f"{rule} is at least {least}, not {value}; mode off switches it off")
    if unit is Unit.SWITCH and value != 1:
        raise ValueError(f"{rule} is on or off: its value is 1, and mode off switches it off")


def state_of(limit: RiskLimit) -> dict[str, str]:
    """What a limit says: its value, mode and parameters, as text."""
    state = {"value": text(limit.value), "mode": str(limit.mode)}
    return state | {name: str(value) for name, value in sorted(limit.parameters.items())}
