"""Signs of life of the workers, and what follows when there were none for a while."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from celery.signals import task_prerun, worker_init, worker_ready, worker_shutting_down
from django.db import Error, connection
from django.utils import timezone

from execution import draining, standstill
from execution.models import Heartbeat
from execution.standstill import STANDSTILL

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 3


@worker_init.connect
def require_reconciliation(**_: object) -> None:
    """After a standstill no account trades before it has been compared with its venue."""
    now = timezone.now()
    # Far ahead counts as long ago: the clock was set back.
    lately = now - STANDSTILL, now + STANDSTILL
    if not Heartbeat.objects.filter(name="worker", at__range=lately).exists():
        standstill.hold_every_account()


@worker_ready.connect
def watch_for_standstills(**_: object) -> None:
    """A machine that sleeps, or is paused, starts no process afterwards."""
    standstill.watch()


@task_prerun.connect
def notice_a_standstill(**_: object) -> None:
    """Before a task decides anything by what was known before."""
    standstill.noticed()


@worker_ready.connect
def show_signs_of_life(sender: Consumer, **_: object) -> None:
    """This process notes that it lives, whatever its tasks and beat are doing; one that only serves
    exits does not, lest it hide that nobody serves the rest.
    """
    if sender.app.conf.task_default_queue in sender.app.amqp.queues.consume_from:
        threading.Thread(target=_keep_beating, name="heartbeat", daemon=True).start()


@worker_shutting_down.connect
def take_up_nothing_new(**_: object) -> None:
    """SIGTERM: end with what is under way."""
    draining.begin()


def _keep_beating() -> None:
    while True:
        try:
            beat("worker")
        except Error as error:
            logger.warning("no sign of life could be noted: %s", type(error).__name__)
            connection.close()
        time.sleep(HEARTBEAT_SECONDS)


def beat(name: str) -> None:
    """Note that ``name`` is alive."""
    now = timezone.now()
    if not Heartbeat.objects.filter(name=name).update(at=now):
        Heartbeat.objects.update_or_create(name=name, defaults={"at": now})
