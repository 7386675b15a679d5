"""What of a position its venue holds as well, where a stop on nothing would open the other side.

A position is closed without FKS too: by hand, or by the firm. The venue may cancel its stop then, and
one placed anew would wait there for a position that is gone.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.capabilities import Capabilities
from brokers.models import Account
from execution.closable import held_by_both
from execution.comparison import LINGERS, coin_of
from execution.facts import venue_call
from execution.models import Difference, Fill, Order, OrderEvent, Position, Protection
from execution.states import OrderState

LOOK = "look"
ZERO = Decimal(0)
_NOT_SINCE = Q(finished_at__gte=F("account__reconciled_at")) | Q(account__reconciled_at=None)
"""Stops that have ended since their account was last compared."""


def known_of(
    plan: Protection, held: Decimal, offers: Capabilities, told: Decimal | None = None
) -> Decimal:
    """``held`` of our book, or less of it while the venue is known to hold less, or has just ``told``
    so; signed."""
    if not _may_open(offers):
        return held
    known = held_by_both(plan.account_id, plan.symbol, held)
    if told is None:
        return known
    return min(known, told, key=abs) if known * told > 0 else ZERO


def told_of(plan: Protection, plugin: ExecutionPlugin) -> Decimal | None:
    """What the venue says it holds. It is asked where the account has been compared since a stop ended
    and the coin was left out: an order may keep it moving until an operator comes. Raises BrokerError
    or Refusal.
    """
    if not _is_bare(plan, plugin.capabilities) or not _lost_of(plan).exclude(_NOT_SINCE).exists():
        return None
    with venue_call(plan.account):
        held = plugin.positions()
    return sum((one.quantity for one in held if one.symbol == plan.symbol), ZERO)


def is_unsure(plan: Protection, offers: Capabilities, told: Decimal | None) -> bool:
    """Whether a ``plan`` without its stop waits for a comparison, or for the venue's word where that
    left the coin out: one has ended there without a wish of ours since. The plan says so."""
    if not (_is_bare(plan, offers) and _waits_for_word(plan, told)):
        return False
    plan.detail += "; a stop ended there unasked, and what the venue holds is looked up first"
    return True


def most_to_close(plan: Protection, plugin: ExecutionPlugin) -> Decimal | None:
    """No more of a position is closed by FKS itself while a ``plan`` misses its stop: what the venue is
    known to hold, and nothing while it is still to be asked since the stop has ended. ``None`` where
    that is all our book holds. Raises like ``told_of``."""
    offers = plugin.capabilities
    if not _is_bare(plan, offers):
        return None
    told = told_of(plan, plugin)
    if _waits_for_word(plan, told):
        return ZERO
    held = Position.objects.get(account=plan.account_id, symbol=plan.symbol).quantity
    known = known_of(plan, held, offers, told)
    return None if held and known == held else abs(known)


def is_told_once(plan: Protection) -> bool:
    """Whether one comparison alone has found what the venue says now, and the next is due: one answer
    may be wrong or late, and no stop goes for it.
    """
    return _told_once().filter(account=plan.account_id, symbol=plan.symbol).exists()


def accounts_to_compare() -> list[int]:
    """Accounts with a position that waits for a comparison before it gets its stop again, or for a
    second one before its stop goes."""
    lane = {"account": OuterRef("account"), "symbol": OuterRef("symbol")}
    is_bare = Q(Exists(_lost().filter(_NOT_SINCE, **lane)), naked_since__isnull=False)
    waits = is_bare | Q(Exists(_told_once().filter(**lane)))
    here = Protection.objects.filter(waits, is_active=True, account__is_active=True)
    return list(here.order_by().values_list("account_id", flat=True).distinct())


def note_compared(account: Account, *, left_out: Collection[str], since: datetime) -> None:
    """Note on stops that ended before ``since`` that what the venue holds has been compared after that;
    not on those whose coins were ``left_out``.
    """
    guarded = Protection.objects.filter(account=account, is_active=True)
    ended = _lost().filter(account=account, finished_at__lt=since)
    for stop in ended.filter(symbol__in=guarded.values("symbol")):
        if coin_of(stop.symbol) not in left_out:
            stop.journal.create(
                at=timezone.now(),
                event=LOOK,
                from_state=stop.state,
                to_state=stop.state,
                attempt=stop.attempt,
                actor="system",
                detail="ended unasked: what the venue holds has been compared since",
            )


def _is_bare(plan: Protection, offers: Capabilities) -> bool:
    """Whether a stop of ``plan`` is missing that could open a position."""
    return plan.naked_since is not None and _may_open(offers)


def _may_open(offers: Capabilities) -> bool:
    """Whether a stop could open a position; where it needs coins the venue refuses it without them."""
    return not (offers.reduce_only or offers.locks_balance)


def _told_once() -> QuerySet[Difference]:
    """Not for longer than comparisons come anyway: a coin may be left out of them."""
    found = Difference.objects.filter(kind=Difference.Kind.POSITION, state__in=Difference.BLOCKING)
    lately = timezone.now() - LINGERS
    return found.filter(last_seen_at=F("theirs_since"), theirs_since__gt=lately)


def _waits_for_word(plan: Protection, told: Decimal | None) -> bool:
    lost = _lost_of(plan) if told is None else _lost_of(plan).filter(_NOT_SINCE)
    return lost.exists()


def _lost_of(plan: Protection) -> QuerySet[Order]:
    """Not those of an earlier position. One of its own entry may end before that one's fill is told."""
    here = Position.objects.filter(account=plan.account_id, symbol=plan.symbol)
    opened = Fill.objects.filter(pk__in=here.values("first_fill_id"))
    earlier = Exists(opened.filter(recorded_at__gt=OuterRef("finished_at")))
    is_its_own = ~earlier | Q(signal=plan.entry.signal_id)
    return _lost().filter(is_its_own, account=plan.account_id, symbol=plan.symbol)


def _lost() -> QuerySet[Order]:
    """Stops that ended at the venue without a wish of ours, and what it holds was not compared since.
    Those ended before the clock was set back, seemingly later than now, hold nothing up.
    """
    ended = Order.objects.filter(
        role=Order.Role.STOP_LOSS, state__in=(OrderState.CANCELED, OrderState.EXPIRED), reason=""
    )
    looks = OrderEvent.objects.filter(order=OuterRef("pk"), event=LOOK)
    compared = Exists(looks.filter(at__gte=OuterRef("finished_at")))
    return ended.filter(~compared, finished_at__lte=timezone.now())
