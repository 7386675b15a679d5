"""``Prefer: wait=N``: how long, for whom, and when a signal counts as settled."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from execution import waiting
from execution.models import Order, Signal
from execution.states import OrderState, SignalState
from execution.waiting import outcome_of, seconds_preferred, wait_for
from tests.factories import OrderFactory, SignalFactory


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0),
        ("wait=5", 5),
        ("Wait=5", 5),
        ("wait = 5", 5),
        ('wait="5"', 5),
        ("wait=10", 10),
        ("wait=11", 10),
        ("wait=99999999", 10),
        ("wait=1.9", 1),
        ("respond-async, wait=3", 3),
        ("wait=3; foo=bar", 3),
        ("return=minimal;wait=3", 3),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=", 0),
        ("wait", 0),
        ("wait=soon", 0),
        ("await=5", 0),
        ("wait=٥", 0),
        ("respond-async", 0),
    ],
)
def test_the_seconds_preferred(header: str, seconds: float) -> None:
    assert seconds_preferred(header) == seconds


def signal_with(state: SignalState, *orders: tuple[str, str]) -> Signal:
    """A signal with an order of each (state, type) given."""
    signal = SignalFactory.create(state=state)
    for order_state, order_type in orders:
        terms = {"price": Decimal(60000)} if order_type == "limit" else {}
        OrderFactory.create(signal=signal, state=order_state, type=order_type, **terms)
    return signal


@pytest.mark.django_db
class TestOutcome:
    @pytest.mark.parametrize("state", sorted(set(SignalState) - {"received", "working"}))
    def test_a_signal_without_orders_is_settled_once_it_is_decided(self, state: str) -> None:
        signal = SignalFactory.create(state=state, reason="STALE", detail="too old")

        assert outcome_of(signal.pk) == {
            "status": state,
            "signal_id": str(signal.pk),
            "reason": "STALE",
            "detail": "too old",
            "orders": [],
        }

    def test_an_undecided_signal_is_not_settled(self) -> None:
        assert outcome_of(signal_with(SignalState.RECEIVED).pk) is None

    @pytest.mark.parametrize(
        ("state", "order_type"),
        [
            (OrderState.PENDING, "market"),
            (OrderState.PENDING, "limit"),
            (OrderState.SUBMITTING, "limit"),
            (OrderState.UNKNOWN, "limit"),
            (OrderState.OPEN, "market"),
            (OrderState.PARTIALLY_FILLED, "market"),
            (OrderState.FILLED, "market"),
            (OrderState.REJECTED, "limit"),
        ],
    )
    def test_news_to_come(self, state: OrderState, order_type: str) -> None:
        signal = signal_with(SignalState.WORKING, (state, order_type))

        assert outcome_of(signal.pk) is None

    @pytest.mark.parametrize(
        ("state", "order_type"),
        [
            (OrderState.OPEN, "limit"),
            (OrderState.PARTIALLY_FILLED, "limit"),
            (OrderState.OPEN, "stop"),
            (OrderState.NEEDS_OPERATOR, "market"),
        ],
    )
    def test_a_resting_order_is_a_working_signal(self, state: OrderState, order_type: str) -> None:
        signal = signal_with(SignalState.WORKING, (state, order_type))

        outcome = outcome_of(signal.pk)

        assert outcome is not None
        assert outcome["status"] == "working"
        assert [order["status"] for order in outcome["orders"]] == [state.value]

    @pytest.mark.parametrize("time_in_force", ["ioc", "fok"])
    def test_a_limit_that_never_rests_is_waited_for(self, time_in_force: str) -> None:
        signal = signal_with(SignalState.WORKING, (OrderState.OPEN, "limit"))
        Order.objects.update(time_in_force=time_in_force)
        assert outcome_of(signal.pk) is None

    def test_every_order_is_waited_for(self) -> None:
        orders = [(OrderState.FILLED, "market"), (OrderState.OPEN, "market")]
        signal = signal_with(SignalState.WORKING, *orders)
        assert outcome_of(signal.pk) is None

        Order.objects.filter(signal=signal).update(state=OrderState.CANCELED)
        Signal.objects.filter(pk=signal.pk).update(state=SignalState.EXECUTED)

        outcome = outcome_of(signal.pk)
        assert outcome is not None
        assert len(outcome["orders"]) == 2

    def test_numbers_are_plain_decimal_text(self) -> None:
        signal = SignalFactory.create(state=SignalState.EXECUTED)
        order = OrderFactory.create(
            signal=signal,
            state=OrderState.FILLED,
            quantity=Decimal("100.500"),
            filled_quantity=Decimal(100),
            average_price=Decimal("0.00000001"),
            broker_order_id="venue-1",
            reason="",
        )

        outcome = outcome_of(signal.pk)

        assert outcome is not None
        assert outcome["orders"] == [
            {
                "order_id": str(order.pk),
                "client_order_id": order.client_order_id,
                "broker_order_id": "venue-1",
                "account": order.account.name,
                "symbol": "BTC/USDT",
                "side": "buy",
                "type": "market",
                "quantity": "100.5",
                "status": "filled",
                "filled_quantity": "100",
                "average_price": "0.00000001",
                "reason": "",
                "detail": "",
            }
        ]


@pytest.mark.django_db
class TestWaiting:
    def test_a_settled_signal_is_answered_at_once(self) -> None:
        signal = SignalFactory.create(state=SignalState.DENIED, finished_at=timezone.now())
        started = time.monotonic()

        outcome = wait_for(signal.pk, 10)

        assert outcome is not None
        assert outcome["status"] == "denied"
        assert time.monotonic() - started < 5

    def test_the_outcome_is_looked_for_until_it_is_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter([None, None, {"status": "executed"}])
        monkeypatch.setattr(waiting, "outcome_of", lambda _: next(answers))

        assert wait_for(SignalFactory.build().pk, 10) == {"status": "executed"}

    @pytest.mark.alone
    def test_no_longer_than_asked(self) -> None:
        signal = SignalFactory.create()
        started = time.monotonic()

        assert wait_for(signal.pk, 0.2) is None
        assert 0.05 < time.monotonic() - started < 2

    def test_only_a_few_may_wait(self) -> None:
        signal = SignalFactory.create(state=SignalState.DENIED)
        for _ in range(waiting.MAX_WAITERS):
            assert waiting._places.acquire(blocking=False)
        try:
            assert wait_for(signal.pk, 10) is None
        finally:
            waiting._places.release(waiting.MAX_WAITERS)
        assert wait_for(signal.pk, 10) is not None

    def test_a_place_is_given_back_whatever_happens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(waiting.MAX_WAITERS + 1):
            with pytest.raises(Signal.DoesNotExist):
                wait_for(SignalFactory.build().pk, 1)

    @pytest.mark.parametrize("failure", [OperationalError("gone"), InterfaceError("closed")])
    def test_a_database_that_fails_meanwhile_leaves_the_plain_answer(
        self, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        def fail(_: object) -> None:
            raise failure

        monkeypatch.setattr(waiting, "outcome_of", fail)
        for _ in range(waiting.MAX_WAITERS + 1):
            assert wait_for(SignalFactory.build().pk, 10) is None
