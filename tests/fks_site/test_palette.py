"""The command palette: finds pages, actions and rows, for each as far as they may see."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils.html import escape
from pytest_django.fixtures import DjangoAssertNumQueries

from execution.models import Order
from fks_site.users import restrict
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


def as_user(*rights: str) -> Client:
    user = UserFactory.create()
    for right in rights:
        app, _, codename = right.partition(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return client


def found(client: Client, term: str) -> list[tuple[str, str]]:
    """The titles and links, in order."""
    answer = client.get(reverse("admin:search"), {"s": term})
    assert answer.status_code == 200
    return [(one.title, one.link) for one in answer.context["entries"]]


def page_of(row: Any) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


@pytest.fixture
def order() -> Order:
    return OrderFactory.create(
        signal=SignalFactory.create(symbol="SOL/USDT"),
        symbol="SOL/USDT",
        broker_order_id="Venue-77-XYZ",
    )


def test_pages_and_actions_are_found_by_their_words(admin_client: Client) -> None:
    assert found(admin_client, "halt") == [("Halt trading", "/admin/trading/?mode=halt")]
    assert found(admin_client, "perform") == [("Performance", "/admin/performance/")]
    assert found(admin_client, "documentation") == [("Documentation of the API", "/api/docs")]
    titles = [title for title, _ in found(admin_client, "limit")]
    assert titles[:2] == ["Limits", "Limit hits"]


def test_an_empty_palette_offers_what_there_is(admin_client: Client) -> None:
    titles = [title for title, _ in found(admin_client, "")]
    assert titles[0] == "Halt trading"
    assert {"Home", "Orders", "Signals", "Payload lab", "Audit"} <= set(titles)


@pytest.mark.parametrize(
    "term", ["id", "hex", "signal_id", "client_order_id", "broker_order_id", "symbol"]
)
def test_orders_are_found_by_every_id(admin_client: Client, order: Order, term: str) -> None:
    """As it was typed: a broker's order id keeps its capitals."""
    OrderFactory.create()
    terms = {"hex": order.id.hex, "symbol": "sol"}
    links = [link for _, link in found(admin_client, terms.get(term) or str(getattr(order, term)))]
    orders = [link for link in links if "/order/" in link]
    assert orders == [page_of(order)]


def test_signals_strategies_accounts_and_trades_are_found(
    admin_client: Client, order: Order
) -> None:
    signal = order.signal
    assert signal is not None
    fill = FillFactory.create(order=order, trade_id="T-9")
    strategy = StrategyFactory.create(slug="breakout-btc", note="the quick one")
    account = AccountFactory.create(name="binance-main")
    assert page_of(signal) in [link for _, link in found(admin_client, str(signal.pk))]
    assert page_of(signal) in [link for _, link in found(admin_client, "SOL/USDT")]
    assert found(admin_client, "T-9")[-1][1] == page_of(fill)
    assert found(admin_client, "breakout") == [("breakout-btc", page_of(strategy))]
    assert found(admin_client, "quick") == [("breakout-btc", page_of(strategy))]
    assert found(admin_client, "MAIN") == [("binance-main", page_of(account))]


def test_what_came_a_moment_ago_is_found(admin_client: Client) -> None:
    """Nothing is kept from the search before."""
    assert found(admin_client, "DOGE") == []
    order = OrderFactory.create(symbol="DOGE/USDT")
    assert [link for _, link in found(admin_client, "DOGE")] == [page_of(order)]


def test_many_rows_of_a_symbol_lead_to_their_list(admin_client: Client) -> None:
    account = AccountFactory.create()
    for _ in range(12):
        OrderFactory.create(symbol="SOL/USDT", account=account)
    links = found(admin_client, "sol")
    assert links[0] == ("All orders that match sol", "/admin/execution/order/?q=sol")
    assert len(links) == 1 + 8


def test_nobody_finds_what_they_may_not_see(order: Order) -> None:
    nobody = as_user()
    assert found(nobody, "halt") == []
    assert found(nobody, "SOL") == []
    assert found(nobody, str(order.pk)) == []
    titles = [title for title, _ in found(nobody, "")]
    assert titles == ["Change password", "Sign out everywhere", "Documentation of the API", "Home"]
    looker = as_user("execution.view_order")
    assert [link for _, link in found(looker, "SOL")] == [page_of(order)]
    assert [t for t, _ in found(as_user("risk.halt_tradingstate"), "trading")] == ["Halt trading"]


def test_whoever_works_with_some_accounts_finds_nothing_of_others(order: Order) -> None:
    mine = OrderFactory.create(symbol="SOL/USDT")
    user = UserFactory.create()
    codenames = ("view_order", "view_signal", "view_fill", "view_account", "view_strategy")
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    restrict(user, [mine.account], reason="one desk only")
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    assert [link for _, link in found(client, "SOL")] == [page_of(mine)]
    assert found(client, str(order.pk)) == []
    assert found(client, order.broker_order_id) == []
    assert found(client, order.account.name) == []


def test_a_stranger_is_sent_to_the_log_in(client: Client) -> None:
    answer = client.get(reverse("admin:search"), {"s": "halt"})
    assert (answer.status_code, answer.headers["Location"]) == (
        302,
        "/admin/login/?next=/admin/search/%3Fs%3Dhalt",
    )


def test_hostile_text_is_text(admin_client: Client) -> None:
    OrderFactory.create(symbol=HOSTILE[:60])
    StrategyFactory.create(slug="one", note=HOSTILE)
    for term in ("<script", HOSTILE):
        page = admin_client.get(reverse("admin:search"), {"s": term}).content.decode()
        assert "<script" not in page
        assert escape("<script") in page


@pytest.mark.parametrize("term", ["\x00", "a\x00b", "%", "x" * 5000, "''", "\\"])
def test_strange_terms_find_nothing_and_break_nothing(
    admin_client: Client, order: Order, term: str
) -> None:
    rows = [link for _, link in found(admin_client, term) if "/change/" in link]
    assert rows == []


def test_a_search_asks_a_bounded_number_of_questions(
    admin_client: Client, order: Order, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    admin_client.get(reverse("admin:index"))  # the menu's counts are kept for two seconds
    with django_assert_max_num_queries(25):
        found(admin_client, "sol")
