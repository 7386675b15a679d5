"""The queue is only a nudge: what is stopped, flushed, doubled or late there changes no outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

import psutil
import pytest
import redis

from fks_site import addresses
from fks_site.embedded import Valkey
from tests.e2e.desk import binance_desk
from tests.e2e.product import Product, eventually, running_product
from tests.venues.client import OrderRow, RunningVenue, running_venue

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(240)]
Record = Callable[[str, object], None]

BURST = 10
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT")
LIMIT_S = 5
"""Seconds after the queue's return by which everything that came meanwhile is executed."""
AWAY_S = 6.5
"""Long enough for pauses that grow to be longer than ``LIMIT_S``."""
QUEUES = ("exits", "orders", "sweeps", "celery")
EXECUTED = "SELECT count(*) FROM execution_signal WHERE state = 'executed'"


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey nobody but the test restarts."""
    server = Valkey(tmp_path_factory.mktemp("queue"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def product(queue: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    var = tmp_path_factory.mktemp("product") / "var"
    with running_product(var, REDIS_URL=addresses.urls(queue.var).redis) as running:
        yield running


@pytest.fixture
def client(queue: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(addresses.urls(queue.var).redis) as connection:
        yield connection


def executed(product: Product) -> int:
    return int(product.rows(EXECUTED)[0][0])


def send_burst(product: Product, name: str, between: Callable[[int], object] = int) -> float:
    """Alerts that are all answered 202; returns how long the slowest answer took."""
    slowest = 0.0
    for number in range(BURST):
        between(number)
        symbol = SYMBOLS[number % len(SYMBOLS)]
        body = {"symbol": symbol, "action": "buy", "price": "100", "id": f"{name} {number}"}
        started = time.monotonic()
        status, _ = product.post(product.demo_path(), body)
        slowest = max(slowest, time.monotonic() - started)
        assert status == 202
    return slowest


def test_alerts_are_answered_without_the_queue_and_executed_soon_after_its_return(
    product: Product, queue: Valkey, client: redis.Redis, record_property: Record
) -> None:
    before = executed(product)
    queue.stop()
    stopped = time.monotonic()
    slowest = send_burst(product, "stopped")
    assert executed(product) == before
    time.sleep(max(AWAY_S - (time.monotonic() - stopped), 0))

    queue.start()
    returned = time.monotonic()
    eventually(
        lambda: executed(product) == before + BURST,
        seconds=LIMIT_S,
        what="all alerts of the outage executed",
    )
    took = time.monotonic() - returned

    send_burst(product, "flushed", lambda number: number % 5 == 4 and client.flushall())
    flushed = time.monotonic()
    eventually(
        lambda: executed(product) == before + 2 * BURST,
        seconds=LIMIT_S,
        what="all alerts around the flushes executed",
    )
    record_property("slowest answer without the queue, s", round(slowest, 3))
    record_property("executed after the queue's return, s", round(took, 2))
    record_property("executed after the last flush, s", round(time.monotonic() - flushed, 2))
    assert slowest < 1
    placed = "SELECT count(DISTINCT client_order_id), count(*) FROM execution_order"
    assert product.rows(placed) == product.rows("SELECT count(*), count(*) FROM brokers_paperorder")


# --- messages doubled, and late by hours ----------------------------------------------------------

HOURS = 6
AGE = """
UPDATE execution_signal SET received_at = received_at - interval '6 hours',
    sent_at = sent_at - interval '6 hours'
"""
LATE = """
from datetime import UTC, datetime, timedelta
from brokers.models import Account
from execution import account_tasks, periodic_tasks, tasks
from execution.models import Order, Signal
import time_machine

account = Account.objects.get(name="binance")
signals = [str(pk) for pk in Signal.objects.filter(strategy__slug="test").values_list("pk", flat=True)]
orders = list(Order.objects.filter(account=account))
with time_machine.travel(datetime.now(UTC) - timedelta(hours={hours}), tick=True):
    for _ in range(3):
        tasks.process_signals.apply_async((signals,))
        for pk in signals:
            tasks.process_signal.apply_async((pk,))
            tasks.process_signal.apply_async((pk,), queue="exits")
        for order in orders:
            tasks.check_order.apply_async((str(order.pk),))
            for reason in ("CANCELED_BY_SIGNAL", "REPLACED"):
                tasks.cancel_order.apply_async((str(order.pk), reason))
            tasks.run_lane.apply_async((account.pk, order.symbol))
            tasks.guard.apply_async((account.pk, order.symbol))
        for name in ("watch", "wind_down", "reconcile_account", "probe_venue"):
            getattr(account_tasks, name).apply_async((account.pk,))
        for name in ("sweep", "reconcile_all", "seal_audit"):
            getattr(periodic_tasks, name).apply_async()
"""
BOOK = """
SELECT id, state, attempt, filled_quantity, cancel_reason,
    (SELECT count(*) FROM execution_orderevent WHERE order_id = execution_order.id)
FROM execution_order ORDER BY id
"""
WHAT_BECAME_OF_LATE = """
SELECT DISTINCT state, reason FROM execution_signal WHERE alert->>'idempotency_key' LIKE 'late%%'
"""
DISPOSITIONS = "SELECT id, state, reason FROM execution_signal ORDER BY id"


@pytest.fixture
def venue() -> Iterator[RunningVenue]:
    with running_venue(id_rule="none") as running:
        yield running


def at_venue(venue: RunningVenue) -> list[OrderRow]:
    return venue.control.ledger("binance").orders


def has_drained(client: redis.Redis) -> bool:
    return not any(client.llen(name) for name in QUEUES) and not client.hlen("unacked")


@pytest.fixture
def paused(product: Product) -> Iterator[list[psutil.Process]]:
    """The worker, to be held up; it goes on afterwards whatever happens."""
    workers = product.workers()
    yield workers
    for worker in workers:
        worker.resume()


def test_messages_that_come_twice_or_hours_late_change_nothing(
    product: Product, client: redis.Redis, venue: RunningVenue, paused: list[psutil.Process]
) -> None:
    path = binance_desk(product, venue)
    wait = {"Prefer": "wait=10"}
    guarded = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.01", "stop_loss": "58000"}
    resting = {"symbol": "ETHUSDT", "action": "buy", "quantity": "0.1", "id": "resting"}
    assert product.post(path, guarded, wait)[1]["status"] == "executed"
    limit = resting | {"order_type": "limit", "price": "2500"}
    assert product.post(path, limit, wait)[1]["status"] == "working"
    eventually(lambda: len(at_venue(venue)) == 3, seconds=60, what="the stop at the venue")

    for worker in paused:
        worker.suspend()
    numbers = count()

    def one_waits() -> bool:
        """The first message goes to the worker that was listening for it when it was held up."""
        late = {
            "symbol": "SOLUSDT",
            "action": "buy",
            "quantity": "1",
            "id": f"late {next(numbers)}",
        }
        assert product.post(path, late)[0] == 202
        return bool(client.llen("orders"))

    eventually(one_waits, seconds=30, what="a message that waits")
    kept = {name: client.lrange(name, 0, -1) for name in QUEUES}
    product.rows(AGE)
    for worker in paused:
        worker.resume()
    undecided = "SELECT count(*) FROM execution_signal WHERE state = 'received'"
    eventually(
        lambda: product.rows(undecided) == [(0,)], seconds=60, what="the late alerts decided"
    )
    assert product.rows(WHAT_BECAME_OF_LATE) == [("expired", "STALE")]
    book, dispositions, ledger = product.rows(BOOK), product.rows(DISPOSITIONS), at_venue(venue)

    for name, messages in kept.items():
        for message in messages * 3:
            client.lpush(name, message)
    product.within(LATE.format(hours=HOURS))
    eventually(lambda: has_drained(client), seconds=60, what="the old messages worked off")
    time.sleep(1)

    assert at_venue(venue) == ledger
    assert product.rows(BOOK) == book
    assert product.rows(DISPOSITIONS) == dispositions
    assert product.post(path, guarded | {"id": "after"}, wait)[1]["status"] == "executed"
