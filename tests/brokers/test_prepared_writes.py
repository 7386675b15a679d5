"""Rows written by prepared statements are the rows Django would have written."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brokers.prepared_writes import change, insert
from execution.ids import uuid7
from execution.models import Fill, Order, OrderEvent
from execution.states import OrderState
from tests.factories import FillFactory, OrderFactory

pytestmark = pytest.mark.django_db


def columns(row: Model) -> dict[str, Any]:
    stored = type(row).objects.get(pk=row.pk)  # type: ignore[attr-defined]
    return {field.attname: getattr(stored, field.attname) for field in row._meta.concrete_fields}


def again(order: Order, **changes: Any) -> Order:
    """Another order like ``order``, unsaved."""
    identity = uuid7()
    values = {field.attname: getattr(order, field.attname) for field in order._meta.concrete_fields}
    return Order(
        **values | {"id": identity, "client_order_id": identity.hex, "signal_id": None} | changes
    )


def line_of(order: Order, **values: Any) -> OrderEvent:
    made = {"at": timezone.now(), "event": "test", "to_state": order.state, "actor": "test"}
    return OrderEvent(order=order, **made | values)


def test_an_inserted_row_is_the_one_django_would_have_saved() -> None:
    saved = OrderFactory.create(
        verdicts=[{"rule": "spread", "detail": "100 % of 'it'"}], expires_at=timezone.now()
    )
    written = again(saved)
    insert(written)
    own = {"id", "client_order_id", "signal_id"}
    expected = {name: value for name, value in columns(saved).items() if name not in own}
    assert {name: value for name, value in columns(written).items() if name not in own} == expected
    assert not written._state.adding


def test_a_row_without_an_id_gets_one() -> None:
    saved = FillFactory.create()
    written = Fill.objects.get(pk=saved.pk)
    written.pk, written.trade_id = None, "another"
    insert(written)
    assert written.pk not in (None, saved.pk)
    assert Fill.objects.get(pk=written.pk).trade_id == "another"


def test_a_further_row_goes_along_in_one_statement() -> None:
    order = again(OrderFactory.create())
    with CaptureQueriesContext(connection) as asked:
        insert(order, along=line_of(order, evidence={"answer": ["ok", None]}))
    assert len(asked) == 1
    line = OrderEvent.objects.get()
    assert (line.order_id, line.evidence) == (order.pk, {"answer": ["ok", None]})


def test_of_an_insert_that_fails_nothing_stands() -> None:
    order = OrderFactory.create()
    twice = again(order, client_order_id=order.client_order_id)
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(twice, along=line_of(twice))
    assert not OrderEvent.objects.exists()
    assert Order.objects.get() == order


def test_a_change_and_its_line_are_one_statement() -> None:
    order = OrderFactory.create(state=OrderState.PENDING)
    moment = timezone.now()
    changes = {"quantity": Decimal("0.5"), "lease_until": moment, "price": None}
    with CaptureQueriesContext(connection) as asked:
        assert change(Order, {"pk": order.pk, "state": "pending"}, changes, along=line_of(order))
    assert len(asked) == 1
    order.refresh_from_db()
    assert (order.quantity, order.lease_until, order.price) == (Decimal("0.5"), moment, None)
    assert OrderEvent.objects.get().order_id == order.pk


def test_where_the_row_is_another_nothing_is_written() -> None:
    order = OrderFactory.create(state=OrderState.OPEN)
    asked_for = {"pk": order.pk, "state": "pending"}
    assert not change(Order, asked_for, {"detail": "changed"}, along=line_of(order))
    assert not change(Order, asked_for, {"detail": "changed"})
    order.refresh_from_db()
    assert order.detail == ""
    assert not OrderEvent.objects.exists()


@pytest.mark.parametrize(
    ("excluded", "changes"),
    [((OrderState.OPEN, OrderState.FILLED), False), ((OrderState.FILLED,), True)],
)
def test_a_row_in_none_of_some_states(excluded: tuple[OrderState, ...], changes: bool) -> None:
    order = OrderFactory.create(state=OrderState.OPEN)
    where = {"pk": order.pk, "state__not_in": list(excluded)}
    assert change(Order, where, {"detail": "changed"}) is changes
