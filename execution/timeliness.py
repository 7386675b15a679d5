"""Whether an alert may still be acted upon: its age, its clock, its strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from brokers.types import Side
from execution import approvals
from execution.aims import only_exits
from execution.alerts import Alert, MarketPosition
from execution.expiry import outdated
from execution.facts import Leg
from execution.legs import lane_legs, orders_from
from execution.models import Order, Signal, Strategy
from execution.states import OrderState
from execution.under_way import alive_in, held_in, is_target, moving, reduces, side_of
from execution.watching import OWN_ALERT
from risk.types import ReasonCode, Refusal

FUTURE_SKEW = 60
"""Seconds an unsigned alert's time may be ahead of this clock."""
SIGNED_SKEW = 300
"""Seconds a signature's timestamp may be off, either way, whatever the strategy allows."""


def refuse_signal(signal: Signal, alert: Alert) -> None:
    """Reasons that concern the alert as a whole. Raises Refusal."""
    refuse_on_arrival(signal, alert)
    if late := outdated(signal, alert):
        raise late


def refuse_on_arrival(signal: Signal, alert: Alert) -> None:
    """Reasons that were there when the alert came, and a strategy that has been disabled since."""
    strategy = signal.strategy
    refuse_disabled(signal)
    sent_at = alert.sent_at or signal.received_at
    age = signal.received_at - sent_at
    allowed = min(strategy.max_age, alert.max_age or strategy.max_age)
    most = min(allowed, SIGNED_SKEW) if signal.auth == Strategy.Auth.HMAC else allowed
    if age > timedelta(seconds=most):
        seconds = str(int(age.total_seconds()))
        raise Refusal(
            ReasonCode.STALE,
            f"the alert was {seconds} s old when it arrived; the most is {most} s",
            {"age": seconds, "max_age": str(most)},
        )
    signed = signal.auth in (Strategy.Auth.HMAC, Strategy.Auth.STANDARD)
    if -age > timedelta(seconds=SIGNED_SKEW if signed else FUTURE_SKEW):
        raise Refusal(
            ReasonCode.FROM_THE_FUTURE,
            f"the alert's time is {int(-age.total_seconds())} s ahead of this clock",
        )


def refuse_outdated(signal: Signal, alert: Alert) -> None:
    """One that waited here too long opens nothing any more. Raises Refusal where it can do no more than
    that; an exit is not lost for having waited.
    """
    late = outdated(signal, alert)
    if late is None:
        return
    begun = {order.account_id for order in orders_from(signal.pk)}
    legs = [leg for leg in lane_legs(signal, alert) if leg.account.pk not in begun]
    if not any(may_reduce(leg, alert, _sharing(leg, legs)) for leg in legs):
        raise late


def _sharing(leg: Leg, legs: Sequence[Leg]) -> list[Leg]:
    """The accounts that share a target with ``leg``, while their group has not been routed."""
    if not leg.route.group or leg.route.part is not None:
        return []
    return [one for one in legs if one.route.group == leg.route.group and one is not leg]


def may_reduce(leg: Leg, alert: Alert, others: Sequence[Leg] = ()) -> bool:
    """Whether the alert takes off something that is held, or may be held once entries under way have
    ended; one in slices it ends itself. A target may be for the leg and ``others`` together. The lanes
    are read first: what fills between the two questions is in the position.
    """
    entries = _entries_in(leg)
    if is_target(leg, alert):
        coming = _net(entries)
        elsewhere = _net(entry for other in others for entry in _entries_in(other))
        held = sum((held_in(other.account, other.symbol) for other in others), Decimal(0))
        beside = {Decimal(0), coming, held, held + coming + elsewhere}
        return any(reduces(leg, alert, coming=one) for one in beside)
    other_side = side_of(alert).opposite.value
    return any(one.side == other_side for one in entries) or reduces(leg, alert)


def _entries_in(leg: Leg) -> list[Order]:
    """Entries that may fill at any moment, and the strategy's own in slices."""
    lane = alive_in(leg)
    mine = [one for one in lane if one.strategy_id == leg.route.strategy_id]
    working = moving(lane) + [one for one in mine if one.state == OrderState.SLICING]
    return [one for one in working if one.role == Order.Role.ENTRY]


def _net(entries: Iterable[Order]) -> Decimal:
    return sum((one.remaining * Side(one.side).sign for one in entries), Decimal(0))


def refuse_overtaken(signal: Signal, alert: Alert, leg: Leg) -> None:
    """An alert of FKS's own closes what it was sent for, not the other side of it, to which a position
    has turned over meanwhile, or is about to. Raises Refusal.
    """
    if signal.auth != OWN_ALERT or alert.prev_market_position is None:
        return
    side = Side.BUY if alert.prev_market_position is MarketPosition.LONG else Side.SELL
    entries = {one.side for one in alive_in(leg) if one.role == Order.Role.ENTRY}
    held = held_in(leg.account, leg.symbol) * side.sign
    is_there = held > 0 or side.value in entries
    if not is_there and (held < 0 or side.opposite.value in entries):
        closed = f"the {alert.prev_market_position.value} position is closed"
        raise Refusal(ReasonCode.NOTHING_TO_CLOSE, closed)


class Ended(NamedTuple):
    """Alerts that came after one and were carried out before it."""

    closed_by: UUID | None
    canceled_by: UUID | None


def refuse_ended(signal: Signal, alert: Alert, legs: Sequence[Leg], ended: Ended) -> None:
    """An alert that was stored late opens nothing after what it should have come before: a close makes
    it void, a cancel what it would open. Raises Refusal.
    """
    if only_exits(alert):
        return
    if ended.closed_by is not None and not approvals.is_wanted(signal, is_exit=True):
        detail = f"alert {ended.closed_by}, which came after it, has closed the position"
        raise Refusal(ReasonCode.CANCELED_BY_SIGNAL, detail)
    if ended.canceled_by is not None and not any(may_reduce(leg, alert) for leg in legs):
        detail = f"alert {ended.canceled_by}, which came after it, has cancelled what was asked for"
        raise Refusal(ReasonCode.CANCELED_BY_SIGNAL, detail)


def refuse_disabled(signal: Signal) -> None:
    """Disabling a strategy must not leave its positions without their targets and stops."""
    strategy = signal.strategy
    if not strategy.is_enabled and signal.auth != OWN_ALERT:
        raise Refusal(ReasonCode.STRATEGY_DISABLED, f"the strategy {strategy.slug} is disabled")
