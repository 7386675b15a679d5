"""A worker thread keeps its database connection from task to task, as long as it is good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from celery.fixups.django import DjangoWorkerFixup
from celery.signals import beat_embedded_init, task_postrun, task_prerun
from django.db import connection

from execution import periodic_tasks
from fks_site.celery import app

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fixup() -> Iterator[None]:
    """What Celery puts around every task of a Django project, in workers only."""
    installed = DjangoWorkerFixup(app).install()
    yield
    beat_embedded_init.disconnect(installed.close_database)
    task_prerun.disconnect(installed.on_task_prerun)
    task_postrun.disconnect(installed.on_task_postrun)


def run_a_task() -> None:
    task_prerun.send(sender=periodic_tasks.sweep)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    task_postrun.send(sender=periodic_tasks.sweep)


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def test_tasks_share_the_connection_of_their_thread() -> None:
    run_a_task()
    before = backend()
    for _ in range(3):
        run_a_task()
    assert backend() == before


def test_a_broken_connection_is_replaced_before_the_next_task() -> None:
    run_a_task()
    before = backend()
    connection.connection.close()
    run_a_task()
    assert backend() != before


def test_a_connection_the_server_dropped_is_replaced_before_the_next_task() -> None:
    run_a_task()
    before = backend()
    with closing(connection.copy()) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [before])
    run_a_task()
    assert backend() != before
