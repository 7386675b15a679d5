"""A scripted venue and an eager queue for the tests of the order path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from brokers.models import Account
from fks_site.celery import app
from tests.brokers.scripted import registered


@pytest.fixture
def scripted() -> Iterator[Callable[..., Account]]:
    """Makes accounts whose venue follows ``script_of(account)``."""
    with registered() as account:
        yield account


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message is worked off at once, in the caller's thread."""
    monkeypatch.setattr(app.conf, "task_always_eager", True)
    monkeypatch.setattr(app.conf, "task_eager_propagates", True)


@pytest.fixture
def nudges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[object, ...]]]:
    """The messages that were sent, as (task, arguments); nobody works them off."""
    from execution import tasks

    sent: list[tuple[str, tuple[object, ...]]] = []
    for name in ("process_signal", "run_lane", "check_order", "cancel_order", "reconcile_account"):
        task = getattr(tasks, name)

        def record(args: tuple[object, ...], *, _name: str = name, **_: object) -> None:
            sent.append((_name, args))

        monkeypatch.setattr(task, "apply_async", record)
    return sent
