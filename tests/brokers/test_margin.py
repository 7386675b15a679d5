"""Leverage, margin mode and position mode are as the account says before a swap is traded."""

from __future__ import annotations

from typing import Any

import ccxt
import pytest

from brokers.errors import ConfigurationError
from brokers.exchanges import PROFILES, profile_for
from brokers.types import ExecutionResult, Outcome, Side
from tests.brokers.contract import KEYS, PERPETUAL, ccxt_plugin, order
from tests.brokers.test_wire import asked as requests_asked
from tests.brokers.test_wire import intents, plugin_of
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault, When

__all__ = ["requests_asked"]

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


# --- tier 2: the question as it leaves, the answer as the documentation has it ---------------------

MODES: dict[str, tuple[str, Any, Any]] = {
    "binanceusdm": (
        "/fapi/v1/positionSide/dual?",
        {"dualSidePosition": False},
        {"dualSidePosition": True},
    ),
    "bitget": (
        "/api/v2/mix/account/account?marginCoin=USDT&productType=USDT-FUTURES&symbol=BTCUSDT",
        {"code": "00000", "msg": "success", "data": {"posMode": "one_way_mode"}},
        {"code": "00000", "msg": "success", "data": {"posMode": "hedge_mode"}},
    ),
}


def first_order(
    monkeypatch: pytest.MonkeyPatch, exchange: str, answer: Any
) -> tuple[ExecutionResult, list[str]]:
    """What becomes of the first order of an account whose position mode is answered so."""
    profile = profile_for(exchange, "swap")
    plugin = plugin_of(profile)
    plugin._prepared.clear()
    sent: list[str] = []

    def fetch(self: Any, url: str, method: str = "GET", *_: object, **__: object) -> Any:
        sent.append(f"{method} {url}")
        if method == "GET":
            return answer
        raise ccxt.NetworkError("nothing leaves in a test")

    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    return plugin.execute_order(intents(profile)["limit"]), sent


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", MODES)
def test_tier_2_is_asked_for_the_position_mode_before_its_first_order(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    path, one_way, _ = MODES[exchange]
    result, sent = first_order(monkeypatch, exchange, one_way)
    assert result.outcome is Outcome.UNKNOWN, result
    assert path in sent[0]
    assert [one.partition(" ")[0] for one in sent] == ["GET", "POST"]


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", MODES)
def test_a_hedged_account_of_tier_2_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    result, sent = first_order(monkeypatch, exchange, MODES[exchange][2])
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "hedge mode" in result.detail
    assert len(sent) == 1


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", MODES)
@pytest.mark.parametrize("answer", [{}, {"code": "00000", "data": {}}, []], ids=str)
def test_without_an_answer_nothing_is_opened(
    monkeypatch: pytest.MonkeyPatch, exchange: str, answer: Any
) -> None:
    result, sent = first_order(monkeypatch, exchange, answer)
    assert (result.outcome, len(sent)) == (Outcome.NOT_SENT, 1)


def test_every_swap_says_how_its_position_mode_is_known() -> None:
    """Kraken Futures and Hyperliquid keep one net position per market and have no other mode."""
    asks = {one.label for one in PROFILES.values() if one.position_mode}
    swaps = {one.label for one in PROFILES.values() if one.market_type == "swap" and one.tier == 2}
    assert swaps - asks == {"Kraken Futures swap", "Hyperliquid swap"}
