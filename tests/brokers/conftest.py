"""One loopback venue for the broker tests of a process, clean before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.contract import CONNECTED
from tests.brokers.terminals import ib, mt5, nt8
from tests.brokers.terminals.rigs import IbRig, Mt5Rig, Nt8Rig, ib_agent, mt5_agent, nt8_agent
from tests.venues.client import RunningVenue, running_venue


@pytest.fixture(scope="session")
def venue_process() -> Iterator[RunningVenue]:
    with running_venue() as venue:
        yield venue


@pytest.fixture
def venue(venue_process: RunningVenue) -> RunningVenue:
    venue_process.control.reset()
    return venue_process


@pytest.fixture(autouse=True)
def _close_connections() -> Iterator[None]:
    yield
    while CONNECTED:
        CONNECTED.pop().close()


@pytest.fixture
def mt5_rig(tmp_path: Path) -> Iterator[Mt5Rig]:
    terminal = mt5.Mt5Terminal()
    with mt5.running(terminal) as address:
        agent = mt5_agent(tmp_path, terminal, address)
        agent.start()
        try:
            yield Mt5Rig(terminal, agent)
        finally:
            agent.kill()


@pytest.fixture
def nt8_rig(tmp_path: Path) -> Iterator[Nt8Rig]:
    with nt8.running(nt8.Nt8Simulator(tmp_path)) as simulator:
        agent = nt8_agent(tmp_path, simulator)
        agent.start()
        try:
            yield Nt8Rig(simulator, agent)
        finally:
            agent.kill()


@pytest.fixture
def ib_rig(tmp_path: Path) -> Iterator[IbRig]:
    tws = ib.Tws()
    with ib.running(tws) as port:
        agent = ib_agent(tmp_path, tws, port)
        agent.start()
        try:
            yield IbRig(tws, agent)
        finally:
            agent.kill()
