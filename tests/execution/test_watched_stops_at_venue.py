"""A watched stop at an exchange over HTTP that takes no stop orders: from the alert to the sale."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from brokers.accounts import create_account
from brokers.models import Account
from brokers.sessions import forget_all
from execution import account_tasks, tasks
from execution.models import Order, Protection, Strategy
from execution.reconcile import reconcile_account
from execution.states import TERMINAL
from tests.brokers.contract import KEYS
from tests.execution.trading import LANE, held, process, send
from tests.factories import RouteFactory, StrategyFactory, allow_trading
from tests.venues.client import RunningVenue, running_venue
from tests.venues.faults import Action, Endpoint, Fault, When

D = Decimal
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("eager")]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningVenue]:
    with running_venue() as running:
        yield running


@pytest.fixture
def account(server: RunningVenue) -> Iterator[Account]:
    """At an exchange that speaks like Binance and of which only market and limit orders are known."""
    server.control.reset()
    server.control.set_price("binance", LANE, 60000, spread=0)
    allow_trading()
    made = create_account(
        "watched",
        broker="ccxt",
        environment="sandbox",
        options={
            "exchange": "binanceus",
            "base_url": server.base_url,
            "unverified_venue": True,
            "watched_stops": True,
        },
        credentials=dict(zip(("api_key", "api_secret"), KEYS["binance"], strict=True)),
        quote_currency="USDT",
    )
    reconcile_account(made)
    yield made
    forget_all()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    found = StrategyFactory.create()
    RouteFactory.create(strategy=found, account=account)
    return found


def read_back() -> None:
    """The venue is asked about every order that has not ended, as polling does."""
    for order in Order.objects.exclude(state__in=TERMINAL):
        tasks.check_order(str(order.pk))


def bought(strategy: Strategy, account: Account) -> None:
    signal = process(send(strategy, quantity="0.01", stop_loss="58000"))
    assert Order.objects.filter(signal=signal).exists(), signal.detail
    read_back()
    assert held(account) == D("0.00999")  # Binance takes its fee in the coin


def test_what_is_held_is_sold_once_the_price_has_passed(
    server: RunningVenue, strategy: Strategy, account: Account
) -> None:
    bought(strategy, account)
    assert len(server.control.ledger("binance").orders) == 1
    server.control.set_price("binance", LANE, 58001, spread=0)
    account_tasks.watch(account.pk)
    assert Protection.objects.get().guard == "watched"

    server.control.set_price("binance", LANE, 57500, spread=0)
    account_tasks.watch(account.pk)
    read_back()

    _, second = server.control.ledger("binance").orders
    assert (second.side, second.type, second.quantity) == ("sell", "MARKET", D("0.00999"))
    assert held(account) == 0
    assert Protection.objects.get().guard == "ended"


@pytest.mark.parametrize("when", list(When))
def test_a_lost_answer_sells_nothing_twice(
    server: RunningVenue, strategy: Strategy, account: Account, when: When
) -> None:
    bought(strategy, account)
    server.control.set_price("binance", LANE, 57500, spread=0)
    server.control.queue_faults(Fault(Action.DROP, when, endpoint=Endpoint.ORDER))
    account_tasks.watch(account.pk)
    for _ in range(3):
        account_tasks.watch(account.pk)
    read_back()
    sold = [one for one in server.control.ledger("binance").orders if one.side == "sell"]
    stop = Order.objects.get(role=Order.Role.STOP_LOSS)
    if when is When.AFTER:
        assert (len(sold), stop.state, held(account)) == (1, "filled", 0)
    else:
        assert (len(sold), stop.state) == (0, "unknown")
        assert Protection.objects.get().guard == "unguarded"
