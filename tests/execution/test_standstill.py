"""After a standstill no account trades before it has been compared with its venue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from django.db import OperationalError
from django.utils import timezone

from brokers.models import Account
from brokers.types import PositionReport
from execution import dispatch, liveness, reconcile, standstill
from execution.models import Heartbeat, Order
from execution.states import OrderState
from tests.brokers.scripted import Script, ScriptedPlugin
from tests.factories import OrderFactory

pytestmark = pytest.mark.django_db
S = OrderState
LANE = "BTC/USDT"
HOUR = 3600
Accounts = Callable[..., Account]


@pytest.fixture
def account(clock: time_machine.Coordinates, scripted: Accounts) -> Account:
    return scripted()


@pytest.fixture
def watched(clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has been seen to run until now."""
    monkeypatch.setattr(standstill, "_seen_at", None)
    monkeypatch.setattr(standstill, "_noticed", 0)
    standstill.look()


def may_trade() -> bool:
    return Account.objects.get().reconciled_at is not None


# --- a worker that starts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "goes_on"), [(-HOUR, False), (-16, False), (-14, True), (14, True), (16, False)]
)
def test_a_worker_that_starts_goes_on_where_one_has_just_been_alive(
    account: Account, seconds: int, goes_on: bool
) -> None:
    """After a power cut the clock may be behind: the last beat is in the future."""
    Heartbeat.objects.create(name="worker", at=timezone.now() + timedelta(seconds=seconds))
    liveness.require_reconciliation()
    assert may_trade() == goes_on


def test_the_first_worker_of_all_compares_first(account: Account) -> None:
    liveness.require_reconciliation()
    assert not may_trade()


def test_every_worker_watches_whatever_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(standstill, "_seen_at", None)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: begun.append(thread.name))
    liveness.watch_for_standstills()
    assert begun == ["standstill"]


# --- one that slept -------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [16, HOUR, -16, -HOUR])
@pytest.mark.usefixtures("watched")
def test_nothing_leaves_after_a_standstill_before_the_account_was_compared(
    account: Account, script: Script, clock: time_machine.Coordinates, seconds: int
) -> None:
    order = OrderFactory.create(account=account, expires_at=None)
    clock.shift(seconds)
    assert dispatch.run_lane(account.pk, LANE) == []
    assert (script.sent, may_trade(), standstill.noticed()) == ([], False, 1)
    account.refresh_from_db()
    reconcile.reconcile_account(account)
    assert dispatch.run_lane(account.pk, LANE) == [order]
    assert (len(script.sent), may_trade(), standstill.noticed()) == (1, True, 1)


@pytest.mark.parametrize("seconds", [14, -14])
@pytest.mark.usefixtures("watched")
def test_a_moment_is_no_standstill(
    account: Account, script: Script, clock: time_machine.Coordinates, seconds: int
) -> None:
    """A worker that was frozen past its claims, a clock that was corrected."""
    OrderFactory.create(account=account, expires_at=None)
    clock.shift(seconds)
    dispatch.run_lane(account.pk, LANE)
    assert (len(script.sent), may_trade(), standstill.noticed()) == (1, True, 0)


@pytest.mark.usefixtures("watched")
def test_a_process_that_looks_all_the_time_has_not_stood_still(
    account: Account, clock: time_machine.Coordinates
) -> None:
    for _ in range(40):
        clock.shift(10)
        standstill.look()
    assert (may_trade(), standstill.noticed()) == (True, 0)


def test_a_command_has_not_slept(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    """Nobody watches in it, and it has just begun."""
    order = OrderFactory.create(account=account, expires_at=None)
    clock.shift(HOUR)
    assert dispatch.run_lane(account.pk, LANE) == [order]


@pytest.mark.usefixtures("watched")
def test_a_comparison_the_machine_slept_through_is_none(
    account: Account, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_plugin: ScriptedPlugin) -> list[PositionReport]:
        clock.shift(HOUR)
        return []

    with monkeypatch.context() as patched:
        patched.setattr(ScriptedPlugin, "positions", sleep)
        reconcile.reconcile_account(account)
    assert not may_trade()
    reconcile.reconcile_account(account)
    assert may_trade()


@pytest.mark.usefixtures("watched")
def test_a_task_notices_before_it_begins(account: Account, clock: time_machine.Coordinates) -> None:
    clock.shift(HOUR)
    liveness.notice_a_standstill()
    assert not may_trade()


@pytest.mark.usefixtures("watched")
def test_no_thread_goes_on_while_another_holds_the_accounts(
    clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the machine has woken, all of them are at work at once."""
    holding, held = threading.Event(), threading.Event()
    went_on: list[tuple[bool, int]] = []

    def hold() -> None:
        holding.set()
        assert held.wait(30)

    monkeypatch.setattr(standstill, "hold_every_account", hold)
    clock.shift(HOUR)
    first = threading.Thread(target=standstill.look)
    first.start()
    assert holding.wait(30)
    second = threading.Thread(target=lambda: went_on.append((standstill.noticed(), held.is_set())))
    second.start()
    assert went_on == []
    held.set()
    first.join(30)
    second.join(30)
    assert went_on == [(1, True)]


@pytest.mark.usefixtures("watched")
def test_a_database_that_is_not_back_yet_changes_nothing(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    OrderFactory.create(account=account, expires_at=None)
    clock.shift(HOUR)
    with pytest.MonkeyPatch.context() as patched:

        def fail() -> None:
            raise OperationalError("the database is starting up")

        patched.setattr(standstill, "hold_every_account", fail)
        for _ in range(2):
            with pytest.raises(OperationalError):
                dispatch.run_lane(account.pk, LANE)
    dispatch.run_lane(account.pk, LANE)
    assert (script.sent, may_trade()) == ([], False)
    assert Order.objects.get().state == S.PENDING
