"""An account's own patience: more is always allowed, less only towards a venue on this machine."""

from __future__ import annotations

import pytest

from brokers.errors import ConfigurationError
from brokers.exchanges import BINANCE_SPOT
from brokers.plugins.ccxt import CcxtPlugin
from brokers.timing import OPTION_FIELDS, timed
from brokers.types import AccountConfig, Environment, Outcome
from tests.brokers.contract import KEYS, order
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Fault

LOOPBACK = "http://127.0.0.1:9"
PROVEN = BINANCE_SPOT.capabilities


def plugin(**options: object) -> CcxtPlugin:
    key, secret = KEYS["binance"]
    made = CcxtPlugin()
    given = {"exchange": "binance", **options}
    secrets = {"api_key": key, "api_secret": secret}
    made.init(AccountConfig("1", "test", Environment.SANDBOX, given, secrets))
    return made


def test_without_options_the_exchange_rules() -> None:
    assert timed(PROVEN, {"base_url": LOOPBACK}) == PROVEN


@pytest.mark.parametrize("base_url", ["", "https://gate.example", LOOPBACK])
def test_more_patience_is_always_allowed(base_url: str) -> None:
    options = {"submit_timeout": 31, "settle_window": 3600}
    found = plugin(**options, **({"base_url": base_url} if base_url else {})).capabilities
    assert (found.submit_timeout, found.settle_window) == (31, 3600)


@pytest.mark.parametrize("base_url", [LOOPBACK, "https://localhost:1", "http://[::1]:81"])
def test_less_patience_is_for_a_venue_on_this_machine(base_url: str) -> None:
    found = plugin(base_url=base_url, submit_timeout=1, settle_window=2).capabilities
    assert (found.submit_timeout, found.settle_window) == (1, 2)


@pytest.mark.parametrize("name", OPTION_FIELDS)
@pytest.mark.parametrize(
    ("value", "base_url"),
    [
        (14, ""),
        (14, "https://gate.example"),
        (14, "https://127.0.0.1.example"),
        (0, LOOPBACK),
        (-1, LOOPBACK),
        (3601, LOOPBACK),
        (10**30, ""),
        (True, LOOPBACK),
        (2.5, LOOPBACK),
        ("20", LOOPBACK),
        (None, LOOPBACK),
    ],
)
def test_anything_else_is_refused(name: str, value: object, base_url: str) -> None:
    given = {"base_url": base_url} if base_url else {}
    with pytest.raises(ConfigurationError, match=f"{name} must be whole seconds from"):
        plugin(**{name: value}, **given)


def test_the_library_gives_up_no_later_than_the_account() -> None:
    def timeout(**options: object) -> object:
        return plugin(base_url=LOOPBACK, **options)._pool._connect(private=True).ccxt.timeout

    assert timeout() == timeout(submit_timeout=60) == 10_000
    assert timeout(submit_timeout=2) == 2000


def test_a_hanging_placement_is_given_up_in_the_accounts_time(venue: RunningVenue) -> None:
    impatient = plugin(base_url=venue.base_url, submit_timeout=1)
    impatient.instrument("BTC/USDT")
    venue.control.queue_faults(Fault(Action.HANG, seconds=1.5))
    assert impatient.execute_order(order()).outcome is Outcome.UNKNOWN
