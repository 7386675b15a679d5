"""Leverage, margin mode and position mode are as the account says before a swap is traded."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import ccxt
import pytest

from brokers.errors import ConfigurationError
from brokers.exchanges import PROFILES, profile_for
from brokers.transport import _fields
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


@pytest.mark.parametrize("exchange", SWAPS)
def test_a_leverage_the_venue_will_not_set_is_told(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url, leverage=120)
    result = plugin.execute_order(order(symbol=PERPETUAL))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "everage" in result.detail
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
        {"code": "00000", "data": {"posMode": "one_way_mode", "marginMode": "crossed"}},
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
        if "symbolConfig" in url:
            return Swaps()._told("/fapi/v1/symbolConfig")
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
    assert [one.partition(" ")[0] for one in sent] == ["GET", "GET", "POST"]


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


Sent = tuple[str, str, dict[str, str]]


class Swaps:
    """One market of each exchange of tier 2 as its documentation tells its margin settings, and the
    requests that reach it beside the questions.
    """

    def __init__(self, mode: str = "cross", leverage: str = "20") -> None:
        self.mode, self.leverage = mode, leverage
        self.follows = True
        self.refusal = ""
        self.sent: list[Sent] = []
        self.asked: list[str] = []

    def answer(self, client: Any, url: str, method: str, body: str | None) -> Any:
        path, fields = urlsplit(url).path, _fields(urlsplit(url).query, body)
        fields = {k: v for k, v in fields.items() if k not in client.gate._profile.order_extras}
        kind = fields.get("type") or fields.get("action.type")
        if method == "GET" or path == "/info":
            self.asked.append(path)
            return self._told(path)
        if path in ORDERS and kind in (None, "LIMIT", "order", "lmt"):
            raise ccxt.NetworkError("nothing leaves in a test")
        self.sent.append((method, path, fields))
        if self.refusal:
            client.gate.answered(url, method, 400, {}, self.refusal)
            raise ccxt.BadRequest("no")
        if self.follows:
            self._set(fields)
        return {"status": "ok", "code": "00000", "result": "success"}

    def _told(self, path: str) -> Any:
        mode, lever = self.mode, self.leverage
        if path == "/fapi/v1/positionSide/dual":
            return {"dualSidePosition": False}
        if path == "/fapi/v1/symbolConfig":
            kind = {"cross": "CROSSED"}.get(mode, "ISOLATED")
            return [{"symbol": "BTCUSDT", "marginType": kind, "leverage": int(lever)}]
        if path == "/derivatives/api/v3/leveragepreferences":
            mine = [{"symbol": "PF_XBTUSD", "maxLeverage": float(lever)}]
            others = [{"symbol": "PF_ETHUSD", "maxLeverage": 3.0}]
            return {
                "result": "success",
                "leveragePreferences": others + mine * (mode == "isolated"),
            }
        if path == "/info":
            return {"coin": "BTC", "leverage": {"type": mode, "value": int(lever)}}
        data = {"posMode": "one_way_mode", "marginMode": "crossed" if mode == "cross" else mode}
        data |= {"isolatedLongLever": lever, "isolatedShortLever": lever}
        return {"code": "00000", "data": data | {"crossedMarginLeverage": int(lever)}}

    def _set(self, fields: dict[str, str]) -> None:
        named = fields.get("marginType") or fields.get("marginMode") or ""
        if named:
            self.mode = "cross" if named.startswith(("cross", "CROSS")) else "isolated"
        if "action.isCross" in fields:
            self.mode = "cross" if fields["action.isCross"] == "true" else "isolated"
        if fields["symbol" if "symbol" in fields else "action.asset"].startswith("PF_"):
            self.mode = "isolated" if "maxLeverage" in fields else "cross"
        for name in ("leverage", "maxLeverage", "action.leverage"):
            self.leverage = fields.get(name, self.leverage)


ORDERS = {
    str(profile_for(one, "swap").order_endpoint.path)
    for one in ("binanceusdm", "bitget", "krakenfutures", "hyperliquid")
}
BITGET = {"symbol": "BTCUSDT", "marginCoin": "USDT", "productType": "USDT-FUTURES"}
KRAKEN = ("PUT", "/derivatives/api/v3/leveragepreferences")
HYPER = {"action.type": "updateLeverage", "action.asset": "0"}
ISOLATED_BY_FIVE: dict[str, list[Sent]] = {
    "binanceusdm": [
        ("POST", "/fapi/v1/marginType", {"symbol": "BTCUSDT", "marginType": "ISOLATED"}),
        ("POST", "/fapi/v1/leverage", {"symbol": "BTCUSDT", "leverage": "5"}),
    ],
    "bitget": [
        ("POST", "/api/v2/mix/account/set-margin-mode", BITGET | {"marginMode": "isolated"}),
        ("POST", "/api/v2/mix/account/set-leverage", BITGET | {"leverage": "5"}),
    ],
    "krakenfutures": [(*KRAKEN, {"symbol": "PF_XBTUSD", "maxLeverage": "5"})],
    "hyperliquid": [
        ("POST", "/exchange", HYPER | {"action.isCross": "false", "action.leverage": "5"})
    ],
}
"""What brings a market in cross margin, times 20, to isolated margin, times 5."""
BACK_TO_CROSS: dict[str, list[Sent]] = {
    "binanceusdm": [
        ("POST", "/fapi/v1/marginType", {"symbol": "BTCUSDT", "marginType": "CROSSED"})
    ],
    "bitget": [("POST", "/api/v2/mix/account/set-margin-mode", BITGET | {"marginMode": "crossed"})],
    "krakenfutures": [(*KRAKEN, {"symbol": "PF_XBTUSD"})],
    "hyperliquid": [
        ("POST", "/exchange", HYPER | {"action.isCross": "true", "action.leverage": "20"})
    ],
}
TIER_2 = list(ISOLATED_BY_FIVE)


def traded(
    monkeypatch: pytest.MonkeyPatch, exchange: str, swaps: Swaps, times: int = 1, **options: object
) -> ExecutionResult:
    """What becomes of the last of so many orders of an account with these options."""
    profile = profile_for(exchange, "swap")
    plugin = plugin_of(profile, **options)
    plugin._prepared.clear()

    def fetch(
        self: Any, url: str, method: str = "GET", _headers: object = None, body: str | None = None
    ) -> Any:
        return swaps.answer(self, url, method, body)

    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    for _ in range(times):
        result = plugin.execute_order(intents(profile)["limit"])
    return result


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", TIER_2)
def test_tier_2_sets_mode_and_leverage_and_reads_them_back(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    swaps = Swaps()
    result = traded(monkeypatch, exchange, swaps, 3, margin_mode="isolated", leverage=5)
    assert result.outcome is Outcome.UNKNOWN, result
    assert swaps.sent == ISOLATED_BY_FIVE[exchange]
    assert (swaps.mode, swaps.leverage) == ("isolated", "5")
    assert swaps.asked.count(swaps.asked[-1]) >= len(swaps.sent) + 1


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", TIER_2)
def test_tier_2_goes_back_to_cross_where_the_account_says_so(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    swaps = Swaps("isolated")
    result = traded(monkeypatch, exchange, swaps, margin_mode="cross")
    assert result.outcome is Outcome.UNKNOWN, result
    assert swaps.sent == BACK_TO_CROSS[exchange]


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", TIER_2)
def test_tier_2_that_is_as_it_must_be_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    swaps = Swaps()
    assert traded(monkeypatch, exchange, swaps).outcome is Outcome.UNKNOWN
    assert swaps.sent == []
    swaps = Swaps("isolated", "5")
    result = traded(monkeypatch, exchange, swaps, margin_mode="isolated", leverage=5)
    assert (result.outcome, swaps.sent) == (Outcome.UNKNOWN, [])


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", TIER_2)
def test_a_mode_nobody_asked_for_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    swaps = Swaps("isolated")
    result = traded(monkeypatch, exchange, swaps)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "is in isolated margin: give the option margin_mode" in result.detail
    assert swaps.sent == []


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", TIER_2)
def test_an_exchange_that_does_not_follow_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    swaps = Swaps()
    swaps.follows = False
    result = traded(monkeypatch, exchange, swaps, margin_mode="isolated", leverage=5)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "in cross margin" in result.detail


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize(
    ("exchange", "refusal"),
    [
        ("binanceusdm", '{"code": -4048, "msg": "Margin type cannot be changed"}'),
        ("bitget", '{"code": "45117", "msg": "Currently holding positions"}'),
        ("krakenfutures", '{"result": "error", "error": "WOULD_CAUSE_LIQUIDATION"}'),
        ("hyperliquid", '{"status": "err", "response": "Cannot switch leverage type"}'),
    ],
)
def test_a_refusal_to_set_is_told_in_the_exchanges_words(
    monkeypatch: pytest.MonkeyPatch, exchange: str, refusal: str
) -> None:
    swaps = Swaps()
    swaps.refusal = refusal
    result = traded(monkeypatch, exchange, swaps, margin_mode="isolated", leverage=5)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert list(json.loads(refusal).values())[1] in result.detail
    assert len(swaps.sent) == 1


@pytest.mark.usefixtures("requests_asked")
@pytest.mark.parametrize("exchange", TIER_2)
@pytest.mark.parametrize("answer", [None, {}, [], "no", {"leverage": 5}, [{"symbol": "BTCUSDT"}]])
def test_settings_that_cannot_be_read_open_nothing(
    monkeypatch: pytest.MonkeyPatch, exchange: str, answer: Any
) -> None:
    swaps = Swaps()
    monkeypatch.setattr(swaps, "_told", lambda _: answer)
    result = traded(monkeypatch, exchange, swaps, margin_mode="isolated", leverage=5)
    assert (result.outcome, swaps.sent) == (Outcome.NOT_SENT, [])


@pytest.mark.usefixtures("requests_asked")
def test_isolated_margin_at_kraken_futures_is_a_leverage(monkeypatch: pytest.MonkeyPatch) -> None:
    swaps = Swaps()
    result = traded(monkeypatch, "krakenfutures", swaps, margin_mode="isolated")
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "only with a leverage" in result.detail
    with pytest.raises(ConfigurationError, match="takes no leverage in cross margin"):
        plugin_of(profile_for("krakenfutures", "swap"), leverage=5)


@pytest.mark.usefixtures("requests_asked")
def test_sides_with_different_leverages_are_brought_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swaps = Swaps("isolated", "5")
    told = swaps._told

    def uneven(path: str) -> Any:
        answer = told(path)
        if not swaps.sent:
            answer["data"]["isolatedShortLever"] = "7"
        return answer

    monkeypatch.setattr(swaps, "_told", uneven)
    result = traded(monkeypatch, "bitget", swaps, margin_mode="isolated", leverage=5)
    assert result.outcome is Outcome.UNKNOWN, result
    assert swaps.sent == ISOLATED_BY_FIVE["bitget"][1:]


@pytest.mark.usefixtures("requests_asked")
def test_an_order_at_bitget_names_the_accounts_margin_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode, named in (("cross", "crossed"), ("isolated", "isolated")):
        result = traded(monkeypatch, "bitget", Swaps(mode), margin_mode=mode)
        assert result.evidence["request"]["fields"]["marginMode"] == named


def test_every_swap_says_what_is_done_about_margin() -> None:
    for one in PROFILES.values():
        is_swap = one.market_type == "swap"
        assert (one.traits.margin_mode != "no", one.traits.leverage != "no") == (is_swap, is_swap)
        assert bool(one.margin) is (is_swap and one.tier == 2)


def test_every_swap_says_how_its_position_mode_is_known() -> None:
    """Kraken Futures and Hyperliquid keep one net position per market and have no other mode."""
    asks = {one.label for one in PROFILES.values() if one.position_mode}
    swaps = {one.label for one in PROFILES.values() if one.market_type == "swap" and one.tier == 2}
    assert swaps - asks == {"Kraken Futures swap", "Hyperliquid swap"}
