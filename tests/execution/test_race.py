"""Fifty signals at once for room of ten, decided and sent by two processes: exactly ten pass.

``make race`` runs a hundred rounds; here a few do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from brokers.models import Account
from execution.models import Order, Signal, Strategy
from execution.states import OrderState
from risk.limits import set_limit
from tests.factories import AccountFactory, RouteFactory, SignalFactory, StrategyFactory

ROUNDS = int(os.environ.get("FKS_RACE_ROUNDS", "3"))
PROCESSES, SIGNALS, ROOM = 2, 50, 10
PRICES = {
    "prices": {"BTC/USDT": "60000", "ETH/USDT": "60000"},
    "spread_bps": "0",
    "slippage_bps": "0",
    "fee_bps": "0",
}

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120 + 20 * ROUNDS)]


@pytest.fixture
def workers() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes with database connections of their own, on this test's database."""
    name = str(connection.settings_dict["NAME"])
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    with ExitStack() as stack:
        started = []
        for _ in range(PROCESSES):
            worker = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.racers"],
                cwd=Path(settings.BASE_DIR),
                env={**os.environ, "DATABASE_URL": url},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            started.append(stack.enter_context(worker))
        for worker in started:
            assert _answer(worker) == "ready"
        yield started
        for worker in started:
            worker.communicate(timeout=30)


def _answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def _race(workers: list[subprocess.Popen[str]], signals: list[Signal]) -> None:
    for number, worker in enumerate(workers):
        assert worker.stdin is not None
        mine = [str(one.pk) for one in signals[number::PROCESSES]]
        worker.stdin.write(json.dumps(mine) + "\n")
        worker.stdin.flush()
    assert [_answer(worker) for worker in workers] == ["done"] * PROCESSES


def _signals(strategies: list[Strategy], symbols: list[str]) -> list[Signal]:
    return [
        SignalFactory.create(
            strategy=strategies[number % len(strategies)], symbol=symbols[number % len(symbols)]
        )
        for number in range(SIGNALS)
    ]


def _routed(accounts: list[Account]) -> list[Strategy]:
    strategies = [StrategyFactory.create() for _ in range(5)]
    for number, strategy in enumerate(strategies):
        RouteFactory.create(strategy=strategy, account=accounts[number % len(accounts)])
    return strategies


def _rounds(
    workers: list[subprocess.Popen[str]], accounts: int, symbols: list[str], reason: str
) -> list[int]:
    """How many orders passed in each round; all others were denied for ``reason``."""
    counts = []
    for _ in range(ROUNDS):
        used = [AccountFactory.create(options=PRICES) for _ in range(accounts)]
        signals = _signals(_routed(used), symbols)
        _race(workers, signals)
        made = Order.objects.filter(signal__in=signals)
        assert made.count() == SIGNALS
        denied = made.filter(state=OrderState.DENIED)
        assert set(denied.values_list("reason", flat=True)) == {reason}
        counts.append(SIGNALS - denied.count())
    return counts


def test_a_position_limit_holds_under_any_interleaving(
    workers: list[subprocess.Popen[str]],
) -> None:
    set_limit("max_order_value", Decimal(600), reason="race")
    set_limit("max_position_value", Decimal(600 * ROOM), reason="race")
    counts = _rounds(workers, 1, ["BTC/USDT"], "MAX_POSITION_VALUE")
    assert counts == [ROOM] * ROUNDS


def test_a_limit_over_all_accounts_and_symbols_holds_as_well(
    workers: list[subprocess.Popen[str]],
) -> None:
    for rule in ("max_order_value", "max_position_value"):
        set_limit(rule, Decimal(1_000_000), reason="race")
    set_limit("max_gross_exposure", Decimal(600 * ROOM), reason="race")
    used = [AccountFactory.create(options=PRICES) for _ in range(3)]
    signals = _signals(_routed(used), ["BTC/USDT", "ETH/USDT"])
    _race(workers, signals)
    made = Order.objects.filter(signal__in=signals)
    denied = made.filter(state=OrderState.DENIED)
    assert set(denied.values_list("reason", flat=True)) == {"MAX_GROSS_EXPOSURE"}
    assert made.count() == SIGNALS
    assert made.count() - denied.count() == ROOM
