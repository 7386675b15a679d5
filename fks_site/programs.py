"""The programs FKS consists of, as command lines: the same for ``manage.py up``, containers, and hosts
of your own (``manage.py serve``).
"""

from __future__ import annotations

from pathlib import Path

from execution.handing_out import EXITS, ORDERS, SWEEPS

QUEUES = (EXITS, ORDERS, SWEEPS)
THREADS = 32
_CONNECTIONS = 448  # of each web process: with its other files, below the usual limit of 1024
_HEAD_MILLISECONDS = 10_000  # for a request's head, and for how long a connection may idle
_HEAD_BYTES = 65_536
_CELERY = ("celery", "-A", "fks_site")


def web(host: str, port: int, processes: int = 2) -> list[str]:
    """Module and arguments of the web server; it drains on SIGTERM."""
    return [
        *("granian", "fks_site.asgi:application", "--interface", "asginl", "--no-ws"),
        *("--host", host, "--port", str(port), "--http", "1"),
        *("--workers", str(processes), "--backpressure", str(_CONNECTIONS)),
        *("--http1-header-read-timeout", str(_HEAD_MILLISECONDS)),
        *("--http1-buffer-size", str(_HEAD_BYTES)),
        *("--respawn-failed-workers", "--respawn-interval", "1"),
        *("--workers-kill-timeout", "10", "--log-level", "warning"),
    ]


def worker(queues: tuple[str, ...] = QUEUES, threads: int = THREADS) -> list[str]:
    """Module and arguments of a worker; on SIGTERM it finishes what it has begun."""
    return [
        *_CELERY,
        *("worker", "--pool", "threads", "--concurrency", str(threads)),
        *("-Q", ",".join(queues), "--loglevel", "WARNING"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


def beat(schedule: Path) -> list[str]:
    """Module and arguments of the clock, of which one runs at a time."""
    return [*_CELERY, "beat", "-s", str(schedule), "--pidfile=", "--loglevel", "WARNING"]
