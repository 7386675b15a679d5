"""An account proven by an order nobody fills."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brokers import rehearsal
from brokers.rehearsal import Step, far_order, rehearse
from brokers.types import Environment, VenueStatus
from tests.brokers.contract import (
    AlpacaRig,
    CcxtRig,
    OandaRig,
    PaperRig,
    ProjectXRig,
    Rig,
    SchwabRig,
    alpaca_plugin,
)
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault, When

D = Decimal
STEPS = ["prepare", "place", "find by our id", "list open orders", "cancel", "see it canceled"]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "PATIENCE", 0.3)
    monkeypatch.setattr(rehearsal, "PAUSE", 0.05)


@pytest.fixture(
    params=["binance", "kraken", "okx-swap", "alpaca", "oanda", "schwab", "projectx", "paper"]
)
def rig(request: pytest.FixtureRequest) -> Rig:
    name: str = request.param
    if name == "paper":
        request.getfixturevalue("db")
        return PaperRig("7")
    kind = {
        "alpaca": AlpacaRig,
        "oanda": OandaRig,
        "schwab": SchwabRig,
        "projectx": ProjectXRig,
    }.get(name, CcxtRig)
    return kind(name, request.getfixturevalue("venue"))


@pytest.mark.django_db(transaction=True)
def test_every_step_succeeds_and_nothing_is_left(rig: Rig) -> None:
    steps = list(rehearse(rig.plugin, rig.symbol))
    assert [(one.name, one.ok) for one in steps] == [(name, True) for name in STEPS]
    assert list(rig.plugin.open_orders()) == []


def test_the_order_is_the_smallest_and_far_away(venue: RunningVenue) -> None:
    plugin = CcxtRig("binance", venue).plugin
    rules, quote = plugin.instrument("BTC/USDT"), plugin.fetch_data("BTC/USDT")
    request = far_order(plugin, rules, quote)
    assert request.price is not None
    assert request.price <= quote.bid / 2
    least = max(rules.min_quantity or D(0), (rules.min_value or D(0)) / request.price)
    assert least <= request.quantity < least + rules.quantity_step
    assert request.quantity % rules.quantity_step == request.price % rules.price_tick == 0


def test_an_order_of_unknown_fate_is_found_and_canceled(venue: RunningVenue) -> None:
    rig = AlpacaRig("alpaca", venue)
    rig.lose_the_answer()
    steps = list(rehearse(rig.plugin, rig.symbol))
    assert [one.name for one in steps if not one.ok] == ["place"]
    assert [one.name for one in steps] == STEPS
    (order,) = venue.control.ledger("alpaca").orders
    assert order.status == VenueStatus.CANCELED.value


def test_an_order_that_never_arrived_is_not_found(venue: RunningVenue) -> None:
    rig = AlpacaRig("alpaca", venue)
    rig.lose_the_request()
    steps = list(rehearse(rig.plugin, rig.symbol))
    assert [one.ok for one in steps] == [True, False, False, False, False, False]


def test_a_refused_order_ends_it(venue: RunningVenue) -> None:
    venue.control.queue_faults(Fault(Action.CODE, When.BEFORE, code="40310000"))
    steps = list(rehearse(alpaca_plugin(venue.base_url), "AAPL/USD"))
    assert [(one.name, one.ok) for one in steps] == [("prepare", True), ("place", False)]
    assert "40310000" in steps[-1].detail


def test_a_dry_run_places_nothing(venue: RunningVenue) -> None:
    steps = list(rehearse(alpaca_plugin(venue.base_url, Environment.DRY_RUN), "AAPL/USD"))
    assert steps[-1].name == "place"
    assert not steps[-1].ok
    assert venue.control.ledger("alpaca").orders == []


def test_an_unknown_symbol_is_named(venue: RunningVenue) -> None:
    (step,) = rehearse(alpaca_plugin(venue.base_url), "NOSUCH/USD")
    assert step == Step("prepare", False, "UNKNOWN_SYMBOL: Alpaca does not list NOSUCH/USD")


def test_a_cancel_that_fails_is_told(venue: RunningVenue) -> None:
    venue.control.queue_faults(Fault(Action.DROP, When.BEFORE, Endpoint.CANCEL))
    steps = list(rehearse(alpaca_plugin(venue.base_url), "AAPL/USD"))
    assert [one.name for one in steps if not one.ok] == ["cancel", "see it canceled"]
