"""The product as its user meets it: start, trade, pull the plug, stop."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from tests.e2e.product import ROOT, Product, eventually, running_product
from tests.venues.client import RunningVenue
from tests.venues.credentials import (
    ALPACA_KEY,
    ALPACA_SECRET,
    BINANCE_KEY,
    BINANCE_SECRET,
    KRAKEN_KEY,
    KRAKEN_SECRET,
    OANDA_TOKEN,
)
from tests.venues.faults import Action, Fault
from tests.venues.oanda.rules import ACCOUNT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

KEYS = {
    "binance": {"api_key": BINANCE_KEY, "api_secret": BINANCE_SECRET},
    "alpaca": {"api_key": ALPACA_KEY, "api_secret": ALPACA_SECRET},
    "oanda": {"api_key": OANDA_TOKEN},
    "kraken": {"api_key": KRAKEN_KEY, "api_secret": KRAKEN_SECRET},
}


def query(product: Product, expression: str) -> str:
    """What ``expression`` comes to in the installation's own Django, as it would be shown."""
    names = "from execution.models import *; from brokers.models import *"
    return str(product.within(f"{names}\nanswer = repr(({expression}))"))


def test_the_first_alert_fills_on_paper_and_everything_survives_a_restart(tmp_path: Path) -> None:
    with running_product(tmp_path / "var", is_new=True) as product:
        body = {"symbol": "BINANCE:BTCUSDT", "action": "buy", "price": "60000", "confidence": 0.8}
        path = product.demo_path()

        status, answer = product.post(path, body, {"Prefer": "wait=5"})

        assert status == 200
        assert answer["status"] == "executed"
        (order,) = answer["orders"]
        assert order["status"] == "filled"
        assert order["filled_quantity"] == "0.001"
        assert order["client_order_id"] == order["order_id"].replace("-", "")
        assert product.post(path, body) == (
            200,
            {"status": "duplicate", "signal_id": answer["signal_id"]},
        )

        [exits] = product.running("worker", "exits")
        [others] = product.running("worker", "orders,sweeps")
        lowest = 19
        assert others.nice() == min(exits.nice() + 5, lowest)

        assert product.stop() == 0
        assert product.processes() == []

        product.start()
        assert "password" not in product.output
        assert query(product, "Order.objects.get().state, Fill.objects.count()") == "('filled', 1)"


def test_a_second_installation_runs_beside_it_and_a_taken_port_is_named(
    tmp_path: Path, product: Product
) -> None:
    with running_product(tmp_path / "two") as two:
        for one in (product, two):
            body = {"symbol": "BTCUSDT", "action": "buy", "price": 1}
            assert one.post(one.demo_path(), body)[0] == 202
        taken = subprocess.run(
            [sys.executable, "manage.py", "up", "--http", f"127.0.0.1:{two.port}"],
            cwd=ROOT,
            env=two.env | {"FKS_VAR": str(tmp_path / "three")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert taken.returncode == 1
        assert str(two.port) in taken.stderr
        assert len(taken.stderr.strip().splitlines()) == 1


def test_killed_workers_lose_no_alert_and_double_no_order(
    venue: RunningVenue, product: Product
) -> None:
    """``kill -9`` of the worker, twice, with alerts in flight on a venue that answers slowly."""
    path = _strategy(product, venue, "killed", at="binance", exchange="binance")
    venue.control.set_latency(200)
    symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    accepted = []
    for number in range(24):
        body = {
            "symbol": symbols[number % 3],
            "action": "buy",
            "quantity": "0.1" if number % 3 else "0.001",
            "id": f"alert {number}",
        }
        status, answer = product.post(path, body)
        assert status == 202
        accepted.append(answer["signal_id"])
        if number in (8, 16):
            _kill_worker(product)

    signals = "Signal.objects.filter(strategy__slug='killed')"
    eventually(
        lambda: query(product, f"{signals}.filter(state='executed').count()") == "24",
        seconds=90,
        what="every acknowledged alert executed",
    )

    orders = venue.control.ledger("binance").orders
    assert Counter(Counter(order.client_id for order in orders).values()) == {1: 24}
    orders_here = "Order.objects.filter(account__name='killed')"
    assert query(product, f"{orders_here}.count(), {signals}.count()") == "(24, 24)"


def _kill_worker(product: Product) -> None:
    for worker in eventually(product.workers, seconds=60, what="a worker to kill"):
        worker.kill()


def test_everything_killed_at_once_comes_back_with_all_alerts(tmp_path: Path) -> None:
    with running_product(tmp_path / "var") as product:
        path = product.demo_path()
        for number in range(10):
            body = {"symbol": "BTCUSDT", "action": "buy", "price": 60000, "id": str(number)}
            assert product.post(path, body)[0] == 202
        product.kill_everything()
        assert [one for one in product.processes() if one.status() != psutil.STATUS_ZOMBIE] == []

        product.start()

        eventually(
            lambda: query(product, "Signal.objects.filter(state='executed').count()") == "10",
            seconds=60,
            what="alerts of before the crash executed",
        )
        assert query(product, "PaperOrder.objects.count(), Order.objects.count()") == "(10, 10)"


@pytest.mark.parametrize("exchange", ["binance", "kraken"])
def test_orders_reach_an_exchange_with_our_id_and_are_followed_to_their_fills(
    venue: RunningVenue, product: Product, exchange: str
) -> None:
    symbol = {"binance": "BTCUSDT", "kraken": "BTC/USD"}[exchange]
    path = _strategy(product, venue, exchange, exchange=exchange)
    wait = {"Prefer": "wait=10"}

    _, bought = product.post(
        path, {"symbol": symbol, "action": "buy", "quantity": "0.01", "id": "1"}, wait
    )
    assert bought["status"] == "executed"
    _, resting = product.post(
        path,
        {
            "symbol": symbol,
            "action": "buy",
            "order_type": "limit",
            "price": "50000",
            "quantity": "0.01",
            "id": "2",
        },
        wait,
    )
    assert resting["status"] == "working"
    (order,) = resting["orders"]
    ledger = venue.control.ledger(exchange)
    assert len(ledger.by_client_id(order["client_order_id"])) == 1

    venue.control.fill(exchange, order["broker_order_id"], Decimal("0.004"))
    _eventually_filled(product, order["order_id"], "partially_filled", "0.004")
    venue.control.fill(exchange, order["broker_order_id"], Decimal("0.006"))
    _eventually_filled(product, order["order_id"], "filled", "0.01")

    _, sold = product.post(
        path, {"symbol": symbol, "action": "sell", "quantity": "0.005", "id": "3"}, wait
    )
    assert sold["orders"][0]["status"] == "filled"
    _, closed = product.post(path, {"symbol": symbol, "action": "close", "id": "4"}, wait)
    assert closed["orders"][0]["side"] == "sell"
    assert closed["orders"][0]["status"] == "filled"


def test_a_share_is_bought_and_sold_at_alpaca(venue: RunningVenue, product: Product) -> None:
    path = _strategy(product, venue, "alpaca", broker="alpaca")
    wait = {"Prefer": "wait=10"}
    body = {"symbol": "NASDAQ:AAPL", "action": "buy", "quantity": "3", "stop_loss": "240"}

    _, bought = product.post(path, body, wait)

    assert bought["status"] == "executed", bought
    (order,) = bought["orders"]
    assert (order["symbol"], order["filled_quantity"]) == ("AAPL/USD", "3")
    assert _held(product, "alpaca") == "Decimal('3')"
    eventually(
        lambda: [one.type for one in venue.control.ledger("alpaca").orders] == ["market", "stop"],
        seconds=60,
        what="the stop loss at the venue",
    )
    assert product.manage("check_account", "alpaca")["healthy"] is True

    _, closed = product.post(path, {"symbol": "AAPL", "action": "close", "id": "2"}, wait)
    assert closed["status"] == "executed", closed
    assert _held(product, "alpaca") == "Decimal('0')"
    _see_the_stop_loss_go(venue, "alpaca")
    assert query(product, "Difference.objects.filter(account__name='alpaca').count()") == "0"


def _see_the_stop_loss_go(venue: RunningVenue, name: str) -> None:
    """The entry, its stop and the close, as ``name`` tells of them in the end."""
    wanted = ["filled", "canceled", "filled"]
    eventually(
        lambda: [one.status for one in venue.control.ledger(name).orders] == wanted,
        seconds=60,
        what="the stop loss canceled",
    )


def test_a_trailing_stop_reaches_alpaca_with_its_percent(
    venue: RunningVenue, product: Product
) -> None:
    path = _strategy(product, venue, "trailing", at="alpaca", broker="alpaca")
    body = {
        "symbol": "AAPL",
        "action": "buy",
        "quantity": "3",
        "order_type": "trailing_stop",
        "trailing_percent": "2.5",
    }
    _, answer = product.post(path, body, {"Prefer": "wait=10"})
    assert answer["status"] == "working", answer
    (sent,) = [one for one in venue.control.requests() if one.endpoint == "order"]
    assert (sent.params["type"], sent.params["trail_percent"]) == ("trailing_stop", "2.5")
    price = "Order.objects.get(account__name='trailing').reference_price"
    assert query(product, price) == "Decimal('256.26025')"


def test_a_currency_is_sold_short_and_bought_back_at_oanda(
    venue: RunningVenue, product: Product
) -> None:
    path = _strategy(product, venue, "oanda", broker="oanda", account=ACCOUNT)
    wait = {"Prefer": "wait=10"}
    body = {"symbol": "OANDA:EURUSD", "action": "sell", "quantity": "1000", "stop_loss": "1.2"}

    _, sold = product.post(path, body, wait)

    assert sold["status"] == "executed", sold
    assert _held(product, "oanda") == "Decimal('-1000')"
    found = "Order.objects.filter(account__broker='oanda', role='stop_loss', state='open').count()"
    eventually(
        lambda: query(product, found) == "1",
        seconds=60,
        what="the stop loss that left with the entry found at the venue",
    )
    types = [one.type for one in venue.control.ledger("oanda").orders]
    assert types == ["MARKET", "STOP_LOSS"]
    assert product.manage("check_account", "oanda")["may_withdraw"] is False

    _, closed = product.post(path, {"symbol": "EURUSD", "action": "close", "id": "2"}, wait)
    assert closed["status"] == "executed", closed
    assert _held(product, "oanda") == "Decimal('0')"
    _see_the_stop_loss_go(venue, "oanda")
    assert query(product, "Difference.objects.filter(account__name='oanda').count()") == "0"


def test_a_rehearsal_against_trouble_ends_with_every_order_accounted_for(
    product: Product,
) -> None:
    faults = [
        {"fault": "lost_answer", "order": 1},
        {"fault": "partial", "order": 2, "seconds": 2},
        {"fault": "reject", "order": 3},
        {"fault": "outage", "order": 4, "seconds": 4},
        {"fault": "lost_request", "order": 6},
    ]
    options = {"prices": {"BTC/USDT": "60000"}, "faults": faults}
    product.manage("add_account", "hard", "--broker=paper", f"--options={json.dumps(options)}")
    created = product.manage(
        "add_strategy", "hard", "--accounts=hard", '--options={"allowlist": "none"}'
    )
    orders = "Order.objects.filter(account__name='hard')"
    ended = f"{orders}.filter(state__in=['filled', 'rejected', 'not_placed']).count()"
    for number in range(5):
        body = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.001", "id": str(number)}
        product.post(f"/webhook/hard/{created['token']}", body)
        eventually(
            lambda wanted=str(number + 1): query(product, ended) == wanted,
            seconds=60,
            what=f"order {number} ended",
        )

    states = query(product, f"list({orders}.order_by('id').values_list('state', flat=True))")
    assert states == "['filled', 'filled', 'rejected', 'filled', 'filled']"
    assert _held(product, "hard") == "Decimal('0.004')"
    placed = "PaperOrder.objects.filter(account_key=Account.objects.get(name='hard').pk).count()"
    assert query(product, placed) == "4"


def test_an_order_whose_answer_is_lost_is_found_and_not_sent_again(
    venue: RunningVenue, product: Product
) -> None:
    path = _strategy(product, venue, "lost", at="binance", exchange="binance")
    venue.control.queue_faults(Fault(Action.DROP))

    orders = "Order.objects.filter(account__name='lost')"
    product.post(path, {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.001"})

    eventually(
        lambda: query(product, f"{orders}.filter(state='filled').count()") == "1",
        seconds=60,
        what="the lost order found",
    )
    assert len(venue.control.ledger("binance").orders) == 1
    assert "lose_sight" in query(
        product, f"list({orders}.values_list('journal__event', flat=True))"
    )


def _eventually_filled(product: Product, order_id: str, state: str, quantity: str) -> None:
    wanted = f"('{state}', Decimal('{quantity}'))"
    eventually(
        lambda: (
            query(
                product,
                f"Order.objects.values_list('state', 'filled_quantity').get(pk='{order_id}')",
            )
            == wanted
        ),
        seconds=60,
        what=f"the order {state}",
    )


def _strategy(
    product: Product,
    venue: RunningVenue,
    name: str,
    *,
    broker: str = "ccxt",
    at: str = "",
    **options: str,
) -> str:
    """An account at the loopback venue and a strategy, both ``name``, with wide limits; returns the
    webhook's path with its token. ``at`` names the venue, where it is not the account's name.
    """
    product.manage(
        "add_account",
        name,
        f"--broker={broker}",
        "--environment=sandbox",
        f"--options={json.dumps({'base_url': venue.base_url, **options})}",
        "--credentials-file=-",
        stdin=json.dumps(KEYS[at or name]),
    )
    product.manage("set_limit", "max_position_value", "100000", "--reason=test")
    created = product.manage(
        "add_strategy", name, f"--accounts={name}", '--options={"allowlist": "none"}'
    )
    return f"/webhook/{name}/{created['token']}"


def _held(product: Product, account: str) -> str:
    return query(product, f"Position.objects.get(account__name='{account}').quantity")
