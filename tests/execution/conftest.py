"""A scripted venue and an eager queue for the tests of the order path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import time_machine
from django.utils import timezone

from brokers.models import Account
from fks_site.celery import app
from tests.brokers.scripted import AT, Script, registered, script_of
from tests.execution import posting


@pytest.fixture
def scripted() -> Iterator[Callable[..., Account]]:
    """Makes accounts whose venue follows ``script_of(account)``."""
    with registered() as account:
        yield account


@pytest.fixture
def script(account: Account) -> Script:
    """What the venue of the test's own ``account`` does."""
    return script_of(account)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Time stands still at ``AT``; ``shift`` moves it."""
    with time_machine.travel(AT, tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def standing_clock() -> Iterator[None]:
    """For windows that are tested to the second."""
    with time_machine.travel(timezone.now(), tick=False):
        yield


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message is worked off at once, in the caller's thread."""
    monkeypatch.setitem(app.conf, "task_always_eager", True)
    monkeypatch.setitem(app.conf, "task_eager_propagates", True)


@pytest.fixture
def nudges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[object, ...]]]:
    """The messages that were sent, as (task, arguments); nobody works them off."""
    from execution import account_tasks, tasks

    sent: list[tuple[str, tuple[object, ...]]] = []
    for task in (
        tasks.process_signal,
        tasks.process_queue,
        tasks.overtake,
        tasks.run_lane,
        tasks.check_order,
        tasks.cancel_order,
        tasks.work_slices,
        account_tasks.reconcile_account,
        account_tasks.wind_down,
    ):
        name = task.name.rpartition(".")[2]

        def record(args: tuple[object, ...], *, _name: str = name, **_: object) -> None:
            sent.append((_name, args))

        monkeypatch.setattr(task, "apply_async", record)
    return sent


@pytest.fixture
def new_process() -> None:
    """What earlier tests posted is not remembered."""
    posting.forget()


@pytest.fixture
def nudged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the signals the workers were told of; nobody works them off."""
    from execution import nudge

    ids: list[str] = []
    monkeypatch.setattr(nudge, "nudge_signal", ids.append)
    monkeypatch.setattr(nudge, "nudge_exit", ids.append)
    return ids


@pytest.fixture
def worked_off(nudged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker as fast as the request: the signal is settled before anybody can look."""
    from execution import nudge, tasks

    app.finalize()
    monkeypatch.setattr(nudge, "nudge_signal", tasks.process_signal)
    monkeypatch.setattr(nudge, "nudge_exit", tasks.process_signal)
