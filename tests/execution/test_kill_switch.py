"""The kill switch pressed at random moments while orders queue and are being sent."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from django.db import connection

from brokers.models import Account
from brokers.types import CancelResult, ExecutionResult, OrderRef, OrderRequest, Side
from execution import dispatch, halting, winding_down
from execution.models import Fill, Order, OrderEvent, Position
from execution.states import TERMINAL, OrderState
from risk.models import TradingState
from tests.brokers.scripted import Script, fill_whole, rest, script_of
from tests.factories import OrderFactory

TRIALS = int(os.environ.get("KILL_SWITCH_TRIALS", "2"))
FIRST = int(os.environ.get("KILL_SWITCH_FIRST", "0"))
LOG = os.environ.get("KILL_SWITCH_LOG", "")
QUEUED = int(os.environ.get("KILL_SWITCH_ORDERS", "200"))
ACCOUNTS, SYMBOLS = 4, ("BTC/USDT", "ETH/USDT")
ANSWER = 0.005
Accounts = Callable[..., Account]


@dataclass(frozen=True)
class Seen:
    """One trial: orders sent before the switch was in force, and how it went on. In seconds."""

    sent: int
    sent_afterwards: int
    first_cancel: float | None
    all_done: float
    left: int


def slow(request: OrderRequest) -> ExecutionResult:
    """A venue that answers after 5 ms; every second entry rests there."""
    time.sleep(ANSWER)
    waits = request.side is Side.BUY and int(request.identity, 16) % 2
    return rest(request) if waits else fill_whole(request)


def cancels_seen(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each cancel reached a venue."""
    moments: list[float] = []
    cancel = Script.cancel

    def noted(self: Script, ref: OrderRef) -> CancelResult:
        moments.append(time.monotonic())
        return cancel(self, ref)

    monkeypatch.setattr(Script, "cancel", noted)
    return moments


def queue_up(accounts: list[Account]) -> None:
    orders = [
        OrderFactory.build(account=accounts[n % ACCOUNTS], symbol=SYMBOLS[n % 3 % 2])
        for n in range(QUEUED)
    ]
    Order.objects.bulk_create(orders)
    for account in accounts:
        script_of(account).outcomes.extend([slow] * QUEUED)


def trial(accounts: list[Account], mode: halting.Mode, seed: int, canceled: list[float]) -> Seen:
    queue_up(accounts)
    stop = threading.Event()
    workers = [
        threading.Thread(target=_work, args=(account.pk, symbol, stop))
        for account in accounts
        for symbol in SYMBOLS
    ]
    for worker in workers:
        worker.start()
    time.sleep(random.Random(seed).uniform(0, 1))
    row = halting.press(mode, scope=TradingState.Scope.GLOBAL, key="", reason="trial")
    pressed = time.monotonic()
    claimed = entries_claimed()
    left = winding_down.carry_out(row, 30)
    done = time.monotonic() - pressed
    stop.set()
    for worker in workers:
        worker.join(30)
    first = canceled[0] - pressed if canceled else None
    return Seen(
        len(claimed),
        len(entries_claimed() - claimed),
        first,
        done,
        len(left.orders) + len(left.positions),
    )


def note(mode: halting.Mode, seed: int, seen: Seen) -> None:
    """Add a trial to the log of ``benchmarks.kill_switch``, whatever is made of it here."""
    load = round(os.getloadavg()[0], 1)
    row = {"mode": mode.value, "seed": seed, "orders": QUEUED, "load": load} | asdict(seen)
    if LOG:
        with Path(LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")


def entries_claimed() -> set[object]:
    claims = OrderEvent.objects.filter(event="claim", order__role=Order.Role.ENTRY)
    return set(claims.values_list("order_id", flat=True))


def _work(account_id: int, symbol: str, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            dispatch.run_lane(account_id, symbol)
            time.sleep(0.01)
    finally:
        connection.close()


@pytest.mark.alone
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", [halting.Mode.CANCEL_ALL, halting.Mode.FLATTEN])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + TRIALS))
def test_nothing_is_opened_after_the_switch_and_cancels_begin_at_once(
    scripted: Accounts, mode: halting.Mode, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [scripted() for _ in range(ACCOUNTS)]
    seen = trial(accounts, mode, seed, cancels_seen(monkeypatch))
    note(mode, seed, seen)
    assert seen.sent_afterwards == 0
    assert seen.left == 0
    assert seen.first_cancel is None or seen.first_cancel < 1
    assert not Order.objects.exclude(state__in=TERMINAL).exists()
    assert not Order.objects.filter(attempt=0, state=OrderState.FILLED).exists()
    if mode is halting.Mode.FLATTEN:
        assert not Position.objects.exclude(quantity=0).exists()
        sides = {"buy": Decimal(0), "sell": Decimal(0)}
        for fill in Fill.objects.all():
            sides[fill.side] += fill.quantity
        assert sides["buy"] == sides["sell"]
