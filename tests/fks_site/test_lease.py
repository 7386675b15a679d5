"""The lease of beat: one holder, and another one as soon as that is gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from django.db import connection

from fks_site.lease import Lease
from tests.e2e.product import ROOT, eventually

pytestmark = pytest.mark.django_db
NUMBER = 0x464B53FF


@pytest.fixture
def leases() -> Iterator[tuple[Lease, Lease]]:
    both = Lease(NUMBER), Lease(NUMBER)
    yield both
    for lease in both:
        lease.give_back()


def test_one_holds_it(leases: tuple[Lease, Lease]) -> None:
    first, second = leases

    assert first.take()
    assert not second.take()
    assert first.is_held()
    first.give_back()
    assert not first.is_held()
    assert eventually(second.take, seconds=5, what="the lease is free")


def test_whoever_loses_the_connection_knows_it(leases: tuple[Lease, Lease]) -> None:
    first, second = leases
    assert first.take()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND objid = %s",
            [NUMBER],
        )

    assert not first.is_held()
    assert eventually(second.take, seconds=5, what="the lease is free")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is missing")
def test_a_beat_ends_with_its_keeper() -> None:
    keeper = subprocess.Popen([sys.executable, "manage.py", "serve", "beat"], cwd=ROOT)
    try:
        [beat] = eventually(psutil.Process(keeper.pid).children, seconds=40, what="beat runs")
    finally:
        keeper.kill()
        keeper.wait(10)
    gone, _ = psutil.wait_procs([beat], timeout=10)
    assert gone == [beat]


def test_without_a_database_nobody_holds_it(leases: tuple[Lease, Lease]) -> None:
    first, _ = leases
    first._own.settings_dict = first._own.settings_dict | {"HOST": "127.0.0.1", "PORT": "9"}

    assert not first.take()
    assert not first.is_held()
