"""Smart order routing between exchanges that answer over HTTP: real books, real fees, real silence."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from brokers.accounts import create_account
from brokers.sessions import forget_all
from execution.models import Order, RoutingDecision, Signal, Strategy
from execution.reconcile import reconcile_account
from tests.brokers.contract import KEYS
from tests.execution.trading import LANE, process, send
from tests.factories import RouteFactory, StrategyFactory, allow_trading
from tests.venues.client import RunningVenue, VenueControl, running_venue
from tests.venues.faults import Action, Endpoint, Fault, When

D = Decimal
NAMES = ("binance", "bybit", "kraken", "okx")
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("eager")]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningVenue]:
    with running_venue() as running:
        yield running


@pytest.fixture
def venue(server: RunningVenue) -> Iterator[VenueControl]:
    server.control.reset()
    yield server.control
    forget_all()


@pytest.fixture
def strategy(server: RunningVenue, venue: VenueControl) -> Strategy:
    """One group over an account at each of four exchanges."""
    allow_trading()
    found = StrategyFactory.create()
    fields = ("api_key", "api_secret", "api_passphrase")
    for name in NAMES:
        account = create_account(
            name,
            broker="ccxt",
            environment="sandbox",
            options={"exchange": name, "base_url": server.base_url},
            credentials=dict(zip(fields, KEYS[name], strict=False)),
            quote_currency="USDT",
        )
        RouteFactory.create(strategy=found, account=account, group="all")
        reconcile_account(account)
    return found


def account_of(signal: Signal) -> str:
    return Order.objects.get(signal=signal).account.name


def offer(venue: VenueControl, name: str, asks: list[tuple[str, str]]) -> None:
    venue.set_depth(name, LANE, bids=[("58900", 5)], asks=asks)


def buy(strategy: Strategy, quantity: str = "0.01") -> Signal:
    return process(send(strategy, quantity=quantity))


def test_prices_fees_depth_and_silence_decide_in_turn(
    strategy: Strategy, venue: VenueControl
) -> None:
    for name in NAMES:
        venue.set_price(name, LANE, 60000)
    # Kraken's fee of 0.4 % eats up a price that is 0.2 % better.
    offer(venue, "kraken", [("59880", "5")])
    offer(venue, "okx", [("59900", "0.004"), ("60500", "5")])
    offer(venue, "bybit", [("59950", "5")])

    first = buy(strategy)
    assert (first.state, account_of(first)) == ("executed", "bybit")
    told = {one["account"]: one for one in RoutingDecision.objects.get(signal=first).candidates}
    assert list(told) == ["bybit", "binance", "kraken", "okx"]
    assert told["okx"]["price"] == "60260"
    assert (told["bybit"]["price"], told["bybit"]["fee_rate"]) == ("59950", "0.001")
    assert (told["bybit"]["net"], told["kraken"]["fee_rate"]) == ("60009.95", "0.004")

    small = buy(strategy, "0.004")
    assert account_of(small) == "okx"

    venue.set_fault_rates(Fault(Action.DROP, When.BEFORE, venue="bybit", endpoint=Endpoint.PUBLIC))
    second = buy(strategy)
    left_out = {
        one["account"]: one["code"]
        for one in RoutingDecision.objects.get(signal=second).candidates
        if "code" in one
    }
    assert (account_of(second), left_out) == ("binance", {"bybit": "VENUE_UNREACHABLE"})


def test_a_close_sells_where_each_part_was_bought(strategy: Strategy, venue: VenueControl) -> None:
    offer(venue, "binance", [("59000", "5")])
    assert account_of(buy(strategy)) == "binance"
    offer(venue, "binance", [("61000", "5")])
    offer(venue, "bybit", [("59000", "5")])
    assert account_of(buy(strategy)) == "bybit"
    closing = process(send(strategy, "close"))
    assert closing.state == "executed"
    orders = Order.objects.filter(signal=closing).values_list("account__name", "side", "state")
    assert sorted(orders) == [("binance", "sell", "filled"), ("bybit", "sell", "filled")]
    assert venue.ledger("kraken").orders == venue.ledger("okx").orders == []
