"""What of a position its venue holds as well, where a stop on nothing would open the other side.

A position is closed without FKS too: by hand, or by the firm. The venue may cancel its stop then, and
one placed anew would wait there for a position that is gone.
"""

from __future__ import annotations

from decimal import Decimal

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from brokers.capabilities import Capabilities
from execution.closable import held_by_both
from execution.models import Order, Protection
from execution.states import OrderState


def known_of(plan: Protection, held: Decimal, offers: Capabilities) -> Decimal:
    """``held`` of our book, or less of it while the venue is known to hold less; signed."""
    if not _may_open(offers):
        return held
    return held_by_both(plan.account_id, plan.symbol, held)


def is_unsure(plan: Protection, offers: Capabilities) -> bool:
    """Whether a ``plan`` without its stop waits for a comparison: one has ended there without a wish of
    ours since the last. The plan says so."""
    here = {"account": plan.account_id, "symbol": plan.symbol}
    if plan.naked_since is None or not _may_open(offers) or not _lost().filter(**here).exists():
        return False
    plan.detail += "; a stop ended there unasked, and what the venue holds is looked up first"
    return True


def accounts_to_compare() -> list[int]:
    """Accounts with a position that may wait for a comparison before it gets its stop again."""
    plans = Protection.objects.filter(is_active=True, naked_since__isnull=False)
    lost = _lost().filter(account=OuterRef("account"), symbol=OuterRef("symbol"))
    here = plans.filter(Exists(lost), account__is_active=True)
    return list(here.order_by().values_list("account_id", flat=True).distinct())


def _may_open(offers: Capabilities) -> bool:
    """Whether a stop could open a position; where it needs coins the venue refuses it without them."""
    return not (offers.reduce_only or offers.locks_balance)


def _lost() -> QuerySet[Order]:
    """Those ended before the clock was set back, seemingly later than now, hold nothing up."""
    ended = Order.objects.filter(
        role=Order.Role.STOP_LOSS, state__in=(OrderState.CANCELED, OrderState.EXPIRED), reason=""
    )
    not_since = Q(finished_at__gte=F("account__reconciled_at")) | Q(account__reconciled_at=None)
    return ended.filter(not_since, finished_at__lte=timezone.now())
