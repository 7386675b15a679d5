"""Every page for everybody: axe-core finds nothing serious, light, dark and on a phone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page

from execution.models import Adoption, Order, QuarantinedBody
from execution.states import OrderState, SignalState
from risk import audit, breakers, notices, switch
from risk.channels import Channel, Event
from risk.models import TradingState
from tests.e2e.test_admin_browser import (
    _queries_beside_the_browser,
    chromium,
    complaints,
    open_page,
    order,
    settled,
)
from tests.e2e.test_keyboard import palette
from tests.factories import OrderFactory, SignalFactory, allow_trading

__all__ = ["_queries_beside_the_browser", "chromium", "complaints", "open_page", "order"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(300),
]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Tall, so that nothing lies under the bar with the buttons at the lower edge.
DEVICES: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1440, "height": 2600}},
    "dark": {"viewport": {"width": 1440, "height": 2600}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 2600}},
}
ELSEWHERE = {"risk.safeguards"}
"""One row, no list."""


@pytest.fixture
def everything(order: Order) -> Order:
    """Rows for the pages: an order with a story, and one of what the rest lists."""
    allow_trading()
    assert order.signal is not None
    strategy = order.signal.strategy
    QuarantinedBody.objects.create(
        strategy=strategy, received_at=order.created_at, body="{", code="BAD", detail="not JSON"
    )
    switch.change(TradingState.State.REDUCING, reason="a test")
    breakers.trip(breakers.of_account(order.account_id), "maintenance")
    channel = Channel.objects.create(name="desk")
    OrderFactory.create(
        signal=SignalFactory.create(strategy=strategy, state=SignalState.WORKING),
        strategy=strategy,
        state=OrderState.AWAITING_APPROVAL,
        approve_by=timezone.now() + timedelta(hours=1),
        verdicts=[{"rule": "max_spread", "passed": False, "mode": "observe", "detail": "wide"}],
    )
    for state in (OrderState.UNKNOWN, OrderState.NEEDS_OPERATOR):
        lost = OrderFactory.create(state=state, unknown_since=timezone.now(), account=order.account)
    told = {"symbol": "BTC/USDT", "side": "buy", "quantity": "0.01", "client_order_id": "by hand"}
    now = timezone.now()
    Adoption.objects.create(
        order=lost, broker_order_id="V77", state=Adoption.State.FOUND, told=told, reason="seen",
        asked_by="anna", asked_at=now, next_look_at=now, give_up_at=now,
    )  # fmt: skip
    notices.write(Event.TEST, notices.News("a test"), [channel])
    audit.record("strategy.changed", "a test", before={"a": 1}, after={"a": 2})
    return order


def lists() -> list[str]:
    """The list of every model of the admin."""
    labels = sorted(model._meta.label_lower for model in admin.site._registry)
    return [
        reverse(f"admin:{label.replace('.', '_')}_changelist")
        for label in labels
        if label not in ELSEWHERE
    ]


def forms(order: Order) -> list[str]:
    """A page of each other sort: stories, forms, questions, reports."""
    assert order.signal is not None
    strategy, breaker = order.signal.strategy, breakers.of_account(order.account_id)
    adoption = Adoption.objects.get()
    shown = [
        ("execution_order_change", order.pk),
        ("execution_signal_change", order.signal.pk),
        ("execution_strategy_change", strategy.pk),
        ("brokers_account_change", order.account_id),
        ("risk_circuitbreaker_change", breaker.pk),
        ("risk_circuitbreaker_reset", breaker.pk),
        ("risk_channel_change", Channel.objects.get().pk),
        ("execution_order_adopt", adoption.order_id),
        ("adoption", adoption.pk),
    ]
    added = ("risk_channel", "execution_strategy", "brokers_account", "risk_riskpolicy")
    return [
        reverse("admin:index"),
        reverse("admin:performance"),
        reverse("admin:execution_lab"),
        reverse("admin:getting_started"),
        reverse("admin:approvals"),
        reverse("admin:unknown_desk"),
        reverse("admin:sign_out_everywhere"),
        reverse("admin:second_factor"),
        f"{reverse('admin:trading')}?mode=halt",
        *(reverse(f"admin:{name}", args=[pk]) for name, pk in shown),
        *(reverse(f"admin:{name}_add") for name in added),
    ]


def serious(page: Page) -> list[str]:
    """What axe-core calls serious or critical on the page."""
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    return [
        f"{page.url} {one['id']}: {node['target']} {node['html'][:120]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_no_page_has_a_serious_finding(open_page: Any, everything: Order, device: str) -> None:
    page = open_page(**DEVICES[device])
    findings = []
    for address in (*forms(everything), *(() if device == "phone" else lists())):
        page.goto(address)
        settled(page)
        findings += serious(page)
    assert findings == []


@pytest.mark.parametrize("device", DEVICES)
def test_the_palette_and_the_keys_have_no_serious_finding(
    open_page: Any, everything: Order, device: str
) -> None:
    page = open_page(**DEVICES[device])
    palette(page, "BTC")
    page.locator("#palette-list[data-term=BTC] [role=option]").first.wait_for()
    settled(page)
    findings = serious(page)
    page.keyboard.press("Escape")
    page.locator("#palette").wait_for(state="hidden")
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keyboard").wait_for()
    settled(page)
    assert findings + serious(page) == []


def test_the_login_page_has_no_serious_finding(open_page: Any) -> None:
    page = open_page(**DEVICES["light"])
    page.context.clear_cookies()
    page.goto("/admin/login/")
    settled(page)
    assert serious(page) == []


def test_what_is_wrong_is_found(open_page: Any) -> None:
    """The scan itself works: a picture and a field without names are serious."""
    page = open_page(**DEVICES["light"])
    page.evaluate("document.body.innerHTML = '<main><img src=\"/x\"><input></main>'")
    assert {one.split()[1] for one in serious(page)} >= {"image-alt:", "label:"}
