"""The ccxt plugin beyond the common contract: its configuration and the orders it sends."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import ccxt
import pytest

from brokers import guarded_client
from brokers.errors import ConfigurationError, CredentialError, QueryFailedError
from brokers.exchanges import PROFILES, ExchangeProfile, Sandbox
from brokers.plugins.ccxt import DIALECTS, CcxtPlugin
from brokers.transport import origin
from brokers.types import (
    AccountConfig,
    Environment,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
    TimeInForce,
    VenueStatus,
)
from tests.brokers.contract import KEYS, SYMBOL, ccxt_plugin, limit, order, ref
from tests.brokers.test_wire import secret_of
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault

EXCHANGES = ["binance", "kraken"]
ACCEPTED, REJECTED, NOT_SENT, UNKNOWN = (
    Outcome.ACCEPTED,
    Outcome.REJECTED,
    Outcome.NOT_SENT,
    Outcome.UNKNOWN,
)


def config(environment: Environment = Environment.SANDBOX, /, **options: object) -> AccountConfig:
    exchange = str(options.get("exchange", ""))
    key, secret = KEYS.get(exchange, ("key", "secret"))
    return AccountConfig("1", "test", environment, options, {"api_key": key, "api_secret": secret})


def made(environment: Environment = Environment.SANDBOX, /, **options: object) -> CcxtPlugin:
    plugin = CcxtPlugin()
    plugin.init(config(environment, **options))
    return plugin


def test_importing_the_plugin_does_not_import_ccxt() -> None:
    code = "import sys, brokers.plugins.ccxt; sys.exit('ccxt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "there is no exchange ''"),
        ({"exchange": "mexc"}, "is not verified"),
        ({"exchange": "huobi"}, "there is no exchange 'huobi'"),
        ({"exchange": "mexc", "unverified_venue": "yes"}, "true or false"),
        ({"exchange": "apex", "unverified_venue": "yes"}, "Apex has no spot markets; it has swap"),
        ({"exchange": "binance", "market_type": "future"}, "Binance future is not verified"),
        ({"exchange": "kraken", "market_type": "future"}, "Kraken has no future markets"),
        ({"exchange": "kraken"}, "no sandbox"),
        ({"exchange": "binance", "base_url": "http://venue.example"}, "only to this machine"),
        ({"exchange": "binance", "base_url": "http://127.0.0.1.example"}, "only to this machine"),
        ({"exchange": "binance", "base_url": "ftp://127.0.0.1"}, "https:// or http://"),
        ({"exchange": "binance", "base_url": "127.0.0.1:80"}, "https:// or http://"),
        ({"exchange": "binance", "base_url": "https://"}, "https:// or http://"),
        (
            {"exchange": "binance", "base_url": "http://[::1"},
            "base_url is no address: Invalid IPv6",
        ),
        ({"exchange": "binance", "base_url": "http://[::1]:70000"}, "Port out of range"),
        ({"exchange": "binance", "base_url": "http://[::1]:http"}, "base_url is no address: Port"),
        ({"exchange": "binance", "base_url": "https://u:p@venue.example"}, "nothing more"),
        ({"exchange": "binance", "base_url": "https://venue.example/api"}, "nothing more"),
        ({"exchange": "binance", "base_url": "https://venue.example?x=1"}, "nothing more"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_a_sentence(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        made(**options)


@pytest.mark.parametrize(
    ("exchange", "credentials"),
    [
        ("binance", {}),
        ("binance", {"api_key": "k"}),
        ("kraken", {"api_key": "k", "api_secret": "no base64!"}),
    ],
)
def test_keys_that_cannot_work_are_refused(exchange: str, credentials: dict[str, str]) -> None:
    options = {"exchange": exchange, "base_url": "http://127.0.0.1:9"}
    with pytest.raises(CredentialError):
        CcxtPlugin().init(AccountConfig("1", "t", Environment.SANDBOX, options, credentials))


@pytest.mark.parametrize("base_url", ["https://gate.example:8443", "http://[::1]:81"])
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("environment", list(Environment))
def test_with_a_base_url_nothing_points_to_the_exchange(
    exchange: str, environment: Environment, base_url: str
) -> None:
    plugin = made(environment, exchange=exchange, base_url=f"{base_url}/")
    for private in (False, True):
        client = plugin._pool._connect(private=private)
        assert client.gate.origins == {base_url}
        assert client.ccxt.hostname == base_url.partition("//")[2]
        assert list(client.ccxt.urls) == ["api"]
        assert {origin(u) for u in client.ccxt.urls["api"].values()} == {base_url}


def test_the_binance_sandbox_is_the_testnet_and_knows_no_live_host() -> None:
    client = made(exchange="binance")._pool._connect(private=True)
    assert "https://testnet.binance.vision" in client.gate.origins
    assert not [origin for origin in client.gate.origins if "api.binance.com" in origin]
    assert not client.serves("sapi")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.label)
def test_the_matrix_promises_a_sandbox_where_an_account_can_enter_one(
    profile: ExchangeProfile,
) -> None:
    where = {"exchange": profile.id, "market_type": profile.market_type}
    secrets = dict.fromkeys(profile.keys, "0x" + "1" * 40) | {"api_secret": secret_of(profile)}
    account = AccountConfig("1", "t", Environment.SANDBOX, where, secrets)
    if profile.sandbox is Sandbox.NONE:
        with pytest.raises(ConfigurationError, match="no sandbox"):
            CcxtPlugin().init(account)
    else:
        CcxtPlugin().init(account)


@pytest.mark.parametrize("exchange", sorted({profile.id for profile in PROFILES.values()}))
def test_a_later_client_knows_every_name_the_first_one_does(exchange: str) -> None:
    guarded = guarded_client.guarded_class(exchange, increasing=False)
    plain, later = getattr(ccxt, exchange)(), guarded()
    assert vars(plain).keys() <= vars(later).keys()
    assert {name for name in object.__dir__(plain) if not hasattr(later, name)} == set()


def test_a_sandbox_that_does_not_move_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stays = guarded_client.guarded_class("binance", increasing=False)
    monkeypatch.setattr(stays, "set_sandbox_mode", lambda self, enabled: None)
    with pytest.raises(ConfigurationError, match="stayed on its real host"):
        made(exchange="binance")


def test_a_sandbox_switch_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, enabled: bool) -> None:
        raise TypeError("'NoneType' object is not subscriptable")

    broken = guarded_client.guarded_class("binance", increasing=False)
    monkeypatch.setattr(broken, "set_sandbox_mode", fails)
    with pytest.raises(ConfigurationError, match="refused sandbox mode"):
        made(exchange="binance")


def test_every_verified_exchange_is_in_the_library_and_the_first_tier_has_dialects() -> None:
    assert {profile for profile in PROFILES.values() if profile.tier == 1} == set(DIALECTS)
    assert {profile.id for profile in PROFILES.values()} <= set(ccxt.exchanges)


def test_a_live_account_talks_to_the_exchange() -> None:
    assert made(Environment.LIVE, exchange="kraken")._pool._connect(private=True).gate.origins >= {
        "https://api.kraken.com"
    }


def test_the_library_is_quiet_patient_and_never_retries() -> None:
    client = made(exchange="binance", base_url="http://127.0.0.1:9")._pool._connect(private=True)
    assert (client.ccxt.enableRateLimit, client.ccxt.verbose) == (False, False)
    assert client.ccxt.timeout == 10_000
    options = client.ccxt.options
    assert (options["maxRetriesOnFailure"], options["recvWindow"]) == (0, 5000)
    assert options["adjustForTimeDifference"] is False
    assert client.ccxt.has["fetchCurrencies"] is False


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_dry_run_account_reads_prices_and_sends_nothing(
    venue: RunningVenue, exchange: str
) -> None:
    plugin = CcxtPlugin()
    options = {"exchange": exchange, "base_url": venue.base_url}
    plugin.init(AccountConfig("1", "t", Environment.DRY_RUN, options))
    result = plugin.execute_order(order())
    assert (result.outcome, result.code) == (NOT_SENT, "NOT_SUPPORTED")
    assert "paper account" in result.detail
    assert plugin.fetch_data(SYMBOL).last == 60000
    assert plugin.health_check().ok
    with pytest.raises(QueryFailedError):
        plugin.balances()
    canceled = plugin.cancel_order(ref(order()))
    assert (canceled.outcome, canceled.code) == (NOT_SENT, "NOT_SUPPORTED")


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    "request_",
    [
        limit("61000", time_in_force=TimeInForce.IOC),
        limit("50000", time_in_force=TimeInForce.IOC),
        limit("50000", post_only=True),
        limit("50000.1", quantity=Decimal("0.00012")),
        order(side=Side.SELL, time_in_force=TimeInForce.IOC),
        order(side=Side.BUY, type=OrderType.STOP, stop_price=Decimal(70000)),
    ],
    ids=lambda r: f"{r.type}-{r.side}-{r.time_in_force}-{r.post_only}",
)
def test_the_venue_gets_exactly_what_was_meant(
    venue: RunningVenue, exchange: str, request_: OrderRequest
) -> None:
    request = request_
    assert ccxt_plugin(exchange, venue.base_url).execute_order(request).outcome is ACCEPTED
    (row,) = venue.control.ledger(exchange).by_client_id(request.identity)
    assert (row.quantity, row.price, row.trigger_price, row.side.lower()) == (
        request.quantity,
        request.price,
        request.stop_price,
        request.side.value,
    )


def test_fill_or_kill_only_where_it_is_proven(venue: RunningVenue) -> None:
    killed = limit("50000", time_in_force=TimeInForce.FOK)
    result = ccxt_plugin("binance", venue.base_url).execute_order(killed)
    assert result.outcome is ACCEPTED
    assert result.report is not None
    assert result.report.status is VenueStatus.EXPIRED
    refused = ccxt_plugin("kraken", venue.base_url).execute_order(killed)
    assert (refused.outcome, refused.code) == (NOT_SENT, "NOT_SUPPORTED")


def test_a_number_the_library_would_round_does_not_leave(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = ccxt_plugin("binance", venue.base_url)
    monkeypatch.setattr("brokers.plugins.ccxt.check_grid", lambda *_: None)
    request = order(quantity=Decimal("0.0020000001"))
    result = plugin.execute_order(request)
    assert (result.outcome, result.code) == (NOT_SENT, "INTERNAL_ERROR")
    assert "quantity would leave as '0.002'" in result.detail
    assert venue.control.ledger("binance").orders == []


def test_binance_tells_fills_at_once_and_fees_in_the_coin(venue: RunningVenue) -> None:
    asks = [("60000.01", "0.001"), ("60010", "5")]
    venue.control.set_depth("binance", SYMBOL, asks=asks)
    result = ccxt_plugin("binance", venue.base_url).execute_order(order())
    assert result.report is not None
    fills = [(f.price, f.quantity, f.fee, f.fee_currency) for f in result.report.fills]
    assert fills == [
        (Decimal("60000.01"), Decimal("0.001"), Decimal("0.000001"), "BTC"),
        (Decimal(60010), Decimal("0.001"), Decimal("0.000001"), "BTC"),
    ]
    assert result.report.average_price == Decimal("60005.005")


def test_kraken_acknowledges_with_the_id_alone_and_takes_fees_in_the_quote(
    venue: RunningVenue,
) -> None:
    plugin, request = ccxt_plugin("kraken", venue.base_url), order()
    result = plugin.execute_order(request)
    assert result.broker_order_id
    assert result.report is None
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert [(f.fee, f.fee_currency) for f in report.fills] == [(Decimal("0.4800008"), "USDT")]


def test_kraken_orders_in_other_pairs_keep_our_symbols(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("kraken", venue.base_url)
    plugin.execute_order(limit("50000", symbol="BTC/USD"))
    plugin.execute_order(limit("50000"))
    assert [o.symbol for o in plugin.open_orders("BTC/USD")] == ["BTC/USD"]
    assert sorted(o.symbol for o in plugin.open_orders()) == ["BTC/USD", "BTC/USDT"]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_long_histories_are_read_to_the_end(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    start = datetime.now(UTC) - timedelta(minutes=1)
    first = order()
    for request in (first, *(order() for _ in range(119))):
        assert plugin.execute_order(request).outcome is ACCEPTED
    trades = plugin.trades_since(SYMBOL, start)
    assert len({trade.trade_id for trade in trades}) == len(trades) == 120
    assert list(trades) == sorted(trades, key=lambda trade: trade.at)
    report = plugin.fetch_order(ref(first))
    assert report is not None
    assert [fill.quantity for fill in report.fills] == [Decimal("0.002")]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_trades_listed_twice_count_once(venue: RunningVenue, exchange: str) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), order()
    plugin.execute_order(request)
    twice = Fault(Action.DOUBLE_FILLS, endpoint=Endpoint.QUERY, count=9)
    venue.control.queue_faults(twice)
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert [fill.quantity for fill in report.fills] == [Decimal("0.002")]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_fills_that_come_later_are_seen_later(venue: RunningVenue, exchange: str) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), order()
    venue.control.queue_faults(Fault(Action.DELAY_FILLS, seconds=3600))
    result = plugin.execute_order(request)
    assert result.outcome is ACCEPTED
    report = plugin.fetch_order(ref(request, result.broker_order_id))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.OPEN, Decimal(0))
