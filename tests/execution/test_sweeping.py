"""What cannot go on hides nothing else from the sweep, however much of it there is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from execution import liveness, sweeping
from execution.models import Heartbeat
from tests.factories import AccountFactory, OrderFactory, SignalFactory, StrategyFactory

pytestmark = pytest.mark.django_db
LANE = "BTC/USDT"
SWEEPS = 40
AGO = timedelta(seconds=30)


def is_found(found: Callable[[], object]) -> bool:
    """Whether one of many sweeps finds it: each takes 10 of 11, so all miss it by chance never."""
    return any(found() for _ in range(SWEEPS))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows a sweep takes here."""
    monkeypatch.setattr(sweeping, "BATCH", 10)
    return 10


@pytest.mark.parametrize("role", ["exit", "entry"])
def test_a_lane_is_found_behind_many_that_cannot_be_sent(few: int, role: str) -> None:
    stuck, account = AccountFactory.create_batch(2)
    old = {"role": role, "updated_at": timezone.now() - AGO}
    for number in range(few):
        OrderFactory.create(account=stuck, symbol=f"C{number}/USDT", **old)
    OrderFactory.create(account=account, symbol=LANE, **old)
    assert is_found(lambda: (account.pk, LANE) in sweeping.waiting_lanes())
    assert len(sweeping.waiting_lanes()) == few


def test_many_exits_that_cannot_be_sent_hide_no_entry(few: int) -> None:
    old = timezone.now() - AGO
    for number in range(few):
        OrderFactory.create(symbol=f"C{number}/USDT", role="exit", updated_at=old)
    entry = OrderFactory.create(symbol=LANE, updated_at=old)
    found = sweeping.waiting_lanes()
    assert found[-1] == (entry.account_id, LANE)
    assert len(found) == few + 1


def test_an_alert_is_found_behind_many_that_wait(few: int) -> None:
    old = {"received_at": timezone.now() - AGO}
    stuck, strategy = StrategyFactory.create_batch(2)
    for number in range(few):
        SignalFactory.create(strategy=stuck, symbol=f"C{number}/USDT", **old)
    lost = SignalFactory.create(strategy=strategy, action="close", **old)
    assert is_found(lambda: lost.pk in sweeping.undecided_signals())
    assert len(sweeping.undecided_signals()) == few


def test_of_each_queue_the_oldest_alert_is_found() -> None:
    old = timezone.now() - AGO
    strategy = StrategyFactory.create()
    first, _, other = (
        SignalFactory.create(strategy=strategy, symbol=symbol, received_at=old)
        for symbol in (LANE, LANE, "ETH/USDT")
    )
    assert set(sweeping.undecided_signals()) == {first.pk, other.pk}


def test_what_was_left_behind_before_the_clock_was_set_back_is_found() -> None:
    ahead = timezone.now() + timedelta(hours=1)
    order = OrderFactory.create(role="exit", updated_at=ahead, next_check_at=ahead)
    signal = SignalFactory.create(received_at=ahead)
    lane = order.account_id, order.symbol
    assert sweeping.waiting_lanes() == sweeping.lanes_of(order.account_id) == [lane]
    assert sweeping.undecided_signals() == [signal.pk]


def test_what_is_put_off_is_not_found() -> None:
    soon = timezone.now() + timedelta(seconds=60)
    order = OrderFactory.create(role="exit", updated_at=timezone.now() - AGO, next_check_at=soon)
    assert sweeping.waiting_lanes() == sweeping.lanes_of(order.account_id) == []


@pytest.mark.parametrize(
    ("seconds", "compares"), [(-16, True), (-14, False), (14, False), (3600, True)]
)
def test_after_a_standstill_accounts_are_compared_before_they_trade(
    seconds: int, compares: bool
) -> None:
    """A sign of life from far ahead is one from before the clock was set back."""
    account = AccountFactory.create(reconciled_at=timezone.now())
    at = timezone.now() + timedelta(seconds=seconds)
    Heartbeat.objects.create(name="worker", at=at)
    liveness.require_reconciliation()
    account.refresh_from_db()
    assert (account.reconciled_at is None) is compares


def test_without_a_halt_nobody_looks_at_positions(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(2) as asked:
        assert sweeping.accounts_to_wind_down() == set()
    assert not [one for one in asked if "execution_position" in one["sql"]]


def test_a_sign_of_life_is_one_statement(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    liveness.beat("worker")
    first = Heartbeat.objects.get(name="worker").at
    with django_assert_num_queries(1):
        liveness.beat("worker")
    assert Heartbeat.objects.get(name="worker").at > first
