"""The paper venue: prices, matching, money, and what survives threads, processes and failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, connection, transaction

from brokers.capabilities import IdRule
from brokers.errors import (
    ConfigurationError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.models import PaperBalance, PaperFill, PaperOrder, PaperPrice
from brokers.paper_book import PaperBook
from brokers.plugins.paper import PaperPlugin
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

BTC = "BTC/USDT"
PLAIN = {"spread_bps": 0, "slippage_bps": 0, "fee_bps": 0}
STATUS = VenueStatus
NUMBERS = {"quantity", "price", "stop_price", "reference_price"}


def paper(key: str = "1", **options: Any) -> PaperPlugin:
    plugin = PaperPlugin()
    plugin.init(AccountConfig(key, "paper", Environment.DRY_RUN, options))
    return plugin


def order(number: int = 1, side: Side = Side.BUY, **fields: Any) -> OrderRequest:
    given = {"type": OrderType.MARKET, "quantity": "1", "symbol": BTC, **fields}
    for name in NUMBERS & given.keys():
        given[name] = Decimal(given[name])
    return OrderRequest(identity=f"{number:032x}", side=side, **given)


def ref(number: int = 1) -> OrderRef:
    return OrderRef(f"{number:032x}", BTC, "", None)


def money(plugin: PaperPlugin) -> dict[str, Decimal]:
    return {report.currency: report.total for report in plugin.balances()}


# --- prices -----------------------------------------------------------------------------------------


def test_the_configured_price_rules(db):
    quote = paper(prices={BTC: "60000"}).fetch_data(BTC, Decimal(1))
    assert (quote.bid, quote.ask, quote.last) == (59994, 60006, 60000)
    assert not PaperPrice.objects.exists()


def test_the_hint_of_an_alert_is_the_market_and_is_remembered(db):
    assert paper().fetch_data(BTC, Decimal("50000.123456789")).last == Decimal("50000.12345679")
    assert paper().fetch_data(BTC).last == Decimal("50000.12345679")
    assert paper().fetch_data(BTC, Decimal(51000)).last == 51000
    assert PaperPrice.objects.get().price == 51000
    with pytest.raises(QuoteUnavailableError):
        paper("2").fetch_data(BTC)


@pytest.mark.parametrize("hint", [None, "0", "-1", "NaN", "Infinity", "1E-9", "1E+10"])
def test_without_a_usable_price_there_is_no_quote(db, hint):
    with pytest.raises(QuoteUnavailableError):
        paper().fetch_data(BTC, None if hint is None else Decimal(hint))


def test_a_price_too_small_for_a_bid_is_no_quote(db):
    with pytest.raises(QuoteUnavailableError):
        paper().fetch_data(BTC, Decimal("1E-8"))


@pytest.mark.parametrize(
    "symbol", ["BTCUSDT", "BTC/USDT:USDT", "/USDT", "BTC/", "BTC/BTC", "", "A B/C"]
)
def test_symbols_are_base_and_quote(db, symbol):
    plugin = paper()
    with pytest.raises(UnknownSymbolError):
        plugin.instrument(symbol)
    with pytest.raises(UnknownSymbolError):
        plugin.fetch_data(symbol, Decimal(1))
    result = plugin.execute_order(order(symbol=symbol, reference_price="1"))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "UNKNOWN_SYMBOL")


def test_the_rules_of_any_symbol():
    rules = paper().instrument("AAPL/USD")
    assert (rules.base, rules.quote, rules.market_type) == ("AAPL", "USD", "margin")
    assert rules.quantity_step == rules.price_tick == rules.min_quantity == Decimal("1E-8")


# --- market orders ----------------------------------------------------------------------------------


def test_a_market_order_fills_at_its_reference_price_with_slippage_and_fee(db):
    plugin = paper(prices={BTC: "60000"})
    result = plugin.execute_order(order(quantity="0.5", reference_price="50000"))
    row = PaperOrder.objects.get()
    assert result.outcome is Outcome.ACCEPTED
    assert result.broker_order_id == f"paper-{row.pk}"
    report = result.report
    assert (report.status, report.filled_quantity) == (STATUS.FILLED, Decimal("0.5"))
    assert report.average_price == 50005
    (fill,) = report.fills
    assert (fill.price, fill.fee, fill.fee_currency) == (50005, Decimal("25.0025"), "USDT")
    assert money(plugin) == {
        "BTC": Decimal("0.5"),
        "USD": Decimal(100000),
        "USDT": Decimal("74972.4975"),
    }


@pytest.mark.parametrize(("side", "price"), [(Side.BUY, "60012.0006"), (Side.SELL, "59988.0006")])
def test_without_a_reference_it_meets_the_worst_side_of_the_quote(db, side, price):
    result = paper(prices={BTC: "60000"}).execute_order(order(side=side))
    assert result.report.average_price == Decimal(price)


def test_without_any_price_it_is_rejected_and_leaves_nothing(db):
    plugin = paper()
    result = plugin.execute_order(order())
    assert (result.outcome, result.code) == (Outcome.REJECTED, "REFERENCE_UNAVAILABLE")
    assert not PaperOrder.objects.exists()
    assert plugin.execute_order(order(reference_price="5")).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("quantity", "trades", "parts"),
    [
        ("1", 1, ["1"]),
        ("1", 4, ["0.25"] * 4),
        ("1", 3, ["0.33333333", "0.33333333", "0.33333334"]),
        ("0.00000002", 3, ["0.00000002"]),
    ],
)
def test_a_market_order_in_several_trades(db, quantity, trades, parts):
    plugin = paper(partial_fills=trades)
    report = plugin.execute_order(order(quantity=quantity, reference_price="100")).report
    assert [fill.quantity for fill in report.fills] == [Decimal(part) for part in parts]
    assert len({fill.trade_id for fill in report.fills}) == len(parts)
    assert report.filled_quantity == Decimal(quantity)


def test_a_seed_varies_slippage_the_same_way_every_time(db):
    def prices(seed: str, key: str) -> list[Decimal]:
        plugin = paper(key, seed=seed, slippage_bps=100)
        return [
            plugin.execute_order(order(number, reference_price="100")).report.average_price
            for number in range(1, 9)
        ]

    first = prices("a", "1")
    assert first == prices("a", "2") != prices("b", "3")
    assert all(Decimal("100.5") <= price < Decimal("101.5") for price in first)
    assert len(set(first)) > 4


def test_shorts_are_allowed_and_closing_brings_the_position_to_nothing(db):
    plugin = paper(prices={BTC: "100"}, balance={"USDT": "50"}, **PLAIN)
    plugin.execute_order(order(1, Side.SELL, quantity="3"))
    assert plugin.positions() == [PositionReport(BTC, Decimal(-3), None)]
    assert plugin.balances() == [
        BalanceReport("BTC", Decimal(-3), Decimal(-3)),
        BalanceReport("USDT", Decimal(350), Decimal(350)),
    ]
    plugin.execute_order(order(2, Side.BUY, quantity="3"))
    assert plugin.positions() == []
    assert money(plugin) == {"USDT": Decimal(50)}


# --- resting orders ---------------------------------------------------------------------------------


def resting(side: Side = Side.BUY, **fields: Any) -> PaperPlugin:
    """A plugin whose market is at 100, with order 1 placed."""
    plugin = paper(**PLAIN)
    plugin.fetch_data(BTC, Decimal(100))
    assert plugin.execute_order(order(1, side, **fields)).outcome is Outcome.ACCEPTED
    return plugin


def at(plugin: PaperPlugin, price: str) -> tuple[VenueStatus, Decimal | None]:
    """Status and price of order 1 once the market stands at ``price``."""
    plugin.fetch_data(BTC, Decimal(price))
    report = plugin.fetch_order(ref())
    return report.status, report.average_price


LIMIT, STOP, STOP_LIMIT = OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT


@pytest.mark.parametrize(
    ("side", "fields", "short_of_it", "reached", "price"),
    [
        (Side.BUY, {"type": LIMIT, "price": "90"}, "90.01", "85", "90"),
        (Side.BUY, {"type": LIMIT, "price": "90"}, "91", "90", "90"),
        (Side.SELL, {"type": LIMIT, "price": "110"}, "109.99", "115", "110"),
        (Side.BUY, {"type": STOP, "stop_price": "110"}, "109.99", "112", "112"),
        (Side.SELL, {"type": STOP, "stop_price": "90"}, "90.01", "88", "88"),
        (
            Side.BUY,
            {"type": STOP_LIMIT, "stop_price": "110", "price": "113"},
            "109.99",
            "112",
            "112",
        ),
        (Side.SELL, {"type": STOP_LIMIT, "stop_price": "90", "price": "89"}, "90.01", "89", "89"),
    ],
)
def test_a_resting_order_fills_when_the_price_reaches_it(
    db, side, fields, short_of_it, reached, price
):
    plugin = resting(side, **fields)
    assert at(plugin, short_of_it) == (STATUS.OPEN, None)
    assert at(plugin, reached) == (STATUS.FILLED, Decimal(price))
    assert at(plugin, "100") == (STATUS.FILLED, Decimal(price))
    assert plugin.open_orders() == []


def test_a_triggered_stop_limit_rests_as_a_limit(db):
    plugin = resting(Side.SELL, type=STOP_LIMIT, stop_price="90", price="89")
    assert at(plugin, "80") == (STATUS.OPEN, None)
    assert at(plugin, "88.99") == (STATUS.OPEN, None)
    assert at(plugin, "95") == (STATUS.FILLED, Decimal(89))


@pytest.mark.parametrize(
    ("side", "fields", "price"),
    [
        (Side.BUY, {"type": LIMIT, "price": "120"}, "100"),
        (Side.SELL, {"type": LIMIT, "price": "100"}, "100"),
        (Side.BUY, {"type": STOP, "stop_price": "90"}, "100"),
        (Side.SELL, {"type": STOP_LIMIT, "stop_price": "110", "price": "50"}, "100"),
    ],
)
def test_an_order_the_market_has_already_reached_fills_at_the_market(db, side, fields, price):
    assert at(resting(side, **fields), "100") == (STATUS.FILLED, Decimal(price))


def test_an_arriving_limit_pays_slippage_but_never_beyond_its_limit(db):
    plugin = paper(prices={BTC: "100"}, spread_bps=0, slippage_bps=100, fee_bps=0)
    prices = [
        plugin.execute_order(order(number, type=LIMIT, price=limit)).report.average_price
        for number, limit in enumerate(("110", "100.5"), 1)
    ]
    assert prices == [Decimal(101), Decimal("100.5")]


@pytest.mark.parametrize("kind", [TimeInForce.IOC, TimeInForce.FOK])
@pytest.mark.parametrize(("limit", "status"), [("100", STATUS.FILLED), ("99.99", STATUS.EXPIRED)])
def test_immediate_orders_never_rest(db, kind, limit, status):
    plugin = resting(type=LIMIT, price=limit, time_in_force=kind)
    assert plugin.fetch_order(ref()).status is status
    assert plugin.open_orders() == []
    assert at(plugin, "50")[0] is status


def test_an_immediate_order_without_a_known_price_expires(db):
    result = paper().execute_order(order(type=LIMIT, price="9", time_in_force=TimeInForce.IOC))
    assert (result.outcome, result.report.status) == (Outcome.ACCEPTED, STATUS.EXPIRED)


@pytest.mark.parametrize(("limit", "outcome"), [("99.99", "accepted"), ("100", "rejected")])
def test_a_post_only_order_rests_or_is_rejected(db, limit, outcome):
    plugin = paper(prices={BTC: "100"}, **PLAIN)
    result = plugin.execute_order(order(type=LIMIT, price=limit, post_only=True))
    assert result.outcome.value == outcome
    assert not PaperFill.objects.exists()
    assert PaperOrder.objects.exists() is (outcome == "accepted")


def test_a_changed_configuration_moves_the_market(db):
    plugin = paper(prices={BTC: "100"}, **PLAIN)
    plugin.execute_order(order(type=LIMIT, price="90"))
    assert [report.status for report in plugin.open_orders()] == [STATUS.OPEN]
    moved = paper(prices={BTC: "80"}, **PLAIN)
    assert moved.open_orders() == []
    assert moved.fetch_order(ref()).average_price == 90


def test_a_cancel_comes_too_late_for_a_market_that_is_already_there(db):
    paper(prices={BTC: "100"}).execute_order(order(type=LIMIT, price="90"))
    result = paper(prices={BTC: "80"}).cancel_order(ref())
    assert (result.outcome, result.code) == (Outcome.REJECTED, "NOTHING_TO_CANCEL")
    assert PaperOrder.objects.get().status == "filled"


def test_what_was_never_placed_cannot_be_canceled(db):
    result = paper().cancel_order(ref())
    assert (result.outcome, result.code) == (Outcome.REJECTED, "NOTHING_TO_CANCEL")


def test_a_canceled_order_is_never_filled(db):
    plugin = resting(type=LIMIT, price="90")
    assert plugin.cancel_order(ref()).outcome is Outcome.ACCEPTED
    assert at(plugin, "10") == (STATUS.CANCELED, None)
    assert not PaperFill.objects.exists()


def test_open_orders_and_trades_are_told_by_symbol_and_account(db):
    plugin = resting(type=LIMIT, price="90")
    plugin.execute_order(order(2, symbol="ETH/USDT", type=LIMIT, price="5"))
    other = paper("2")
    assert [report.symbol for report in plugin.open_orders()] == [BTC, "ETH/USDT"]
    assert [report.symbol for report in plugin.open_orders("ETH/USDT")] == ["ETH/USDT"]
    assert other.open_orders() == []
    assert other.fetch_order(ref()) is None
    since = datetime.now(UTC)
    plugin.execute_order(order(3, reference_price="100"))
    assert [fill.quantity for fill in plugin.trades_since(BTC, since)] == [1]
    assert plugin.trades_since(BTC, since + timedelta(minutes=1)) == []
    assert plugin.trades_since("ETH/USDT", since) == []
    assert other.trades_since(BTC, since) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"type": STOP, "stop_price": "9", "time_in_force": TimeInForce.IOC},
        {"type": STOP, "stop_price": "9", "post_only": True},
        {"type": STOP},
        {"type": STOP_LIMIT, "price": "9"},
        {"type": LIMIT, "price": "Infinity"},
        {"quantity": "1E+10"},
    ],
)
def test_what_the_venue_cannot_read_is_not_sent(db, fields):
    result = paper(prices={BTC: "100"}).execute_order(order(**fields))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    assert not PaperOrder.objects.exists()


def test_what_does_not_fit_the_book_is_rejected_and_leaves_nothing(db):
    largest = Decimal(10) ** 10 - 1
    plugin = paper(**PLAIN)
    fits = order(quantity=largest, reference_price="1000000000")
    assert plugin.execute_order(fits).outcome is Outcome.ACCEPTED
    result = plugin.execute_order(order(2, quantity=largest, reference_price=largest - 1))
    assert (result.outcome, result.code) == (Outcome.REJECTED, "VENUE_REJECTED")
    assert plugin.fetch_order(ref(2)) is None
    assert money(plugin)["BTC"] == largest


# --- identity, failures, concurrency ----------------------------------------------------------------


def test_a_second_order_of_an_identity_is_answered_with_the_first(db):
    plugin = paper(prices={BTC: "100"})
    first = plugin.execute_order(order())
    again = plugin.execute_order(order(1, Side.SELL, quantity="7"))
    assert again.report == first.report
    assert PaperFill.objects.count() == 1


def test_an_order_inside_a_transaction_that_could_undo_it_is_a_bug(transactional_db):
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        paper(prices={BTC: "100"}).execute_order(order())


@pytest.mark.parametrize("failure", [DatabaseError, InterfaceError])
def test_a_database_that_does_not_answer(monkeypatch, failure):
    def fail(*_: object) -> None:
        raise failure("secret detail")

    plugin = paper()
    for name in ("place", "cancel", "find", "working", "trades_since", "positions", "balances"):
        monkeypatch.setattr(PaperBook, name, fail)
    monkeypatch.setattr(PaperBook, "quote", fail)
    assert plugin.execute_order(order()).outcome is Outcome.UNKNOWN
    assert plugin.cancel_order(ref()).outcome is Outcome.UNKNOWN
    health = plugin.health_check()
    assert (health.ok, failure.__name__ in health.detail) == (False, True)
    for question in (
        lambda: plugin.fetch_order(ref()),
        plugin.open_orders,
        lambda: plugin.trades_since(BTC, datetime.now(UTC)),
        plugin.positions,
        plugin.balances,
        lambda: plugin.fetch_data(BTC),
    ):
        with pytest.raises(QueryFailedError, match="did not answer"):
            question()


def in_threads(count: int, work: Any) -> list[Any]:
    start, answers = Barrier(count), []

    def run(number: int) -> None:
        try:
            start.wait(10)
            answers.append(work(number))
        finally:
            connection.close()

    threads = [Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == count
    return answers


@pytest.mark.django_db(transaction=True)
def test_one_identity_from_many_threads_is_one_order():
    plugin = paper(prices={BTC: "100"}, **PLAIN)
    results = in_threads(8, lambda _: plugin.execute_order(order()))
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert len({result.broker_order_id for result in results}) == 1
    assert PaperFill.objects.count() == 1
    assert money(plugin)["BTC"] == 1


@pytest.mark.django_db(transaction=True)
def test_money_adds_up_over_many_threads_and_symbols():
    symbols = ("BTC/USDT", "ETH/USDT", "USDT/USD", "BTC/USD")
    plugin = paper(prices=dict.fromkeys(symbols, "2"), **PLAIN)

    def trade(number: int) -> None:
        for round_ in range(10):
            symbol = symbols[(number + round_) % 4]
            request = order(number * 100 + round_, symbol=symbol)
            assert plugin.execute_order(request).outcome is Outcome.ACCEPTED

    in_threads(8, trade)
    assert money(plugin) == {
        "BTC": Decimal(40),
        "ETH": Decimal(20),
        "USD": Decimal(100000 - 80),
        "USDT": Decimal(100000 + 20 - 80),
    }


@pytest.mark.django_db(transaction=True)
def test_a_resting_order_is_filled_once_whoever_looks():
    resting(type=LIMIT, price="90")
    moved = paper(prices={BTC: "80"}, **PLAIN)
    reports = in_threads(8, lambda _: moved.fetch_order(ref()))
    assert {report.status for report in reports} == {STATUS.FILLED}
    assert PaperFill.objects.count() == 1
    assert PaperBalance.objects.get(currency="BTC").total == 1


KILLED_AFTER_THE_ANSWER = """
import os, signal, sys
sys.path.insert(0, os.getcwd())
import django
from django.conf import settings
from decimal import Decimal
django.setup()
settings.DATABASES["default"]["NAME"] = sys.argv[1]
from brokers.plugins.paper import PaperPlugin
from brokers.types import *
plugin = PaperPlugin()
plugin.init(AccountConfig("1", "paper", Environment.DRY_RUN, {"prices": {"BTC/USDT": "100"}}))
request = OrderRequest("1".zfill(32), "BTC/USDT", Side.BUY, OrderType.MARKET, Decimal(1))
assert plugin.execute_order(request).outcome is Outcome.ACCEPTED
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.django_db(transaction=True)
def test_an_answered_order_survives_the_death_of_its_process():
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_THE_ANSWER, connection.settings_dict["NAME"]],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "fks_site.settings"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert paper(prices={BTC: "100"}).fetch_order(ref()).status is STATUS.FILLED


# --- configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"spread": 1}, "no option 'spread'; known: balance, prices"),
        ({"balance": "100"}, "option balance must be an object"),
        ({"balance": {"USDT": "much"}}, "option balance: 'much' is not a number"),
        ({"balance": {"USDT": True}}, "option balance: True is not a number"),
        ({"prices": {BTC: "0"}}, "cannot trade at 0"),
        ({"prices": {"BTCUSDT": "1"}}, "written BASE/QUOTE"),
        ({"spread_bps": -1}, "option spread_bps must lie"),
        ({"slippage_bps": 5001}, "option slippage_bps must lie"),
        ({"fee_bps": "NaN"}, "option fee_bps: 'NaN' is not a number"),
        ({"partial_fills": 0}, "option partial_fills must be a whole number"),
        ({"partial_fills": 1.5}, "option partial_fills must be a whole number"),
    ],
)
def test_a_wrong_option_is_named(options, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        paper(**options)


def test_a_number_of_json_keeps_its_digits(db):
    assert paper(prices={BTC: 60000.1}).fetch_data(BTC).last == Decimal("60000.1")


def test_what_the_venue_can_do(db):
    plugin = paper()
    assert plugin.capabilities.id_rule is IdRule.FOREVER
    assert (plugin.capabilities.submit_timeout, plugin.capabilities.settle_window) == (5, 1)
    assert plugin.capabilities.short_selling
    assert not plugin.capabilities.needs_internet
    assert plugin.client_order_id("ab" * 16) == "ab" * 16
    assert plugin.health_check().ok
    permissions = plugin.check_permissions()
    assert (permissions.trade, permissions.withdraw) == (True, False)


def test_importing_the_plugin_touches_no_model():
    code = "import brokers.plugins.paper, sys; sys.exit('brokers.models' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == 0
