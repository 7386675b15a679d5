"""An order stream hurries fills up, and proves nothing alone: over loopback WebSockets that speak each
exchange's private stream as the installed ccxt.pro uses it.
"""

from __future__ import annotations

import asyncio
import os
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from brokers import ccxt_stream
from brokers.accounts import create_account
from brokers.dialects import binance, binance_stream
from brokers.errors import NotSupportedError, QueryFailedError
from brokers.models import Account
from brokers.sessions import forget_all, plugin_for
from brokers.streams import OrderNews
from brokers.types import FillReport, OrderRef, Side, VenueStatus
from execution import streaming, tasks
from execution.models import Fill, Heartbeat, Order, Signal
from execution.reconcile import reconcile_account
from execution.states import OrderState
from execution.streaming import Follower
from tests.brokers.contract import KEYS, SWAPS, SYMBOLS
from tests.execution.trading import process, send
from tests.factories import (
    AccountFactory,
    OrderFactory,
    RouteFactory,
    StrategyFactory,
    allow_trading,
)
from tests.venues.binance.user_stream import BinanceStream, wrapped
from tests.venues.client import RunningVenue, running_venue
from tests.venues.private_stream import PrivateStream, served
from tests.venues.private_streams import STREAMS

D = Decimal
AT_ONCE = 1.0
"""Seconds within which a fill is seen."""
FACTS = ("trade_id", "quantity", "price", "fee", "fee_currency")
"""What of a trade is the same in an event and in an answer."""

# developers.binance.com, "User Data Streams": the example of executionReport, as a trade
EXAMPLE: dict[str, Any] = {
    "e": "executionReport", "E": 1499405658658, "s": "ETHBTC", "c": "mUvoqJxFIILMdfAW5iGSOW",
    "S": "BUY", "o": "LIMIT", "f": "GTC", "q": "1.00000000", "p": "0.10264410",
    "P": "0.00000000", "F": "0.00000000", "g": -1, "C": "", "x": "TRADE",
    "X": "PARTIALLY_FILLED", "r": "NONE", "i": 4293153, "l": "0.40000000", "z": "0.50000000",
    "L": "0.10264400", "n": "0.00040000", "N": "ETH", "T": 1499405658657, "t": 77,
    "I": 8641984, "w": True, "m": False, "M": False, "O": 1499405658657, "Z": "0.05132200",
    "Y": "0.04105760", "Q": "0.00000000",
}  # fmt: skip


def read(**changes: Any) -> OrderNews:
    [event] = binance_stream.events(wrapped(EXAMPLE | changes))
    return binance_stream.streamed(event, lambda _: "ETH/BTC", binance.STATUSES)


# --- reading --------------------------------------------------------------------------------------


def test_a_trade_is_read_exactly_and_named_as_answers_name_it() -> None:
    news = read()
    assert news.report is not None
    assert news.client_order_id == "mUvoqJxFIILMdfAW5iGSOW"
    report = news.report
    assert (report.broker_order_id, report.symbol, report.side) == ("4293153", "ETH/BTC", Side.BUY)
    assert (report.status, report.quantity) == (VenueStatus.PARTIALLY_FILLED, D(1))
    assert (report.filled_quantity, report.average_price) == (D("0.5"), D("0.102644"))
    (fill,) = report.fills
    at = fill.at
    assert fill == FillReport("ETHBTC-77", D("0.4"), D("0.102644"), D("0.0004"), "ETH", at)
    assert at.isoformat() == "2017-07-07T05:34:18.657000+00:00"


def test_a_cancel_names_the_order_it_ends() -> None:
    news = read(x="CANCELED", X="CANCELED", c="cancel-1", C="ours")
    assert news.report is not None
    assert (news.client_order_id, news.report.status) == ("ours", VenueStatus.CANCELED)
    assert news.report.fills == ()


@pytest.mark.parametrize(
    "changes", [{"X": "STRANGE"}, {"z": "much"}, {"q": None}, {"l": 0.4}, {"T": "soon"}]
)
def test_an_event_that_cannot_be_read_is_no_event(changes: dict[str, Any]) -> None:
    with pytest.raises(QueryFailedError):
        read(**changes)


@pytest.mark.parametrize(
    "message", [None, [], {"id": "1", "status": 200}, {"event": {"e": "balanceUpdate"}}]
)
def test_what_is_about_no_order_says_nothing(message: object) -> None:
    assert not binance_stream.events(message)


# --- following ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RunningVenue]:
    with running_venue() as running:
        yield running


@pytest.fixture
def exchange() -> str:
    """The venue, where a test is not about each of them."""
    return "binance"


@pytest.fixture
def stream(
    server: RunningVenue, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PrivateStream]:
    server.control.reset()
    monkeypatch.setattr(streaming, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(ccxt_stream, "SUBSCRIBED_EVERY", 0.3)
    with served(STREAMS[exchange](server, exchange)) as running:
        yield running
    forget_all()


@pytest.fixture
def account(stream: PrivateStream) -> Account:
    allow_trading()
    swap = {"market_type": "swap"} if stream.name in SWAPS else {}
    names = ("api_key", "api_secret", "api_passphrase")
    made = create_account(
        stream.name,
        broker="ccxt",
        environment="sandbox",
        options={
            "exchange": stream.name.partition("-")[0],
            "base_url": stream.base_url,
            **swap,
        },
        credentials=dict(zip(names, KEYS[stream.name], strict=False)),
    )
    reconcile_account(made)
    made.refresh_from_db()
    return made


@contextmanager
def following(account: Account) -> Iterator[Follower]:
    """A follower in a thread, connected."""
    made: list[tuple[Follower, asyncio.AbstractEventLoop]] = []
    ready = threading.Event()

    async def run() -> None:
        follower = Follower(account)
        made.append((follower, asyncio.get_running_loop()))
        ready.set()
        await follower.run()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10)
    follower, loop = made[0]
    try:
        yield follower
    finally:
        loop.call_soon_threadsafe(follower.stop)
        thread.join(20)
        assert not thread.is_alive()


def connected(stream: PrivateStream, order: Order) -> None:
    """Subscribed, and what was asked about after connecting is answered: from now on events tell."""
    subscribed(stream)
    until(lambda: Order.objects.get(pk=order.pk).polls > order.polls)


def until(condition: Callable[[], object], seconds: float = 10) -> float:
    """How long it took until ``condition`` held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - began


def _is_booked(count: int) -> bool:
    return Fill.objects.count() == count


def resting(account: Account, quantity: str = "0.01") -> Order:
    """A limit order that rests at the venue."""
    strategy = StrategyFactory.create()
    RouteFactory.create(strategy=strategy, account=account)
    terms = {"symbol": symbol_of(account), "quantity": quantity, "price": "50000"}
    process(send(strategy, order_type="limit", **terms))
    order = Order.objects.get(account=account)
    assert order.state == OrderState.OPEN
    return order


def symbol_of(account: Account) -> str:
    return SYMBOLS[account.name]


def subscribed(stream: PrivateStream, times: int = 1) -> None:
    until(lambda: stream.subscriptions >= times)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("exchange", STREAMS)
class TestEveryStream:
    def test_fills_are_seen_well_within_a_second_in_any_order_and_never_twice(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        stream.doubles = True
        with following(account):
            connected(stream, order)
            asked, seconds = len(stream.venue.control.requests()), []
            for count in (1, 2):
                stream.venue.control.fill(stream.name, order.broker_order_id, "0.002")
                seconds.append(until(partial(_is_booked, count)))
            # nothing was asked: the stream alone has told; the quickest tells what it can do
            assert len(stream.venue.control.requests()) == asked
            assert min(seconds) < AT_ONCE
            stream.is_holding = True
            for _ in range(2):
                stream.venue.control.fill(stream.name, order.broker_order_id, "0.003")
            until(lambda: stream.held >= 2)
            assert _is_booked(2)
            stream.release()
            until(lambda: Order.objects.get(pk=order.pk).state == OrderState.FILLED)
        tasks.check_order(str(order.pk))
        reconcile_account(Account.objects.get(pk=account.pk))
        answered = plugin_for(account).trades_since(symbol_of(account), order.created_at)
        booked = set(Fill.objects.values_list(*FACTS))
        assert booked == {tuple(getattr(one, name) for name in FACTS) for one in answered}
        assert len(booked) == 4
        assert Signal.objects.get().state == "executed"

    def test_a_cut_stream_comes_back_and_asks_for_what_it_missed(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        with following(account):
            connected(stream, order)
            stream.is_silent = True
            stream.cut()
            stream.venue.control.fill(stream.name, order.broker_order_id, "0.01")
            until(lambda: Order.objects.get(pk=order.pk).state == OrderState.FILLED)
            subscribed(stream, times=2)
        assert Fill.objects.count() == 1

    def test_a_cancel_at_the_venue_is_seen(self, account: Account, stream: PrivateStream) -> None:
        order = resting(account)
        ref = OrderRef(order.identity, order.symbol, order.broker_order_id, None)
        with following(account):
            connected(stream, order)
            until(lambda: stream.sent)
            plugin_for(account).cancel_order(ref)
            until(lambda: Order.objects.get(pk=order.pk).state == OrderState.CANCELED)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("eager")
class TestFollowing:
    @pytest.mark.parametrize("exchange", ["binance", "kraken", "bybit", "okx"])
    def test_a_refused_subscription_is_tried_again_and_tells_no_secret(
        self, account: Account, stream: PrivateStream, caplog: pytest.LogCaptureFixture
    ) -> None:
        stream.refuses = True
        with following(account):
            until(lambda: any("not subscribed" in one.message for one in caplog.records))
            stream.refuses = False
            subscribed(stream)
        logged = " ".join(one.getMessage() for one in caplog.records)
        assert "signature" not in logged.lower()
        assert KEYS[stream.name][1] not in logged

    def test_a_subscription_the_venue_ends_is_made_anew(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        with following(account):
            subscribed(stream)
            assert isinstance(stream, BinanceStream)
            stream.end_subscription()
            subscribed(stream, times=2)
            stream.venue.control.fill("binance", order.broker_order_id, "0.01")
            until(lambda: Fill.objects.count() == 1)

    def test_an_event_waits_for_the_answer_to_the_placement(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = OrderFactory.create(
            account=account, state=OrderState.SUBMITTING, type="limit", price=D(50000), attempt=1
        )
        trade = EXAMPLE | {"s": "BTCUSDT", "c": order.client_order_id, "q": "0.01", "z": "0.01"}
        trade |= {"l": "0.01", "L": "50000", "X": "FILLED", "Z": "500", "n": "0", "N": None}
        with following(account):
            subscribed(stream)
            stream.send(wrapped(trade))
            time.sleep(0.3)
            assert Order.objects.get(pk=order.pk).state == OrderState.SUBMITTING
            Order.objects.filter(pk=order.pk).update(state=OrderState.OPEN)
            until(lambda: Order.objects.get(pk=order.pk).state == OrderState.FILLED)
        assert Fill.objects.get().trade_id == "BTCUSDT-77"

    def test_what_polling_was_faster_with_changes_nothing(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        with following(account):
            connected(stream, order)
            stream.is_holding = True
            stream.venue.control.fill("binance", order.broker_order_id, "0.01")
            until(lambda: stream.held)
            tasks.check_order(str(order.pk))
            before = Order.objects.get(pk=order.pk)
            assert before.state == OrderState.FILLED
            stream.release()
            until(lambda: "TRADE" in [one["event"]["x"] for one in stream.sent])
        assert Fill.objects.count() == 1
        assert Order.objects.get(pk=order.pk).updated_at == before.updated_at

    @pytest.mark.parametrize("exchange", ["kraken"])
    def test_an_event_without_our_id_waits_until_the_answer_tells_the_venues(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        theirs = order.broker_order_id
        Order.objects.filter(pk=order.pk).update(state=OrderState.SUBMITTING, broker_order_id="")
        with following(account):
            subscribed(stream)
            stream.venue.control.fill("kraken", theirs, "0.01")
            until(lambda: "trade" in [one["data"][0]["exec_type"] for one in stream.sent])
            assert not Fill.objects.exists()
            Order.objects.filter(pk=order.pk).update(state=OrderState.OPEN, broker_order_id=theirs)
            until(lambda: Order.objects.get(pk=order.pk).state == OrderState.FILLED)
        assert Fill.objects.count() == 1

    def test_other_peoples_orders_are_left_alone(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        with following(account):
            subscribed(stream)
            stream.send(wrapped(EXAMPLE))
            stream.venue.control.fill("binance", order.broker_order_id, "0.01")
            until(lambda: Fill.objects.count() == 1)
        assert Order.objects.count() == 1

    def test_what_cannot_be_read_makes_it_ask_the_venue(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        with following(account):
            subscribed(stream)
            stream.is_silent = True
            stream.venue.control.fill("binance", order.broker_order_id, "0.01")
            time.sleep(0.2)
            stream.is_silent = False
            stream.send(wrapped(EXAMPLE | {"X": "STRANGE"}))
            until(lambda: Order.objects.get(pk=order.pk).state == OrderState.FILLED)

    def test_it_shows_that_it_lives_and_ends_with_its_account(
        self, account: Account, stream: PrivateStream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streaming, "BEAT_EVERY", 0.1)
        with following(account):
            subscribed(stream)
            until(lambda: Heartbeat.objects.filter(name=f"stream {account.pk}").exists())
            Account.objects.filter(pk=account.pk).update(version=account.version + 1)
            subscribed(stream, times=2)  # with the account as it is now
            Account.objects.filter(pk=account.pk).update(is_active=False)
            time.sleep(0.5)

    def test_the_command_follows_until_sigterm_and_alone(
        self, account: Account, stream: PrivateStream
    ) -> None:
        order = resting(account)
        name = str(connection.settings_dict["NAME"])
        url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
        command = [sys.executable, "manage.py", "stream_account", "binance"]
        environment = {**os.environ, "DATABASE_URL": url}
        with subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment) as process:
            try:
                until(lambda: stream.subscriptions == 1, 60)
                with pytest.raises(CommandError, match="somebody follows binance already"):
                    call_command("stream_account", "binance")
                stream.venue.control.fill("binance", order.broker_order_id, "0.01")
                until(lambda: Fill.objects.count() == 1)
                process.send_signal(signals.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()


# --- who has none ---------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "there is no account 'nobody'"),
        ("paper", "has no order stream"),
        ("off", "is switched off"),
    ],
)
def test_who_cannot_be_followed_is_told_why(name: str, said: str) -> None:
    AccountFactory.create(name="paper")
    AccountFactory.create(name="off", is_active=False)
    with pytest.raises(CommandError, match=said):
        call_command("stream_account", name)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("exchange", "environment", "said"),
    [
        ("gate", "sandbox", "Gate spot has no order stream that is proven; it is polled"),
        ("kraken", "dry_run", "a dry-run account has no orders at the exchange to follow"),
    ],
)
def test_what_has_no_stream_says_so(exchange: str, environment: str, said: str) -> None:
    made = create_account(
        "quiet",
        broker="ccxt",
        environment=environment,
        options={"exchange": exchange},
        credentials={"api_key": "key", "api_secret": "c2VjcmV0"},
    )
    with pytest.raises(NotSupportedError, match=said):
        plugin_for(made).order_stream()
