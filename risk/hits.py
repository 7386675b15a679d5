"""What limits did: denials, would-be denials and warnings, kept as rows; and halts that follow."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from brokers.models import Account
from risk import audit, notices, switch
from risk.channels import Event
from risk.models import LimitHit, TradingState
from risk.rules import RULES
from risk.types import LimitMode, ReasonCode, Verdict

logger = logging.getLogger(__name__)

GUARD = audit.Actor("risk rule")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a limit was met."""

    account_id: int
    strategy: str
    symbol: str
    order_id: UUID


def note(place: Place, verdicts: Sequence[Verdict]) -> None:
    """One row per limit that denied, would have denied, or has four fifths used up."""
    now = timezone.now()
    for verdict in verdicts:
        if verdict.rule in RULES and _kind(verdict) is LimitHit.Kind.WARNED:
            _tell(place, verdict, now)
    LimitHit.objects.bulk_create(
        LimitHit(
            at=now,
            kind=kind,
            rule=verdict.rule,
            scope=verdict.scope,
            account_id=place.account_id,
            strategy=place.strategy,
            symbol=place.symbol,
            order_id=place.order_id,
            detail=verdict.detail,
        )
        for verdict in verdicts
        if verdict.rule in RULES and (kind := _kind(verdict)) is not None
    )


def _tell(place: Place, verdict: Verdict, now: datetime) -> None:
    """A limit four fifths used by an account, once in each hour of the clock: every further order would
    say it again.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    told = LimitHit.objects.filter(
        kind=LimitHit.Kind.WARNED,
        rule=verdict.rule,
        scope=verdict.scope,
        account=place.account_id,
        at__gte=hour,
        at__lt=hour + timedelta(hours=1),
    )
    if not told.exists():
        title = f"{verdict.rule} is 80 % used ({verdict.scope})"
        notices.tell(
            Event.LIMIT_NEAR,
            lambda: notices.News(
                title,
                verdict.detail,
                account=_name(place.account_id),
                strategy=place.strategy,
                symbol=place.symbol,
            ),
        )


def _name(account_id: int) -> str:
    return Account.objects.values_list("name", flat=True).get(pk=account_id)


def _kind(verdict: Verdict) -> LimitHit.Kind | None:
    if verdict.denies:
        return LimitHit.Kind.DENIED
    if not verdict.passed and verdict.mode is LimitMode.OBSERVE:
        return LimitHit.Kind.OBSERVED
    return LimitHit.Kind.WARNED if verdict.warns else None


def today() -> Mapping[tuple[str, str], Counter[str]]:
    """Since midnight UTC: how often each (rule, scope) denied, would have denied, or warned."""
    midnight = datetime.combine(timezone.now().astimezone(UTC), datetime.min.time(), UTC)
    rows = LimitHit.objects.filter(at__gte=midnight).order_by()
    counts: dict[tuple[str, str], Counter[str]] = {}
    for rule, scope, kind, count in rows.values_list("rule", "scope", "kind").annotate(Count("pk")):
        counts.setdefault((rule, scope), Counter())[kind] = count
    return counts


def halts(verdict: Verdict) -> bool:
    """Whether a denial by this rule switches the strategy off."""
    rule = RULES.get(verdict.rule)
    unknown = verdict.code is ReasonCode.NO_LIMIT_SET
    return rule is not None and rule.halts and not unknown


def halt(strategy: str, verdict: Verdict) -> None:
    """Switch the strategy off until an operator resumes it; once, however many orders were denied.

    Where it is off already nothing changes: an operator may have had it closed in this moment.
    """
    scope, halted = TradingState.Scope.STRATEGY, TradingState.State.HALTED
    with transaction.atomic(), audit.acting(GUARD):
        switch.hold()
        if TradingState.objects.filter(scope=scope, key=strategy, state=halted).exists():
            return
        logger.error("the strategy %s is halted: %s", strategy, verdict.detail)
        reason = f"{verdict.rule}: {verdict.detail}"
        switch.change(halted, scope=scope, key=strategy, reason=reason)
