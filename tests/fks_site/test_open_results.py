"""What open positions have gained, by the fills of each strategy."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.models import Account, Instrument
from brokers.types import VenueStatus
from execution import fills
from execution.models import Fill, Position, Strategy
from fks_site import open_results
from fks_site.trade_filter import TradeFilter
from fks_site.users import restrict
from tests.brokers.scripted import report_of, trade
from tests.factories import (
    AccountFactory,
    OrderFactory,
    PositionFactory,
    StrategyFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
D = Decimal
LANE = "BTC/USDT"


@pytest.fixture
def account() -> Account:
    return AccountFactory.create(name="main")


def traded(
    account: Account,
    side: str,
    quantity: str | Decimal,
    price: str | Decimal,
    strategy: Strategy | None = None,
    *,
    fee: str = "0",
    fee_currency: str = "USDT",
) -> None:
    order = OrderFactory.create(
        account=account, side=side, quantity=D(quantity), strategy=strategy, state="open"
    )
    done = trade(f"T{order.pk}", quantity, price, fee=fee, fee_currency=fee_currency)
    fills.apply_report(order, report_of(order, VenueStatus.FILLED, done), source="test")


def priced(account: Account, price: str, at: datetime | None = None) -> None:
    Instrument.objects.update_or_create(
        account=account,
        symbol=LANE,
        defaults={
            "venue_symbol": "BTCUSDT",
            "base": "BTC",
            "quote": "USDT",
            "quantity_step": D("0.001"),
            "price_tick": D(1),
            "refreshed_at": timezone.now(),
            "last_price": D(price),
            "last_price_at": at or timezone.now(),
        },
    )


def shown(**asked: str) -> dict[str, tuple[Decimal, Decimal | None]]:
    query = QueryDict(mutable=True)
    query.update(asked)
    user = UserFactory.create(is_superuser=True)
    rows = open_results.of_positions(TradeFilter.of(query, user), timezone.now())
    return {one.strategy: (one.quantity, one.unrealised) for one in rows}


def whole(account: Account, price: str) -> Decimal:
    row = Position.objects.get(account=account, symbol=LANE)
    return row.quantity * (D(price) - row.average_price) if row.average_price else D(0)


def test_each_strategy_has_what_its_own_fills_hold(account: Account) -> None:
    trend, revert = StrategyFactory.create(slug="trend"), StrategyFactory.create(slug="revert")
    traded(account, "buy", "0.02", "60000", trend, fee="1")
    traded(account, "buy", "0.01", "63000", revert)
    traded(account, "sell", "0.01", "62000", trend)
    priced(account, "64000")
    found = shown()
    assert {name: quantity for name, (quantity, _) in found.items()} == {
        "trend": D("0.01"),
        "revert": D("0.01"),
    }
    # 0.02 at 61000 is what is left; trend's sale realised 10, so 0.01 of its 70 is left besides
    assert found["revert"][1] == D(10)
    assert found["trend"][1] == D(50)
    assert whole(account, "64000") == D(60)


def test_what_is_not_known_is_not_zero(account: Account, admin_client: Client) -> None:
    account.environment = Account.Environment.SANDBOX
    account.save()
    traded(account, "buy", "0.01", "60000")
    assert shown() == {"by hand": (D("0.01"), None)}
    assert "not known" in admin_client.get(reverse("admin:performance")).content.decode()
    priced(account, "61000", timezone.now() - timedelta(minutes=6))
    assert shown() == {"by hand": (D("0.01"), None)}
    priced(account, "61000")
    assert shown() == {"by hand": (D("0.01"), D(10))}
    page = admin_client.get(reverse("admin:performance")).content.decode()
    assert "not known" not in page
    assert "+10.00" in page


def test_a_position_that_is_flat_shows_nothing(account: Account) -> None:
    traded(account, "buy", "0.01", "60000")
    traded(account, "sell", "0.01", "61000")
    priced(account, "64000")
    assert shown() == {}


def test_what_was_before_the_position_was_last_flat_is_not_read(account: Account) -> None:
    trend, revert = StrategyFactory.create(slug="trend"), StrategyFactory.create(slug="revert")
    traded(account, "buy", "0.01", "60000", trend)
    traded(account, "sell", "0.01", "61000", revert)
    traded(account, "buy", "0.02", "62000", trend)
    priced(account, "63000")
    first = Fill.objects.order_by("id").last()
    assert first is not None
    assert Position.objects.get().first_fill_id == first.pk
    assert shown() == {"trend": (D("0.02"), D(20))}
    traded(account, "buy", "0.01", "62000", revert)
    assert Position.objects.get().first_fill_id == first.pk
    assert shown() == {"trend": (D("0.02"), D(20)), "revert": (D("0.01"), D(10))}


def test_a_fee_in_the_coin_leaves_less_of_it(account: Account) -> None:
    traded(account, "buy", "0.01", "60000", fee="0.00001", fee_currency="BTC")
    traded(account, "buy", "0.01", "60000", fee="0.1", fee_currency="BNB")
    priced(account, "61000")
    assert shown() == {"by hand": (D("0.01999"), D("19.99"))}


def test_what_was_adopted_is_nobodys(account: Account) -> None:
    traded(account, "buy", "0.01", "60000")
    Position.objects.update(quantity=D("0.03"))
    priced(account, "61000")
    assert shown() == {"by hand": (D("0.01"), D(10)), "no fill of ours": (D("0.02"), None)}


def test_the_filter_and_the_users_accounts_hold(account: Account) -> None:
    other = AccountFactory.create(name="other")
    trend = StrategyFactory.create(slug="trend")
    traded(account, "buy", "0.01", "60000", trend)
    traded(other, "buy", "0.05", "60000")
    PositionFactory.create(account=other, symbol="ETH/USDT", quantity=D(1))
    assert set(shown(strategy="trend")) == {"trend"}
    assert shown(account="other", symbol="btc/usdt") == {"by hand": (D("0.05"), None)}
    user = UserFactory.create()
    restrict(user, [account], reason="one desk only")
    form = TradeFilter.of(QueryDict(), user)
    assert [one.account for one in open_results.of_positions(form, timezone.now())] == ["main"]


TRADES = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.decimals("0.001", "5", places=3),
        st.decimals("1", "90000", places=2),
        st.integers(0, 2),
        st.sampled_from(["USDT", "BTC", "BNB"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trades=TRADES)
def test_the_parts_add_up_to_the_position(
    trades: list[tuple[str, Decimal, Decimal, int, str]],
) -> None:
    account = AccountFactory.create()
    owners = [None, StrategyFactory.create(), StrategyFactory.create()]
    for side, quantity, price, owner, coin in trades:
        traded(account, side, quantity, price, owners[owner], fee="0.0005", fee_currency=coin)
    priced(account, "61000")
    parts = shown(account=account.name).values()
    held = Position.objects.get(account=account)
    if held.quantity:
        assert sum(quantity for quantity, _ in parts) == held.quantity
        gained = sum((gain or D(0) for _, gain in parts), D(0))
        assert abs(gained - whole(account, "61000")) < D("1E-8")
