"""One venue process for this package; every test starts from its reset state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.venues.client import RunningVenue, VenueControl, running_venue
from tests.venues.connecting import VENUES, connect


@pytest.fixture(scope="package")
def server() -> Iterator[RunningVenue]:
    with running_venue() as venue:
        yield venue


@pytest.fixture
def control(server: RunningVenue) -> VenueControl:
    server.control.reset()
    return server.control


@pytest.fixture(scope="package")
def loaded(server: RunningVenue) -> dict[str, Any]:
    """Clients with markets, loaded once: parsing them is most of a client's start."""
    clients = {name: connect(server.base_url, name) for name in VENUES}
    for exchange in clients.values():
        exchange.load_markets()
    return clients


@pytest.fixture
def client(
    server: RunningVenue, control: VenueControl, loaded: dict[str, Any]
) -> Callable[..., Any]:
    def make(name: str, **options: Any) -> Any:
        exchange = connect(server.base_url, name, **options)
        exchange.set_markets_from_exchange(loaded[name])
        return exchange

    return make
