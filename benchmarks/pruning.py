"""What ``manage.py prune`` costs among ten million signals.

A PostgreSQL of its own, durable, is filled with signals of a hundred days, the oldest fifth with
idempotency keys and the oldest tenth with orders; then prune forgets texts and keys of ten days while
alerts are accepted.

    python -m benchmarks.pruning --rows 10000000

Prints how long it took, how long accepting took without and meanwhile, what locks were held and for how
long, and what a second prune costs, which finds nothing to do.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

DAYS, KEPT = 100, 90
PAUSE = 0.05  # seconds between two alerts
QUIET = 20.0  # seconds of accepting alone
IDENTITY = """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000'
               || '8{sort}' || lpad(to_hex(number), 14, '0'))::uuid"""
MOMENTS = """
(SELECT number, now() - interval '{days} days' * (1 - number / {rows}::float8) AS at
 FROM generate_series(1, {count}) AS number) AS moments
"""
SIGNALS = """
INSERT INTO execution_signal (id, strategy_id, received_at, auth, body, alert, symbol, action, state,
    reason, detail, gap, decided_at, finished_at, tries)
SELECT {signal}, {strategy}, at, 'token', '{body}', '{body}', 'BTC/USDT', 'buy', 'executed',
    '', '', '', at, at, 0 FROM {moments}
"""
KEYS = """
INSERT INTO execution_idempotencykey (strategy_id, key, signal_id, expires_at)
SELECT {strategy}, 'body-' || number, {signal},
    CASE WHEN number <= {ended} THEN at + interval '1 hour' END FROM {moments}
"""
ORDERS = """
INSERT INTO execution_order SELECT another.* FROM {moments},
    (SELECT first FROM execution_order AS first LIMIT 1) AS known,
    jsonb_populate_record(known.first, jsonb_build_object(
        'id', {order}, 'signal_id', {signal}, 'client_order_id', 'c' || number,
        'broker_order_id', 'v' || number, 'created_at', at, 'updated_at', at, 'finished_at', at
    )) AS another
"""
TABLES = ("execution_signal", "execution_idempotencykey", "execution_order")
REFERENCES = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE contype = 'f' AND conrelid = ANY(%s::regclass[])
"""
INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = ANY(%s::regclass[]) AND NOT indisunique
"""
BODY = json.dumps(
    {
        "symbol": "BTC/USDT",
        "action": "buy",
        "quantity": "0.01",
        "price": "60000",
        "comment": "x" * 200,
    }
)
HELD = """
SELECT mode, count(*), coalesce(max(extract(epoch FROM now() - xact_start)), 0) FROM pg_locks
JOIN pg_stat_activity USING (pid) JOIN pg_class ON pg_class.oid = relation
WHERE application_name = 'prune' AND locktype = 'relation' AND relkind = 'r'
AND relname NOT LIKE 'pg_%' GROUP BY mode
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        start(stack)
        post = accepting()
        with timed(f"{options.rows} rows loaded"):
            fill(options.rows)
        alone, meanwhile = Latency(post), Latency(post)
        alone.begin()
        time.sleep(QUIET)
        alone.end("accepting alone")
        meanwhile.begin()
        prune("prune")
        meanwhile.end("accepting meanwhile")
        prune("prune again")
    return 0


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.1f} s", flush=True)


def start(stack: ExitStack) -> None:
    """PostgreSQL of its own, as an installation has it, and Django on it."""
    var = Path(stack.enter_context(TemporaryDirectory(prefix="fks-pruning-")))
    os.environ |= {
        "FKS_VAR": str(var),
        "DJANGO_SETTINGS_MODULE": "fks_site.settings",
        "SECRET_KEY": "only for this run",
        "CREDENTIAL_KEYS": "Z3Jvd3RoIGdyb3d0aCBncm93dGggZ3Jvd3RoIGdyb3c=",
    }
    from fks_site import addresses
    from fks_site.embedded import Postgres

    os.environ["DATABASE_URL"] = addresses.urls(var).database
    server = Postgres(var)
    server.start()
    stack.callback(server.stop)
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def accepting() -> Any:
    """A function that has one alert accepted, in this process and without a queue."""
    logging.disable(logging.WARNING)
    from django.test import Client

    from execution.strategies import create_strategy

    made = create_strategy("trend", accounts=(), options={"allowlist": "none"})
    client, path = Client(headers={"host": "localhost"}), f"/webhook/trend/{made.secret}"

    def post(number: int) -> None:
        body = json.dumps({"symbol": "BTC/USDT", "action": "buy", "id": f"live-{number}"})
        answer = client.post(path, body, "application/json")
        if answer.status_code != 202:
            raise RuntimeError(f"{answer.status_code} {answer.content!r}")

    return post


def fill(rows: int) -> None:
    """The rows, and everything that belongs to their tables."""
    from django.db import connection

    from brokers.models import Account
    from execution.models import Order, Strategy

    strategy = Strategy.objects.get(slug="trend")
    words = {
        "strategy": strategy.pk,
        "body": BODY,
        "signal": IDENTITY.format(sort="0"),
        "order": IDENTITY.format(sort="1"),
    }
    everything = MOMENTS.format(days=DAYS, rows=rows, count=rows)
    fifth = MOMENTS.format(days=DAYS, rows=rows, count=rows // 5)
    oldest = MOMENTS.format(days=DAYS, rows=rows, count=rows // 10)
    account = Account.objects.create(name="paper", broker="paper")
    with connection.cursor() as cursor:
        again = without_indexes(cursor)
        cursor.execute(SIGNALS.format(moments=everything, **words))
        cursor.execute(KEYS.format(moments=fifth, ended=rows // 10, **words))
        one = order_like(account, strategy)
        cursor.execute(ORDERS.format(moments=oldest, **words))
        Order.objects.filter(pk=one).delete()
        for statement in again:
            cursor.execute(statement)
        cursor.execute("VACUUM ANALYZE")


def without_indexes(cursor: Any) -> list[str]:
    """Drop what is quicker made when the rows are there; the statements that make it again."""
    cursor.execute(REFERENCES, [list(TABLES)])
    references = cursor.fetchall()
    cursor.execute(INDEXES, [list(TABLES)])
    indexes = cursor.fetchall()
    for table, name, _ in references:
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    return [definition for _, definition in indexes] + [
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID"
        for table, name, definition in references
    ]


def order_like(account: Any, strategy: Any) -> Any:
    """The order the others are copies of."""
    from decimal import Decimal

    from django.utils import timezone

    from execution.models import Order
    from execution.states import OrderState

    now, price = timezone.now(), Decimal(60000)
    order = Order.objects.create(
        strategy=strategy, account=account, symbol="BTC/USDT", side="buy", type="market", role="entry",
        quantity=Decimal("0.01"), reference_price=price, reserved_value=Decimal(600),
        state=OrderState.FILLED, created_at=now, updated_at=now, client_order_id="first",
    )  # fmt: skip
    return order.pk


class Latency:
    """Has alerts accepted in the background, and samples what prune holds."""

    def __init__(self, post: Any) -> None:
        self._post, self._over = post, threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._accept, self._sample)]
        self._taken: list[float] = []
        self._locks: Counter[str] = Counter()
        self._longest = 0.0

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self, what: str) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        taken = statistics.quantiles(self._taken, n=100)
        print(
            f"{what}: {len(self._taken)} alerts, p50 {taken[49]:.1f}, p95 {taken[94]:.1f}, "
            f"p99 {taken[98]:.1f}, most {max(self._taken):.1f} ms"
        )
        if self._locks:
            locks = ", ".join(f"{mode} on {most}" for mode, most in self._locks.items())
            print(f"held at once: {locks} tables; longest transaction {self._longest:.2f} s")

    def _accept(self) -> None:
        from django.db import connection

        while not self._over.wait(PAUSE):
            begun = time.perf_counter()
            self._post(time.monotonic_ns())
            self._taken.append((time.perf_counter() - begun) * 1000)
        connection.close()

    def _sample(self) -> None:
        from django.db import connection

        while not self._over.wait(PAUSE):
            with connection.cursor() as cursor:
                cursor.execute(HELD)
                for mode, count, seconds in cursor.fetchall():
                    self._locks[mode] = max(self._locks[mode], count)
                    self._longest = max(self._longest, float(seconds))
        connection.close()


def prune(what: str) -> None:
    """As an operator runs it: a process of its own."""
    command = [sys.executable, "manage.py", "prune", "--days", str(KEPT), "--apply"]
    with timed(what):
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PGAPPNAME": "prune"}
        )
    print(done.stdout.strip() or done.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
