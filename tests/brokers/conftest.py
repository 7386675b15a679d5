"""One loopback venue for the broker tests of a process, clean before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.venues.client import RunningVenue, running_venue


@pytest.fixture(scope="session")
def venue_process() -> Iterator[RunningVenue]:
    with running_venue() as venue:
        yield venue


@pytest.fixture
def venue(venue_process: RunningVenue) -> RunningVenue:
    venue_process.control.reset()
    return venue_process
