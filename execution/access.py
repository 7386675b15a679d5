"""Whose each row is: what somebody sees and changes who works with some accounts only.

A strategy is seen by whoever works with one account it routes to, and is theirs when it routes to no
other. An alert that names its account (an order placed by hand, a target FKS watches) belongs to that.
"""

from __future__ import annotations

from django.db.models import CharField, Q, QuerySet, Value
from django.db.models.functions import Concat

from brokers.access import HIDDEN, RULES, SHARED, Reach, Rule, of_account
from brokers.models import Account, Instrument, SymbolAlias
from execution import book
from execution.models import (
    Adoption,
    Alarm,
    Difference,
    EquitySample,
    Fill,
    FundingPayment,
    Order,
    Position,
    Protection,
    QuarantinedBody,
    Route,
    RoutingDecision,
    Signal,
    SpreadWatch,
    Strategy,
)
from execution.states import TERMINAL
from risk import breakers
from risk.models import (
    AuditEvent,
    Channel,
    CircuitBreaker,
    ClientAddress,
    IPAllowlist,
    LimitHit,
    Notice,
    Proposal,
    RateLimit,
    RiskLimit,
    RiskPolicy,
    RiskReport,
    Safeguards,
    TradingState,
)

Scope = TradingState.Scope


# --- strategies and what belongs to them ----------------------------------------------------------


def _seen_strategy(reach: Reach) -> Q:
    return Q(pk__in=Route.objects.filter(account__in=reach.ids).order_by().values("strategy"))


def _own_strategy(reach: Reach) -> Q:
    others = Route.objects.exclude(account__in=reach.ids).order_by().values("strategy")
    return _seen_strategy(reach) & ~Q(pk__in=others)


def own_strategies(reach: Reach) -> QuerySet[Strategy]:
    """Those that trade on no account but these."""
    return Strategy.objects.filter(_own_strategy(reach)).order_by()


def _seen_strategies(reach: Reach) -> QuerySet[Strategy]:
    return Strategy.objects.filter(_seen_strategy(reach)).order_by()


_NAMES_NONE = Q(alert__account__isnull=True)


def _names_one(reach: Reach) -> Q:
    return Q(alert__account__in=sorted(reach.names))


def _seen_signal(reach: Reach) -> Q:
    return _names_one(reach) | _NAMES_NONE & Q(strategy__in=_seen_strategies(reach))


def _own_signal(reach: Reach) -> Q:
    return _names_one(reach) | _NAMES_NONE & Q(strategy__in=own_strategies(reach))


# --- limits, switches and breakers ----------------------------------------------------------------


def _seen_limits(path: str) -> Rule:
    """Limits of these accounts; those of everything, or of a strategy, hold for them as well."""

    def seen(reach: Reach) -> Q:
        general = Q(**{f"{path}strategy": ""}) | Q(
            **{f"{path}strategy__in": _seen_strategies(reach).values("slug")}
        )
        return own_account(reach) | Q(**{f"{path}account": None}) & general

    def own(reach: Reach) -> Q:
        strategies = own_strategies(reach).values("slug")
        of_strategy = Q(**{f"{path}account": None, f"{path}strategy__in": strategies})
        return own_account(reach) | of_strategy

    def own_account(reach: Reach) -> Q:
        return Q(**{f"{path}account__in": reach.ids})

    return Rule(seen, own, may_add=True)


def _seen_breaker(reach: Reach) -> Q:
    venues = {breakers.venue_of(account) for account in reach.accounts}
    return Q(account__in=reach.ids) | Q(account=None, venue__in=sorted(venues))


def _own_breaker(reach: Reach) -> Q:
    return Q(account__in=reach.ids)


def _seen_switch(reach: Reach) -> Q:
    general = Q(scope__in=(Scope.GLOBAL, Scope.SYMBOL))
    venue = Q(scope=Scope.VENUE, key__in=sorted(reach.venues))
    strategy = Q(scope=Scope.STRATEGY, key__in=_seen_strategies(reach).values("slug"))
    return general | venue | strategy | Q(scope=Scope.ACCOUNT, key__in=sorted(reach.names))


def _own_switch(reach: Reach) -> Q:
    strategy = Q(scope=Scope.STRATEGY, key__in=own_strategies(reach).values("slug"))
    return strategy | Q(scope=Scope.ACCOUNT, key__in=sorted(reach.names))


def may_switch(reach: Reach, scope: TradingState.Scope, key: str) -> bool:
    """Whether the kill switch of ``scope`` touches no other account: used for the first time, too."""
    if scope == Scope.STRATEGY:
        is_own = own_strategies(reach).filter(slug=key).exists()
        return is_own and not _has_something_left(reach, key)
    return scope == Scope.ACCOUNT and key in reach.names


def _has_something_left(reach: Reach, slug: str) -> bool:
    """Whether orders of the strategy, or what they bought, are left on another account: it may have had
    a route there."""
    orders = Order.objects.exclude(account__in=reach.ids).filter(strategy__slug=slug)
    fills = Fill.objects.exclude(account__in=reach.ids).filter(order__strategy__slug=slug)
    return orders.exclude(state__in=TERMINAL).exists() or fills.filter(book.since_flat()).exists()


# --- what was changed, and what is proposed -------------------------------------------------------


def _proposal(reach: Reach) -> Q:
    names, slugs = sorted(reach.names), own_strategies(reach).values_list("slug", flat=True)
    strategy = Q(payload__strategy__in=list(slugs))
    return (
        Q(payload__account__in=names)
        | strategy & (Q(payload__account="") | Q(payload__account__isnull=True))
        | Q(payload__scope=Scope.ACCOUNT.value, payload__key__in=names)
        | Q(payload__scope=Scope.STRATEGY.value, payload__key__in=list(slugs))
    )


def _seen_event(reach: Reach) -> Q:
    """What they did themselves, and what is named after their accounts and strategies."""
    named = Concat(Value("strategy "), "slug", output_field=CharField())
    subjects = own_strategies(reach).values_list(named)
    found = Q(actor=reach.username) | Q(subject__in=subjects)
    for name in reach.names:
        whole = (f"account {name}", f"credential of account {name}", f"breaker {name}")
        found |= Q(subject__in=whole) | Q(subject__endswith=f" on {name}")
        found |= Q(subject__endswith=f" (account {name})")
    return found


# --- the table ------------------------------------------------------------------------------------

RULES |= {
    Account: of_account("pk"),
    Instrument: of_account(),
    SymbolAlias: Rule(
        lambda reach: Q(account__in=reach.ids) | Q(account=None), of_account().own, may_add=True
    ),
    Order: of_account(),
    Fill: of_account(),
    EquitySample: of_account(),
    FundingPayment: of_account(),
    Adoption: of_account("order__account"),
    Position: of_account(),
    Protection: of_account(),
    Difference: of_account(),
    Alarm: of_account(),
    Strategy: Rule(_seen_strategy, _own_strategy, may_add=True),
    Route: of_account(),
    Signal: Rule(_seen_signal, _own_signal),
    # Both tell of several accounts at once.
    RoutingDecision: HIDDEN,
    SpreadWatch: HIDDEN,
    QuarantinedBody: Rule(
        lambda reach: Q(strategy__in=_seen_strategies(reach)),
        lambda reach: Q(strategy__in=own_strategies(reach)),
    ),
    RiskPolicy: _seen_limits(""),
    RiskLimit: _seen_limits("policy__"),
    LimitHit: of_account(),
    CircuitBreaker: Rule(_seen_breaker, _own_breaker),
    TradingState: Rule(_seen_switch, _own_switch),
    Proposal: Rule(_proposal, _proposal),
    AuditEvent: Rule(_seen_event, SHARED.own),
    IPAllowlist: SHARED,
    RateLimit: SHARED,
    ClientAddress: SHARED,
    Safeguards: SHARED,
    RiskReport: HIDDEN,
    Channel: HIDDEN,
    Notice: HIDDEN,
}
