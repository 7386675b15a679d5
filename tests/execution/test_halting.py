"""What the kill switch forbids, cancels and closes, and that it does so once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import connection

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, ExecutionResult, Outcome, VenueStatus
from execution import (
    account_tasks,
    cancels,
    flatten,
    halting,
    periodic_tasks,
    sweeping,
    tasks,
    winding_down,
)
from execution.halting import Left, Mode
from execution.models import Order, Position
from execution.states import OrderState
from risk.models import AuditEvent, TradingState
from tests.brokers.scripted import report_of, script_of, trade
from tests.execution.guarding import clock  # noqa: F401  (a fixture)
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    StrategyFactory,
    UserFactory,
)
from tests.threads import together

pytestmark = pytest.mark.django_db
S, Scope = OrderState, TradingState.Scope
Accounts = Callable[..., Account]
LANE = "BTC/USDT"
SHORT = 0.0


def resting(account: Account, **columns: object) -> Order:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1", **columns)
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.OPEN)
    return order


def states(*orders: Order) -> list[str]:
    for order in orders:
        order.refresh_from_db()
    return [order.state for order in orders]


def press(
    mode: Mode, scope: TradingState.Scope = Scope.GLOBAL, key: str = "", *, seconds: float = SHORT
) -> Left:
    row = halting.press(mode, scope=scope, key=key, reason="test")
    left = Left([], [])
    for account in Account.objects.order_by("pk"):
        winding_down._keep_at_it(account, seconds)
    if mode in (Mode.CANCEL_ALL, Mode.FLATTEN):
        left = flatten.left_of(row)
    return left


def closes(account: Account) -> list[Order]:
    return list(Order.objects.filter(account=account, role=Order.Role.FLATTEN).order_by("id"))


def held(account: Account) -> Decimal:
    return Position.objects.get(account=account, symbol=LANE).quantity


# --- cancel_all -----------------------------------------------------------------------------------


def test_everything_that_works_is_canceled_and_read_back(scripted: Accounts) -> None:
    orders = [resting(scripted()), resting(scripted()), OrderFactory.create(account=scripted())]
    done = OrderFactory.create(state=S.FILLED)
    assert not press(Mode.CANCEL_ALL)
    assert states(*orders, done) == [S.CANCELED] * 3 + [S.FILLED]
    assert {order.reason for order in orders} == {"CANCELED_BY_OPERATOR"}
    assert {order.detail for order in orders} == {"cancel asked for by the kill switch"}


def test_a_scope_spares_the_rest(scripted: Accounts) -> None:
    strategy = StrategyFactory.create()
    mine, other = scripted(), scripted(options={"exchange": "kraken"})
    orders = [
        resting(mine),
        resting(other),
        resting(other, strategy=strategy),
        resting(mine, symbol="ETH/USDT"),
        resting(other, symbol="ETH/USDT"),
    ]
    PositionFactory.create(account=mine, symbol="ETH/USDT")
    press(Mode.CANCEL_ALL, Scope.STRATEGY, strategy.slug)
    assert states(*orders) == [S.OPEN, S.OPEN, S.CANCELED, S.OPEN, S.OPEN]
    press(Mode.CANCEL_ALL, Scope.VENUE, "kraken")
    assert states(*orders) == [S.OPEN, S.CANCELED, S.CANCELED, S.OPEN, S.CANCELED]
    press(Mode.CANCEL_ALL, Scope.SYMBOL, "ETH/USDT")
    assert states(*orders) == [S.OPEN, S.CANCELED, S.CANCELED, S.CANCELED, S.CANCELED]
    press(Mode.CANCEL_ALL, Scope.ACCOUNT, mine.name)
    assert states(*orders) == [S.CANCELED] * 5


@pytest.mark.parametrize("scope", [one for one in Scope if one is not Scope.GLOBAL])
def test_a_name_nobody_has_is_known_to_nobody(
    scripted: Accounts, scope: TradingState.Scope
) -> None:
    scripted()
    assert not halting.is_known(scope, "tpyo")
    assert not halting.is_known(scope, "")


def test_stop_losses_stay(scripted: Accounts) -> None:
    stop = resting(scripted(), role=Order.Role.STOP_LOSS, side="sell", type="stop")
    assert not press(Mode.CANCEL_ALL)
    assert states(stop) == [S.OPEN]


def test_what_could_not_be_canceled_is_named_and_canceled_by_the_sweep(
    scripted: Accounts, eager: None
) -> None:
    silent, stubborn, unknown = scripted(), scripted(), scripted()
    left = [
        resting(silent),
        resting(stubborn),
        OrderFactory.create(account=unknown, state=S.UNKNOWN, submitted_at="2026-01-01T00:00Z"),
    ]
    script_of(silent).failure = QueryFailedError("timeout")
    script_of(stubborn).cancel_results.append(CancelResult(Outcome.UNKNOWN))
    gone = resting(scripted())
    assert press(Mode.CANCEL_ALL).orders == left
    assert states(*left, gone) == [S.CANCELING, S.CANCELING, S.UNKNOWN, S.CANCELED]

    script_of(silent).failure = None
    script_of(unknown).reports[left[2].identity] = report_of(left[2], VenueStatus.OPEN)
    Order.objects.get(pk=left[1].pk).journal.all().delete()  # its last cancel is long ago
    for _ in range(2):
        unfinished = Order.objects.filter(pk__in=[one.pk for one in left])
        unfinished.exclude(state=S.CANCELED).update(next_check_at="2026-01-01T00:00Z")
        periodic_tasks.sweep()
    assert states(*left) == [S.CANCELED] * 3


def test_an_order_that_fills_while_it_is_canceled_is_filled(scripted: Accounts) -> None:
    account = scripted()
    order = resting(account)
    script_of(account).cancel_results.append(CancelResult(Outcome.REJECTED))
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.FILLED, trade("1"))
    assert not press(Mode.CANCEL_ALL)
    assert states(order) == [S.FILLED]


def test_an_order_proven_absent_after_its_cancel_is_not_sent_again(scripted: Accounts) -> None:
    account = scripted()
    order = OrderFactory.create(
        account=account, state=S.UNKNOWN, attempt=1, looks=1, settle_at="2026-01-01T00:00Z"
    )
    halting.press(Mode.CANCEL_ALL, scope=Scope.GLOBAL, key="", reason="test")
    tasks.check_order(str(order.pk))
    assert states(order) == [S.NOT_PLACED]


# --- flatten --------------------------------------------------------------------------------------


def test_flatten_cancels_what_works_and_closes_what_is_held(scripted: Accounts) -> None:
    account = scripted()
    entry = resting(account)
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    assert not press(Mode.FLATTEN)
    assert states(entry) == [S.CANCELED]
    (close,) = closes(account)
    assert (close.side, close.type, close.quantity, close.state) == (
        "sell",
        "market",
        Decimal("0.5"),
        S.FILLED,
    )
    assert [event.event for event in close.journal.all()][:2] == ["create", "claim"]
    assert held(account) == 0
    assert (TradingState.objects.get().state, TradingState.objects.get().flatten) == (
        "halted",
        True,
    )


def test_a_plugin_that_breaks_over_a_price_keeps_no_position_from_being_closed(
    scripted: Accounts,
) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    script_of(account).quote_failure = KeyError("bidPrice")
    assert not press(Mode.FLATTEN)
    assert held(account) == 0


def test_a_short_is_bought_back(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("-0.5"))
    assert not press(Mode.FLATTEN)
    assert [(one.side, one.quantity) for one in closes(account)] == [("buy", Decimal("0.5"))]


def test_pressed_twice_it_closes_once(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    script_of(account).outcomes.append(ExecutionResult(Outcome.UNKNOWN))
    assert press(Mode.FLATTEN).positions
    assert press(Mode.FLATTEN).positions
    account_tasks.wind_down(account.pk)
    assert [one.state for one in closes(account)] == [S.UNKNOWN]
    assert len(script_of(account).sent) == 1


@pytest.mark.django_db(transaction=True)
def test_pressed_by_many_at_once_it_closes_once(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    row = halting.press(Mode.FLATTEN, scope=Scope.GLOBAL, key="", reason="test")
    together(*[lambda: flatten.close(account, LANE, share=Decimal("0.5"), row=row)] * 6)
    assert [one.quantity for one in closes(account)] == [Decimal("0.5")]
    left = together(*[lambda: winding_down.carry_out(row, 5)] * 3)
    assert not any(left)
    assert held(account) == 0
    assert [request.quantity for request in script_of(account).sent] == [Decimal("0.5")]


def test_a_close_the_venue_refuses_is_tried_again_with_pauses(
    scripted: Accounts,
    clock: time_machine.Coordinates,  # noqa: F811
) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    script_of(account).outcomes.extend([ExecutionResult(Outcome.REJECTED, code="NO_MONEY")] * 2)
    assert [one.symbol for one in press(Mode.FLATTEN).positions] == [LANE]
    winding_down._keep_at_it(account, SHORT)
    assert [one.state for one in closes(account)] == [S.REJECTED]
    clock.shift(3)
    winding_down._keep_at_it(account, SHORT)
    clock.shift(3)
    winding_down._keep_at_it(account, SHORT)
    assert [one.state for one in closes(account)] == [S.REJECTED] * 2
    clock.shift(2)
    winding_down._keep_at_it(account, SHORT)
    assert [one.state for one in closes(account)] == [S.REJECTED, S.REJECTED, S.FILLED]
    assert held(account) == 0


def test_a_close_killed_before_it_was_sent_is_sent_by_the_sweep(
    scripted: Accounts, eager: None
) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    row = halting.press(Mode.FLATTEN, scope=Scope.GLOBAL, key="", reason="test")
    flatten.close(account, LANE, share=Decimal("0.5"), row=row)  # and killed here
    Order.objects.update(updated_at="2026-01-01T00:00Z")
    periodic_tasks.sweep()
    assert [one.state for one in closes(account)] == [S.FILLED]
    assert held(account) == 0
    periodic_tasks.sweep()
    assert len(script_of(account).sent) == 1


def test_an_entry_that_turns_out_filled_is_closed_as_well(scripted: Accounts, eager: None) -> None:
    account = scripted()
    entry = OrderFactory.create(account=account, state=S.UNKNOWN, submitted_at="2026-01-01T00:00Z")
    press(Mode.FLATTEN)
    assert closes(account) == []
    script_of(account).reports[entry.identity] = report_of(entry, VenueStatus.FILLED, trade("1"))
    tasks.check_order(str(entry.pk))
    periodic_tasks.sweep()
    assert [(one.quantity, one.state) for one in closes(account)] == [(Decimal("0.01"), S.FILLED)]


def test_the_stop_that_holds_the_coins_is_taken_off_first(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    stop = resting(account, role=Order.Role.STOP_LOSS, side="sell", type="stop", quantity="0.5")
    script_of(account).cancel_results.append(CancelResult(Outcome.UNKNOWN))
    assert press(Mode.FLATTEN)
    assert (states(stop), closes(account)) == ([S.CANCELING], [])
    script_of(account).reports[stop.identity] = report_of(stop, VenueStatus.CANCELED)
    tasks.check_order(str(stop.pk))
    winding_down._keep_at_it(account, SHORT)
    assert (states(stop), held(account)) == ([S.CANCELED], 0)


def test_of_a_strategy_its_own_part_is_closed(scripted: Accounts) -> None:
    account, strategy = scripted(), StrategyFactory.create()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    order = OrderFactory.create(account=account, strategy=strategy, state=S.FILLED, quantity=1)
    FillFactory.create(order=order, quantity=Decimal("0.3"))
    FillFactory.create(order=order, quantity=Decimal("0.1"), side="sell")
    assert not press(Mode.FLATTEN, Scope.STRATEGY, strategy.slug)
    assert [(one.quantity, one.strategy) for one in closes(account)] == [(Decimal("0.2"), strategy)]
    assert held(account) == Decimal("0.3")


def test_a_strategy_flattened_with_everything_else_holds_nothing_afterwards(
    scripted: Accounts,
) -> None:
    account, strategy = scripted(), StrategyFactory.create()
    PositionFactory.create(account=account, quantity=Decimal("0.3"))
    order = OrderFactory.create(account=account, strategy=strategy, state=S.FILLED, quantity=1)
    FillFactory.create(order=order, quantity=Decimal("0.3"))
    press(Mode.FLATTEN)
    press(Mode.RESUME)
    Position.objects.update(quantity=Decimal("0.2"))  # somebody else's
    assert not press(Mode.FLATTEN, Scope.STRATEGY, strategy.slug)
    assert held(account) == Decimal("0.2")


def test_resuming_drops_closes_not_sent_yet(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    row = halting.press(Mode.FLATTEN, scope=Scope.GLOBAL, key="", reason="test")
    flatten.close(account, LANE, share=Decimal("0.5"), row=row)
    halting.press(Mode.RESUME, scope=Scope.GLOBAL, key="", reason="test")
    tasks.run_lane.run(account.pk, LANE)
    assert [one.state for one in closes(account)] == [S.CANCELED]
    assert not flatten.close(account, LANE, share=Decimal("0.5"), row=row)
    assert held(account) == Decimal("0.5")
    assert sweeping.accounts_to_wind_down() == set()


@pytest.mark.parametrize("mode", [Mode.HALT, Mode.CANCEL_ALL])
def test_a_later_halt_does_not_take_a_flatten_back(scripted: Accounts, mode: Mode) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    row = halting.press(Mode.FLATTEN, scope=Scope.GLOBAL, key="", reason="out of everything")
    flatten.close(account, LANE, share=Decimal("0.5"), row=row)
    waiting = OrderFactory.create(account=account, symbol="ETH/USDT")
    row = halting.press(mode, scope=Scope.GLOBAL, key="", reason="a second look")
    assert (row.state, row.flatten) == ("halted", True)
    assert [one.cancel_reason for one in closes(account)] == [""]
    waiting.refresh_from_db()
    assert bool(waiting.cancel_reason) == (mode is Mode.CANCEL_ALL)
    last = AuditEvent.objects.filter(kind="trading_state.changed").latest("pk")
    assert last.before == {"state": "halted", "flatten": True}
    assert last.after == {"state": "halted", "flatten": True, "generation": 2}
    assert not winding_down.carry_out(row, 5)
    assert held(account) == 0


@pytest.mark.parametrize("mode", [Mode.RESUME, Mode.REDUCE_ONLY])
def test_only_a_release_takes_a_flatten_back_and_it_takes_the_right_to_release(mode: Mode) -> None:
    halting.press(Mode.FLATTEN, scope=Scope.GLOBAL, key="", reason="out of everything")
    olga = UserFactory.create()
    olga.user_permissions.set(Permission.objects.filter(codename="halt_tradingstate"))
    assert halting.may_press(olga, Mode.HALT, Scope.GLOBAL, "")
    assert not halting.may_press(olga, mode, Scope.GLOBAL, "")
    assert not halting.press(mode, scope=Scope.GLOBAL, key="", reason="enough").flatten


def test_a_rest_too_small_for_an_order_counts_as_flat(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.0000000001"))
    assert not press(Mode.FLATTEN, seconds=SHORT) or closes(account) == []
    assert closes(account) == []


def test_the_first_cancel_waits_for_nothing_that_only_waits_here(
    scripted: Accounts, django_assert_num_queries: Any
) -> None:
    """However many orders are queued here, those at the venue are cancelled before they are read."""
    account = scripted()
    at_venue = [OrderFactory.create(account=account, state=S.OPEN) for _ in range(2)]
    queued = [OrderFactory.create(account=account) for _ in range(2)]
    row = halting.press(Mode.CANCEL_ALL, scope=Scope.GLOBAL, key="", reason="drill")
    with django_assert_num_queries(2):
        assert flatten.accounts_left(row) == [account]
    due = cancels.due(account.pk)
    with django_assert_num_queries(1):
        assert [next(due).pk, next(due).pk] == [one.pk for one in at_venue]
    assert [order.pk for order in due] == [one.pk for one in queued]


def test_a_close_goes_by_the_queue_for_exits(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = scripted()
    PositionFactory.create(account=account)
    halting.press(Mode.FLATTEN, scope=Scope.GLOBAL, key="", reason="drill")
    sent: list[Any] = []
    monkeypatch.setattr(
        tasks.run_lane, "apply_async", lambda args, **options: sent.append((args, options["queue"]))
    )
    account_tasks.wind_down(account.pk)
    assert sent == [((account.pk, "BTC/USDT"), "exits")]


def test_a_venue_that_hangs_is_left_for_later(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    script_of(account).init_failure = QueryFailedError("no route to host")
    assert [one.symbol for one in press(Mode.FLATTEN).positions] == [LANE]
    assert closes(account) == []


# --- without queue and workers --------------------------------------------------------------------

PRESS = """
import io, json
import django; django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_test_environment
from risk.models import AuditEvent, TradingState

setup_test_environment()
client, said = Client(), io.StringIO()
client.force_login(User.objects.get(username="olivia"))
state = lambda scope: TradingState.objects.get(scope=scope).state
body = {"state": "reducing", "scope": "account", "key": "desk", "reason": "api"}
seen = [client.post("/api/v1/trading-state", body, content_type="application/json").status_code]
seen.append(state("account"))
form = {"mode": "cancel_all", "target": "global:", "reason": "admin"}
seen.append(client.post("/admin/trading/", form).status_code)
seen.append(state("global"))
call_command("halt", "--mode", "flatten", "--reason", "shell", stdout=said)
print(json.dumps([*seen, said.getvalue().splitlines()[-1]]))
"""


@pytest.mark.django_db(transaction=True)
def test_api_page_and_shell_press_it_while_nothing_listens_at_the_queues_address() -> None:
    """In a process of its own: neither queue nor worker, only the database and the venue."""
    account = AccountFactory.create(name="desk")
    PositionFactory.create(account=account)
    UserFactory.create(username="olivia", is_staff=True, is_superuser=True)
    name = str(connection.settings_dict["NAME"])
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRESS],
        cwd=settings.BASE_DIR,
        env=os.environ
        | {
            "DATABASE_URL": urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl(),
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "DJANGO_SETTINGS_MODULE": "fks_site.settings",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    closed = "All positions are closed."
    assert json.loads(finished.stdout) == [200, "reducing", 302, "halted", closed]
    assert held(account) == 0
