"""Alarms: what an operator must look at, raised once, said once, cleared when it is over.

``look`` reads what is wrong off the rows themselves, once a second, so that an alarm comes whatever
became of the process that caused it. An alarm is a row, an audit row, an error in the log, a note on
the home page and the gauge ``fks_alarms``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Max, Min, Q
from django.utils import timezone

from brokers.models import Account
from brokers.types import Outcome, VenueStatus
from execution import decisions, flatten, halting, watched_stops
from execution.models import Alarm, Order, Protection
from execution.states import AT_VENUE, OrderState
from risk import audit, notices, sealing
from risk.channels import Channel, Event

logger = logging.getLogger(__name__)

Kind = Alarm.Kind
NAKED_FOR = timedelta(seconds=4)
"""With a sweep's second, and a channel that has just told another alarm, people know within ten."""
LEFT_FOR = timedelta(seconds=10)
HIDDEN_FOR = timedelta(seconds=10)
"""A position may have been opened by trades that are not shown, and nothing guards it."""
RESTING = (OrderState.OPEN, OrderState.PARTIALLY_FILLED)
WORKING = (VenueStatus.OPEN.value, VenueStatus.PARTIALLY_FILLED.value)
SEEN_ON_ROWS = (Kind.NEEDS_OPERATOR, Kind.UNANSWERED, Kind.NAKED_POSITION, Kind.NOT_FLAT)
OF_WHAT_IS_ACTIVE = {
    Kind.NOT_RECONCILED: Account,
    Kind.LOGIN_NEEDED: Account,
    Kind.CHANNEL_DOWN: Channel,
}
"""Alarms about what nobody asks any more once it is switched off, by its name."""
GRAVEST_FIRST = (
    Kind.NAKED_POSITION,
    Kind.NEEDS_OPERATOR,
    Kind.NOT_FLAT,
    Kind.UNANSWERED,
    Kind.NOT_RECONCILED,
    Kind.LOGIN_NEEDED,
    Kind.UNREAD,
    Kind.GAP,
    Kind.SILENT,
    Kind.KEY_REFUSED,
    Kind.AUDIT_BROKEN,
    Kind.KEY_CHANGED,
    Kind.CHANNEL_DOWN,
    Kind.LOGIN_ENDS,
)

TOLD = {
    Kind.UNANSWERED: Event.ORDER_NEEDS_OPERATOR,
    Kind.NAKED_POSITION: Event.NAKED_POSITION,
    Kind.NOT_FLAT: Event.NOT_FLAT,
    Kind.SILENT: Event.MISSED_ALERT,
    Kind.GAP: Event.MISSED_ALERT,
    Kind.UNREAD: Event.MISSED_ALERT,
    Kind.NOT_RECONCILED: Event.NOT_RECONCILED,
    Kind.LOGIN_NEEDED: Event.LOGIN_NEEDED,
    Kind.LOGIN_ENDS: Event.LOGIN_NEEDED,
    Kind.KEY_REFUSED: Event.KEY_RIGHTS,
    Kind.KEY_CHANGED: Event.KEY_RIGHTS,
    Kind.CHANNEL_DOWN: Event.CHANNEL_DOWN,
    Kind.AUDIT_BROKEN: Event.AUDIT_BROKEN,
}
"""An order that needs an operator is told with its move."""
OF_STRATEGY = (Kind.SILENT, Kind.GAP, Kind.UNREAD)
"""Their key begins with the strategy's name."""
URGENT = (Kind.UNREAD,)
"""Told as alarms where their event is less: what was refused may have been an exit."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that is wrong now."""

    kind: Alarm.Kind
    key: str
    detail: str
    account: Account | None = None
    symbol: str = ""


def look() -> list[Alarm]:
    """Raise alarms for what is wrong by our rows, clear those that are over; returns the new ones."""
    seen = [
        *_needs_operator(),
        *_unanswered(),
        *_untold(),
        *_not_canceled(),
        *_naked(),
        *_perhaps_naked(),
        *_not_flat(),
    ]
    keys = {(one.kind, one.key) for one in seen}
    looked_at = (*SEEN_ON_ROWS, *OF_WHAT_IS_ACTIVE)
    for alarm in Alarm.objects.filter(cleared_at=None, kind__in=looked_at):
        kind = Kind(alarm.kind)
        if (kind, alarm.key) not in keys and not _is_about_what_is_active(kind, alarm.key):
            clear(kind, alarm.key)
    return [alarm for alarm in map(sound, seen) if alarm is not None]


def _is_about_what_is_active(kind: Alarm.Kind, name: str) -> bool:
    named = OF_WHAT_IS_ACTIVE.get(kind)
    return named is not None and named._default_manager.filter(name=name, is_active=True).exists()


def sound(seen: Seen) -> Alarm | None:
    """Raise an alarm, audited and logged; ``None`` when it is raised already.

    One whose explanation has changed says the new one, without being raised again.
    """
    with transaction.atomic():
        alarm, is_new = Alarm.objects.get_or_create(
            kind=seen.kind,
            key=seen.key,
            cleared_at=None,
            defaults={
                "account": seen.account,
                "symbol": seen.symbol,
                "detail": seen.detail,
                "raised_at": timezone.now(),
            },
        )
        if is_new:
            audit.record(f"alarm.{seen.kind.value}", str(alarm)[:120], reason=seen.detail)
            if seen.kind in TOLD:
                notices.tell(
                    TOLD[seen.kind],
                    lambda: _news(alarm, f"{alarm}", seen.detail),
                    is_urgent=seen.kind in URGENT,
                )
        elif alarm.detail != seen.detail:
            Alarm.objects.filter(pk=alarm.pk).update(detail=seen.detail)
    if not is_new:
        return None
    logger.error("alarm: %s, %s", alarm, seen.detail)
    return alarm


def clear(kind: Alarm.Kind, key: str) -> None:
    """End an alarm, if there is one, and say so once."""
    alarm = Alarm.objects.filter(kind=kind, key=key, cleared_at=None).first()
    if alarm is None:
        return
    row = Alarm.objects.filter(pk=alarm.pk, cleared_at=None)
    with transaction.atomic():
        mine = row.update(cleared_at=timezone.now())
        if mine:
            notices.tell(Event.ALARM_OVER, lambda: _news(alarm, f"Over: {alarm}", ""))
    if mine:
        logger.warning("alarm over: %s", alarm)


def look_at_audit() -> None:
    """Recompute the whole audit chain; an alarm while it is not what was sealed."""
    try:
        sealing.verify()
    except sealing.BrokenChain as broken:
        sound(Seen(Kind.AUDIT_BROKEN, "audit chain", str(broken)))
    else:
        clear(Kind.AUDIT_BROKEN, "audit chain")


def _news(alarm: Alarm, title: str, text: str) -> notices.News:
    account = alarm.account.name if alarm.account else ""
    strategy = alarm.key.partition(" ")[0] if alarm.kind in OF_STRATEGY else ""
    return notices.News(title, text, account=account, strategy=strategy, symbol=alarm.symbol)


def _needs_operator() -> Iterable[Seen]:
    orders = Order.objects.filter(state=OrderState.NEEDS_OPERATOR).select_related("account")
    for order in orders:
        yield Seen(Kind.NEEDS_OPERATOR, str(order.pk), order.detail, order.account, order.symbol)


def _unanswered() -> Iterable[Seen]:
    """Orders at a venue that does not say how they stand. One alarm an account: a venue that is away is
    silent about all of them."""
    silent = Q(unanswered_since__lt=timezone.now() - decisions.GIVE_UP_AFTER)
    orders = Order.objects.filter(silent, state__in=AT_VENUE).select_related("account")
    of_account: dict[Account, list[Order]] = {}
    for order in orders.order_by("id"):
        of_account.setdefault(order.account, []).append(order)
    for account, ones in of_account.items():
        detail = f"nothing for five minutes: {_listed([f'order {one.pk}' for one in ones])}"
        yield Seen(Kind.UNANSWERED, account.name, detail, account)


def _untold() -> Iterable[Seen]:
    """Orders that have traded more than their venue shows: each may have opened a position."""
    hidden = Order.objects.filter(unknown_since__lt=timezone.now() - HIDDEN_FOR, state__in=AT_VENUE)
    for order in hidden.select_related("account").order_by("id"):
        detail = f"it has traded, and its trades are not shown: order {order.pk}"
        yield Seen(Kind.UNANSWERED, str(order.pk), detail, order.account, order.symbol)


def _not_canceled() -> Iterable[Seen]:
    """Orders that go on working though they have been cancelled for so long: what has to wait for their
    end waits too. A cancel counts that the venue has answered, or that was sent because it showed the
    order at work; one sent into a silence says nothing.
    """
    answered = Q(journal__evidence__outcome__in=(Outcome.ACCEPTED.value, Outcome.REJECTED.value))
    shown = Q(journal__evidence__shown__in=WORKING)
    told = Order.objects.filter(
        answered | shown,
        state=OrderState.CANCELING,
        journal__event="cancel_sent",
        journal__at__gt=F("updated_at"),
    ).values("pk")
    spans = told.annotate(first=Min("journal__at"), last=Max("journal__at")).order_by()
    lasting = spans.filter(last__gt=F("first") + decisions.GIVE_UP_AFTER).values("pk")
    working = Order.objects.filter(pk__in=lasting)
    for order in working.select_related("account").order_by("id"):
        detail = f"the venue is told to cancel it and shows it as before: order {order.pk}"
        key = f"cancel of {order.pk}"
        yield Seen(Kind.UNANSWERED, key, detail, order.account, order.symbol)


def _naked() -> Iterable[Seen]:
    """A watched stop without a price counts at once: nobody has to have aligned the plan before."""
    now = timezone.now()
    naked = Q(naked_since__lt=now - NAKED_FOR)
    unseen = Q(
        naked_since=None, stop_price__isnull=False, watched_at__lt=now - watched_stops.STALE_AFTER
    )
    plans = Protection.objects.filter(naked | unseen, is_active=True).select_related("account")
    for plan in plans:
        key = (
            f"{plan.pk} since {plan.naked_since or plan.watched_at}"  # naked again is another alarm
        )
        detail = plan.detail if plan.naked_since else watched_stops.unseen(plan)
        yield Seen(Kind.NAKED_POSITION, key, detail, plan.account, plan.symbol)


def _perhaps_naked() -> Iterable[Seen]:
    """A stop whose cancel was asked for may be gone: it guards nothing once the venue has not said for
    a while what became of it, unless others as large rest in its place.
    """
    stops = Order.objects.filter(role=Order.Role.STOP_LOSS, stop_price__isnull=False)
    leaving = stops.filter(state=OrderState.CANCELING, updated_at__lt=timezone.now() - NAKED_FOR)
    for stop in leaving.select_related("account"):
        here = {"account": stop.account_id, "symbol": stop.symbol}
        plan = Protection.objects.filter(**here, is_active=True, naked_since=None).first()
        resting = stops.filter(**here, side=stop.side, state__in=RESTING)
        if plan is None or sum(one.remaining for one in resting) >= stop.remaining:
            continue
        detail = "its stop is being cancelled, and nobody knows whether it still rests"
        key = f"{plan.pk} without order {stop.pk}"
        yield Seen(Kind.NAKED_POSITION, key, detail, stop.account, stop.symbol)


def _not_flat() -> Iterable[Seen]:
    since = timezone.now() - LEFT_FOR
    for row in halting.flattening():
        left = flatten.left_of(row)
        if row.changed_at < since and left:
            parts = [f"{position}" for position in left.positions]
            parts += [f"order {order.pk}" for order in left.orders]
            scope = f"{row.scope} {row.key}".strip()
            yield Seen(Kind.NOT_FLAT, scope, f"left: {_listed(parts)}")


def _listed(parts: Collection[str]) -> str:
    shown = list(parts)[:5]
    more = f" and {len(parts) - len(shown)} more" if len(parts) > len(shown) else ""
    return ", ".join(shown) + more
