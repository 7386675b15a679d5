"""What a key may do: asked before its account trades and daily, kept, refused, alarmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.utils import timezone

from brokers import accounts, sessions
from brokers.base import ExecutionPlugin
from brokers.errors import ConfigurationError, QueryFailedError
from brokers.keys import refuse_going_live, state_of
from brokers.models import Account, ExchangeCredential
from brokers.transport import RequestRefusedError
from brokers.types import Permissions
from execution import account_tasks, keys, periodic_tasks, readiness, tasks
from execution.models import Alarm, Order
from execution.states import OrderState
from risk.channels import Notice
from tests.brokers.scripted import Script, script_of
from tests.execution.test_notify import channel_to
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("eager")]
GOOD = Permissions(trade=True, withdraw=False, ip_restricted=True)
BAD = replace(GOOD, withdraw=True)
KEYS = {"api_key": "key-canary-123456", "api_secret": "secret-canary"}


@pytest.fixture
def account(scripted: Callable[..., Account]) -> Account:
    allow_trading()
    row = scripted()
    accounts.set_credentials(row, KEYS)
    script_of(row).permissions = GOOD
    return row


def stored(account: Account) -> ExchangeCredential:
    return ExchangeCredential.objects.get(account=account)


def raised() -> list[tuple[str, str]]:
    return list(Alarm.objects.filter(cleared_at=None).values_list("kind", "key"))


def test_a_new_key_is_asked_about_before_its_account_trades(account: Account) -> None:
    account.refresh_from_db()
    assert (account.reconciled_at, stored(account).asked_at) == (None, None)
    assert state_of(stored(account)).state == "waiting"
    account_tasks.reconcile_account(account.pk)
    account.refresh_from_db()
    row = stored(account)
    assert account.reconciled_at is not None
    assert row.checked_at is not None
    assert (row.may_trade, row.may_withdraw, row.ip_restricted) == (True, False, True)
    assert (state_of(row).state, account.is_key_refused, raised()) == ("fine", False, [])


def test_a_key_that_may_withdraw_opens_nothing(account: Account) -> None:
    script_of(account).permissions = BAD
    account_tasks.reconcile_account(account.pk)
    assert raised() == [("key_refused", account.name)]
    route = RouteFactory.create(account=Account.objects.get())
    signal = SignalFactory.create(strategy=route.strategy)
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    assert signal.reason == "KEY_MAY_WITHDRAW"
    assert "may only read and trade, and enter it on the account's page" in signal.detail
    assert script_of(account).sent == []
    assert "opens nothing until there is another key" in " ".join(readiness.missing(route.strategy))


def test_an_order_that_waits_when_its_key_is_found_out_is_not_sent(account: Account) -> None:
    Account.objects.update(reconciled_at=timezone.now(), is_key_refused=True)
    order = OrderFactory.create(account=Account.objects.get(), state=OrderState.PENDING)
    tasks.run_lane(account.pk, order.symbol)
    order.refresh_from_db()
    assert (order.state, order.reason) == ("denied", "KEY_MAY_WITHDRAW")
    assert script_of(account).sent == []


def test_what_is_held_can_be_closed_with_such_a_key(account: Account) -> None:
    account_tasks.reconcile_account(account.pk)
    Account.objects.update(is_key_refused=True)
    route = RouteFactory.create(account=Account.objects.get())
    PositionFactory.create(account=account, symbol="BTC/USDT", quantity=Decimal("0.01"))
    alert = {"symbol": "BTC/USDT", "action": "close"}
    signal = SignalFactory.create(strategy=route.strategy, action="close", alert=alert)
    tasks.process_signal(str(signal.pk))
    assert Order.objects.get(signal=signal).state == OrderState.FILLED


def test_people_are_told_of_a_key_that_may_withdraw_until_there_is_another(
    account: Account,
) -> None:
    channel_to("json://127.0.0.1:1/x")
    script_of(account).permissions = BAD
    periodic_tasks.look_at_keys()
    periodic_tasks.look_at_keys()
    assert raised() == [("key_refused", account.name)]
    notice = Notice.objects.get()
    assert (notice.event, notice.account) == ("key_rights", account.name)
    with pytest.raises(ConfigurationError, match="may only read and trade") as refused:
        refuse_going_live(Account.objects.get())
    assert refused.value.code == "KEY_MAY_WITHDRAW"
    accounts.set_credentials(Account.objects.get(), KEYS)
    assert not Account.objects.get().is_key_refused
    script_of(account).permissions = GOOD
    periodic_tasks.look_at_keys()
    assert raised() == []


def test_keys_are_asked_about_daily_and_an_alarm_says_what_changed(account: Account) -> None:
    start = timezone.now()
    periodic_tasks.look_at_keys()
    script_of(account).permissions = replace(GOOD, ip_restricted=False)
    with time_machine.travel(start + timedelta(hours=23), tick=False):
        periodic_tasks.look_at_keys()
        assert (stored(account).ip_restricted, raised()) == (True, [])
    with time_machine.travel(start + timedelta(hours=25), tick=False):
        periodic_tasks.look_at_keys()
        assert raised() == [("key_changed", account.name)]
        assert "bound to an address: yes → no" in Alarm.objects.get().detail
        assert state_of(stored(account)).state == "changed"
    with time_machine.travel(start + timedelta(hours=50), tick=False):
        periodic_tasks.look_at_keys()
        assert raised() == []
        assert "works from any address" in state_of(stored(account)).text


def test_a_key_that_may_withdraw_since_yesterday_is_refused_today(account: Account) -> None:
    start = timezone.now()
    periodic_tasks.look_at_keys()
    script_of(account).permissions = BAD
    with time_machine.travel(start + timedelta(hours=25), tick=False):
        periodic_tasks.look_at_keys()
        assert Account.objects.get().is_key_refused
        assert raised() == [("key_refused", account.name)]


def test_an_account_that_is_switched_off_is_asked_about_as_well(account: Account) -> None:
    Account.objects.update(is_active=False)
    script_of(account).permissions = BAD
    periodic_tasks.look_at_keys()
    assert Account.objects.get().is_key_refused


def test_a_venue_that_does_not_tell_is_warned_of_and_asked_again(account: Account) -> None:
    start = timezone.now()
    script_of(account).failure = QueryFailedError("no answer")
    periodic_tasks.look_at_keys()
    row = stored(account)
    assert (row.checked_at, row.told) == (None, "no answer")
    assert "The venue has not told: no answer" in state_of(row).text
    script_of(account).failure = None
    periodic_tasks.look_at_keys()
    assert stored(account).checked_at is None
    with time_machine.travel(start + timedelta(minutes=6), tick=False):
        periodic_tasks.look_at_keys()
        assert stored(account).may_withdraw is False


def test_a_defect_of_the_plugin_stops_no_exit(account: Account) -> None:
    script_of(account).permissions = None  # type: ignore[assignment]
    keys.ask_first(account)
    row = stored(account)
    assert (row.checked_at, row.told) == (None, "AttributeError")
    assert row.asked_at is not None
    assert "The venue has not told: AttributeError" in state_of(row).text


def test_a_question_that_our_own_gate_stopped_is_named(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(account: Account) -> None:
        raise RequestRefusedError("another endpoint")

    monkeypatch.setattr(keys.keys, "ask", stopped)
    keys.ask(account)
    row = stored(account)
    assert (row.checked_at, row.told) == (None, "RequestRefusedError")


def test_rights_nobody_tells_are_warned_of(account: Account) -> None:
    script_of(account).permissions = Permissions(None, None, None)
    periodic_tasks.look_at_keys()
    state = state_of(stored(account))
    assert state.state == "warned"
    assert "does not tell whether this key may withdraw" in state.text
    assert "does not tell whether this key is bound to an address" in state.text
    assert not Account.objects.get().is_key_refused


def test_an_answer_about_a_key_that_was_replaced_meanwhile_counts_for_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(script: Script) -> None:
        accounts.set_credentials(Account.objects.get(), KEYS)

    script_of(account).permissions = BAD
    monkeypatch.setattr(Script, "refuse_when_failing", replaced)
    keys.ask(account)
    assert (stored(account).asked_at, Account.objects.get().is_key_refused) == (None, False)


def test_a_key_once_known_to_withdraw_stays_refused_while_the_venue_is_silent(
    account: Account,
) -> None:
    for told, refused in ((True, True), (None, True), (False, False), (None, False)):
        script_of(account).permissions = replace(GOOD, withdraw=told)
        keys.ask(account)
        assert Account.objects.get().is_key_refused is refused
        assert (stored(account).may_withdraw is True) is refused
    assert stored(account).may_withdraw is None


def test_an_account_read_before_its_key_was_changed_is_asked_about_with_the_new_one(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    keys.ask(account)
    before = Account.objects.get()
    accounts.set_credentials(Account.objects.get(), KEYS)
    make = sessions.plugin_for

    def noted(account: Account) -> ExecutionPlugin:
        asked.append(account.version)
        return make(account)

    monkeypatch.setattr("brokers.keys.plugin_for", noted)
    keys.ask(before)
    assert asked == [before.version + 1]
    assert stored(account).checked_at is not None


def test_a_comparison_with_the_old_key_does_not_let_the_new_one_trade(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    periodic_tasks.look_at_keys()
    changed: list[bool] = []

    def replaced(script: Script) -> None:
        if not changed:
            changed.append(True)
            accounts.set_credentials(Account.objects.get(), KEYS)

    monkeypatch.setattr(Script, "refuse_when_failing", replaced)
    account_tasks.reconcile_account(account.pk)
    assert Account.objects.get().reconciled_at is None
    account_tasks.reconcile_account(account.pk)
    assert Account.objects.get().reconciled_at is not None
