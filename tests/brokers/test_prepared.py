"""A prepared queryset answers as the plain one does."""

from __future__ import annotations

import threading

import psycopg
import pytest
from django.db import OperationalError, close_old_connections, connection, transaction
from django.db.models import Count
from django.test.utils import CaptureQueriesContext

from brokers.models import Account
from brokers.prepared import Prepared, given
from execution.models import Order
from tests.factories import AccountFactory, OrderFactory

pytestmark = pytest.mark.django_db(transaction=True)

NAMED = Prepared(lambda: Account.objects.filter(name=given("name"), is_active=True))
OF_ACCOUNT = Prepared(
    lambda: (
        Order.objects.filter(account=given("account"), symbol__in=("ETH/USDT", given("symbol")))
        .exclude(state="denied")
        .select_related("account", "strategy")
        .order_by("-id")
    )
)


def test_it_finds_what_the_plain_one_finds() -> None:
    first, second = OrderFactory.create(), OrderFactory.create(state="filled")
    mine = OrderFactory.create(account=first.account, symbol="ETH/USDT")
    OrderFactory.create(account=first.account, symbol="SOL/USDT")
    OrderFactory.create(account=first.account, state="denied")

    assert OF_ACCOUNT(account=first.account_id, symbol=first.symbol) == [mine, first]
    assert OF_ACCOUNT(account=second.account_id, symbol=second.symbol) == [second]
    assert OF_ACCOUNT(account=0, symbol=first.symbol) == []


def test_related_rows_come_with_it() -> None:
    order = OrderFactory.create()
    [found] = OF_ACCOUNT(account=order.account_id, symbol=order.symbol)
    with CaptureQueriesContext(connection) as asked:
        assert found.account.name == order.account.name
        assert found.account.day_starts == order.account.day_starts
    assert len(asked) == 0


def test_values_and_flat_values_and_sums() -> None:
    order = OrderFactory.create()
    rows = Prepared(lambda: Order.objects.filter(pk=given("pk")).values_list("symbol", "quantity"))
    flat = Prepared(lambda: Order.objects.filter(pk=given("pk")).values_list("quantity", flat=True))
    sums = Prepared(
        lambda: (
            Order.objects.filter(account=given("account"))
            .values("symbol")
            .order_by()
            .annotate(count=Count("pk"))
        )
    )
    assert rows(pk=order.pk) == [(order.symbol, order.quantity)]
    assert flat(pk=order.pk) == [order.quantity]
    assert sums(account=order.account_id) == [{"symbol": order.symbol, "count": 1}]


def test_first() -> None:
    account = AccountFactory.create()
    assert NAMED.first(name=account.name) == account
    assert NAMED.first(name="nobody") is None


def test_every_place_wants_one_value() -> None:
    with pytest.raises(TypeError, match="needs a value for name"):
        NAMED()
    with pytest.raises(TypeError, match="no place for account, symbol"):
        NAMED(name="a", symbol="b", account="c")
    with pytest.raises(ValueError, match="name is None"):
        NAMED(name=None)


def test_text_stays_text() -> None:
    """A value is a parameter, never a part of the statement."""
    account = AccountFactory.create(name="a' OR 'a'='a")
    AccountFactory.create()
    assert NAMED(name=account.name) == [account]
    assert NAMED(name="%s") == []


def test_rows_are_locked_in_a_transaction_only() -> None:
    locked = Prepared(lambda: Account.objects.select_for_update().filter(pk=given("pk")))
    account = AccountFactory.create()
    with transaction.atomic():
        assert locked(pk=account.pk) == [account]
    with pytest.raises(transaction.TransactionManagementError):
        locked(pk=account.pk)


def test_each_thread_asks_on_its_own_connection() -> None:
    account = AccountFactory.create()
    NAMED(name=account.name)
    found: list[list[Account]] = []

    def ask() -> None:
        found.append(NAMED(name=account.name))
        connection.close()

    with transaction.atomic():
        Account.objects.filter(pk=account.pk).update(is_active=False)
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert NAMED(name=account.name) == []
    assert found == [[account]]


def test_it_goes_on_after_a_migration_of_its_table() -> None:
    """PostgreSQL keeps the plan of what it is asked often, and refuses it once a column is another."""
    account = AccountFactory.create()
    for _ in range(10):
        assert NAMED(name=account.name) == [account]
    migrate = "ALTER TABLE brokers_account ALTER COLUMN name TYPE varchar({})"
    length = Account._meta.get_field("name").max_length
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute(migrate.format(length + 1))
    try:
        with pytest.raises(OperationalError):
            NAMED(name=account.name)
        close_old_connections()
        assert NAMED(name=account.name) == [account]
    finally:
        with connection.cursor() as cursor:
            cursor.execute(migrate.format(length))


def test_a_percent_sign_is_a_constant_like_any_other() -> None:
    account = AccountFactory.create(name="100% mine")
    AccountFactory.create()
    halves = Prepared(lambda: Account.objects.filter(name__contains="0%", pk=given("pk")))
    assert halves(pk=account.pk) == [account]
