"""A paper account at the quotes of another account: a real market, rehearsed orders."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from brokers import paper_quotes
from brokers.accounts import create_account
from brokers.errors import ConfigurationError, QueryFailedError, QuoteUnavailableError
from brokers.models import Account
from brokers.plugins.paper import PaperPlugin
from brokers.sessions import forget_all, plugin_for
from brokers.types import (
    AccountConfig,
    Environment,
    OrderType,
    Outcome,
    Quote,
    Side,
    VenueStatus,
)
from tests.brokers.contract import SYMBOL, limit, order, ref
from tests.factories import AccountFactory
from tests.venues.client import RunningVenue
from tests.venues.credentials import ALPACA_KEY, ALPACA_SECRET

pytestmark = pytest.mark.django_db(transaction=True)
D = Decimal
FREE: dict[str, Any] = {"quotes_from": "source", "fee_bps": "0", "slippage_bps": "0"}


class Market:
    """A source whose price a test moves."""

    def __init__(self) -> None:
        self.price = D(60000)
        self.failure: Exception | None = None
        self.asked = 0

    def __call__(self, symbol: str) -> Quote:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        half = D(10)
        at = datetime.now(UTC)
        return Quote(symbol, self.price - half, self.price + half, self.price, at)


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Market:
    monkeypatch.setattr(paper_quotes, "FRESH", 0.0)
    return Market()


def paper(market: Market | None, **options: Any) -> PaperPlugin:
    plugin = PaperPlugin()
    config = AccountConfig("9", "paper", Environment.DRY_RUN, FREE | options, quotes=market)
    plugin.init(config)
    return plugin


def test_its_bid_and_ask_are_the_market_and_alerts_prices_are_not(market: Market) -> None:
    quote = paper(market).fetch_data(SYMBOL, D(1))
    assert (quote.bid, quote.ask, quote.last) == (D(59990), D(60010), D(60000))


def test_a_market_order_fills_at_the_price_of_its_moment(market: Market) -> None:
    plugin = paper(market)
    market.price = D(61000)
    bought = plugin.execute_order(order(reference_price=D(60000)))
    sold = plugin.execute_order(order(side=Side.SELL, reference_price=D(60000)))
    assert bought.report is not None
    assert sold.report is not None
    assert (bought.report.average_price, sold.report.average_price) == (D(61010), D(60990))


def test_a_resting_order_fills_when_the_market_reaches_it(market: Market) -> None:
    plugin, request = paper(market), limit("59000")
    plugin.execute_order(request)
    stop = order(side=Side.SELL, type=OrderType.STOP, stop_price=D(58500))
    plugin.execute_order(stop)
    assert [one.status for one in plugin.open_orders()] == [VenueStatus.OPEN] * 2
    market.price = D(58900)
    found = plugin.fetch_order(ref(request))
    assert found is not None
    assert (found.status, found.average_price) == (VenueStatus.FILLED, D(59000))
    market.price = D(58400)
    assert plugin.open_orders() == []
    triggered = plugin.fetch_order(ref(stop))
    assert triggered is not None
    assert triggered.average_price == D(58390)


def test_without_a_quote_nothing_trades(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, request = paper(market), limit("59000")
    plugin.execute_order(request)
    monkeypatch.setattr(paper_quotes, "KNOWN", 0.0)
    market.price, market.failure = D(50000), QueryFailedError("no answer")
    with pytest.raises(QueryFailedError):
        plugin.fetch_data(SYMBOL)
    result = plugin.execute_order(order())
    assert (result.outcome, result.retry_after) == (Outcome.NOT_SENT, 1)
    found = plugin.fetch_order(ref(request))
    assert found is not None
    assert found.status is VenueStatus.OPEN
    market.failure = QuoteUnavailableError("it does not trade now")
    ended = plugin.execute_order(order())
    assert (ended.outcome, ended.code) == (Outcome.NOT_SENT, "REFERENCE_UNAVAILABLE")
    assert ended.retry_after is None


def test_a_quote_answers_for_a_second() -> None:
    market = Market()
    plugin = paper(market)
    for _ in range(5):
        plugin.fetch_data(SYMBOL)
    assert market.asked == 1


def test_an_account_without_its_source_has_no_prices() -> None:
    with pytest.raises(QuoteUnavailableError):
        paper(None).fetch_data(SYMBOL, D(60000))


@pytest.mark.parametrize(
    "options", [{"quotes_from": ["source"]}, {"prices": {"BTC/USDT": "1"}}], ids=str
)
def test_options_that_contradict_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        paper(None, **options)


# --- from an account ------------------------------------------------------------------------------


@pytest.fixture
def shares(venue: RunningVenue) -> Iterator[Account]:
    yield create_account(
        "source",
        broker="alpaca",
        environment="dry_run",
        options={"base_url": venue.base_url},
        credentials={"api_key": ALPACA_KEY, "api_secret": ALPACA_SECRET},
    )
    forget_all()


def test_a_real_accounts_quotes_and_nothing_else_of_it(
    shares: Account, venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_quotes, "FRESH", 0.0)
    mine = AccountFactory.create(options=FREE)
    plugin = plugin_for(mine)
    assert plugin.fetch_data("AAPL/USD").last == D(250)
    venue.control.set_price("alpaca", "AAPL/USD", 300, 2)
    bought = plugin.execute_order(order(symbol="AAPL/USD", quantity=D(3)))
    assert bought.report is not None
    assert bought.report.average_price == D(301)
    assert {one.endpoint for one in venue.control.requests()} == {"public"}
    assert venue.control.ledger("alpaca").orders == []


@pytest.mark.parametrize("name", ["nobody", "another"])
def test_a_source_that_is_none(name: str) -> None:
    AccountFactory.create(name="another")
    mine = AccountFactory.create(options=FREE | {"quotes_from": name})
    with pytest.raises(ConfigurationError, match="quotes_from"):
        plugin_for(mine).fetch_data(SYMBOL)
    forget_all()
