"""Lanes: which order of an (account, symbol) is sent next, and taking it.

The partial unique index ``one_submission_per_lane`` lets one order of a lane be SUBMITTING at a time,
across all workers: claiming is the lock, and a dead worker holds it no longer than the lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.expressions import ArraySubquery
from django.db import IntegrityError, connection, transaction
from django.db.models import (
    BooleanField,
    Case,
    Exists,
    ExpressionWrapper,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Value,
    When,
)
from django.db.models.lookups import Exact
from django.utils import timezone

from brokers import keys
from brokers.capabilities import Capabilities
from brokers.errors import BrokerError, QueryFailedError
from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.sessions import plugin_for
from brokers.types import Environment
from execution import decisions, facts, throttle
from execution.closable import closable, leaves_at_once
from execution.models import Order
from execution.states import UNRESOLVED, OrderState
from execution.transitions import Event, move
from risk import breakers, switch
from risk.arithmetic import text
from risk.limits import limits_of
from risk.types import ReasonCode, Refusal

LEASE_SLACK = timedelta(seconds=3)
LONGEST_WAIT = timedelta(minutes=2)
"""Nothing is put off in a lane for longer: what seems to be was so before the clock was set back."""
MAX_UNDER_WAY = 8
EXITS_FIRST = Case(
    When(role__in=(Order.Role.FLATTEN, Order.Role.EXIT), then=Value(0)),
    When(role=Order.Role.STOP_LOSS, then=Value(1)),
    default=Value(2),
    output_field=IntegerField(),
)


PLACING = 0x464B5315
"""Names the lock of an account's placements, beside those of ``exclusive``."""


if TYPE_CHECKING:

    class _Waiting(Order):
        """An order to be sent, and what may stand in its way."""

        unresolved: list[str]
        under_way: list[UUID]
        is_broken: bool
        is_switched: bool
        is_rated: bool


class LaneTaken(Exception):
    """Another worker was faster: nothing of this claim may stand."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """There is something in a lane of ``account``; ``expires_at`` is when the first becomes too old."""

    account: Account
    expires_at: datetime | None

    @property
    def is_late(self) -> bool:
        return self.expires_at is not None and self.expires_at < timezone.now()


def end_expired(account_id: int, symbol: str) -> list[Order]:
    """End what has become too old to be sent, also behind an open breaker or a blocked lane."""
    expired = _expired(account=account_id, symbol=symbol, now=timezone.now())
    return [order for order in expired if _end_unsent(order, _too_old())]


def end_all(account: Account, symbol: str, off: Refusal) -> list[Order]:
    """End what the lane of an account that is ``off`` holds, also behind what blocks it: switched on
    again it would send the past.
    """
    waiting = Order.objects.filter(account=account, symbol=symbol, state=OrderState.PENDING)
    found = waiting.order_by(EXITS_FIRST, "id")
    return [order for order in found if _end_unsent(order, _why_over(order) or off)]


def _lane() -> QuerySet[Order]:
    return Order.objects.filter(account=given("account"), symbol=given("symbol"))


@Prepared
def _expired() -> QuerySet[Order]:
    pending = _lane().filter(state=OrderState.PENDING)
    return pending.filter(expires_at__lt=given("now")).order_by("id")


def unsent(account_id: int, symbol: str) -> Unsent | None:
    """What the lane holds that has not been sent, sendable now or not; ``None`` for nothing."""
    order = _first_to_expire.first(account=account_id, symbol=symbol)
    return Unsent(order.account, order.expires_at) if order else None


@Prepared
def _first_to_expire() -> QuerySet[Order]:
    pending = _lane().filter(state=OrderState.PENDING).select_related("account")
    first = pending.order_by(F("expires_at").asc(nulls_last=True))
    return first.only("expires_at", "account")[:1]


def _next(account: Account, symbol: str) -> _Waiting | None:
    """The order the lane sends next; ``None`` while that one must wait, and all behind it."""
    venue = breakers.venue_of(account)
    order = _first_pending.first(account=account.pk, symbol=symbol, venue=venue)
    if order is None or set(order.unresolved) - {Order.Role.ENTRY}:
        # A second exit on top of one that may be filling could turn the position over.
        return None
    if order.unresolved and order.role == Order.Role.ENTRY:
        return None
    now = timezone.now()
    waits = order.next_check_at is not None and now < order.next_check_at <= now + LONGEST_WAIT
    return None if waits else order


@Prepared
def _unresolved() -> QuerySet[Order, str]:
    return _blocking(given("reduce_only"))


def _blocking(reduce_only: OuterRef | Value) -> QuerySet[Order, str]:
    """Roles of what an order of the lane must wait for. Beside one that only a person can clear up, an
    order goes that its venue lets only reduce: the position cannot wait for them, nor turn over.
    """
    only_reduces = ExpressionWrapper(reduce_only, BooleanField())
    waits = Q(state=OrderState.UNKNOWN) | Exact(only_reduces, Value(False))
    rows = _lane().filter(waits, state__in=UNRESOLVED)
    return rows.order_by().values_list("role", flat=True)


@Prepared
def _first_pending() -> QuerySet[_Waiting]:
    """With everything that may stand in its way, as of the same moment."""
    pending = _lane().filter(state=OrderState.PENDING).select_related("strategy")
    found: Any = pending.annotate(
        unresolved=ArraySubquery(_blocking(OuterRef("reduce_only"))),
        under_way=ArraySubquery(_under_way.queryset()),
        is_broken=Exists(breakers.not_closed(given("account"), given("venue"))),
        is_switched=Exists(switch.not_active()),
        is_rated=Exists(limits_of(throttle.RULE)),
    )
    return cast("QuerySet[_Waiting]", found.order_by(EXITS_FIRST, "id")[:1])


def claim_next(account: Account, symbol: str) -> Order | None:
    """Take the next order of the lane: SUBMITTING and committed, or ended for a reason of ours.

    ``None`` when there is nothing to take, the breaker is open, another worker holds the lane, or what
    the venue can do is not known yet.
    """
    capabilities = _capabilities(account)
    try:
        with transaction.atomic():
            switch.fence()
            order = _next(account, symbol)
            if order is None:
                return None
            reason = _reason_not_to_send(order, account)
            if isinstance(capabilities, Refusal):
                reason = reason or capabilities
            if reason is not None:
                return order if _end_unsent(order, reason) else None
            if not isinstance(capabilities, Capabilities) or _is_crowded(order):
                return None
            if order.is_broken or (order.is_rated and not throttle.lets_through(order)):
                return None
            if not capabilities.keeps_our_id and _another_is_leaving(order):
                return None
            _claim(order, capabilities)
            return order
    except (IntegrityError, LaneTaken):
        return None


def _is_crowded(order: _Waiting) -> bool:
    """Whether the account has its share of placements under way: a venue that hangs must not hold
    every thread of the workers. Exits have as much again to themselves. Claims of one moment may pass
    together; a few more do no harm."""
    return len(order.under_way) >= MAX_UNDER_WAY * (2 if order.is_exit else 1)


def was_crowded(account: Account) -> bool:
    """Whether a placement that has just ended may have kept the account's other lanes from theirs.
    Several that end at one moment each count as ended already, hence the half.
    """
    capabilities = _capabilities(account)
    if not isinstance(capabilities, Capabilities) or not capabilities.keeps_our_id:
        return True
    return len(_under_way(account=account.pk)) >= MAX_UNDER_WAY // 2


@Prepared
def _under_way() -> QuerySet[Order, UUID]:
    sent = Order.objects.filter(account=given("account"), state=OrderState.SUBMITTING)
    return sent.order_by().values_list("pk", flat=True)


def _another_is_leaving(order: Order) -> bool:
    """Whether the account has a placement under way, where those leave one at a time. Until the claim
    is committed no other claim of the account looks."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [PLACING, order.account_id])
    return bool(_under_way(account=order.account_id))


def _capabilities(account: Account) -> Capabilities | Refusal | None:
    """What the account's venue can do, or why nothing can be sent there; ``None`` while whoever has to
    be asked for it does not answer.
    """
    try:
        return plugin_for(account).capabilities
    except QueryFailedError:
        return None
    except BrokerError as error:
        return facts.refusal_of(error)


def _too_old() -> Refusal:
    return Refusal(
        ReasonCode.EXPIRED_BEFORE_SENDING, "the alert became too old before it could be sent"
    )


def switched_off(account: Account) -> Refusal | None:
    """Why no order of ``account`` is sent, not even one that closes; ``None`` where it trades."""
    if not account.is_active:
        return Refusal(ReasonCode.ACCOUNT_INACTIVE, f"the account {account.name} is switched off")
    if account.environment == Environment.LIVE and not settings.FKS_LIVE_TRADING:
        return Refusal(ReasonCode.LIVE_TRADING_OFF, "FKS_LIVE_TRADING is off")
    return None


def _why_over(order: Order) -> Refusal | None:
    """Why nobody wants ``order`` sent any more, whatever its account may do."""
    if order.cancel_reason:
        detail = f"cancel asked for by {order.cancel_asked_by}"
        return Refusal(ReasonCode(order.cancel_reason), detail)
    if order.parent is not None and order.parent.cancel_reason:
        detail = f"the order it is a slice of is to end: {order.parent.cancel_asked_by}"
        return Refusal(ReasonCode(order.parent.cancel_reason), detail)
    if order.expires_at is not None and order.expires_at < timezone.now():
        return _too_old()
    return None


def _reason_not_to_send(order: _Waiting, account: Account) -> Refusal | None:
    if (over := _why_over(order)) is not None:
        return over
    if account.is_key_refused and not order.is_exit:
        return Refusal(ReasonCode.KEY_MAY_WITHDRAW, keys.REFUSED)
    if leaves_at_once(order) and closable(order) == 0:
        return Refusal(
            ReasonCode.NOTHING_TO_CLOSE,
            "the position was closed, or sold at the venue by somebody else, before this was sent",
        )
    if not order.is_switched or order.role in (Order.Role.STOP_LOSS, Order.Role.FLATTEN):
        # A halt must not leave positions without the stop they were opened with, nor open at all
        # where it was told to close them.
        return None
    try:
        switch.refuse_if_switched_off(
            account=account.name,
            venue=account.venue,
            symbol=order.symbol,
            strategy=order.strategy.slug if order.strategy else "",
            is_exit=order.is_exit,
        )
    except Refusal as refusal:
        return refusal
    return None


def _end_unsent(order: Order, reason: Refusal) -> bool:
    expired = reason.code is ReasonCode.EXPIRED_BEFORE_SENDING
    event = Event.EXPIRE_UNSENT if expired else decisions.of_refusal(_sendings(order))
    event = Event.CANCEL_UNSENT if order.cancel_reason else event
    code = order.reason if expired and order.reason else reason.code.value
    return move(
        order,
        event,
        detail=reason.detail,
        evidence=dict(reason.numbers),
        reason=code,
    )


def _claim(order: Order, capabilities: Capabilities) -> None:
    """Take the lane for ``order``. Raises IntegrityError or LaneTaken when another worker has it."""
    now, quantity, detail = timezone.now(), order.quantity, ""
    if leaves_at_once(order) and (quantity := closable(order)) < order.quantity:
        detail = f"{text(quantity)} of {text(order.quantity)}: the position has become smaller"
    won = move(
        order,
        Event.CLAIM,
        detail=detail,
        quantity=quantity,
        attempt=order.attempt + 1,
        lease_until=now + timedelta(seconds=capabilities.submit_timeout) + LEASE_SLACK,
        submitted_at=now,
        settle_at=now + timedelta(seconds=capabilities.settle_window),
        next_check_at=None,
        looks=0,
    )
    # What held the lane until this moment may have ended UNKNOWN, and then it blocks this order.
    if not won or _is_blocked(order):
        raise LaneTaken


def _is_blocked(order: Order) -> bool:
    unresolved = _unresolved(
        account=order.account_id, symbol=order.symbol, reduce_only=order.reduce_only
    )
    return any(role != Order.Role.ENTRY or not order.is_exit for role in unresolved)


def lease_ended_before(moment: datetime) -> list[Order]:
    """Orders whose worker has not answered within its lease: it died, or hangs beyond reason."""
    return list(Order.objects.filter(state=OrderState.SUBMITTING, lease_until__lt=moment)[:200])


def _sendings(order: Order) -> int:
    """How many attempts went further than our own limits of the venue's requests."""
    held_back = {"event": Event.RETURN_UNSENT.value, "evidence__held_back": True}
    return order.attempt and order.attempt - order.journal.filter(**held_back).count()


def times_lost(order: Order) -> int:
    """How many sendings nobody knew the outcome of; an attempt that never left is none."""
    return order.journal.filter(event=Event.LOSE_SIGHT.value).count()


def lose_sight(order: Order) -> None:
    """A placement whose worker vanished: it may be at the venue."""
    move(
        order,
        Event.LOSE_SIGHT,
        detail="the worker that sent it did not answer within its lease",
        reason=ReasonCode.VENUE_UNREACHABLE.value,
        next_check_at=timezone.now(),
    )
