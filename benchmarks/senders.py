"""What senders do in masses: resends from four addresses, a watchlist's thousand, ten at once.

``python -m benchmarks.senders`` starts the product and a strategy on paper, and then: 1,000 alerts,
each delivered by four addresses in parallel; 1,000 different alerts in three minutes; the same alert
by ten clients at once, before and after a restart. It fails when an answer took a second or more or
was a refusal, or when an alert has not exactly one order.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.product import Product, eventually, running_product
from tests.e2e.test_product import query

ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
"""As many as TradingView posts from."""
CLIENTS = 10
MOST_SECONDS = 1.0
"""TradingView gives up after three."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    word: str
    signal_id: str
    seconds: float


class Wrong(Exception):
    """What was measured is not what is promised; the message says what it was."""


def alert(number: int, run: str) -> dict[str, Any]:
    """A small purchase nobody sent before."""
    return {
        "symbol": "BINANCE:BTCUSDT",
        "action": "buy",
        "quantity": "0.00001",
        "price": "60000",
        "id": f"{run} {number}",
    }


def resent(product: Product, path: str, alerts: int, connections: int = 5) -> list[Answer]:
    """Every alert from each of the addresses at about the same time; all must end as one order each."""
    run = f"resent {time.monotonic_ns()}"
    with ThreadPoolExecutor(len(ADDRESSES) * connections) as pool:
        deliveries = [
            pool.submit(_deliver, product, path, address, _share(alerts, connections, turn, run))
            for address in ADDRESSES
            for turn in range(connections)
        ]
        answers = [answer for one in deliveries for answer in one.result()]
    words = Counter(answer.word for answer in answers)
    if words != {"accepted": alerts, "duplicate": alerts * (len(ADDRESSES) - 1)}:
        raise Wrong(f"{alerts} alerts from {len(ADDRESSES)} addresses were answered {words}")
    _one_order_each(product, run, answers, alerts)
    return answers


def steady(product: Product, path: str, alerts: int, seconds: float) -> list[Answer]:
    """Different alerts of one strategy, evenly over ``seconds``; none is refused or throttled."""
    run, interval = f"steady {time.monotonic_ns()}", seconds / alerts
    begun = time.monotonic()

    def at_its_time(number: int) -> Answer:
        time.sleep(max(0.0, begun + number * interval - time.monotonic()))
        return _deliver(product, path, ADDRESSES[number % 4], [alert(number, run)])[0]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(at_its_time, range(alerts)))
    if words := Counter(one.word for one in answers if one.word != "accepted"):
        raise Wrong(f"of {alerts} alerts in {seconds:g} s some were answered {words}")
    _one_order_each(product, run, answers, alerts)
    return answers


def identical(product: Product, path: str, between: Callable[[], None]) -> list[Answer]:
    """The same alert by ten clients at once, ``between``, and by ten clients again: one order."""
    run = f"identical {time.monotonic_ns()}"

    def once(_: int) -> Answer:
        return _deliver(product, path, "127.0.0.1", [alert(0, run)])[0]

    answers: list[Answer] = []
    for _ in range(2):
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers += pool.map(once, range(CLIENTS))
        if len(answers) == CLIENTS:
            between()
    words = Counter(answer.word for answer in answers)
    if words != {"accepted": 1, "duplicate": 2 * CLIENTS - 1}:
        raise Wrong(f"the same alert was answered {words}")
    _one_order_each(product, run, answers, 1)
    return answers


def _share(alerts: int, connections: int, turn: int, run: str) -> list[dict[str, Any]]:
    return [alert(number, run) for number in range(turn, alerts, connections)]


def _deliver(
    product: Product, path: str, address: str, alerts: Iterable[dict[str, Any]]
) -> list[Answer]:
    """Post one after the other over one connection from ``address``."""
    answers = []
    with closing(
        http.client.HTTPConnection(
            "127.0.0.1", product.port, timeout=15, source_address=(address, 0)
        )
    ) as connection:
        for body in alerts:
            begun = time.perf_counter()
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            told = json.loads(response.read())
            took = time.perf_counter() - begun
            word = str(told.get("status", told.get("code")))
            answers.append(Answer(response.status, word, told.get("signal_id", ""), took))
    return answers


def _one_order_each(product: Product, run: str, answers: Sequence[Answer], alerts: int) -> None:
    """Wait until all is decided, and count by our rows. Raises Wrong."""
    mine = f"Signal.objects.filter(alert__idempotency_key__startswith={run!r})"
    orders = f"Order.objects.filter(signal__in={mine}, state='filled')"
    counted = ", ".join(
        (
            f"{mine}.filter(finished_at=None).count()",
            f"{mine}.filter(state='executed').count()",
            f"{orders}.count()",
            f"{orders}.values('signal').distinct().count()",
        )
    )
    found = eventually(
        lambda: (told := query(product, counted)).startswith("(0, ") and told,
        seconds=600,
        what="every alert ended",
    )
    if found != f"(0, {alerts}, {alerts}, {alerts})":
        raise Wrong(f"of {alerts} alerts waiting, executed, their orders, with orders: {found}")
    if len({answer.signal_id for answer in answers}) != alerts:
        raise Wrong("an alert was answered with different ids")
    worst = max(answer.seconds for answer in answers)
    if worst >= MOST_SECONDS:
        raise Wrong(f"an answer took {worst:.2f} s")


def report(what: str, answers: Sequence[Answer]) -> str:
    took = sorted(answer.seconds * 1000 for answer in answers)
    p50, p99 = (took[min(int(len(took) * share), len(took) - 1)] for share in (0.5, 0.99))
    return (
        f"{what}: {len(took)} answers, p50 {p50:.0f} ms, p99 {p99:.0f} ms, worst {took[-1]:.0f} ms"
    )


def strategy(product: Product) -> str:
    """A strategy on paper, with room for everything; returns the path to post to."""
    made = product.manage(
        "add_strategy", "senders", "--accounts=paper", '--options={"allowlist": "none"}'
    )
    return f"/webhook/senders/{made['token']}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alerts", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=180, help="for different alerts")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as var, running_product(Path(var)) as product:
        path = strategy(product)
        for rule in ("repeated_execution", "message_rate"):
            product.manage("set_limit", rule, "1", "--mode=off", "--reason=measuring")
        product.manage("set_limit", "max_position_value", "1000000", "--reason=measuring")
        try:
            print(report("four addresses at once", resent(product, path, options.alerts)))
            spread = steady(product, path, options.alerts, options.seconds)
            print(report(f"in {options.seconds:g} s", spread))
            print(report("ten clients, a restart, ten again", again(product, path)))
        except Wrong as error:
            print(error)
            return 1
    return 0


def again(product: Product, path: str) -> list[Answer]:
    def restart() -> None:
        product.stop()
        product.start()

    return identical(product, path, restart)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
