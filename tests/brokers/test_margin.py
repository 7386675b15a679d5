"""Leverage, margin mode and position mode are as the account says before a swap is traded."""

from __future__ import annotations

import pytest

from brokers.errors import ConfigurationError
from brokers.types import Outcome, Side
from tests.brokers.contract import KEYS, PERPETUAL, ccxt_plugin, order
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault, When

SWAPS = ["bybit-linear", "okx-swap"]
SET = {"bybit-linear": "/v5/position/set-leverage", "okx-swap": "/api/v5/account/set-leverage"}


def asked(venue: RunningVenue, path: str) -> int:
    return sum(1 for entry in venue.control.requests() if entry.path == path)


@pytest.mark.parametrize("exchange", SWAPS)
def test_the_leverage_is_set_once_and_read_back(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url, leverage=5)
    for _ in range(3):
        assert plugin.execute_order(order(symbol=PERPETUAL)).outcome is Outcome.ACCEPTED
    assert asked(venue, SET[exchange]) == 1
    again = ccxt_plugin(exchange, venue.base_url, leverage=5)
    assert again.execute_order(order(symbol=PERPETUAL)).outcome is Outcome.ACCEPTED
    assert asked(venue, SET[exchange]) == 1


@pytest.mark.parametrize("exchange", SWAPS)
def test_without_the_option_the_venues_own_stays(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    assert plugin.execute_order(order(symbol=PERPETUAL)).outcome is Outcome.ACCEPTED
    assert asked(venue, SET[exchange]) == 0


@pytest.mark.parametrize("exchange", SWAPS)
def test_in_hedge_mode_nothing_is_opened(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    venue.control.set_hedge_mode(exchange, hedged=True)
    result = plugin.execute_order(order(symbol=PERPETUAL))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "hedge mode" in result.detail
    assert venue.control.ledger(exchange).orders == []


def test_another_margin_mode_is_refused_or_named_in_the_order(venue: RunningVenue) -> None:
    bybit = ccxt_plugin("bybit-linear", venue.base_url, margin_mode="isolated")
    refused = bybit.execute_order(order(symbol=PERPETUAL))
    assert (refused.outcome, refused.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    okx = ccxt_plugin("okx-swap", venue.base_url, margin_mode="isolated", leverage=2)
    sent = okx.execute_order(order(symbol=PERPETUAL, side=Side.SELL))
    assert sent.outcome is Outcome.ACCEPTED
    assert sent.evidence["request"]["fields"]["tdMode"] == "isolated"


@pytest.mark.parametrize(
    ("exchange", "options", "says"),
    [
        ("bybit", {"leverage": 2}, "not set by FKS"),
        ("bybit-linear", {"leverage": 0}, "from 1 to 125"),
        ("bybit-linear", {"leverage": 126}, "from 1 to 125"),
        ("bybit-linear", {"leverage": "5"}, "whole number"),
        ("bybit-linear", {"leverage": True}, "whole number"),
        ("okx-swap", {"margin_mode": "portfolio"}, "cross or isolated"),
    ],
    ids=str,
)
def test_terms_that_mean_nothing_are_refused(
    exchange: str, options: dict[str, object], says: str
) -> None:
    assert exchange in KEYS
    with pytest.raises(ConfigurationError, match=says):
        ccxt_plugin(exchange, "http://127.0.0.1:9", **options)


@pytest.mark.parametrize("exchange", SWAPS)
def test_a_wrong_clock_is_healed_before_the_first_order(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    plugin.instrument(PERPETUAL)
    venue.control.set_clock_offset(-60_000)
    assert plugin.execute_order(order(symbol=PERPETUAL)).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("exchange", SWAPS)
def test_what_cannot_be_checked_is_not_traded(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url, leverage=4)
    plugin.instrument(PERPETUAL)
    venue.control.queue_faults(Fault(Action.DROP, When.BEFORE, endpoint=Endpoint.QUERY))
    result = plugin.execute_order(order(symbol=PERPETUAL))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE")
    assert plugin.execute_order(order(symbol=PERPETUAL)).outcome is Outcome.ACCEPTED
