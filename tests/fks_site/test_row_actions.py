"""What the menus of lists and the pages of rows offer: what a state forbids stands there with why."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from execution.models import Difference, Protection
from execution.states import OrderState
from risk import breakers
from risk.channels import Severity
from risk.models import Channel, CircuitBreaker, Proposal, Safeguards
from tests.factories import AccountFactory, OrderFactory, StrategyFactory

pytestmark = pytest.mark.django_db
Make = Callable[[], Any]


def order(state: str) -> Make:
    return lambda: OrderFactory.create(state=state)


def difference(kind: str, ours: str, theirs: str, state: str = "open") -> Make:
    def make() -> Difference:
        now = timezone.now()
        return Difference.objects.create(
            account=AccountFactory.create(),
            symbol="BTC/USDT",
            kind=kind,
            key="x",
            ours=ours,
            theirs=theirs,
            state=state,
            first_seen_at=now,
            last_seen_at=now,
        )

    return make


def protection(*, is_active: bool, is_naked: bool) -> Make:
    def make() -> Protection:
        entry = OrderFactory.create(state=OrderState.FILLED)
        since = timezone.now() if is_naked else None
        return Protection.objects.create(
            account=entry.account,
            symbol=entry.symbol,
            entry=entry,
            is_active=is_active,
            naked_since=since,
        )

    return make


def breaker(state: str, failures: int = 0) -> Make:
    def make() -> CircuitBreaker:
        row = breakers.of_account(AccountFactory.create().pk)
        CircuitBreaker.objects.filter(pk=row.pk).update(state=state, failures=failures)
        return row

    return make


def proposal(who: str, state: str = "open") -> Make:
    def make() -> Proposal:
        now = timezone.now()
        return Proposal.objects.create(
            kind="safeguards",
            subject="safeguards",
            payload={},
            before={},
            after={},
            reason="test",
            proposed_by=who,
            proposed_at=now,
            expires_at=now + timedelta(hours=1),
            state=state,
        )

    return make


def channel(*, is_active: bool) -> Make:
    return lambda: Channel.objects.create(
        name="desk", is_active=is_active, least_severity=Severity.INFO
    )


ASK, CANCEL, ADOPT, MARK = (
    "Ask the venue now",
    "Cancel order",
    "Adopt an order at the venue",
    "Mark as not at the venue",
)
NO_POSITION = "a position is not cancelled; adopt or flatten it"
LESS = "the venue holds less than our book says; adopt what it holds"
CASES: list[tuple[str, Make, set[str], dict[str, str]]] = [
    (
        "execution_order",
        order("filled"),
        set(),
        dict.fromkeys((ASK, CANCEL, ADOPT, MARK), "it has ended: filled"),
    ),
    (
        "execution_order",
        order("pending"),
        {CANCEL},
        dict.fromkeys((ASK, ADOPT, MARK), "it is pending"),
    ),
    ("execution_order", order("open"), {ASK, CANCEL}, dict.fromkeys((ADOPT, MARK), "it is open")),
    (
        "execution_order",
        order("unknown"),
        {ASK, CANCEL, ADOPT},
        {MARK: "FKS still looks for it"},
    ),
    ("execution_order", order("needs_operator"), {ASK, CANCEL, ADOPT, MARK}, {}),
    (
        "execution_difference",
        difference("position", "1", "3"),
        {"Adopt", "Ignore", "Flatten"},
        {"Cancel at the venue": NO_POSITION},
    ),
    (
        "execution_difference",
        difference("position", "3", "1"),
        {"Adopt", "Ignore"},
        {"Flatten": LESS, "Cancel at the venue": NO_POSITION},
    ),
    (
        "execution_difference",
        difference("foreign_order", "", "buy 1"),
        {"Ignore", "Cancel at the venue"},
        {
            "Adopt": "an order that is not ours cannot be adopted; cancel it at the venue",
            "Flatten": "an order is not flattened; cancel it at the venue",
        },
    ),
    (
        "execution_difference",
        difference("position", "1", "3", "ignored"),
        set(),
        dict.fromkeys(("Adopt", "Ignore", "Flatten", "Cancel at the venue"), "it is ignored"),
    ),
    (
        "execution_protection",
        protection(is_active=True, is_naked=True),
        {"Guard again"},
        {},
    ),
    (
        "execution_protection",
        protection(is_active=True, is_naked=False),
        set(),
        {"Guard again": "nothing is missing"},
    ),
    (
        "execution_protection",
        protection(is_active=False, is_naked=True),
        set(),
        {"Guard again": "it has ended"},
    ),
    (
        "risk_circuitbreaker",
        breaker("closed"),
        {"Trip"},
        {"Reset": "it is closed, without a failure"},
    ),
    ("risk_circuitbreaker", breaker("closed", 2), {"Trip", "Reset"}, {}),
    ("risk_circuitbreaker", breaker("open"), {"Reset"}, {"Trip": "it is open"}),
    ("risk_circuitbreaker", breaker("half_open"), {"Trip", "Reset"}, {}),
    ("risk_proposal", proposal("somebody"), {"Approve", "Reject"}, {}),
    (
        "risk_proposal",
        proposal("admin"),
        {"Reject"},
        {"Approve": "nobody approves what they proposed"},
    ),
    (
        "risk_proposal",
        proposal("somebody", "rejected"),
        set(),
        dict.fromkeys(("Approve", "Reject"), "it is rejected"),
    ),
    ("risk_channel", channel(is_active=True), {"Send a test", "What was told"}, {}),
    (
        "risk_channel",
        channel(is_active=False),
        {"What was told"},
        {"Send a test": "it is switched off"},
    ),
]
ITEM = re.compile(
    r'<a href="(?P<address>[^"]+)"[^>]*>\s*<span[^>]*>\w+</span>\s*'
    r'<span class="grow truncate">(?P<title>[^<]+)</span>'
    r'|<span class="fks-refused".*?<span>(?P<refused>[^<]+)<small>(?P<why>[^<]+)</small>',
    re.DOTALL,
)


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


@pytest.mark.parametrize(("model", "make", "offered", "refused"), CASES)
def test_a_menu_says_what_the_rows_state_forbids(
    admin_client: Client, model: str, make: Make, offered: set[str], refused: dict[str, str]
) -> None:
    row = make()
    page = admin_client.get(reverse(f"admin:{model}_changelist")).content.decode()
    items = list(ITEM.finditer(page))
    assert {one["title"] for one in items if one["title"]} == offered
    assert {one["refused"]: one["why"] for one in items if one["refused"]} == refused

    page = admin_client.get(reverse(f"admin:{model}_change", args=[row.pk])).content.decode()
    shown = {one for one in offered | set(refused) if re.search(rf">\s*{one}\s*<", page)}
    assert shown == offered


def test_menus_cost_the_same_however_many_rows(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        OrderFactory.create(state=OrderState.OPEN)
    admin_client.get(reverse("admin:second_factor"))
    with django_assert_max_num_queries(12):
        admin_client.get(reverse("admin:execution_order_changelist"))


def test_no_test_goes_to_a_channel_that_is_switched_off(admin_client: Client) -> None:
    row = channel(is_active=False)()
    page = admin_client.post(reverse("admin:risk_channel_test", args=[row.pk]), follow=True)
    assert "it is switched off" in page.content.decode()
    assert not row.notices.exists()


def test_a_profile_without_secrets_offers_none(admin_client: Client) -> None:
    Safeguards.objects.all().delete()
    for auth, is_offered in (("token", True), ("jwt", False)):
        row = StrategyFactory.create(auth=auth)
        page = admin_client.get(reverse("admin:execution_strategy_change", args=[row.pk]))
        assert (
            reverse("admin:execution_strategy_rotate", args=[row.pk]) in page.content.decode()
        ) is (is_offered)
