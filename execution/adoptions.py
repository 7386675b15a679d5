"""Adopting an order an operator found at the venue himself: what he asked for, and his word on it.

Nothing here talks to a venue; ``adopting`` does, in a worker.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from execution.models import Adoption, Order
from execution.states import UNRESOLVED
from risk import audit
from risk.types import ReasonCode, Refusal

State = Adoption.State
PATIENCE = timedelta(minutes=1)
"""For how long a venue that does not answer is asked."""


def ask(order: Order, broker_order_id: str, reason: str) -> Adoption:
    """Have a worker ask the venue for its order ``broker_order_id``; one asked for before is dropped.

    Raises Refusal where the fate of ``order`` is known, or the id belongs to another order of ours.
    """
    now = timezone.now()
    with transaction.atomic():
        locked = Order.objects.select_for_update(no_key=True).get(pk=order.pk)
        refuse_unless_unknown(locked)
        refuse_if_taken(locked, broker_order_id)
        locked.adoptions.filter(state__in=(State.ASKED, State.FOUND)).update(
            state=State.REFUSED, detail="another order was asked about instead"
        )
        if locked.adoptions.filter(state=State.TAKING).exists():
            raise Refusal(ReasonCode.FATE_KNOWN, "another order is just being taken over")
        row = Adoption.objects.create(
            order=order,
            broker_order_id=broker_order_id,
            reason=reason,
            asked_by=audit.current_actor().name,
            asked_at=now,
            next_look_at=now,
            give_up_at=now + PATIENCE,
        )
        _record("order.adoption_asked", row)
    return row


def take(adoption: Adoption) -> None:
    """The operator has seen what the venue says and wants it taken over: a worker asks once more, books
    the answer, and the order goes on by it. Raises Refusal unless it waits for that word.
    """
    now = timezone.now()
    with transaction.atomic():
        waiting = Adoption.objects.filter(pk=adoption.pk, state=State.FOUND)
        if not waiting.update(state=State.TAKING, next_look_at=now, give_up_at=now + PATIENCE):
            adoption.refresh_from_db()
            raise Refusal(ReasonCode.FATE_KNOWN, f"it is {adoption.get_state_display()} already")
        _record("order.adoption_confirmed", adoption)
    adoption.state = State.TAKING


def due() -> list[int]:
    """Adoptions a worker has to ask the venue about."""
    rows = Adoption.objects.filter(state__in=Adoption.FOR_WORKERS, next_look_at__lte=timezone.now())
    return list(rows.values_list("pk", flat=True))


def refuse_unless_unknown(order: Order) -> None:
    """Raises Refusal: what is known is not changed by an adoption."""
    if order.state not in UNRESOLVED:
        raise Refusal(ReasonCode.FATE_KNOWN, f"our order is {order.get_state_display()}")


def refuse_if_taken(order: Order, broker_order_id: str) -> None:
    """Raises Refusal where another order of ours has that id on the same account."""
    others = Order.objects.filter(
        account_id=order.account_id, symbol=order.symbol, broker_order_id=broker_order_id
    )
    if other := others.exclude(pk=order.pk).first():
        raise Refusal(
            ReasonCode.ALREADY_OURS,
            f"{broker_order_id} at the venue is our order {other.pk}",
            {"order": str(other.pk)},
        )


def _record(kind: str, adoption: Adoption) -> None:
    audit.record(
        kind,
        f"order {adoption.order_id}",
        after={"broker_order_id": adoption.broker_order_id, "told": adoption.told},
        reason=adoption.reason,
        correlation_id=str(adoption.order.signal_id or ""),
    )
