"""Every position whose entry named a stop has a live stop of its size at the venue.

``align`` compares what should guard a position with what does, and returns what to do about it; it
may run at any time and any number of times. A position that grew gets a further stop for the
difference, so that it is never without one while a stop is replaced. Plans are made by ``arming``.
Take profits are watched here: reaching one is an alert FKS sends itself, which then walks the same
path as any other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import Instrument, OrderType, Quote, Side
from execution import intake
from execution.alerts import Action, Alert
from execution.facts import instrument_of
from execution.ids import uuid7
from execution.models import Order, OrderEvent, Position, Protection, Strategy
from execution.states import AT_VENUE, TERMINAL, OrderState
from risk import audit
from risk.arithmetic import floor_to
from risk.prices import round_price

logger = logging.getLogger(__name__)

SUSPENSION = timedelta(seconds=20)
ALARM_AFTER = timedelta(seconds=5)
MAX_REFUSALS = 5
OWN_ALERT = "own"
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Todo:
    """What ``align`` found to be done: a lane to run, protective orders to cancel."""

    run_lane: bool = False
    cancels: tuple[UUID, ...] = ()


def align(account: Account, symbol: str) -> Todo:
    """Bring the protective orders of one position in line with it. Raises BrokerError or Refusal."""
    if not Protection.objects.filter(account=account, symbol=symbol, is_active=True).exists():
        return Todo()
    instrument = instrument_of(account, plugin_for(account), symbol)
    with transaction.atomic():
        Account.objects.select_for_update(no_key=True).get(pk=account.pk)
        plan = (
            Protection.objects.filter(account=account, symbol=symbol, is_active=True)
            .select_related("account", "entry__strategy")
            .first()
        )
        if plan is None:
            return Todo()
        plan.aligned_at = timezone.now()
        todo = _aligned(plan, instrument)
        plan.save()
        return todo


def _aligned(plan: Protection, instrument: Instrument) -> Todo:
    live = _live_stops(plan.account, plan.symbol)
    held = _held(plan)
    if held == 0 or (held > 0) != (plan.entry.side == Side.BUY):
        plan.is_active = False
        plan.naked_since = None
        plan.detail = "the position is closed"
        return Todo(cancels=tuple(order.pk for order in live))
    if plan.stop_price is None or _is_suspended(plan):
        return Todo()
    side = Side.SELL if held > 0 else Side.BUY
    stop = round_price(side, OrderType.STOP, plan.stop_price, instrument.price_tick)
    wanted = floor_to(abs(held), instrument.quantity_step)
    outdated = tuple(order.pk for order in live if order.stop_price != stop)
    if outdated:
        return Todo(cancels=outdated[:1])
    guarded = sum((order.remaining for order in live), ZERO)
    _note_coverage(plan, live, wanted, instrument)
    if guarded > wanted:
        return Todo(cancels=(live[-1].pk,))
    missing = floor_to(wanted - guarded, instrument.quantity_step)
    if missing <= 0 or _too_small(missing, stop, instrument) or not _may_place(plan):
        return Todo()
    _place_stop(plan, side, missing, stop)
    return Todo(run_lane=True)


def _live_stops(account: Account, symbol: str) -> list[Order]:
    """Protective orders that may be at the venue or on their way, oldest first."""
    return list(
        Order.objects.filter(account=account, symbol=symbol, role=Order.Role.STOP_LOSS)
        .exclude(state__in=TERMINAL)
        .order_by("id")
    )


def _held(plan: Protection) -> Decimal:
    row = Position.objects.filter(account=plan.account, symbol=plan.symbol).first()
    return row.quantity if row else ZERO


def _is_suspended(plan: Protection) -> bool:
    return plan.suspended_until is not None and plan.suspended_until > timezone.now()


def _note_coverage(
    plan: Protection, live: list[Order], wanted: Decimal, instrument: Instrument
) -> None:
    """Remember since when the venue has not held a stop for the whole position."""
    confirmed = sum((order.remaining for order in live if order.state in AT_VENUE), ZERO)
    missing = wanted - confirmed
    if missing <= 0:
        plan.naked_since = plan.alarmed_at = None
        plan.detail = f"{wanted} guarded at {plan.stop_price}"
    elif _too_small(missing, plan.stop_price or ZERO, instrument):
        plan.naked_since = None
        plan.detail = f"{missing} is too small for an order at this venue and stays unguarded"
    else:
        plan.naked_since = plan.naked_since or timezone.now()
        plan.detail = f"{missing} of {wanted} has no stop at the venue"


def _too_small(quantity: Decimal, price: Decimal, instrument: Instrument) -> bool:
    below_quantity = instrument.min_quantity is not None and quantity < instrument.min_quantity
    below_value = instrument.min_value is not None and quantity * price < instrument.min_value
    return below_quantity or below_value


def _may_place(plan: Protection) -> bool:
    """Whether another try is due: refusals are counted since the plan was made, with growing pauses."""
    refused = Order.objects.filter(
        account=plan.account,
        symbol=plan.symbol,
        role=Order.Role.STOP_LOSS,
        signal=plan.entry.signal,
        state__in=(OrderState.REJECTED, OrderState.NOT_PLACED, OrderState.DENIED),
    ).order_by("-id")
    count = refused.count()
    if count == 0:
        return True
    policy = plan.entry.strategy.on_naked if plan.entry.strategy else Strategy.OnNaked.REPLACE
    if policy == Strategy.OnNaked.ALARM or count >= MAX_REFUSALS:
        return False
    last = refused[0].finished_at
    return last is None or timezone.now() - last > timedelta(seconds=2**count)


def _place_stop(plan: Protection, side: Side, quantity: Decimal, stop: Decimal) -> None:
    now = timezone.now()
    plugin = plugin_for(plan.account)
    order = Order(
        id=uuid7(),
        signal_id=plan.entry.signal_id,
        strategy_id=plan.entry.strategy_id,
        account=plan.account,
        symbol=plan.symbol,
        side=side.value,
        type=OrderType.STOP.value,
        role=Order.Role.STOP_LOSS,
        quantity=quantity,
        stop_price=stop,
        reduce_only=plugin.capabilities.reduce_only,
        reference_price=stop,
        created_at=now,
        updated_at=now,
    )
    order.client_order_id = plugin.client_order_id(order.identity)
    order.save(force_insert=True)
    OrderEvent.objects.create(
        order=order,
        at=now,
        event="create",
        to_state=order.state,
        actor="protection",
        detail=f"guards {quantity} of {plan.symbol} at {stop}",
    )


def suspend(account: Account, symbol: str) -> tuple[UUID, ...]:
    """Take the stops off for an exit that needs what they hold; returns the orders to cancel.

    They come back when the exit has ended, or after 20 s whatever happened to it.
    """
    Protection.objects.filter(account=account, symbol=symbol, is_active=True).update(
        suspended_until=timezone.now() + SUSPENSION
    )
    return tuple(order.pk for order in _live_stops(account, symbol))


def resume(account_id: int, symbol: str) -> None:
    """An exit has ended: guard whatever is left at once."""
    Protection.objects.filter(account_id=account_id, symbol=symbol).update(suspended_until=None)


def due(before: datetime) -> list[tuple[int, str]]:
    """Active plans nobody has looked at since ``before``."""
    rows = Protection.objects.filter(is_active=True).filter(
        Q(aligned_at__isnull=True) | Q(aligned_at__lt=before)
    )
    return list(rows.values_list("account_id", "symbol")[:200])


def watched() -> QuerySet[Protection]:
    """Active plans with a target to reach, or whose stop is not at the venue."""
    return (
        Protection.objects.filter(is_active=True)
        .exclude(targets=[], naked_since__isnull=True)
        .select_related("account", "entry__strategy")
    )


def watch(plan: Protection) -> list[UUID]:
    """Compare the market with the plan's targets, and with a stop that is not at the venue.

    Returns the signals FKS sent itself. Raises BrokerError when there is no quote.
    """
    naked = plan.naked_since is not None and not _is_suspended(plan)
    if not plan.is_active or not (plan.targets or naked) or plan.entry.strategy is None:
        return []
    quote = plugin_for(plan.account).fetch_data(plan.symbol)
    sent = _reached_target(plan, plan.entry.strategy, quote)
    if naked and _must_close(plan, plan.entry.strategy, quote):
        sent += _send(plan, plan.entry.strategy, "naked", None, "its stop is not at the venue")
    return sent


def _reached_target(plan: Protection, strategy: Strategy, quote: Quote) -> list[UUID]:
    if not plan.targets:
        return []
    target, price = plan.targets[0], Decimal(plan.targets[0]["price"])
    is_long = plan.entry.side == Side.BUY
    if (quote.bid < price) if is_long else (quote.ask > price):
        return []
    share = plan.entry.filled_quantity * Decimal(target["percent"]) / 100
    last = len(plan.targets) == 1 and Decimal(target["percent"]) == 100
    sent = _send(
        plan, strategy, f"target {price}", None if last else share, f"take profit at {price}"
    )
    Protection.objects.filter(pk=plan.pk, entry_id=plan.entry_id).update(targets=plan.targets[1:])
    return sent


def _must_close(plan: Protection, strategy: Strategy, quote: Quote) -> bool:
    """An unguarded position is closed if the policy says so, or if the stop's price has passed."""
    if plan.stop_price is None or plan.naked_since is None:
        return False
    is_long = plan.entry.side == Side.BUY
    passed = quote.bid <= plan.stop_price if is_long else quote.ask >= plan.stop_price
    waited = timezone.now() - plan.naked_since > ALARM_AFTER
    return passed or (waited and strategy.on_naked == Strategy.OnNaked.CLOSE)


def _send(
    plan: Protection, strategy: Strategy, what: str, quantity: Decimal | None, why: str
) -> list[UUID]:
    """Post an alert to ourselves: idempotent per plan and event, decided like any other."""
    now = timezone.now()
    alert = Alert(
        symbol=plan.symbol,
        account=plan.account.name,
        action=Action.CLOSE,
        quantity=quantity,
        idempotency_key=f"fks {plan.entry_id} {what}",
        comment=f"{why}, for the entry {plan.entry_id}",
        sent_at=now,
    )
    accepted = intake.accept(
        intake.Received(
            strategy_id=strategy.pk,
            dedupe_window=0,
            raw=b"",
            body=alert.comment,
            alert=alert,
            header_key="",
            address=None,
            auth=OWN_ALERT,
        )
    )
    return [] if accepted.is_duplicate else [accepted.signal_id]


def alarm() -> list[Protection]:
    """Raise an alarm for every position unguarded for 5 s, once; returns their plans."""
    rows = Protection.objects.filter(
        is_active=True,
        alarmed_at__isnull=True,
        naked_since__lt=timezone.now() - ALARM_AFTER,
    ).select_related("account")
    raised = []
    for plan in rows:
        now = timezone.now()
        if not Protection.objects.filter(pk=plan.pk, alarmed_at__isnull=True).update(
            alarmed_at=now
        ):
            continue
        audit.record("position.naked", f"{plan.symbol} on {plan.account.name}", reason=plan.detail)
        logger.error("naked position: %s on %s, %s", plan.symbol, plan.account.name, plan.detail)
        raised.append(plan)
    return raised
