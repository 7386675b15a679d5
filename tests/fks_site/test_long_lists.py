"""Long lists come in pages by key: complete, stable, without counting, and in bounded time."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.core.cache import cache
from django.db import DataError, connection
from django.db.models import Func, IntegerField, Model, TextField
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from brokers.admin import paging
from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.filters import values_of
from brokers.admin.paging import KeyPage, NewestFirst, key_page
from execution.models import Fill, Order, QuarantinedBody, Signal
from risk.models import AuditEvent, LimitHit
from tests.factories import AccountFactory, OrderFactory

pytestmark = pytest.mark.django_db

ORDERS = "/admin/execution/order/"
AUDIT = "/admin/risk/auditevent/"


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


def events(number: int, **columns: Any) -> list[AuditEvent]:
    """Audit events, the newest first."""
    told = {"kind": "limit.changed", "actor": "anna", "subject": "limit x"} | columns
    made = [AuditEvent(at=timezone.now(), **told) for _ in range(number)]
    return list(reversed(AuditEvent.objects.bulk_create(made)))


def shown(client: Client, address: str) -> NewestFirst:
    answer = client.get(address)
    assert answer.status_code == 200, address
    changelist = answer.context["cl"]
    assert isinstance(changelist, NewestFirst)
    return changelist


def keys(changelist: NewestFirst) -> list[Any]:
    return [row.pk for row in changelist.result_list]


def test_pages_lead_through_every_row_and_back(admin_client: Client) -> None:
    events(120, kind="test.made")
    every = list(AuditEvent.objects.order_by("-id").values_list("pk", flat=True))
    first = shown(admin_client, AUDIT)
    assert (keys(first), first.newer) == (every[:50], None)
    second = shown(admin_client, f"{AUDIT}{first.older}")
    assert keys(second) == every[50:100]
    third = shown(admin_client, f"{AUDIT}{second.older}")
    assert (keys(third), third.older) == (every[100:], None)
    back = shown(admin_client, f"{AUDIT}{third.newer}")
    assert keys(back) == every[50:100]
    newest = shown(admin_client, f"{AUDIT}{back.newer}")
    assert (keys(newest), newest.newer) == (every[:50], None)


def test_a_page_stays_while_rows_are_added(admin_client: Client) -> None:
    events(60)
    older = shown(admin_client, AUDIT).older
    before = keys(shown(admin_client, f"{AUDIT}{older}"))
    events(10)
    assert keys(shown(admin_client, f"{AUDIT}{older}")) == before


def test_the_newest_page_is_always_full(admin_client: Client) -> None:
    """Ten newer rows than the page that was open: going back shows fifty, not ten."""
    events(60)
    older = shown(admin_client, f"{AUDIT}{shown(admin_client, AUDIT).older}")
    newest = shown(admin_client, f"{AUDIT}{older.newer}")
    assert (len(newest.result_list), newest.newer) == (50, None)


def test_links_keep_filters_and_search(admin_client: Client) -> None:
    events(60, kind="limit.changed", subject="limit max_order_value")
    events(60, kind="breaker.tripped")
    page = shown(admin_client, f"{AUDIT}?kind=limit.changed&q=max_order")
    assert page.older is not None
    second = shown(admin_client, f"{AUDIT}{page.older}")
    assert len(second.result_list) == 10
    assert {row.kind for row in second.result_list} == {"limit.changed"}
    assert second.query == "max_order"
    assert "p=" not in second.first


def test_orders_page_by_their_uuid(admin_client: Client) -> None:
    account = AccountFactory.create()
    made = [OrderFactory.create(account=account).pk for _ in range(55)][::-1]
    first = shown(admin_client, ORDERS)
    assert keys(first) == made[:50]
    assert keys(shown(admin_client, f"{ORDERS}{first.older}")) == made[50:]


@pytest.mark.parametrize("place", ["before:nonsense", "after:1e3", "before:-", "before:0x1"])
def test_a_forged_place_is_refused(admin_client: Client, place: str) -> None:
    answer = admin_client.get(ORDERS, {"p": place})
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{ORDERS}?e=1")


@pytest.mark.parametrize("place", ["20", "-1", "before:", "sideways:7", "", "before:" + "9" * 65])
def test_what_was_never_a_place_is_the_first_page(admin_client: Client, place: str) -> None:
    order = OrderFactory.create()
    assert keys(shown(admin_client, f"{ORDERS}?p={place}")) == [order.pk]


def test_beyond_the_end_leads_back(admin_client: Client) -> None:
    oldest = events(3)[-1]
    answer = admin_client.get(AUDIT, {"p": f"before:{oldest.pk}"})
    # The log-in of the test's own client may be older; the last key is not.
    last = AuditEvent.objects.earliest("id").pk
    answer = admin_client.get(AUDIT, {"p": f"before:{last}"})
    assert "Nothing is older" in answer.content.decode()


def test_no_list_counts_skips_or_sorts_otherwise(admin_client: Client) -> None:
    """Whatever the address asks for."""
    OrderFactory.create()
    events(2)
    asked = "?o=3&_facets=True&all="
    for model, model_admin in admin.site._registry.items():
        if not isinstance(model_admin, ReadOnlyAdmin) or model._meta.ordering != ["-id"]:
            continue
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        with CaptureQueriesContext(
            connection,
        ) as captured:
            shown(admin_client, f"{reverse(name)}{asked}")
        table = f'FROM "{model._meta.db_table}"'
        mine = [one["sql"] for one in captured if table in one["sql"]]
        listing = [sql for sql in mine if "COUNT(" not in sql and "LIMIT 51" in sql]
        assert len(listing) == 1, name
        assert f'ORDER BY "{model._meta.db_table}"."id" DESC LIMIT 51' in listing[0]
        assert not any("OFFSET" in sql for sql in mine), name
        counts = [sql for sql in mine if "COUNT(" in sql and "IS NULL" not in sql]
        assert counts == [], name


def test_large_columns_stay_in_the_database(admin_client: Client) -> None:
    OrderFactory.create(verdicts=[{"rule": "x"}])
    with CaptureQueriesContext(connection) as captured:
        admin_client.get(ORDERS)
    assert not any('"verdicts"' in one["sql"] for one in captured)


def test_how_many_there_are(admin_client: Client) -> None:
    account = AccountFactory.create()
    OrderFactory.create(account=account)
    assert shown(admin_client, ORDERS).total == "1 order"
    for _ in range(60):
        OrderFactory.create(account=account)
    assert shown(admin_client, ORDERS).total == "more than 50"
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE execution_order")
    assert shown(admin_client, ORDERS).total == "about 61"
    assert shown(admin_client, f"{ORDERS}?side__exact=buy").total == "more than 50"
    assert "50 results" not in admin_client.get(ORDERS).content.decode()
    assert paging._round(1_234_567) == 1_200_000


def slowly() -> Any:
    """Audit events that take a fiftieth of a second each."""
    nap = Func(function="pg_sleep", template="%(function)s(0.02)::text", output_field=TextField())
    return AuditEvent.objects.annotate(nap=nap).order_by("-pk")


def test_a_search_that_takes_too_long_looks_through_a_part_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "WINDOW", 4)
    rows = events(10)

    def page(place: tuple[str, Any] | None) -> KeyPage:
        return key_page(slowly(), place, 50, patience=30)

    first = page(None)
    assert first.rows == rows[:4]
    assert (first.looked_through, first.newer) == (4, None)
    assert first.older == f"before:{rows[3].pk}"
    second = page(("before", rows[3].pk))
    assert (second.rows, second.older) == (rows[4:8], f"before:{rows[7].pk}")
    last = page(("before", rows[7].pk))
    assert (last.rows, last.older, last.looked_through) == (rows[8:], None, None)


def test_going_back_looks_through_a_part_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "WINDOW", 4)
    rows = events(10)
    page = key_page(slowly(), ("after", rows[-1].pk), 50, patience=30)
    assert page.rows == rows[5:9]
    assert (page.newer, page.older) == (f"after:{rows[5].pk}", f"before:{rows[8].pk}")


def test_other_failures_are_not_taken_for_slowness() -> None:
    events(1)
    nothing = Func(template="1 / (0 * id)", output_field=IntegerField())
    with pytest.raises(DataError, match="division by zero"):
        key_page(AuditEvent.objects.annotate(x=nothing), None, 50, patience=1000)


def test_what_one_list_sets_is_not_the_next_questions() -> None:
    key_page(Order.objects.all(), None, 50, patience=77)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('statement_timeout'), current_setting('random_page_cost')"
        )
        assert cursor.fetchone() == ("0", "4")


def test_choices_of_a_filter_are_read_from_the_index(admin_client: Client) -> None:
    for kind in ("b.two", "a.one", "b.two", "c.three"):
        events(2, kind=kind)
    known = ["a.one", "b.two", "c.three", "login.succeeded"]  # the last is the client's own
    assert values_of(AuditEvent, "kind") == known
    page = admin_client.get(AUDIT).content.decode()
    assert "?kind=a.one" in page
    assert [row.kind for row in shown(admin_client, f"{AUDIT}?kind=a.one").result_list] == [
        "a.one",
        "a.one",
    ]


SEARCHED = [
    (Order, "id"), (Order, "signal_id"), (Order, "client_order_id"), (Order, "broker_order_id"),
    (Order, "symbol"), (Order, "account_id"), (Order, "strategy_id"), (Order, "state"),
    (Signal, "id"), (Signal, "symbol"), (Signal, "strategy_id"), (Signal, "state"),
    (Fill, "trade_id"), (Fill, "order_id"), (Fill, "symbol"), (Fill, "account_id"),
    (AuditEvent, "kind"), (AuditEvent, "actor"), (AuditEvent, "correlation_id"),
    (LimitHit, "rule"), (LimitHit, "account_id"), (QuarantinedBody, "code"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "column"), SEARCHED)
def test_an_index_begins_with_what_is_looked_for(model: type[Model], column: str) -> None:
    with connection.cursor() as cursor:
        known = connection.introspection.get_constraints(cursor, model._meta.db_table)
    leading = {one["columns"][0] for one in known.values() if one["index"] or one["unique"]}
    assert column in leading


def test_the_audit_trail_is_searched_by_correlation_id_and_by_words(admin_client: Client) -> None:
    wanted = events(1, correlation_id="0198c0ffee", reason="too wide")[0]
    events(1, correlation_id="other", reason="mentions 0198c0ffee")
    assert keys(shown(admin_client, f"{AUDIT}?q=0198c0ffee")) == [wanted.pk]
    assert keys(shown(admin_client, f"{AUDIT}?q=too+WIDE")) == [wanted.pk]
