"""Each role logs in and walks the pages: what may be pressed is there and works, what may not is
neither shown nor taken when it is sent all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from execution.states import OrderState
from fks_site import roles
from risk.models import IPAllowlist, RiskPolicy
from tests.e2e.browser import PageFor, person
from tests.factories import (
    PASSWORD,
    AccountFactory,
    OrderFactory,
    StrategyFactory,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

DESK = frozenset({roles.OPERATOR, roles.RISK_OFFICER})
OFFICER = frozenset({roles.RISK_OFFICER})
SECURITY = frozenset({roles.SECURITY_ADMIN})
WHY = "a walk"


@dataclass(frozen=True)
class Deed:
    """A button on a page, what is typed, what is pressed then, and what the page says."""

    page: str
    link: str
    address: str
    button: str
    says: str
    who: frozenset[str]
    typed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Form:
    """A page of one row, and who may save it."""

    address: str
    who: frozenset[str]


@pytest.fixture
def page(page_for: PageFor) -> Page:
    return page_for(None)


def deeds() -> list[Deed]:
    resting = OrderFactory.create(state=OrderState.OPEN)
    lost = OrderFactory.create(state=OrderState.UNKNOWN, unknown_since=timezone.now())
    waiting = OrderFactory.create(
        state=OrderState.AWAITING_APPROVAL, approve_by=timezone.now() + timedelta(minutes=9)
    )
    row = reverse("admin:execution_order_change", args=[resting.pk])
    return [
        Deed(
            page=row,
            link="Cancel order",
            address=reverse("admin:execution_order_cancel", args=[resting.pk]),
            button="Cancel the order",
            says="The cancel is on its way",
            who=DESK,
        ),
        Deed(
            page=reverse("admin:unknown_desk"),
            link="I found it at the venue",
            address=reverse("admin:execution_order_adopt", args=[lost.pk]),
            button="Ask the venue",
            says="A worker asks",
            who=DESK,
            typed=(("broker_order_id", "paper-77"),),
        ),
        Deed(
            page=reverse("admin:approvals"),
            link="Reject",
            address=reverse("admin:decide_approval", args=[waiting.pk, "reject"]),
            button="Reject",
            says=": rejected.",
            who=DESK,
        ),
        Deed(
            page=reverse("admin:index"),
            link="Halt",
            address=reverse("admin:trading"),
            button="Switch",
            says="Trading is halted",
            who=DESK | SECURITY,
        ),
    ]


def forms() -> list[Form]:
    account, strategy = AccountFactory.create(), StrategyFactory.create()
    policy, listed = RiskPolicy.objects.create(), IPAllowlist.objects.create(name="office")
    return [
        Form(reverse("admin:execution_strategy_change", args=[strategy.pk]), OFFICER | SECURITY),
        Form(reverse("admin:risk_riskpolicy_change", args=[policy.pk]), OFFICER),
        Form(reverse("admin:risk_ipallowlist_change", args=[listed.pk]), SECURITY),
        Form(reverse("admin:brokers_account_change", args=[account.pk]), SECURITY),
    ]


def log_in(page: Page, role: str) -> None:
    person("anna", role)
    page.goto("/admin/")
    page.locator("input[name=username]").fill("anna")
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("input[name=password]").press("Enter")
    expect(page.get_by_role("heading", name="Trading is active")).to_be_visible()


def sent(page: Page, address: str, **given: str) -> int:
    """What becomes of a form that is sent without its button: refused for who sends it, not for how."""
    [token] = [one["value"] for one in page.context.cookies() if one["name"] == "csrftoken"]
    answer = page.request.post(
        address,
        form={"csrfmiddlewaretoken": token, "reason": WHY, **given},
        headers={"Referer": page.url},
    )
    assert "CSRF" not in answer.text()
    return answer.status


def press(page: Page, deed: Deed) -> None:
    page.get_by_role("link", name=deed.link).first.click()
    dialog = page.locator("#modal-content")
    expect(dialog.locator("[autofocus]")).to_be_focused()
    for name, text in (*deed.typed, ("reason", WHY)):
        dialog.locator(f"input[name={name}]").fill(text)
    dialog.get_by_role("button", name=deed.button, exact=True).click()
    expect(page.get_by_text(deed.says).first).to_be_visible()


@pytest.mark.parametrize("role", sorted(roles.RIGHTS))
def test_a_role_does_what_it_may_and_nothing_else(
    page: Page, complaints: list[str], role: str
) -> None:
    walk: list[Any] = [*forms(), *deeds()]
    log_in(page, role)
    for one in walk:
        may = role in one.who
        if isinstance(one, Form):
            page.goto(one.address)
            expect(page.get_by_role("button", name="Save", exact=True)).to_have_count(int(may))
            assert sent(page, one.address) == (200 if may else 403), one
            continue
        page.goto(one.page)
        if may:
            press(page, one)
            continue
        expect(page.locator(f"a[href^='{one.address}']")).to_have_count(0)
        assert sent(page, one.address, mode="halt", target="global:") == 403, one
    users = page.goto(reverse("admin:auth_user_changelist"))
    assert users is not None
    assert users.status == (200 if role in SECURITY else 403)
    assert [one for one in complaints if "403" not in one] == []
