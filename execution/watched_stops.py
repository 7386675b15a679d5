"""Stop losses FKS watches itself, where the venue takes none and the account's operator allows it.

``watching`` compares the market with them about once a second; ``protect`` closes the position once one
was passed. That it was passed is kept, as a stop at a venue stays triggered: the position leaves
also if the price comes back.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.utils import timezone

from brokers.types import Quote, Side
from execution.models import Order, Protection
from execution.states import TERMINAL
from risk.arithmetic import text

STALE_AFTER = timedelta(seconds=5)
"""Without a price for so long, a watched stop guards nothing."""


def end(plan: Protection) -> None:
    """The venue holds stops: nothing is watched in its place."""
    plan.watched_at = plan.watched_price = plan.passed_at = None


def note(plan: Protection, wanted: Decimal) -> None:
    """Say how the ``wanted`` quantity is guarded, and since when not. The caller saves ``plan``."""
    if plan.stop_price is None:
        return
    now, stop = timezone.now(), text(plan.stop_price)
    plan.watched_at = plan.watched_at or now
    if plan.passed_at is not None:
        plan.naked_since = plan.naked_since or plan.passed_at
        plan.detail = (
            f"the market passed the watched stop at {stop}: {text(wanted)} is being closed"
        )
    elif now - plan.watched_at > STALE_AFTER:
        plan.naked_since = plan.naked_since or plan.watched_at
        plan.detail = unseen(plan)
    else:
        plan.naked_since = None
        plan.detail = f"FKS watches the stop at {stop} for {text(wanted)}: the venue holds none"


def unseen(plan: Protection) -> str:
    """Why a watched stop guards nothing now, for its operator."""
    stop = text(plan.stop_price or Decimal(0))
    return f"FKS watches the stop at {stop}, and has seen no price since {plan.watched_at:%H:%M:%S} UTC"


def compare(plan: Protection, quote: Quote) -> None:
    """Note that the market was seen, and whether it has passed the stop. Call it with the plan locked.

    The side that would trade counts: the bid for a long position.
    """
    now = timezone.now()
    if plan.watched_at is None or plan.stop_price is None or now - quote.at > STALE_AFTER:
        return
    is_long = plan.entry.side == Side.BUY
    plan.watched_at, plan.watched_price = now, quote.bid if is_long else quote.ask
    passed = quote.bid <= plan.stop_price if is_long else quote.ask >= plan.stop_price
    if passed and plan.passed_at is None:
        plan.passed_at = now
    if plan.passed_at is not None or plan.naked_since is not None:
        plan.aligned_at = None
    plan.save(update_fields=["watched_at", "watched_price", "passed_at", "aligned_at"])


def is_stuck(plan: Protection, after: timedelta) -> bool:
    """Whether nothing closes the position, so long ``after`` its stop was passed: the order was
    refused, or does not get the coins.
    """
    if plan.passed_at is None or timezone.now() - plan.passed_at <= after:
        return False
    closing = Order.objects.filter(
        account=plan.account_id, symbol=plan.symbol, role=Order.Role.STOP_LOSS
    )
    return not closing.exclude(state__in=TERMINAL).exists()


def passed(account_id: int) -> list[str]:
    """Symbols in which a watched stop of the account was passed and the position is still open."""
    plans = Protection.objects.filter(
        account=account_id, is_active=True, passed_at__isnull=False, account__is_active=True
    )
    return list(plans.values_list("symbol", flat=True))
