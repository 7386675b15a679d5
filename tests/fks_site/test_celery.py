"""How the processes hold on to the queue, and to what is to be done every second."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine
from kombu.exceptions import OperationalError

from fks_site.celery import ARENAS, app, transport_url
from fks_site.clock import SteadyScheduler
from tests.venues.client import ROOT


def queue_of(task: str) -> str:
    return str(app.amqp.router.route({}, task)["queue"].name)


class Enough(Exception):
    """Ends a wait that would go on for ever."""


def test_a_queue_that_is_away_is_looked_for_every_second_and_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: None)

    def note(_: Exception, pause: float) -> None:
        waited.append(pause)
        if len(waited) == 150:
            raise Enough

    nowhere = transport_url(f"unix://{tmp_path / 'nobody.sock'}?db=0")
    with app.connection_for_read(nowhere) as connection, pytest.raises(Enough):
        connection.ensure_connection(note, app.conf.broker_connection_max_retries)

    assert set(waited) == {1.0}


def test_a_message_that_cannot_be_sent_costs_no_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread has the work to do itself, or leaves it to the sweep."""
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: pytest.fail("it waits"))
    nowhere = transport_url(f"unix://{tmp_path / 'nobody.sock'}?db=0")
    with app.connection_for_write(nowhere) as connection, pytest.raises(OperationalError):
        connection.default_channel.queue_declare("orders")


def test_threads_share_the_object_that_keeps_no_results() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: app.backend).result() is app.backend


@pytest.mark.parametrize(
    "name",
    [
        "account_tasks.wind_down",
        "account_tasks.resolve_difference",
        "tasks.cancel_order",
        "tasks.release_order",
    ],
)
def test_what_a_person_waits_for_is_not_behind_a_flood_of_alerts(name: str) -> None:
    assert queue_of(f"execution.{name}") == "exits"


def test_what_beat_calls_is_not_behind_orders() -> None:
    app.loader.import_default_modules()
    called = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert called <= app.tasks.keys()
    assert {queue_of(name) for name in called} == {"sweeps"}


def test_what_is_done_every_second_goes_on_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(
        SteadyScheduler, "apply_async", lambda _, entry, **__: done.append(entry.name)
    )
    monkeypatch.setattr(SteadyScheduler, "producer", None)

    def after(seconds: float) -> list[str]:
        done.clear()
        clock.shift(seconds)
        while scheduler.tick() == 0:
            pass
        return list(done)

    with time_machine.travel(datetime(2026, 7, 1, tzinfo=UTC), tick=False) as clock:
        scheduler = SteadyScheduler(app, schedule_filename=str(tmp_path / "schedule"))
        assert after(2).count("sweep") == 1
        assert after(-3600) == []
        assert [after(1).count("sweep") for _ in range(3)] == [1, 1, 1]
        assert after(60).count("reconcile") == 1
        scheduler.close()


HEAPS = """
import ctypes, sys, threading
from fks_site.celery import share_heaps
share_heaps() if "share" in sys.argv else None
malloc, gate = ctypes.CDLL(None).malloc, threading.Barrier(9)
def allocate():
    malloc(1000)
    gate.wait()
    gate.wait()
for _ in range(8):
    threading.Thread(target=allocate).start()
gate.wait()
starts = [int(line.split("-")[0], 16) for line in open("/proc/self/maps") if " rw-p 00000000 " in line]
print(sum(start % (64 << 20) == 0 for start in starts))
gate.wait()
"""
"""Prints how many heaps there are for threads: each starts at a multiple of 64 MiB (glibc)."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_threads_of_a_worker_share_their_heaps() -> None:
    def count(*arguments: str) -> int:
        command = [sys.executable, "-c", HEAPS, *arguments]
        return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)

    assert count("share") < ARENAS < count()
