"""The end of a claim travels with the order, so that a plugin sends nothing after it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from execution.judging import request_of
from execution.states import OrderState
from tests.factories import OrderFactory

pytestmark = pytest.mark.django_db


def test_a_claimed_order_may_leave_until_its_lease_is_over() -> None:
    lease_until = timezone.now() + timedelta(seconds=33)
    order = OrderFactory(state=OrderState.SUBMITTING, attempt=1, lease_until=lease_until)
    assert request_of(order).send_before == lease_until


def test_an_order_nobody_has_claimed_has_no_such_moment() -> None:
    assert request_of(OrderFactory(state=OrderState.PENDING)).send_before is None
