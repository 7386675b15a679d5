"""Every position whose entry named a stop has a live stop of its size at the venue.

``align`` compares what should guard a position with what does, and returns what to do about it; it
may run at any time and any number of times. A position that grew gets a further stop for the
difference, or another of its size where one guards the whole: it is never without one meanwhile. Plans
are made by ``arming``; ``watching`` looks after targets and positions whose stop is not at the venue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.sessions import ready_plugin
from brokers.types import Instrument, OrderType, Side
from execution import refused_stops, venue_holds, watched_stops
from execution.closable import CLOSING
from execution.comparison import may_have_left_out
from execution.differences import blocks_entries
from execution.exposure import kept_by_exits
from execution.facts import instrument_of
from execution.ids import uuid7
from execution.models import Order, OrderEvent, Position, Protection
from execution.states import AT_VENUE, TERMINAL
from execution.under_way import lets_exits_leave
from risk import audit
from risk.arithmetic import floor_to, text
from risk.prices import round_price

MAX_STOPS = 4
"""Stops of one position at a time. Binance takes five conditional orders per symbol
(developers.binance.com, filters, MAX_NUM_ALGO_ORDERS); one is left for the strategy's own."""
ZERO = Decimal(0)
_STOPS = Q(role=Order.Role.STOP_LOSS)


@dataclass(frozen=True, slots=True)
class NextStep:
    """What ``align`` found to be done: a lane to run, protective orders to cancel."""

    run_lane: bool = False
    cancels: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """One alignment under way. Signed are ``held``, ``told`` (by the venue, if it was asked) and
    ``known``, what it holds of that as far as is known. Stops should add up to ``wanted``."""

    plan: Protection
    plugin: ExecutionPlugin
    rules: Instrument
    held: Decimal
    told: Decimal | None
    known: Decimal
    live: list[Order]

    @property
    def side(self) -> Side:
        return Side.SELL if self.held > 0 else Side.BUY

    @property
    def wanted(self) -> Decimal:
        return floor_to(abs(self.held), self.rules.quantity_step)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to guard. What is below one step is nothing, unless a stop of at most
        its size guards it: that is from before the venue's step grew.
        """
        has_turned = (self.held > 0) != (self.plan.entry.side == Side.BUY)
        guarding = _sum(one for one in self.live if one.side == self.side)
        return has_turned or (self.wanted == 0 and not 0 < guarding <= abs(self.held))

    def is_guarded_by(self, order: Order, stop: Decimal) -> bool:
        """Whether ``order`` is what should rest; of stops that guard the whole, one of its size."""
        has_size = not self.plugin.capabilities.whole_stop or order.remaining == self.wanted
        return has_size and (order.stop_price, order.side) == (stop, self.side)

    def at_most(self, quantity: Decimal) -> Decimal:
        """As much of ``quantity`` as the venue takes in one order; a stop of the whole is no order."""
        most = None if self.plugin.capabilities.whole_stop else self.rules.max_quantity
        return floor_to(min(quantity, most or quantity), self.rules.quantity_step)

    def is_too_small(self, quantity: Decimal, price: Decimal) -> bool:
        least, value = self.rules.min_quantity, self.rules.min_value
        below_quantity = least is not None and quantity < least
        return below_quantity or (value is not None and quantity * price < value)


def align(account: Account, symbol: str) -> NextStep:
    """Bring the protective orders of one position in line with it. Raises BrokerError or Refusal."""
    plan = _plan.first(account=account.pk, symbol=symbol)
    if plan is None:
        return NextStep()
    if not plan.is_active and not live_stops(account.pk, symbol):
        return NextStep()
    plugin = ready_plugin(account)
    rules = instrument_of(account, plugin, symbol, is_exit=True)
    told = venue_holds.told_of(plan, plugin)
    with transaction.atomic():
        Account.objects.select_for_update(no_key=True).get(pk=account.pk)
        # Fills change the position before the plan; the same sequence here avoids a deadlock.
        held = _held(account.pk, symbol, lock=True)
        plan = _locked_plan(account.pk, symbol)
        known = venue_holds.known_of(plan, held, plugin.capabilities, told)
        live = live_stops(account.pk, symbol)
        step = _aligned(_Case(plan, plugin, rules, held, told, known, live))
        plan.aligned_at = timezone.now()
        plan.save()
        return step


@Prepared
def _plan() -> QuerySet[Protection]:
    return Protection.objects.filter(account=given("account"), symbol=given("symbol"))


def _locked_plan(account_id: int, symbol: str) -> Protection:
    plans = Protection.objects.select_related("account", "entry__strategy")
    return plans.select_for_update(of=("self",)).get(account_id=account_id, symbol=symbol)


def _held(account_id: int, symbol: str, *, lock: bool = False) -> Decimal:
    rows = Position.objects.filter(account_id=account_id, symbol=symbol)
    locked = rows.select_for_update(no_key=True, of=("self",))
    row = (locked if lock else rows).first()
    return row.quantity if row else ZERO


def live_stops(account_id: int, symbol: str) -> list[Order]:
    """Protective orders that may be at the venue or on their way, oldest first."""
    return _live(account=account_id, symbol=symbol)


@Prepared
def _live() -> QuerySet[Order]:
    stops = Order.objects.filter(_STOPS, account=given("account"), symbol=given("symbol"))
    return stops.exclude(state__in=TERMINAL).order_by("id")


def _aligned(case: _Case) -> NextStep:
    plan, live = case.plan, case.live
    every_stop = NextStep(cancels=tuple(order.pk for order in live))
    if not plan.is_active:
        return every_stop
    if case.is_over:
        plan.is_active = False
        plan.naked_since = plan.suspended_until = None
        plan.detail = "the position is closed"
        return every_stop
    if plan.stop_price is None:
        return every_stop
    if case.wanted == 0:  # no stop could take the place of the one that rests
        plan.naked_since = None
        plan.detail = f"{text(abs(case.held))} is less than one step of the venue by now: "
        plan.detail += "its stop stays as it is"
        return NextStep()
    stop = round_price(case.side, OrderType.STOP, plan.stop_price, case.rules.price_tick)
    offers = case.plugin.capabilities
    if not offers.holds_stops:
        return _watched(case, stop)
    watched_stops.end(plan)
    _note_coverage(case, stop)
    if plan.is_suspended or _is_doubted(plan) or venue_holds.is_unsure(plan, offers, case.told):
        return NextStep()
    return _with_stop_at(case, stop)


def _with_stop_at(case: _Case, stop: Decimal) -> NextStep:
    """The one next step toward live stops of the position's size at ``stop``."""
    if _would_go_by_one_word(case):
        return NextStep()
    outdated = [one for one in case.live if not case.is_guarded_by(one, stop)]
    if outdated and not _may_overlap(case, outdated):
        return _making_room(case, stop, outdated[0])
    current = [one for one in case.live if one not in outdated]
    missing = _free(case) - _sum(current)
    if missing < 0:
        return _shrinking(case, stop, current)
    if missing == 0 or case.is_too_small(missing, stop):
        rest = all(one.state in AT_VENUE for one in current)
        return NextStep(cancels=(outdated[0].pk,)) if outdated and rest else NextStep()
    if not refused_stops.may_place(case.plan, stop):
        if any(one.stop_price != stop for one in outdated):
            case.plan.detail += f"; not moved to {text(stop)} yet"
        return NextStep()
    if len(case.live) >= MAX_STOPS:
        # Two small ones make a larger one, unless all are as large as the venue takes them.
        smaller = outdated or [
            one for one in current if case.at_most(one.remaining + missing) > one.remaining
        ]
        return _making_room(case, stop, *smaller[-1:])
    _place_stop(case, case.at_most(missing), stop)
    return NextStep(run_lane=True)


def _would_go_by_one_word(case: _Case) -> bool:
    """Whether stops guard more than the venue says it holds, and it has said so once."""
    if case.known == case.held:
        return False
    guarding = _sum(one for one in case.live if one.side == case.side)
    return _free(case) < guarding and venue_holds.is_told_once(case.plan)


def _shrinking(case: _Case, stop: Decimal, current: Sequence[Order]) -> NextStep:
    """Cancel the newest of too many; one that only reduces guards until a smaller one could leave."""
    *others, newest = current
    is_enough = _sum(one for one in others if one.state in AT_VENUE) >= _free(case)
    if is_enough or not case.plugin.capabilities.reduce_only:
        return NextStep(cancels=(newest.pk,))
    return _making_room(case, stop, newest)


def _making_room(case: _Case, stop: Decimal, *old: Order) -> NextStep:
    """Cancel ``old`` for one at ``stop`` in its place; while that one could not leave, or the venue has
    just refused its like, the old one guards. One of the other side guards nothing.
    """
    plan, reduce_only = case.plan, case.plugin.capabilities.reduce_only
    guards = any(one.side == case.side for one in old)
    could_leave = refused_stops.may_place(plan, stop) and lets_exits_leave(
        plan.account, plan.symbol, reduce_only=reduce_only
    )
    if guards and not could_leave:
        return NextStep()
    return NextStep(cancels=tuple(one.pk for one in old))


def _watched(case: _Case, stop: Decimal) -> NextStep:
    """The venue takes no stops: what is held leaves at the market once the watched price was passed."""
    plan = case.plan
    price = plan.watched_price or stop
    if case.is_too_small(case.wanted, price):
        plan.naked_since = None
        plan.detail = _too_small(case.wanted)
        return NextStep()
    watched_stops.note(plan, case.wanted)
    resting = tuple(one.pk for one in case.live if one.stop_price is not None)
    if resting:  # from a time when the venue took them
        return NextStep(cancels=resting)
    if plan.passed_at is None or plan.is_suspended or _is_doubted(plan):
        return NextStep()
    missing = _free(case) - _sum(case.live)
    if missing <= 0 or case.is_too_small(missing, price):
        return NextStep()
    if not refused_stops.may_place(plan, None):
        return NextStep()
    _place_stop(case, case.at_most(missing), stop, market=price)
    return NextStep(run_lane=True)


def _free(case: _Case) -> Decimal:
    """What a stop may be placed for: what the venue holds too, and is not left to an exit under way."""
    kept = kept_by_exits(case.plan.account_id, case.plan.symbol, case.plugin.capabilities)
    return floor_to(max(abs(case.known) - kept, ZERO), case.rules.quantity_step)


def _may_overlap(case: _Case, outdated: Sequence[Order]) -> bool:
    """Whether the new stop may rest beside the one it replaces: both only reduce, and neither needs
    the coins the other holds. Else the old one is cancelled first.
    """
    same_side = all(one.side == case.side for one in outdated)
    return same_side and case.plugin.capabilities.stops_stay


def _sum(orders: Iterable[Order]) -> Decimal:
    return sum((order.remaining for order in orders), ZERO)


def _note_coverage(case: _Case, stop: Decimal) -> None:
    """Remember since when the venue has not held a stop for the whole position."""
    plan = case.plan
    at_venue = [one for one in case.live if one.state in AT_VENUE and one.side == case.side]
    missing = case.wanted - _sum(at_venue)
    if missing <= 0 or (at_venue and case.plugin.capabilities.whole_stop):
        plan.naked_since = None
        prices = {text(one.stop_price) for one in at_venue if one.stop_price is not None}
        plan.detail = f"{text(case.wanted)} guarded at {' and '.join(sorted(prices))}"
    elif case.is_too_small(missing, stop):
        plan.naked_since = None
        plan.detail = _too_small(missing)
    else:
        plan.naked_since = plan.naked_since or timezone.now()
        plan.detail = f"{text(missing)} of {text(case.wanted)} has no stop at the venue"
        if case.known != case.held:
            plan.detail += f", which is known to hold {text(abs(case.known))}"


def _too_small(quantity: Decimal) -> str:
    return f"{text(quantity)} is too small for an order at this venue and stays unguarded"


def cannot_align(account: Account, symbol: str, why: str) -> None:
    """Note that nothing could be found out or placed: naked, unless a stop is at the venue already."""
    now = timezone.now()
    plans = Protection.objects.filter(account=account, symbol=symbol, is_active=True)
    plans.update(aligned_at=now)
    if _held(account.pk, symbol) == 0:
        return
    if any(order.state in AT_VENUE for order in live_stops(account.pk, symbol)):
        return
    naked = plans.filter(stop_price__isnull=False)
    naked.update(detail=f"the position cannot be guarded: {why}")
    naked.filter(naked_since=None).update(naked_since=now)


def _is_doubted(plan: Protection) -> bool:
    """Whether a restored book has still to be compared with the venue: a stop placed since the backup
    may rest there, and a second one would sell twice.
    """
    if plan.is_doubted:
        waits = may_have_left_out(plan.account, plan.symbol)
        plan.is_doubted = waits or bool(blocks_entries(plan.account_id, plan.symbol))
    if plan.is_doubted and plan.naked_since is not None:
        plan.detail += "; after a restore none is placed before the books agree"
    return plan.is_doubted


def _place_stop(
    case: _Case, quantity: Decimal, stop: Decimal, *, market: Decimal | None = None
) -> None:
    """A stop to rest at the venue; with the ``market`` price where a watched one was passed, the order
    that closes now."""
    now = timezone.now()
    plan = case.plan
    order = Order(
        id=uuid7(),
        signal_id=plan.entry.signal_id,
        strategy_id=plan.entry.strategy_id,
        account=plan.account,
        symbol=plan.symbol,
        side=case.side.value,
        type=(OrderType.STOP if market is None else OrderType.MARKET).value,
        role=Order.Role.STOP_LOSS,
        quantity=quantity,
        stop_price=stop if market is None else None,
        reduce_only=case.plugin.capabilities.reduce_only,
        reference_price=market or stop,
        created_at=now,
        updated_at=now,
    )
    order.client_order_id = case.plugin.client_order_id(order.identity)
    order.save(force_insert=True)
    OrderEvent.objects.create(
        order=order,
        at=now,
        event="create",
        to_state=order.state,
        actor="protection",
        detail=_why_placed(plan, quantity, stop, market),
    )


def _why_placed(plan: Protection, quantity: Decimal, stop: Decimal, market: Decimal | None) -> str:
    guards = f"guards {text(quantity)} of {plan.symbol} at {text(stop)}"
    if market is not None:
        guards = f"closes {text(quantity)} of {plan.symbol}: {text(market)} has passed {text(stop)}"
    return f"{guards}; {plan.moved_why}" if plan.moved_why else guards


def suspend(account: Account, symbol: str) -> tuple[UUID, ...]:
    """Take the stops off for an exit they stand in the way of; returns the orders to cancel.

    They come back when the exit has ended, or 20 s after it last asked, whatever happened to it.
    """
    Protection.objects.filter(account=account, symbol=symbol, is_active=True).update(
        suspended_until=timezone.now() + Protection.SUSPENSION
    )
    return tuple(order.pk for order in live_stops(account.pk, symbol))


def resume_after(orders: Iterable[Order]) -> None:
    """Guard again what the exits and closes among ``orders`` left. Of one at the venue that is what it
    does not close: no stop is placed for the rest (``exposure.kept_by_exits``).
    """
    for order in orders:
        if order.role in CLOSING and order.state in TERMINAL | AT_VENUE:
            resume(order.account_id, order.symbol)


def resume(account_id: int, symbol: str) -> None:
    """An exit has ended, or holds what it needs: guard whatever is left at the next look."""
    Protection.objects.filter(
        account_id=account_id, symbol=symbol, suspended_until__isnull=False
    ).update(suspended_until=None, aligned_at=None)


def guard_again(plan: Protection, *, reason: str) -> None:
    """Forget the refusals so far: the stop is tried again at the next look. Audited.

    Raises ValueError for a plan that has ended.
    """
    with transaction.atomic():
        mine = Protection.objects.filter(pk=plan.pk, is_active=True)
        if not mine.update(guard_again_at=timezone.now(), aligned_at=None):
            raise ValueError("this protection has ended")
        audit.record("protection.guard_again", str(plan), reason=reason)


def due(before: datetime) -> list[tuple[int, str]]:
    """Take up to 200 plans nobody has looked at since ``before``: active ones, and ended ones that
    left a stop behind. Who gets them looks at them; they are due again later in any case."""
    stops = Order.objects.filter(
        _STOPS, account=OuterRef("account"), symbol=OuterRef("symbol")
    ).exclude(state__in=TERMINAL)
    now = timezone.now()  # looked at later than now: before the clock was set back
    is_due = Q(aligned_at__isnull=True) | Q(aligned_at__lt=before) | Q(aligned_at__gt=now)
    plans = Protection.objects.filter(Q(is_active=True) | Exists(stops)).filter(is_due)
    rows = list(
        plans.order_by(F("aligned_at").asc(nulls_first=True)).values_list(
            "pk", "account_id", "symbol"
        )[:200]
    )
    Protection.objects.filter(pk__in=[pk for pk, _, _ in rows]).update(aligned_at=now)
    return [(account_id, symbol) for _, account_id, symbol in rows]
