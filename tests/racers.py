"""A worker of a race: reads one line of signal ids, decides and sends them all at once, says so.

Started by tests/execution/test_race.py as a process of its own, on the database of the test.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

THREADS = 8


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fks_site.settings")
    import django

    django.setup()
    from django.db import connection

    from execution import dispatch, pipeline
    from execution.models import Signal

    def work(signal_id: str) -> None:
        signal = Signal.objects.select_related("strategy").get(pk=signal_id)
        for account_id, symbol in pipeline.decide(signal).lanes:
            dispatch.run_lane(account_id, symbol)

    print("ready", flush=True)  # noqa: T201
    with ThreadPoolExecutor(THREADS) as pool:
        for line in sys.stdin:
            list(pool.map(work, json.loads(line)))
            print("done", flush=True)  # noqa: T201
        list(pool.map(lambda _: connection.close(), range(THREADS)))


if __name__ == "__main__":
    main()
