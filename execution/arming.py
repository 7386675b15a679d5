"""A fill of an entry that named a stop or a target arms the position's protection.

It happens in the fill's own transaction: a worker killed right after leaves a row the sweep finds, and
not an unguarded position nobody knows of.
"""

from __future__ import annotations

from execution.alerts import Alert
from execution.models import Order, Protection


def arm(order: Order) -> None:
    """Make or renew the protection ``order`` asks for; nothing for orders that ask for none."""
    if order.role != Order.Role.ENTRY or order.signal is None:
        return
    alert = Alert.from_json(order.signal.alert)
    if alert.stop_loss is None and not alert.take_profit:
        return
    plan = Protection.objects.filter(account_id=order.account_id, symbol=order.symbol).first()
    plan = plan or Protection(account_id=order.account_id, symbol=order.symbol)
    if plan.entry_id != order.pk or not plan.is_active:
        plan.entry = order
        plan.stop_price = alert.stop_loss
        plan.targets = [
            {"price": format(one.price, "f"), "percent": format(one.percent, "f")}
            for one in alert.take_profit
        ]
        plan.naked_since = plan.alarmed_at = plan.suspended_until = None
    plan.is_active = True
    plan.aligned_at = None
    plan.save()
