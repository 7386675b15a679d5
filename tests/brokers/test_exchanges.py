"""The matrix of exchanges: complete, true to the installed ccxt, and refusing what is unknown."""

from __future__ import annotations

import json
from importlib.metadata import version
from io import StringIO

import ccxt
import pytest
from django.core.management import call_command

from brokers import library
from brokers.capabilities import Balances
from brokers.errors import ConfigurationError, NotSupportedError
from brokers.exchanges import (
    MEASURED_WITH,
    PROFILES,
    Endpoint,
    ExchangeProfile,
    profile_for,
)
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import AccountConfig, Environment, OrderType, Outcome
from tests.brokers.contract import order

KEYS = {"api_key": "k", "api_secret": "s", "api_passphrase": "p"}


def test_the_list_of_exchanges_is_that_of_the_installed_ccxt() -> None:
    assert version("ccxt") == MEASURED_WITH
    assert library.measure() == library.LIST.read_text()
    assert len(library.library()) > 100


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.label)
def test_every_row_of_the_matrix_fits_the_library_and_itself(profile: ExchangeProfile) -> None:
    known = library.library()[profile.id]
    assert profile.market_type in known.market_types
    assert profile.tier in (1, 2)
    assert set(profile.keys) >= {"api_key", "api_secret"}
    assert profile.capabilities.settle_window >= 10
    assert profile.client_id_field
    assert not profile.reads(profile.order_endpoint.method, profile.order_endpoint.path)
    for endpoint in profile.cancel_endpoints:
        assert not profile.reads(endpoint.method, endpoint.path)
    classes = ("ambiguous", "throttled", "clock", "credentials", "refused", "absent")
    codes = [code for name in classes for code in getattr(profile, name)]
    assert len(codes) == len(set(codes)), "a code means two things"


WALLET, GAIN = 1000, 50
TOLD: dict[tuple[str, str], tuple[str, object]] = {
    # developers.binance.com, "Account Information V3"
    ("binanceusdm", "fapiPrivateV3GetAccount"): (
        "USDT",
        {"assets": [{"asset": "USDT", "walletBalance": "1000", "unrealizedProfit": "50",
                     "marginBalance": "1050", "availableBalance": "900", "updateTime": 1}]},
    ),
    # bitget.com/api-doc, "Get Account List"
    ("bitget", "privateMixGetV2MixAccountAccounts"): (
        "USDT",
        {"data": [{"marginCoin": "USDT", "available": "1000", "accountEquity": "1050",
                   "unrealizedPL": "50", "maxTransferOut": "900", "locked": "0"}]},
    ),
    # docs.kraken.com, "Get wallets"
    ("krakenfutures", "privateGetAccounts"): (
        "USD",
        {"accounts": {"flex": {"type": "multiCollateralMarginAccount", "portfolioValue": 1050,
                               "currencies": {"USD": {"quantity": "1000", "available": "900"}}}}},
    ),
    # hyperliquid.gitbook.io, "Retrieve user's perpetuals account summary"
    ("hyperliquid", "publicPostInfo"): (
        "USDC",
        {"marginSummary": {"accountValue": "1050", "totalMarginUsed": "100"},
         "withdrawable": "900", "time": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("exchange", "question"), TOLD)
def test_a_row_says_whether_the_total_that_ccxt_tells_counts_open_gains(
    monkeypatch: pytest.MonkeyPatch, exchange: str, question: str
) -> None:
    """A wallet of 1000 with a gain of 50, as the vendor's documentation shows it."""
    currency, answer = TOLD[exchange, question]
    client = getattr(ccxt, exchange)({"walletAddress": "0x0", "options": {"defaultType": "swap"}})
    client.set_markets([])
    monkeypatch.setattr(client, question, lambda *_: answer)
    monkeypatch.setattr(
        client, "is_unified_enabled", lambda *rest: (False, rest[-1]), raising=False
    )
    total = client.fetch_balance()["total"][currency]
    kind = PROFILES[exchange, "swap"].capabilities.balances
    assert total == {Balances.MONEY: WALLET, Balances.WORTH: WALLET + GAIN}[kind]


def test_nothing_is_added_to_what_an_unverified_exchange_calls_the_total_of_a_margin_account() -> (
    None
):
    unverified = {"spot": Balances.MONEY, "swap": Balances.WORTH}
    for market_type, kind in unverified.items():
        assert profile_for("mexc", market_type).capabilities.balances is kind


@pytest.mark.parametrize(
    ("pattern", "method", "path", "fits"),
    [
        ("GET /a/b", "GET", "/a/b", True),
        ("GET /a/b", "POST", "/a/b", False),
        ("GET /a/*", "GET", "/a/b", True),
        ("GET /a/*", "GET", "/a/b/c", False),
        ("GET /a/*", "GET", "/a/", False),
        ("GET /a/*", "GET", "/b/c", False),
        ("GET *", "GET", "/any/thing", True),
        ("GET *", "POST", "/any/thing", False),
        ("* *", "DELETE", "/any", True),
    ],
)
def test_endpoints_fit_by_segment(pattern: str, method: str, path: str, *, fits: bool) -> None:
    assert bool(Endpoint.read(pattern).fits(method, path)) is fits


def test_what_the_library_lacks_is_refused_by_name() -> None:
    with pytest.raises(NotSupportedError, match="no exchange 'gateio' in ccxt"):
        profile_for("gateio")
    with pytest.raises(NotSupportedError, match="Bitvavo has no swap markets"):
        profile_for("bitvavo", "swap")


@pytest.mark.parametrize(
    ("asked", "found"), [("binance", "binanceusdm"), ("kraken", "krakenfutures")]
)
def test_swaps_are_found_by_the_exchanges_own_name(asked: str, found: str) -> None:
    assert profile_for(asked, "swap") is PROFILES[found, "swap"]
    assert profile_for(asked).id == asked


def test_an_unverified_exchange_promises_little() -> None:
    profile = profile_for("mexc", "spot")
    assert (profile.tier, profile.verified) == (3, False)
    assert profile.capabilities.order_types == {OrderType.MARKET, OrderType.LIMIT}
    assert profile.capabilities.post_only is profile.capabilities.reduce_only is False
    assert profile.capabilities.settle_window == 120


def _plugin(environment: Environment, **options: object) -> CcxtPlugin:
    plugin = CcxtPlugin()
    base = {"base_url": "http://127.0.0.1:9"}
    plugin.init(AccountConfig("1", "t", environment, base | options, KEYS))
    return plugin


def test_a_dry_run_account_works_at_an_unverified_exchange_and_sends_nothing() -> None:
    plugin = _plugin(Environment.DRY_RUN, exchange="mexc")
    result = plugin.execute_order(order())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")


def test_the_operator_may_dare_an_unverified_exchange() -> None:
    plugin = _plugin(Environment.SANDBOX, exchange="mexc", unverified_venue=True)
    assert plugin.capabilities.order_types == {OrderType.MARKET, OrderType.LIMIT}
    result = plugin.execute_order(order(type=OrderType.STOP, stop_price=order().quantity))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")


def test_list_exchanges_prints_every_exchange_of_the_library() -> None:
    out = StringIO()
    call_command("list_exchanges", json=True, stdout=out)
    told = json.loads(out.getvalue())
    assert told["ccxt"] == MEASURED_WITH
    assert {row["exchange"] for row in told["exchanges"]} == set(library.library())
    binance = next(row for row in told["exchanges"] if row["label"] == "Binance spot")
    assert (binance["tier"], binance["sandbox"], binance["cancel_all"]) == (1, "testnet", "symbol")
    unknown = next(row for row in told["exchanges"] if row["exchange"] == "mexc")
    assert (unknown["tier"], unknown["stop"], unknown["iceberg"]) == (3, "unknown", None)
    assert (binance["stop_loss"], unknown["stop_loss"]) == ("venue", "watched")
    assert (binance["iceberg"], "iceberg" in binance["not_used"]) == (True, True)


def test_where_a_stop_loss_has_to_be_watched() -> None:
    watched = {one.label for one in PROFILES.values() if not one.capabilities.holds_stops}
    assert watched == {
        "Coinbase spot",
        "Gate spot",
        "Bitget spot",
        "Bitget linear swap",
        "HTX spot",
        "Hyperliquid swap",
    }


def test_the_operator_may_let_stops_be_watched() -> None:
    assert not _plugin(Environment.SANDBOX, exchange="gate").capabilities.watched_stop
    allowed = _plugin(Environment.SANDBOX, exchange="gate", watched_stops=True)
    assert allowed.capabilities.watched_stop
    with pytest.raises(ConfigurationError, match="watched_stops is true or false"):
        _plugin(Environment.SANDBOX, exchange="gate", watched_stops="yes")


def test_list_exchanges_prints_a_table() -> None:
    out = StringIO()
    call_command("list_exchanges", stdout=out)
    lines = out.getvalue().splitlines()
    assert any(
        line.split() == ["kraken", "spot", "1", "end", "to", "end", "venue", "none"]
        for line in lines
    )
    assert any(line.split()[:2] == ["gate", "spot"] and "watched" in line for line in lines)
    assert any(line.startswith("mexc ") and "unverified" in line for line in lines)
