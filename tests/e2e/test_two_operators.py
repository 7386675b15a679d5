"""Two people at once, and each role: what one does the other sees, and nobody does it twice."""

from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from execution.states import OrderState
from fks_site import roles
from risk.models import AuditEvent
from tests.e2e.browser import POLL, PageFor, person
from tests.factories import OrderFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.core
def test_one_halts_and_the_other_sees_who_did(page_for: PageFor, complaints: list[str]) -> None:
    anna, bert = (page_for(person(name, roles.OPERATOR)) for name in ("anna", "bert"))
    bert.clock.install()
    bert.goto("/admin/")
    expect(bert.get_by_role("heading", name="Trading is active")).to_be_visible()
    anna.goto("/admin/")
    anna.locator("#switch-halt").click()
    anna.locator("#modal-content input[name=reason]").fill("a strange fill")
    anna.keyboard.press("Enter")
    expect(anna.get_by_role("heading", name="Trading is halted")).to_be_visible()
    bert.clock.run_for(POLL)
    expect(bert.get_by_role("heading", name="Trading is halted")).to_be_visible()
    expect(bert.locator(".fks-band")).to_contain_text("“a strange fill”, by anna")
    assert complaints == []


@pytest.mark.drives("execution_order_mark_ended")
def test_only_the_first_word_on_a_lost_order_counts(
    page_for: PageFor, complaints: list[str]
) -> None:
    order = OrderFactory.create(state=OrderState.NEEDS_OPERATOR, unknown_since=timezone.now())
    anna, bert = (page_for(person(name, roles.OPERATOR)) for name in ("anna", "bert"))
    for page in (anna, bert):
        page.goto("/admin/desk/")
        page.get_by_role("link", name="It is not at the venue").click()
        page.locator("#modal-content input[name=reason]").fill("looked: it is not there")
    anna.get_by_role("button", name="It is not there").click()
    expect(anna.get_by_text("Marked: its symbol trades again.")).to_be_visible()
    bert.get_by_role("button", name="It is not there").click()
    expect(bert.get_by_text("Nothing to mark: it is not placed.")).to_be_visible()
    order.refresh_from_db()
    assert order.state == OrderState.NOT_PLACED
    acted = AuditEvent.objects.filter(kind__startswith="order.").values_list("actor", flat=True)
    assert list(acted) == ["anna"]
    assert complaints == []


SEEN = {
    roles.VIEWER: {"Halt": False, "Ask the venue now": False, "Users": False},
    roles.OPERATOR: {"Halt": True, "Ask the venue now": True, "Users": False},
    roles.RISK_OFFICER: {"Halt": True, "Ask the venue now": True, "Users": False},
    roles.SECURITY_ADMIN: {"Halt": True, "Ask the venue now": False, "Users": True},
}


@pytest.mark.parametrize("role", SEEN)
def test_each_role_sees_its_buttons_and_no_others(
    page_for: PageFor, complaints: list[str], role: str
) -> None:
    OrderFactory.create(state=OrderState.UNKNOWN, unknown_since=timezone.now())
    page = page_for(person("anna", role))
    shown = {}
    page.goto("/admin/")
    expect(page.get_by_role("heading", name="Trading is active")).to_be_visible()
    shown["Halt"] = page.locator("#switch-halt").count() == 1
    shown["Users"] = page.locator(f"a[href='{reverse('admin:auth_user_changelist')}']").count() == 1
    page.goto("/admin/desk/")
    expect(page.get_by_role("region", name="Order")).to_be_visible()
    shown["Ask the venue now"] = page.get_by_role("link", name="Ask the venue now").count() == 1
    assert shown == SEEN[role]
    assert complaints == []
