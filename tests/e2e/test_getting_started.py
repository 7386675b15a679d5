"""A new operator, a browser, an empty installation: four clicks to the first paper fill."""

from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from brokers.models import Account
from execution import nudge, tasks
from execution.models import Signal
from risk.models import IPAllowlist
from tests.e2e.browser import PageFor

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.core
@pytest.mark.drives(
    "getting_started account",
    "getting_started limits",
    "getting_started strategy",
    "getting_started order",
)
def test_four_clicks_to_the_first_fill(
    open_page: PageFor, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test is the worker.
    monkeypatch.setattr(nudge, "nudge_signal", lambda _: None)
    IPAllowlist.objects.create(name="tradingview")
    page = open_page()
    page.click("#getting-started")
    page.click("#step-account button")
    page.click("#step-limits button")
    page.fill("#step-strategy input[name=slug]", "trend")
    page.click("#step-strategy button")
    expect(page.locator("#new-address")).to_contain_text("/webhook/trend/")
    Account.objects.update(reconciled_at=timezone.now())
    page.click("#step-order button")
    expect(page.locator("#step-order .fks-info")).to_be_visible()
    tasks.process_signal(str(Signal.objects.get().pk))
    page.goto(reverse("admin:getting_started"))
    expect(page.locator("#step-order")).to_contain_text("filled")
    expect(page.locator("#step-next")).to_be_visible()
    assert complaints == []
