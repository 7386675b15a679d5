"""How long ``manage.py verify_audit`` takes over a long audit trail, and what memory it needs.

A PostgreSQL of its own, durable, is filled with events like those an installation writes; then the
command runs as an operator runs it, in a process of its own.

    python -m benchmarks.auditing --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from benchmarks.pruning import start, timed

COLUMNS = """id, at, kind, actor, address, correlation_id, subject, before, after, reason, position,
    previous, hash"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        start(stack)
        with timed(f"{options.rows} events loaded"):
            fill(options.rows)
        return verify()


def events(rows: int) -> Iterator[Any]:
    """A sound chain: limits that were changed, a second apart."""
    from django.utils import timezone

    from risk.models import AuditEvent
    from risk.sealing import GENESIS, digest

    first, previous = timezone.now() - timedelta(seconds=rows), GENESIS
    for number in range(1, rows + 1):
        event = AuditEvent(
            pk=number,
            at=first + timedelta(seconds=number),
            kind="limit.changed",
            actor="operator",
            address="192.0.2.7",
            correlation_id="",
            subject="limit max_order_value",
            before={"value": str(number), "mode": "enforce"},
            after={"value": str(number + 1), "mode": "enforce"},
            reason="a calmer market, and a longer reason than most",
            position=number,
            previous=previous,
        )
        event.hash = previous = digest(event, number, previous)
        yield event


def fill(rows: int) -> None:
    from django.db import connection
    from django.utils import timezone

    from risk.models import AuditChain

    last = ""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE risk_auditevent; DELETE FROM risk_auditchain")
        with cursor.copy(f"COPY risk_auditevent ({COLUMNS}) FROM STDIN") as copy:
            for event in events(rows):
                row = [getattr(event, name.strip()) for name in COLUMNS.split(",")]
                copy.write_row([json.dumps(one) if isinstance(one, dict) else one for one in row])
                last = event.hash
        cursor.execute("SELECT setval('risk_auditevent_id_seq', %s)", [rows])
        AuditChain.objects.create(position=rows, hash=last, sealed_at=timezone.now())
        cursor.execute("VACUUM ANALYZE risk_auditevent")
        cursor.execute("SELECT pg_total_relation_size('risk_auditevent')")
        print(f"{cursor.fetchone()[0] / 1e6:.0f} MB", flush=True)


def verify() -> int:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "manage.py", "verify_audit"])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"verify_audit: {time.monotonic() - started:.1f} s, {cpu:.1f} s of CPU (its own)")
    print(f"at most {used.ru_maxrss / 1024:.0f} MiB in memory")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
