"""One throw-away PostgreSQL and Valkey for a whole test run, shared by its xdist workers.

A pytest plugin (``-p tests.servers``) because pytest-django loads the settings, which read the
environment, before any conftest.

Tests never touch the servers that ``DATABASE_URL`` and ``REDIS_URL`` name: those may hold real
orders. ``FKS_TEST_DATABASE_URL`` and ``FKS_TEST_REDIS_URL`` lend a run servers of its own.
"""

from __future__ import annotations

import atexit
import base64
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

STARTED = "FKS_TEST_SERVERS"  # inherited by xdist workers: the servers are the controller's
_DECIDED_BY_THE_RUN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "CREDENTIAL_KEYS")
_NOT_FOR_TESTS = (
    "FKS_LIVE_TRADING",
    "DEBUG",
    "SECRET_KEY_FALLBACKS",
    "WEBHOOK_SECRET",
    "DEFAULT_EXCHANGE",
)
_SECRET_NOT_FOR_TESTS = ("EXCHANGE_API_KEY", "EXCHANGE_API_SECRET")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Start the servers, unless we are a worker of a run that has them, and point to them."""
    if STARTED in os.environ:
        return
    for name in (*_DECIDED_BY_THE_RUN, *_NOT_FOR_TESTS, *_SECRET_NOT_FOR_TESTS):
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)  # a file would win over the plain variable
    os.environ |= {
        **_start_servers(),
        "SECRET_KEY": base64.urlsafe_b64encode(os.urandom(48)).decode(),
        "CREDENTIAL_KEYS": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        STARTED: str(os.getpid()),
    }


def _start_servers() -> dict[str, str]:
    from fks_site import addresses
    from fks_site.embedded import Postgres, Valkey

    stack = ExitStack()
    atexit.register(_stop_servers, stack, os.getpid())
    var = Path(stack.enter_context(TemporaryDirectory(prefix="fks-test-")))
    urls = addresses.urls(var)
    environment = {"FKS_VAR": str(var)}
    for name, kind, embedded in (
        ("DATABASE_URL", Postgres, urls.database),
        ("REDIS_URL", Valkey, urls.redis),
    ):
        given = os.environ.get(f"FKS_TEST_{name}")
        environment[name] = given or embedded
        if not given:
            server = kind(var, throw_away=True)
            server.start()
            stack.callback(server.stop)
    return environment


def _stop_servers(stack: ExitStack, owner: int) -> None:
    if os.getpid() == owner:  # a test may fork, and the child ends with the same exit hooks
        stack.close()
