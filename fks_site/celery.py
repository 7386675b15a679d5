"""The Celery application. Messages are nudges with a row id in them; losing one loses nothing."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from typing import Any, Self

from celery import Celery, Task
from celery.app.amqp import AMQP
from celery.signals import task_postrun, task_prerun, worker_init, worker_ready
from kombu import Connection

from execution.handing_out import EXITS, ORDERS, SWEEPS

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fks_site.settings")
# Celery has Django check everything, for which all pages are loaded, and throws away what it finds.
os.environ.setdefault("CELERY_SKIP_CHECKS", "true")


class SteadyConnection(Connection):
    """Looks for the queue every second. Kombu's own pauses grow to half a minute, for which nothing
    would happen after the queue is back."""

    def ensure_connection(self, *args: Any, **options: Any) -> Self:
        options |= {"interval_start": 1, "interval_step": 0, "interval_max": 1}
        return super().ensure_connection(*args, **options)


class Messaging(AMQP):
    """Celery's, with connections that come back at once."""

    Connection = SteadyConnection


app = Celery("fks", amqp=Messaging)

URGENT = (
    "tasks.cancel_order",
    "tasks.guard",
    "tasks.overtake",
    "tasks.release_order",
    "account_tasks.resolve_difference",
    "account_tasks.watch",
    "account_tasks.wind_down",
)
"""Not behind a flood of alerts: a person has just agreed or wants an end of something, or a position is
to be guarded."""
NEVER = 1 << 62
M_ARENA_MAX = -8
"""``mallopt(3)`` of the GNU C library."""
ARENAS = 2


def transport_url(redis_url: str) -> str:
    """``REDIS_URL`` as kombu wants it: unix sockets are ``redis+socket://`` there."""
    if redis_url.startswith("unix://"):
        path, _, query = redis_url.removeprefix("unix://").partition("?")
        number = query.removeprefix("db=") or "0"
        return f"redis+socket://{path}?virtual_host={number}"
    return redis_url


def _every(name: str, seconds: float) -> dict[str, Any]:
    """A beat entry; a tick that could not run before the next one is due is dropped."""
    return {
        "task": f"execution.periodic_tasks.{name}",
        "schedule": seconds,
        "options": {"expires": max(seconds, 2.0)},
    }


@app.on_configure.connect
def configure(sender: Celery, **_: Any) -> None:
    from django.conf import settings

    sender.conf.update(
        broker_url=transport_url(settings.REDIS_URL),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            # A message that cannot be sent now is not worth seconds of its thread.
            "max_retries": 0,
            "queue_order_strategy": "priority",
            # Kombu would keep what is under way in the queue server as well, at four round trips a
            # message, and hand it out again after an hour: the sweep is there within seconds.
            "ack_emulation": False,
        },
        CELERY_DB_REUSE_MAX=NEVER,
        task_ignore_result=True,
        # There are no results, so one object that keeps none will do: each thread would look through
        # all installed packages for its own.
        result_backend_thread_safe=True,
        task_acks_late=False,
        task_default_queue=ORDERS,
        task_routes={"execution.periodic_tasks.*": {"queue": SWEEPS}}
        | {"execution.account_tasks.ask_about_key": {"queue": SWEEPS}}
        | {f"execution.{name}": {"queue": EXITS} for name in URGENT},
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        enable_utc=True,
        beat_scheduler="fks_site.clock:SteadyScheduler",
        beat_schedule={
            "sweep": _every("sweep", 1.0),
            "reconcile": _every("reconcile_all", 60.0),
            "seal": _every("seal_audit", 5.0),
            "silence": _every("look_for_silence", 15.0),
            "logins": _every("look_at_venue_logins", 60.0),
            "keys": _every("look_at_keys", 15.0),
            "spreads": _every("look_at_spreads", 5.0),
            "week": _every("sum_up_the_week", 300.0),
            "addresses": _every("forget_quiet_addresses", 60.0),
            "verify": _every("verify_audit", 3600.0),
        },
    )


@task_prerun.connect
@task_postrun.connect
def keep_good_connections(sender: Task[..., Any], **_: Any) -> None:
    """Keep a thread's database connection from task to task, and drop one that broke.

    Celery's own way, which ``CELERY_DB_REUSE_MAX`` switches off, is a new connection for every
    task: that costs more than most of our tasks. A task worked off by its caller shares the
    caller's transaction.
    """
    from django.db import close_old_connections

    if not sender.request.is_eager:
        close_old_connections()


@worker_init.connect
def give_way(sender: Any, **_: Any) -> None:
    """On a busy machine alerts are accepted first, then exits decided, then everything else."""
    if EXITS not in sender.app.amqp.queues.consume_from:
        os.nice(5)


@worker_init.connect
def share_heaps(**_: Any) -> None:
    """Each thread would get a heap of malloc's own, in which none of the others can use what it gave
    back: a worker would grow for hours. Other C libraries do not know the setting.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


@worker_ready.connect
def spare_the_collector(**_: Any) -> None:
    """What was loaded at the start stays: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()


@worker_ready.connect
def offer_metrics(**_: Any) -> None:
    """On a host without a web process the worker is scraped itself."""
    from django.conf import settings
    from prometheus_client import start_http_server

    if settings.WORKER_METRICS:
        host, port = settings.WORKER_METRICS
        start_http_server(port, host)


for name in ("tasks", "account_tasks", "periodic_tasks"):
    app.autodiscover_tasks(["execution"], related_name=name)
