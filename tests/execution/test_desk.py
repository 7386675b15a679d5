"""The unknown desk: what nobody knows the fate of, and what an operator can do about it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from execution.models import Order, OrderEvent
from execution.states import OrderState
from fks_site.users import restrict
from tests.factories import OrderFactory, UserFactory

pytestmark = pytest.mark.django_db

DESK = "/admin/desk/"


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


def lost(state: OrderState, minutes: int) -> Order:
    order = OrderFactory.create(
        state=state, unknown_since=timezone.now() - timedelta(minutes=minutes), looks=1
    )
    for event in ("create", "claim", "send", "lose", "look"):
        OrderEvent.objects.create(
            order=order, at=timezone.now(), event=event, to_state=state, actor="worker",
            detail=f"<b>{event}</b> told",
        )  # fmt: skip
    return order


def with_rights(*codenames: str) -> Client:
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return client


def test_what_waits_for_a_person_comes_first_then_the_oldest(admin_client: Client) -> None:
    young, old = lost(OrderState.UNKNOWN, 2), lost(OrderState.UNKNOWN, 20)
    waits = lost(OrderState.NEEDS_OPERATOR, 1)
    OrderFactory.create(state=OrderState.OPEN)
    answer = admin_client.get(DESK)
    cases = answer.context["cases"]
    assert [one.order for one in cases] == [waits, old, young]
    assert [one.seconds // 60 for one in cases] == [1, 20, 2]
    assert [line.event for line in cases[0].lines] == ["look", "lose", "send", "claim"]
    page = answer.content.decode()
    assert "<b>" not in page
    assert "&lt;b&gt;look&lt;/b&gt; told" in page


def test_only_what_a_person_must_end_offers_to(admin_client: Client) -> None:
    unknown, waits = lost(OrderState.UNKNOWN, 1), lost(OrderState.NEEDS_OPERATOR, 6)
    page = admin_client.get(DESK).content.decode()
    for name, order, offered in (
        ("ask_venue", unknown, True),
        ("cancel", unknown, True),
        ("mark_ended", unknown, False),
        ("mark_ended", waits, True),
    ):
        address = reverse(f"admin:execution_order_{name}", args=[order.pk])
        assert (address in page) is offered, (name, order.state)


def test_who_may_look_sees_no_buttons_and_who_may_not_sees_nothing() -> None:
    order = lost(OrderState.NEEDS_OPERATOR, 1)
    page = with_rights("view_order").get(DESK).content.decode()
    assert str(order.pk) in page
    assert "mark_ended" not in page
    assert with_rights("view_signal").get(DESK).status_code == 403


def test_whoever_works_with_some_accounts_sees_their_orders_only() -> None:
    mine, theirs = lost(OrderState.UNKNOWN, 1), lost(OrderState.UNKNOWN, 2)
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename="view_order"))
    restrict(user, [mine.account], reason="one desk only")
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    page = client.get(DESK).content.decode()
    assert str(mine.pk) in page
    assert str(theirs.pk) not in page


def test_a_page_that_refreshes_itself_takes_no_notice_from_the_next_one(
    admin_client: Client,
) -> None:
    order = lost(OrderState.UNKNOWN, 1)
    ask = reverse("admin:execution_order_ask_venue", args=[order.pk])
    asked = admin_client.post(ask, {"reason": "it is three in the morning"})
    refreshed = admin_client.get(DESK, headers={"HX-Request": "true"})
    says = "A worker asks the venue"
    assert says not in refreshed.content.decode()
    assert says in admin_client.get(asked["Location"]).content.decode()
    assert says not in admin_client.get(asked["Location"]).content.decode(), "said once"


def test_it_takes_as_many_questions_for_many(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for minutes in range(8):
        lost(OrderState.UNKNOWN, minutes)
    admin_client.get(reverse("admin:index"))
    with django_assert_max_num_queries(8):
        admin_client.get(DESK)


def test_an_empty_desk_says_so(admin_client: Client) -> None:
    assert "The fate of every order is known" in admin_client.get(DESK).content.decode()
