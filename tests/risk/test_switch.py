from __future__ import annotations

from threading import Event, Thread

import pytest
from django.db import connection, transaction

from risk import audit, switch
from risk.models import AuditEvent, TradingState
from risk.types import ReasonCode, Refusal

State, Scope = TradingState.State, TradingState.Scope


def refusal(*, account: str = "desk", strategy: str = "demo", is_exit: bool = False):
    try:
        switch.refuse_if_switched_off(
            account=account,
            venue="kraken",
            symbol="BTC/USDT",
            strategy=strategy,
            is_exit=is_exit,
        )
    except Refusal as refused:
        return refused.code
    return None


def test_everything_trades_until_somebody_halts_it(db):
    assert (
        switch.standing(account="desk", venue="kraken", symbol="BTC/USDT", strategy="demo") is None
    )
    assert refusal() is None


def test_halted_refuses_exits_too_and_reducing_only_entries(db):
    switch.change(State.HALTED, reason="outage")
    assert refusal() is refusal(is_exit=True) is ReasonCode.TRADING_HALTED
    switch.change(State.REDUCING, reason="closing down")
    assert refusal() is ReasonCode.REDUCE_ONLY
    assert refusal(is_exit=True) is None
    switch.change(State.ACTIVE, reason="all well")
    assert refusal() is None


@pytest.mark.parametrize(
    ("scope", "key", "touches"),
    [
        (Scope.GLOBAL, "", True),
        (Scope.ACCOUNT, "desk", True),
        (Scope.STRATEGY, "demo", True),
        (Scope.VENUE, "kraken", True),
        (Scope.SYMBOL, "BTC/USDT", True),
        (Scope.VENUE, "desk", False),
        (Scope.SYMBOL, "ETH/USDT", False),
        (Scope.ACCOUNT, "demo", False),
        (Scope.STRATEGY, "desk", False),
        (Scope.ACCOUNT, "other", False),
    ],
)
def test_a_scope_touches_its_own_orders(db, scope, key, touches):
    switch.change(State.HALTED, scope=scope, key=key, reason="test")
    assert (refusal() is not None) is touches


def test_the_strictest_scope_rules(db):
    switch.change(State.REDUCING, reason="test")
    switch.change(State.HALTED, scope=Scope.STRATEGY, key="demo", reason="test")
    assert refusal(is_exit=True) is ReasonCode.TRADING_HALTED
    assert refusal(strategy="other") is ReasonCode.REDUCE_ONLY


def test_the_refusal_says_where_and_why(db):
    switch.change(State.HALTED, scope=Scope.ACCOUNT, key="desk", reason="key leaked")
    with pytest.raises(Refusal, match="trading is halted for account desk: key leaked") as refused:
        switch.refuse_if_switched_off(
            account="desk", venue="kraken", symbol="BTC/USDT", strategy="demo", is_exit=True
        )
    assert refused.value.numbers == {"scope": "account", "generation": "1"}


def test_every_change_counts_a_generation_and_leaves_an_audit_row(db):
    with audit.acting(audit.Actor("maria")):
        switch.change(State.HALTED, reason="outage")
        row = switch.change(State.ACTIVE, reason="fixed")
    assert (row.generation, row.changed_by, row.reason) == (2, "maria", "fixed")
    first, second = AuditEvent.objects.order_by("pk")
    assert (first.before, first.after) == (
        {"state": "active"},
        {"state": "halted", "generation": 1},
    )
    assert (second.before, second.after) == (
        {"state": "halted"},
        {"state": "active", "generation": 2},
    )


def _somebody_waits_for_the_fence() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
        )
        return cursor.fetchone()[0] > 0


@pytest.mark.django_db(transaction=True)
def test_a_change_waits_for_claims_that_read_the_older_state():
    fenced, release, changed = Event(), Event(), Event()

    def claim() -> None:
        with transaction.atomic():
            switch.fence()
            assert switch.standing(account="desk", venue="kraken", symbol="BTC/USDT") is None
            fenced.set()
            release.wait(10)
        connection.close()

    def halt() -> None:
        switch.change(State.HALTED, reason="test")
        changed.set()
        connection.close()

    claimer, halter = Thread(target=claim), Thread(target=halt)
    claimer.start()
    assert fenced.wait(10)
    halter.start()
    while not _somebody_waits_for_the_fence():
        assert not changed.wait(0.01)
    release.set()
    assert changed.wait(10)
    claimer.join(10)
    halter.join(10)
    assert refusal() is ReasonCode.TRADING_HALTED


@pytest.mark.django_db(transaction=True)
def test_claims_do_not_wait_for_each_other():
    with transaction.atomic():
        switch.fence()
        passed = Event()

        def claim() -> None:
            with transaction.atomic():
                switch.fence()
                passed.set()
            connection.close()

        other = Thread(target=claim)
        other.start()
        assert passed.wait(10)
        other.join(10)
