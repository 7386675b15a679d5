"""What Alpaca's answers come to, and what leaves for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from brokers import alpaca_answers, alpaca_lists
from brokers.errors import (
    ConfigurationError,
    CredentialError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.plugins.alpaca import AlpacaPlugin
from brokers.types import (
    AccountConfig,
    BalanceReport,
    Environment,
    OrderRef,
    OrderRequest,
    OrderType,
    Outcome,
    PositionReport,
    Side,
    TimeInForce,
    VenueStatus,
)
from brokers.venue_http import RefusedError, Reply
from tests.brokers.contract import alpaca_plugin, order, ref
from tests.venues.client import RunningVenue
from tests.venues.credentials import ALPACA_KEY, ALPACA_SECRET
from tests.venues.faults import Action, Endpoint, Fault, When

APPLE, BITCOIN = "AAPL/USD", "BTC/USD"
D = Decimal
ACCEPTED, REJECTED = Outcome.ACCEPTED, Outcome.REJECTED
NOT_SENT, UNKNOWN = Outcome.NOT_SENT, Outcome.UNKNOWN


def shares(**changes: object) -> OrderRequest:
    return order(**{"symbol": APPLE, "quantity": D(3)} | changes)


def coins(**changes: object) -> OrderRequest:
    return order(**{"symbol": BITCOIN, "quantity": D("0.002")} | changes)


def sent(venue: RunningVenue) -> list[dict[str, str]]:
    return [one.params for one in venue.control.requests() if one.endpoint == "order"]


def answered(venue: RunningVenue) -> list[dict[str, str]]:
    """As ``sent``, once the venue has let go of the request it holds."""
    deadline = time.monotonic() + 10
    while not sent(venue) and time.monotonic() < deadline:
        time.sleep(0.05)
    return sent(venue)


@pytest.mark.parametrize(
    ("fault", "outcome", "code", "placed"),
    [
        (Fault(Action.CODE, When.BEFORE, code="40310000"), REJECTED, "VENUE_REJECTED", 0),
        (Fault(Action.CODE, When.BEFORE, code="42210000"), REJECTED, "VENUE_REJECTED", 0),
        (Fault(Action.CODE, When.BEFORE, code="40110000"), REJECTED, "CREDENTIALS_REFUSED", 0),
        (Fault(Action.CODE, code="40010001"), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CODE, code="42910000"), UNKNOWN, "RATE_LIMITED", 1),
        (Fault(Action.CODE, code="50010000"), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=429), UNKNOWN, "RATE_LIMITED", 1),
        (Fault(Action.STATUS, status=502), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=504), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=403), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.DROP), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.HANG, seconds=3), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.TRUNCATE), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CUT_JSON), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.EMPTY), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.HTML), UNKNOWN, "VENUE_UNREACHABLE", 1),
    ],
    ids=lambda value: (
        f"{value.label}{value.code or value.status}" if isinstance(value, Fault) else str(value)
    ),
)
def test_only_evidence_ends_a_placement(
    venue: RunningVenue, fault: Fault, outcome: Outcome, code: str, placed: int
) -> None:
    plugin, request = alpaca_plugin(venue.base_url, submit_timeout=1), shares()
    venue.control.queue_faults(fault)
    result = plugin.execute_order(request)
    assert (result.outcome, result.code) == (outcome, code)
    assert len(venue.control.ledger("alpaca").orders) == placed
    assert len(answered(venue)) == 1
    found = plugin.fetch_order(ref(request))
    assert (found is not None) is bool(placed)


def test_the_body_is_text_in_plain_notation_and_carries_our_id(venue: RunningVenue) -> None:
    request = shares(type=OrderType.STOP_LIMIT, price=D("250.50"), stop_price=D("260"))
    assert alpaca_plugin(venue.base_url).execute_order(request).outcome is ACCEPTED
    assert sent(venue) == [
        {
            "symbol": "AAPL",
            "qty": "3",
            "side": "buy",
            "type": "stop_limit",
            "time_in_force": "gtc",
            "client_order_id": request.identity,
            "limit_price": "250.5",
            "stop_price": "260",
        }
    ]


def test_secrets_are_nowhere_in_the_evidence(venue: RunningVenue) -> None:
    plugin = alpaca_plugin(venue.base_url)
    results = [plugin.execute_order(shares())]
    venue.control.queue_faults(Fault(Action.CODE, code="40310000"))
    results.append(plugin.execute_order(shares()))
    for result in results:
        assert ALPACA_SECRET not in repr(result)
        assert ALPACA_KEY not in json.dumps(result.evidence)


@pytest.mark.parametrize(
    ("options", "changes", "wanted"),
    [
        ({}, {"quantity": D("0.5")}, NOT_SENT),
        ({"fractional": True}, {"quantity": D("0.5")}, "day"),
        ({"fractional": True}, {"quantity": D("1E-9")}, "day"),
        ({}, {}, "day"),
        ({}, {"type": OrderType.LIMIT, "price": D(200)}, "gtc"),
        (
            {"fractional": True},
            {"type": OrderType.LIMIT, "price": D(200), "quantity": D("0.5")},
            "day",
        ),
        (
            {"fractional": True},
            {"type": OrderType.STOP, "stop_price": D(300), "quantity": D("0.5")},
            "day",
        ),
        ({}, {"type": OrderType.TRAILING_STOP, "trailing_percent": D("1.5")}, "gtc"),
        ({}, {"type": OrderType.TRAILING_STOP}, NOT_SENT),
        ({}, {"type": OrderType.LIMIT, "price": D("200.001")}, NOT_SENT),
        ({}, {"symbol": "AAPL/EUR"}, NOT_SENT),
        ({}, {"symbol": BITCOIN}, NOT_SENT),
        ({"market": "crypto"}, {"symbol": APPLE}, NOT_SENT),
    ],
    ids=str,
)
def test_terms_of_shares(
    venue: RunningVenue, options: dict[str, object], changes: dict[str, object], wanted: object
) -> None:
    request = shares(**changes)
    result = alpaca_plugin(venue.base_url, **options).execute_order(request)
    if wanted is NOT_SENT:
        assert (result.outcome, sent(venue)) == (NOT_SENT, [])
    else:
        assert (result.outcome, sent(venue)[0]["time_in_force"]) == (ACCEPTED, wanted)


def test_a_market_order_outside_hours_is_refused_or_queued_as_the_account_says(
    venue: RunningVenue,
) -> None:
    venue.control.set_market_hours("alpaca", is_open=False)
    request = shares()
    refused = alpaca_plugin(venue.base_url).execute_order(request)
    assert (refused.outcome, refused.code) == (NOT_SENT, "TRADING_HOURS")
    assert sent(venue) == []

    plugin = alpaca_plugin(venue.base_url, outside_hours="queue")
    assert plugin.execute_order(request).outcome is ACCEPTED
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.OPEN, D(0))


def test_limit_orders_and_crypto_do_not_wait_for_the_opening(venue: RunningVenue) -> None:
    venue.control.set_market_hours("alpaca", is_open=False)
    limit = shares(type=OrderType.LIMIT, price=D(200))
    assert alpaca_plugin(venue.base_url).execute_order(limit).outcome is ACCEPTED
    assert alpaca_plugin(venue.base_url, market="crypto").execute_order(coins()).outcome is ACCEPTED


def test_the_clock_is_asked_once_and_a_market_order_needs_its_answer(venue: RunningVenue) -> None:
    venue.control.queue_faults(*[Fault(Action.STATUS, endpoint=Endpoint.ANY, status=503)] * 3)
    plugin = alpaca_plugin(venue.base_url)
    first = plugin.execute_order(shares())
    assert (first.outcome, first.code, first.retry_after) == (NOT_SENT, "VENUE_UNREACHABLE", 1)
    assert sent(venue) == []
    assert [plugin.execute_order(shares()).outcome for _ in range(3)] == [ACCEPTED] * 3
    asked = [one.path for one in venue.control.requests() if one.path == "/v2/clock"]
    assert len(asked) == 1


def refusing(monkeypatch: pytest.MonkeyPatch, plugin: AlpacaPlugin, path: str, status: int) -> None:
    """Alpaca refuses one question."""
    ask = plugin._http.ask

    def answer(url: str, params: Any = None) -> Any:
        if url.endswith(path):
            raise RefusedError("Alpaca", Reply(True, status, '{"message": "no"}'), "no")
        return ask(url, params)

    monkeypatch.setattr(plugin._http, "ask", answer)


def test_where_the_hours_are_refused_alpaca_judges_the_order(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = alpaca_plugin(venue.base_url)
    refusing(monkeypatch, plugin, "/v2/clock", 404)
    assert plugin.execute_order(shares()).outcome is ACCEPTED
    assert timedelta(0) < plugin._hours.until - datetime.now(UTC) <= timedelta(minutes=1)
    health = plugin.health_check()
    assert (health.ok, health.detail) == (
        True,
        "Alpaca answers, and does not tell the market's hours",
    )


def test_a_refused_key_lets_a_market_order_wait(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = alpaca_plugin(venue.base_url)
    refusing(monkeypatch, plugin, "/v2/clock", 401)
    result = plugin.execute_order(shares())
    waits = (NOT_SENT, "CREDENTIALS_REFUSED", 1)
    assert (result.outcome, result.code, result.retry_after, sent(venue)) == (*waits, [])


def test_what_is_only_useful_may_be_missing(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = alpaca_plugin(venue.base_url)
    plugin.execute_order(shares())
    told, ask = plugin.balances(), plugin._http.ask
    untold = {"non_marginable_buying_power", "qty_available"}

    def answer(url: str, params: Any = None) -> Any:
        found = ask(url, params)
        if isinstance(found, dict):
            return {name: one for name, one in found.items() if name not in untold}
        return [{name: None if name in untold else one[name] for name in one} for one in found]

    monkeypatch.setattr(plugin._http, "ask", answer)
    assert plugin.balances() == told


def test_a_share_that_never_traded_is_worth_the_middle_of_its_quote() -> None:
    best = {"bp": "10", "ap": "10.02", "bs": "1", "as": "1", "t": "2026-06-03T14:00:00Z"}
    assert alpaca_answers.quote({"latestQuote": best}, APPLE).last == D("10.01")
    for question in (alpaca_answers.quote, alpaca_answers.best_prices):
        with pytest.raises(QuoteUnavailableError):
            question({"latestQuote": None, "latestTrade": {"p": "10"}}, APPLE)


WORKS: dict[str, Any] = {
    "id": "1", "client_order_id": "ours", "symbol": "AAPL", "qty": "3",
    "filled_qty": "0", "filled_avg_price": None, "side": "buy", "status": "new",
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"filled_avg_price": ""},
        {"filled_qty": None},
        {"filled_qty": ""},
        {"status": "pending_review"},
    ],
    ids=str,
)
def test_an_empty_field_of_a_working_order_ends_no_list(changes: dict[str, Any]) -> None:
    report = alpaca_answers.order(WORKS | changes, APPLE)
    assert (report.status, report.quantity, report.filled_quantity, report.average_price) == (
        VenueStatus.OPEN,
        D(3),
        D(0),
        None,
    )


@pytest.mark.parametrize("status", ["canceled", "expired", "filled"])
def test_an_ended_order_must_tell_how_much_has_filled(status: str) -> None:
    with pytest.raises(QueryFailedError):
        alpaca_answers.order(WORKS | {"status": status, "filled_qty": None}, APPLE)


def test_crypto_is_an_account_of_its_own(venue: RunningVenue) -> None:
    plugin, request = alpaca_plugin(venue.base_url, market="crypto"), coins()
    assert plugin.execute_order(request).outcome is ACCEPTED
    report = plugin.fetch_order(ref(request))
    assert report is not None
    (fill,) = report.fills
    assert (fill.fee, fill.fee_currency) == (D("0.000005"), "BTC")
    assert sent(venue)[0]["time_in_force"] == "gtc"
    assert plugin.positions() == ()
    assert BalanceReport("BTC", D("0.002"), D("0.002")) in plugin.balances()
    sold = coins(side=Side.SELL, quantity=D("0.001"))
    plugin.execute_order(sold)
    report = plugin.fetch_order(ref(sold))
    assert report is not None
    assert report.fills[0].fee_currency == "USD"
    assert report.fills[0].fee == report.fills[0].price * D("0.001") * D("0.0025")
    stop = coins(type=OrderType.STOP, stop_price=D(70000))
    assert plugin.execute_order(stop).code == "NOT_SUPPORTED"


def test_each_market_sees_its_own_orders_and_holdings(venue: RunningVenue) -> None:
    stocks = alpaca_plugin(venue.base_url)
    crypto = alpaca_plugin(venue.base_url, market="crypto")
    stocks.execute_order(shares())
    stocks.execute_order(shares(type=OrderType.LIMIT, price=D(200)))
    crypto.execute_order(coins())
    crypto.execute_order(coins(type=OrderType.LIMIT, price=D(50000)))
    assert [one.symbol for one in stocks.open_orders()] == [APPLE]
    assert [one.symbol for one in crypto.open_orders()] == [BITCOIN]
    assert stocks.positions() == [PositionReport(APPLE, D(3), D("250.01"))]
    names = [{one.currency for one in plugin.balances()} for plugin in (stocks, crypto)]
    assert names == [{"USD", "AAPL"}, {"USD", "BTC"}]


def test_every_trade_is_found_however_many_pages_there_are(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpaca_lists, "PAGE", 2)
    start = datetime.now(UTC) - timedelta(minutes=1)
    plugin = alpaca_plugin(venue.base_url)
    for _ in range(5):
        plugin.execute_order(shares())
    assert len({one.trade_id for one in plugin.trades_since(APPLE, start)}) == 5
    assert plugin.trades_since("BRK.A/USD", start) == []
    monkeypatch.setattr(alpaca_lists, "MOST_PAGES", 2)
    with pytest.raises(QueryFailedError, match="more than"):
        plugin.trades_since(APPLE, start)


QUERIES: dict[str, Callable[[AlpacaPlugin], Any]] = {
    "fetch_order": lambda plugin: plugin.fetch_order(ref(shares())),
    "open_orders": lambda plugin: plugin.open_orders(),
    "trades_since": lambda plugin: plugin.trades_since(APPLE, datetime.now(UTC)),
    "balances": lambda plugin: plugin.balances(),
    "positions": lambda plugin: plugin.positions(),
    "check_permissions": lambda plugin: plugin.check_permissions(),
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_bad_answer_is_no_answer_and_a_bad_moment_is_asked_again(
    venue: RunningVenue, query: str
) -> None:
    plugin = alpaca_plugin(venue.base_url)
    for action in (Action.CUT_JSON, Action.EMPTY, Action.HTML):
        venue.control.queue_faults(Fault(action, endpoint=Endpoint.ANY))
        with pytest.raises(QueryFailedError):
            QUERIES[query](plugin)
    venue.control.queue_faults(Fault(Action.STATUS, endpoint=Endpoint.ANY, status=429))
    with pytest.raises(QueryFailedError) as throttled:
        QUERIES[query](plugin)
    assert throttled.value.code == "RATE_LIMITED"
    venue.control.queue_faults(
        Fault(Action.DROP, endpoint=Endpoint.ANY),
        Fault(Action.STATUS, endpoint=Endpoint.ANY, status=503),
    )
    QUERIES[query](plugin)
    assert venue.control.pending_faults() == []
    venue.control.queue_faults(*[Fault(Action.DROP, endpoint=Endpoint.ANY)] * 3)
    with pytest.raises(QueryFailedError):
        QUERIES[query](plugin)


def test_a_404_of_something_else_is_not_an_absent_order(venue: RunningVenue) -> None:
    plugin = alpaca_plugin(venue.base_url)
    venue.control.queue_faults(Fault(Action.STATUS, endpoint=Endpoint.ANY, status=404))
    with pytest.raises(QueryFailedError):
        plugin.fetch_order(ref(shares()))


def test_a_cancel_is_never_repeated_and_never_guessed(venue: RunningVenue) -> None:
    plugin, request = alpaca_plugin(venue.base_url), shares(type=OrderType.LIMIT, price=D(200))
    placed = plugin.execute_order(request)
    venue.control.queue_faults(Fault(Action.DROP, When.BEFORE, Endpoint.CANCEL))
    result = plugin.cancel_order(ref(request, placed.broker_order_id))
    assert (result.outcome, result.evidence["sent"]) == (UNKNOWN, True)
    deletes = [one for one in venue.control.requests() if one.method == "DELETE"]
    assert len(deletes) == 1
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.OPEN


def test_many_resting_orders_share_one_question(venue: RunningVenue) -> None:
    plugin = alpaca_plugin(venue.base_url)
    resting = [shares(type=OrderType.LIMIT, price=D(200)) for _ in range(5)]
    placed = [plugin.execute_order(request).broker_order_id for request in resting]
    earlier = datetime.now(UTC) - timedelta(minutes=1)
    refs = [
        OrderRef(request.identity, APPLE, order_id, earlier)
        for request, order_id in zip(resting, placed, strict=True)
    ]
    before = len(venue.control.requests())
    found = [plugin.fetch_order(one) for one in refs]
    assert [one.status for one in found if one] == [VenueStatus.OPEN] * 5
    assert len(venue.control.requests()) - before == 1

    plugin.cancel_order(refs[0])
    gone = plugin.fetch_order(refs[0])
    assert gone is not None
    assert gone.status is VenueStatus.CANCELED
    venue.control.fill("alpaca", placed[1], 1)
    filling = alpaca_plugin(venue.base_url).fetch_order(refs[1])
    assert filling is not None
    assert (filling.status, len(filling.fills)) == (VenueStatus.PARTIALLY_FILLED, 1)


def test_orders_placed_by_hand_can_be_read() -> None:
    by_money = {
        "id": "1", "client_order_id": "theirs", "symbol": "AAPL", "qty": None, "notional": "500",
        "filled_qty": "0", "filled_avg_price": None, "side": "buy", "status": "accepted",
    }  # fmt: skip
    report = alpaca_answers.order(by_money, APPLE)
    assert (report.quantity, report.status) == (D(0), VenueStatus.OPEN)
    unnamed = {name: value for name, value in by_money.items() if name != "client_order_id"}
    assert alpaca_answers.order(unnamed, APPLE).client_order_id == ""
    with pytest.raises(QueryFailedError, match="documentation has not"):
        alpaca_answers.order(by_money | {"status": "frozen"}, APPLE)
    replaced = alpaca_answers.order(by_money | {"status": "replaced", "replaced_by": "2"}, APPLE)
    assert (replaced.status, replaced.reason) == (
        VenueStatus.CANCELED,
        "replaced at the venue by order 2",
    )


@pytest.mark.parametrize(
    ("said", "market", "symbol"),
    [
        ("BRK.B", "stocks", "BRK.B/USD"),
        ("BTCUSD", "crypto", "BTC/USD"),
        ("ETH/BTC", "crypto", "ETH/BTC"),
    ],
)
def test_symbols_as_alpaca_says_them(said: str, market: str, symbol: str) -> None:
    assert alpaca_answers.symbol_of(said, market) == symbol


def test_an_order_past_its_claim_is_not_sent(venue: RunningVenue) -> None:
    late = shares(send_before=datetime.now(UTC) - timedelta(seconds=1))
    result = alpaca_plugin(venue.base_url).execute_order(late)
    assert (result.outcome, result.retry_after, sent(venue)) == (NOT_SENT, 1, [])


def test_nobody_listening_means_nothing_was_sent() -> None:
    plugin = alpaca_plugin("http://127.0.0.1:9", market="crypto")
    assert plugin.execute_order(coins()).outcome is NOT_SENT
    assert plugin.health_check().ok is False
    assert plugin.cancel_order(ref(coins())).outcome is NOT_SENT


def test_only_the_live_environment_reaches_the_live_host() -> None:
    hosts = {}
    for environment in Environment:
        plugin = AlpacaPlugin()
        keys = {"api_key": ALPACA_KEY, "api_secret": ALPACA_SECRET}
        plugin.init(AccountConfig("1", "a", environment, {}, keys))
        hosts[environment.value] = (plugin._trading, plugin._data)
        plugin.close()
    paper = ("https://paper-api.alpaca.markets", "https://data.alpaca.markets")
    assert hosts == {
        "dry_run": paper,
        "sandbox": paper,
        "live": ("https://api.alpaca.markets", "https://data.alpaca.markets"),
    }


def test_a_dry_run_reads_and_places_nothing(venue: RunningVenue) -> None:
    plugin = alpaca_plugin(venue.base_url, Environment.DRY_RUN)
    assert plugin.fetch_data(APPLE).last == D(250)
    result = plugin.execute_order(shares())
    assert (result.outcome, result.code, sent(venue)) == (NOT_SENT, "NOT_SUPPORTED", [])


def test_a_dry_run_cancels_nothing(venue: RunningVenue) -> None:
    real, request = alpaca_plugin(venue.base_url), shares(type=OrderType.LIMIT, price=D(200))
    placed = real.execute_order(request)
    rehearsing = alpaca_plugin(venue.base_url, Environment.DRY_RUN)
    canceled = rehearsing.cancel_order(ref(request, placed.broker_order_id))
    assert (canceled.outcome, canceled.code) == (NOT_SENT, "NOT_SUPPORTED")
    assert [one.broker_order_id for one in real.open_orders()] == [placed.broker_order_id]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"market": "options"}, "stocks, crypto"),
        ({"fractional": "yes"}, "true or false"),
        ({"feed": "live"}, "iex"),
        ({"crypto_fee_bps": "NaN"}, "crypto_fee_bps"),
        ({"base_url": "http://example.com"}, "http only to this machine"),
        ({"base_url": "http://[::1"}, "base_url is no address: Invalid IPv6 URL"),
        ({"submit_timeout": 0}, "submit_timeout"),
        ({"outside_hours": True}, "refuse, queue"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        alpaca_plugin(**{"base_url": "http://127.0.0.1:9"} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", [{}, {"api_key": "K"}, {"api_key": "K", "api_secret": "a b"}])
def test_half_a_key_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(CredentialError):
        AlpacaPlugin().init(AccountConfig("1", "a", Environment.SANDBOX, {}, keys))


def test_the_account_is_asked_whether_it_may_trade_and_withdraw(venue: RunningVenue) -> None:
    plugin = alpaca_plugin(venue.base_url)
    venue.control.set_permissions("alpaca", {"transfers_blocked": True})
    assert plugin.check_permissions().withdraw is False
    venue.control.set_permissions("alpaca", {"trading_blocked": True})
    permissions = plugin.check_permissions()
    assert permissions.trade is False
    assert "trading_blocked" in permissions.detail
    assert plugin.execute_order(shares()).outcome is REJECTED


def test_a_wrong_key_is_named(venue: RunningVenue) -> None:
    plugin = AlpacaPlugin()
    keys = {"api_key": ALPACA_KEY, "api_secret": "another"}
    options = {"base_url": venue.base_url, "market": "crypto"}
    plugin.init(AccountConfig("1", "a", Environment.SANDBOX, options, keys))
    with pytest.raises(CredentialError):
        plugin.check_permissions()
    with pytest.raises(QueryFailedError) as refused:
        plugin.balances()
    assert refused.value.code == "CREDENTIALS_REFUSED"


def test_no_price_is_no_quote(venue: RunningVenue) -> None:
    plugin = alpaca_plugin(venue.base_url)
    venue.control.set_depth("alpaca", APPLE, bids=[], asks=[])
    with pytest.raises(QuoteUnavailableError):
        plugin.fetch_data(APPLE)
    with pytest.raises(UnknownSymbolError):
        plugin.fetch_data("NOSUCH/USD")
    crypto = alpaca_plugin(venue.base_url, market="crypto")
    with pytest.raises(QuoteUnavailableError):
        crypto.fetch_data("ZZZ/USD")


@pytest.mark.parametrize(("market", "symbol"), [("stocks", APPLE), ("crypto", BITCOIN)])
@pytest.mark.parametrize("code", ["40010001", "40410000", "42210000"])
def test_a_listed_asset_whose_price_the_data_refuse_is_not_unknown(
    venue: RunningVenue, market: str, symbol: str, code: str
) -> None:
    plugin = alpaca_plugin(venue.base_url, market=market)
    plugin.instrument(symbol)
    for question in (plugin.fetch_data, plugin.order_book):
        venue.control.queue_faults(Fault(Action.CODE, When.BEFORE, Endpoint.PUBLIC, code=code))
        with pytest.raises(QuoteUnavailableError):
            question(symbol)


@pytest.mark.parametrize(
    ("market", "symbol", "last"), [("stocks", APPLE, 250), ("crypto", BITCOIN, 60000)]
)
def test_candles_come_oldest_first(
    venue: RunningVenue, market: str, symbol: str, last: int
) -> None:
    plugin = alpaca_plugin(venue.base_url, market=market)
    candles = plugin.candles(symbol, 3)
    assert [(one.high, one.low, one.close) for one in candles] == [(last + 1, last - 1, last)] * 3
    assert [later.at - one.at for one, later in pairwise(candles)] == [timedelta(hours=1)] * 2
    if market == "crypto":
        assert plugin.candles("ZZZ/USD", 3) == []
    else:
        with pytest.raises(UnknownSymbolError):
            plugin.candles("ZZZ/USD", 3)


def test_immediate_orders_leave_nothing_behind(venue: RunningVenue) -> None:
    plugin = alpaca_plugin(venue.base_url)
    for term in (TimeInForce.IOC, TimeInForce.FOK):
        request = shares(type=OrderType.LIMIT, price=D(200), time_in_force=term)
        assert plugin.execute_order(request).outcome is ACCEPTED
        report = plugin.fetch_order(ref(request))
        assert report is not None
        assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, D(0))
