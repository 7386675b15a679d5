"""One exchange account: its clock, its threads, its key, its secrets."""

from __future__ import annotations

import logging
import os
import threading
from multiprocessing import get_context

import pytest

from brokers.errors import CredentialError, QueryFailedError
from brokers.key_turns import TURNS
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import OrderRequest, Outcome, Permissions
from tests.brokers.contract import CCXT_VENUES, KEYS, SWAPS, SYMBOL, SYMBOLS, ccxt_plugin, ref
from tests.brokers.contract import order as plain_order
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault, When

EXCHANGES = CCXT_VENUES
CLOCKED = [venue for venue in CCXT_VENUES if venue != "kraken"]
"""Those that look at the time of a request; Kraken counts nonces."""
ACCEPTED, REJECTED, NOT_SENT, UNKNOWN = (
    Outcome.ACCEPTED,
    Outcome.REJECTED,
    Outcome.NOT_SENT,
    Outcome.UNKNOWN,
)


def order(exchange: str = "binance") -> OrderRequest:
    return plain_order(symbol=SYMBOLS[exchange])


@pytest.mark.parametrize("exchange", CLOCKED)
def test_a_wrong_clock_is_healed_and_the_order_not_sent_twice(
    venue: RunningVenue, exchange: str
) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), order(exchange)
    plugin.instrument(SYMBOLS[exchange])
    # what is asked before the first order of a swap heals the clock already
    plugin._prepared.add(SYMBOLS[exchange])
    venue.control.set_clock_offset(-60_000)
    result = plugin.execute_order(request)
    assert (result.outcome, result.retry_after) == (NOT_SENT, 1)
    assert venue.control.ledger(exchange).orders == []
    assert plugin.execute_order(request).outcome is ACCEPTED
    venue.control.set_clock_offset(60_000)
    assert plugin.balances()
    venue.control.set_clock_offset(0)
    late = plugin.cancel_order(ref(order(exchange)))
    assert late.outcome is NOT_SENT
    assert plugin.cancel_order(ref(order(exchange))).outcome is REJECTED
    venue.control.set_clock_offset(60_000)
    skew = plugin.health_check().clock_skew_ms
    assert skew is not None
    assert abs(skew - 60_000) < 1000


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_many_threads_share_one_plugin(venue: RunningVenue, exchange: str) -> None:
    plugin, outcomes = ccxt_plugin(exchange, venue.base_url), []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(10):
            request = order(exchange)
            result = plugin.execute_order(request)
            report = plugin.fetch_order(ref(request, result.broker_order_id))
            ours = report is not None and report.client_order_id == request.identity
            outcomes.append((result.outcome, ours, plugin.fetch_data(SYMBOLS[exchange]).bid > 0))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [(ACCEPTED, True, True)] * 80
    assert len(venue.control.ledger(exchange).orders) == 80


def test_a_forked_worker_opens_connections_of_its_own(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("binance", venue.base_url)
    plugin.execute_order(order())

    def work() -> None:
        results = [plugin.execute_order(order()).outcome for _ in range(20)]
        os._exit(0 if results == [ACCEPTED] * 20 else 1)

    workers = [get_context("fork").Process(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert len(venue.control.ledger("binance").orders) == 81


def test_two_accounts_with_one_kraken_key_take_turns(venue: RunningVenue) -> None:
    plugins = [ccxt_plugin("kraken", venue.base_url) for _ in range(4)]
    results: list[Outcome] = []

    def work(plugin: CcxtPlugin) -> None:
        results.extend(plugin.execute_order(order()).outcome for _ in range(15))

    threads = [threading.Thread(target=work, args=(plugin,)) for plugin in plugins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [ACCEPTED] * 60


def test_a_kraken_key_in_use_for_too_long_sends_nothing(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = ccxt_plugin("kraken", venue.base_url)
    monkeypatch.setattr("brokers.client_pool.LONGEST_TURN", 0.01)
    with TURNS.turn(f"kraken {venue.base_url}", KEYS["kraken"][0], 1):
        result = plugin.execute_order(order())
        assert (result.outcome, result.code) == (NOT_SENT, "VENUE_UNREACHABLE")
        assert result.retry_after == 1
        assert plugin.fetch_data(SYMBOL).last == 60000
        with pytest.raises(QueryFailedError, match="another request of this key hangs"):
            plugin.balances()
    assert not [one for one in venue.control.requests() if "/private/" in one.path]


WITHDRAW = {"binance": {"enableWithdrawals": True}, "kraken": {"withdraw-funds": True}}
WITHDRAW |= {key: {"withdraw": True} for key in ("bybit", "bybit-linear", "okx", "okx-swap")}
NO_TRADE = {"binance": {"enableSpotAndMarginTrading": False}, "kraken": {"modify-trades": False}}
NO_TRADE |= {key: {"trade": False} for key in ("bybit", "bybit-linear", "okx", "okx-swap")}


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_permissions_are_what_the_venue_says(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    assert plugin.check_permissions() == Permissions(True, False, False)
    venue.control.set_permissions(exchange, WITHDRAW[exchange])
    assert plugin.check_permissions().withdraw is True
    venue.control.set_permissions(exchange, NO_TRADE[exchange])
    assert plugin.check_permissions().trade is False
    result = plugin.execute_order(order(exchange))
    assert (result.outcome, result.code) == (REJECTED, "CREDENTIALS_REFUSED")


def test_a_venue_without_that_question_does_not_tell(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("binance", venue.base_url)
    plugin.instrument(SYMBOL)
    missing = Fault(Action.STATUS, When.BEFORE, endpoint=Endpoint.ANY, status=404)
    venue.control.queue_faults(missing)
    told = plugin.check_permissions()
    assert (told.trade, told.withdraw, told.ip_restricted) == (None, None, None)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_foreign_key_is_refused(venue: RunningVenue, exchange: str) -> None:
    foreign = (KEYS[exchange][0][::-1], *KEYS[exchange][1:])
    plugin = ccxt_plugin(exchange, venue.base_url, credentials=foreign)
    result = plugin.execute_order(order(exchange))
    refused = NOT_SENT if exchange in SWAPS else REJECTED
    assert (result.outcome, result.code) == (refused, "CREDENTIALS_REFUSED")
    with pytest.raises(CredentialError):
        plugin.check_permissions()
    with pytest.raises(QueryFailedError) as caught:
        plugin.balances()
    assert caught.value.code == "CREDENTIALS_REFUSED"


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_no_key_secret_or_signature_shows_anywhere(
    venue: RunningVenue,
    exchange: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    plugin = ccxt_plugin(exchange, venue.base_url)
    shown: list[object] = []
    for fault in (None, Fault(Action.DROP), Fault(Action.STATUS, status=500)):
        if fault is not None:
            everywhere = fault.as_json() | {"endpoint": Endpoint.ANY, "count": 2}
            venue.control.queue_faults(Fault.from_json(everywhere))
        shown.append(plugin.execute_order(order(exchange)))
        try:
            shown.append(plugin.balances())
        except QueryFailedError as error:
            shown += [error, error.__cause__, error.__suppress_context__]
    text = f"{shown} {caplog.text} {''.join(capfd.readouterr())}"
    assert len(shown) > 5
    for secret in KEYS[exchange]:
        assert secret not in text
        assert secret not in repr(plugin)
    assert "signature=" not in text
