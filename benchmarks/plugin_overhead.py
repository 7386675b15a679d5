"""What the ccxt plugin adds to a bare ccxt call: one order after the other at a venue on loopback.

``python -m benchmarks.plugin_overhead --orders 500`` starts the venues of ``tests/venues``, which
answer after ``--latency`` milliseconds, and places market orders in turn with a bare ccxt client and
through the plugin, guard and evidence included. Prints medians and the 95th percentiles.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from decimal import Decimal

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fks_site.settings")
os.environ.setdefault("SECRET_KEY", "benchmark")

from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import AccountConfig, Environment, OrderRequest, OrderType, Outcome, Side
from tests.venues.client import running_venue
from tests.venues.connecting import KEYS, connect

SYMBOL = "BTC/USDT"
WARM_UP = 20


def bare(base_url: str) -> Callable[[], None]:
    client = connect(base_url, "binance")
    client.timeout = 10_000
    client.load_markets()

    def place() -> None:
        params = {"clientOrderId": uuid.uuid4().hex}
        client.create_order(SYMBOL, "market", "buy", "0.001", None, params)

    return place


def plugged(base_url: str) -> Callable[[], None]:
    plugin = CcxtPlugin()
    key, secret = KEYS["binance"]
    options = {"exchange": "binance", "base_url": base_url}
    secrets = {"api_key": key, "api_secret": secret}
    plugin.init(AccountConfig("1", "benchmark", Environment.SANDBOX, options, secrets))

    def place() -> None:
        request = OrderRequest(
            uuid.uuid4().hex, SYMBOL, Side.BUY, OrderType.MARKET, Decimal("0.001")
        )
        result = plugin.execute_order(request)
        if result.outcome is not Outcome.ACCEPTED:
            raise SystemExit(f"an order ended {result.outcome}: {result.detail}")

    return place


def measured(ways: dict[str, Callable[[], None]], orders: int) -> dict[str, list[float]]:
    """Milliseconds per order, the ways in turn so that both meet the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(orders + WARM_UP):
        for name, place in ways.items():
            started = time.perf_counter()
            place()
            if number >= WARM_UP:
                taken[name].append((time.perf_counter() - started) * 1000)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=500)
    parser.add_argument("--latency", type=float, default=20)
    options = parser.parse_args()
    with running_venue() as venue:
        venue.control.set_balances("binance", {"USDT": 100_000_000})
        venue.control.set_latency(options.latency)
        ways = {"bare ccxt": bare(venue.base_url), "plugin": plugged(venue.base_url)}
        taken = measured(ways, options.orders)
    percentiles = {name: statistics.quantiles(found, n=20) for name, found in taken.items()}
    for name, cuts in percentiles.items():
        sys.stdout.write(f"{name:<10} median {cuts[9]:6.2f} ms   p95 {cuts[18]:6.2f} ms\n")
    first, second = percentiles["bare ccxt"], percentiles["plugin"]
    added = f"median {second[9] - first[9]:6.2f} ms   p95 {second[18] - first[18]:6.2f} ms"
    sys.stdout.write(f"added      {added}\n")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"memory     {memory:.0f} MiB\n")


if __name__ == "__main__":
    main()
