"""A fill of an entry that named a stop or a target arms the position's protection.

It happens in the fill's own transaction: a worker killed right after leaves a row the sweep finds, and
not an unguarded position nobody knows of.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from brokers.types import Side
from execution import attached
from execution.alerts import Alert, TakeProfit
from execution.amending import original_of
from execution.models import Order, Protection

_HUNDRED = Decimal(100)


def arm(order: Order, held: Decimal) -> None:
    """Make or renew the protection ``order`` asks for; nothing for orders that ask for none.

    A later entry changes what it names: one without a stop of its own is guarded by the stop that is
    there. A late fill of an earlier entry changes nothing of a later one's; what takes the place of an
    order is no later than that was, and moves no stop away from the market. Of two sides the position,
    ``held`` after the fill, decides and not their sequence: whoever turns it over starts afresh, for
    what was there guarded what is closed; whoever only makes it smaller changes nothing. Call it inside
    the transaction that holds the position's lock.
    """
    if order.role != Order.Role.ENTRY or order.signal is None:
        return
    alert = Alert.from_json(order.signal.alert)
    if alert.stop_loss is None and not alert.take_profit:
        return
    attached.take_over(order)
    entry = order.parent or order  # of an order in slices, all of them open one position
    lane = Protection.objects.filter(account_id=order.account_id, symbol=order.symbol)
    plan = lane.select_for_update(of=("self",)).select_related("entry__signal").first()
    is_other_side = plan is not None and plan.entry.side != order.side
    turns_over = is_other_side and held * Side(order.side).sign > 0
    if plan is None or not plan.is_active or turns_over:
        plan = Protection(
            pk=plan.pk if plan else None,
            account_id=order.account_id,
            symbol=order.symbol,
            entry=entry,
            stop_price=alert.stop_loss,
            targets=_targets(alert.take_profit),
            is_doubted=plan is not None and plan.is_doubted,
        )
    elif not is_other_side and _is_later(entry, plan.entry):
        plan.entry = entry
        if alert.stop_loss is not None and not _widens(plan, alert):
            plan.stop_price, plan.moved_at, plan.moved_why = alert.stop_loss, None, ""
            plan.passed_at = None
        plan.targets = _targets(alert.take_profit) or plan.targets
    plan.aligned_at = None
    plan.save()


def _is_later(entry: Order, other: Order) -> bool:
    """Whether ``entry`` was asked for after ``other``. Ids sort by time."""
    return original_of(entry).pk > original_of(other).pk


def _widens(plan: Protection, alert: Alert) -> bool:
    """Whether an amend, of which nobody asked for a stop, has one that is further off by now."""
    if not alert.replaces or plan.stop_price is None or alert.stop_loss is None:
        return False
    return (alert.stop_loss - plan.stop_price) * Side(plan.entry.side).sign < 0


def _targets(wanted: Iterable[TakeProfit]) -> list[dict[str, str]]:
    """Targets as they are stored: each with what is left of the position (percent) before it."""
    left, targets = _HUNDRED, []
    for one in wanted:
        texts = {"price": one.price, "percent": one.percent, "of": left}
        targets.append({name: format(number, "f") for name, number in texts.items()})
        left -= one.percent
    return targets
