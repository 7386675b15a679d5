"""Rules of instruments that a venue no longer tells."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from brokers import known_rules
from brokers.errors import QueryFailedError, UnknownSymbolError
from brokers.known_rules import KnownRules
from brokers.types import Outcome
from tests.brokers.contract import (
    alpaca_plugin,
    oanda_plugin,
    order,
    projectx_plugin,
    schwab_plugin,
)
from tests.venues.client import RunningVenue

VENUES: dict[str, tuple[Callable[[str], Any], str, int]] = {
    "alpaca": (alpaca_plugin, "AAPL/USD", 1),
    "oanda": (oanda_plugin, "EUR/USD", 1000),
    "schwab": (schwab_plugin, "AAPL/USD", 1),
    "projectx": (projectx_plugin, "EPZ26/USD", 50),
}
RULES = ("/v2/assets/AAPL", "/instruments", "/api/Contract/search")
ERRORS = [QueryFailedError("HTTP 503"), UnknownSymbolError("HTTP 404")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", VENUES)
def test_an_order_goes_on_with_the_rules_that_are_known(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    connect, symbol, quantity = VENUES[name]
    request = order(symbol=symbol, quantity=Decimal(quantity))
    plugin: Any = connect(venue.base_url)
    refuse(monkeypatch, plugin, error)
    assert plugin.execute_order(request).outcome is Outcome.NOT_SENT, "nothing is known"
    monkeypatch.undo()
    monkeypatch.setattr(known_rules, "AGE", 0.0)
    plugin.instrument(symbol)
    refuse(monkeypatch, plugin, error)
    assert plugin.execute_order(request).outcome is Outcome.ACCEPTED


def refuse(monkeypatch: pytest.MonkeyPatch, plugin: Any, error: Exception) -> None:
    for way in ("ask", "ask_by_post"):
        monkeypatch.setattr(plugin._http, way, _refusing(getattr(plugin._http, way), error))


def _refusing(ask: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    def answer(url: str, *more: Any) -> Any:
        if url.endswith(RULES):
            raise error
        return ask(url, *more)

    return answer


class Venue:
    """What it tells next; an error is raised."""

    def __init__(self) -> None:
        self.says: str | Exception = "new"
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def test_old_rules_serve_a_minute_before_the_venue_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(known_rules.time, "monotonic", lambda: now)
    rules, venue = KnownRules[str](), Venue()
    assert [rules.get("A", venue) for _ in range(2)] == ["new", "new"]
    now += known_rules.AGE
    venue.says = QueryFailedError("HTTP 503")
    assert [rules.get("A", venue) for _ in range(2)] == ["new", "new"]
    assert venue.asked == 2
    now += known_rules.ASKED_AGAIN
    venue.says = "newer"
    assert rules.get("A", venue) == "newer"


def test_what_is_no_longer_listed_is_unknown_but_to_an_order() -> None:
    rules, venue = KnownRules[str](), Venue()
    venue.says = UnknownSymbolError("gone")
    with pytest.raises(UnknownSymbolError):
        rules.of_order("A", venue)
    rules._known["A"] = (0.0, "old")
    assert rules.of_order("A", venue) == "old"
    with pytest.raises(UnknownSymbolError):
        rules.get("A", venue)
