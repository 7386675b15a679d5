"""Stop losses that leave with their entry, where the venue holds them back until it trades.

Nothing is stored of such a stop but its price and its name at the venue, on the entry's row, until the
entry trades: it cannot trade before. The fill's own transaction then makes it an order of the book, of
unknown fate, which is looked for like any other. One that is not there is replaced by a stop of ours.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from brokers.types import AttachedStop, OrderType, Side
from execution.alerts import Alert
from execution.facts import Market
from execution.models import Order, OrderEvent
from execution.states import OrderState
from risk.prices import round_price

SETTLES = timedelta(seconds=2)
"""From a fill to the moment a venue must show the stop that came with the entry. Too short does no
harm: a stop that turns up beside one of ours is taken off."""
_OTHER = 1 << 61
"""The highest random bit of a UUID version 7: what sorts by time still does, and venues that keep only
the beginning of an id tell the two apart."""


def attach(order: Order, alert: Alert, market: Market) -> None:
    """Have ``order`` carry its stop loss if it is an entry that has one, and the venue takes it."""
    detach(order)
    if order.role != Order.Role.ENTRY or not market.plugin.capabilities.attached_stop:
        return
    if alert.stop_loss is None:
        return
    exit_side = Side(order.side).opposite
    tick = market.instrument.price_tick
    order.attached_stop = round_price(exit_side, OrderType.STOP, alert.stop_loss, tick)
    order.attached_client_id = market.plugin.client_order_id(stop_id(order).hex)


def detach(order: Order) -> None:
    """An order worked in slices carries none: each slice's fill is guarded as it comes."""
    order.attached_stop, order.attached_client_id = None, ""


def asked_of(order: Order) -> AttachedStop | None:
    """What the plugin is told of the stop ``order`` carries."""
    if order.attached_stop is None:
        return None
    return AttachedStop(stop_id(order).hex, order.attached_stop)


def take_over(entry: Order) -> None:
    """``entry`` has traded: the stop it carried is an order from now on. Call it in the transaction
    that books the fill and holds the entry's row.
    """
    identity = stop_id(entry)
    if entry.attached_stop is None or Order.objects.filter(pk=identity).exists():
        return
    now = timezone.now()
    stop = Order.objects.create(
        id=identity,
        signal_id=entry.signal_id,
        strategy_id=entry.strategy_id,
        account_id=entry.account_id,
        symbol=entry.symbol,
        side=Side(entry.side).opposite.value,
        type=OrderType.STOP.value,
        role=Order.Role.STOP_LOSS,
        quantity=entry.quantity,
        stop_price=entry.attached_stop,
        reference_price=entry.attached_stop,
        client_order_id=entry.attached_client_id,
        state=OrderState.UNKNOWN,
        unknown_since=now,
        submitted_at=now,
        settle_at=now + SETTLES,
        next_check_at=now,
        expires_at=now,  # it is never sent by itself
        created_at=now,
        updated_at=now,
    )
    OrderEvent.objects.create(
        order=stop,
        at=now,
        event="create",
        to_state=stop.state,
        actor="protection",
        detail="left with its entry, which has traded: the venue is asked for it",
    )


def stop_id(entry: Order) -> UUID:
    """The id of the stop an entry carries follows from the entry's."""
    return UUID(int=entry.pk.int ^ _OTHER)
