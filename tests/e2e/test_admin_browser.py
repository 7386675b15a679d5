"""The admin in a real browser: both themes, a phone, the keyboard, and a quiet console."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.cache import cache
from django.urls import reverse
from django.utils import timezone
from django_otp.oath import totp
from playwright.sync_api import expect
from pytest_django.live_server_helper import LiveServer

from execution.models import Order, Signal
from execution.states import OrderState, SignalState
from risk import audit, proposals, switch
from risk.models import AuditEvent, Safeguards, TradingState
from tests.e2e.browser import HOSTILE, POLL, PageFor, settled, with_clock
from tests.factories import (
    PASSWORD,
    OrderFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
    webhook,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def _address(row: Any) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


@pytest.mark.core
@pytest.mark.drives("login")
def test_logging_in(page_for: PageFor, live_server: LiveServer) -> None:
    user = UserFactory.create(is_superuser=True)
    page = page_for(None)
    page.goto("/admin/login/")
    page.fill("input[name=username]", user.username)
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{live_server.url}/admin/")
    expect(page.get_by_role("heading", name="Trading is active")).to_be_visible()


@pytest.mark.core
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_in_both_themes(
    open_page: PageFor, complaints: list[str], order: Order, scheme: str
) -> None:
    page = open_page(color_scheme=scheme)
    is_dark = page.evaluate("document.documentElement.classList.contains('dark')")
    assert is_dark == (scheme == "dark")
    for address in (_address(order), _address(order.signal), "/admin/execution/order/", "/admin/"):
        page.goto(address)
        settled(page)
        assert page.evaluate("window.pwned") is None, address
    expect(page.get_by_role("heading", name="Trading is active")).to_be_visible()
    assert complaints == []


@pytest.mark.core
def test_a_phone_needs_no_sideways_scrolling(
    open_page: PageFor, complaints: list[str], order: Order
) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    for address in ("/admin/", _address(order), _address(order.signal)):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
    assert complaints == []


@pytest.mark.core
def test_the_home_page_follows_without_a_reload(open_page: PageFor, complaints: list[str]) -> None:
    page = with_clock(open_page())
    page.evaluate("window.loadedOnce = true")
    expect(page.locator("#card-unresolved .fks-card-value")).to_have_text("0")
    OrderFactory.create(state=OrderState.NEEDS_OPERATOR)
    cache.clear()
    page.clock.run_for(POLL)
    expect(page.locator("#card-unresolved .fks-card-value")).to_have_text("1")
    expect(page.locator("#card-unresolved")).to_have_class("fks-card fks-card-alarm")
    assert page.evaluate("window.loadedOnce") is True
    assert complaints == []


def test_times_are_shown_in_the_lookers_zone_with_utc_on_hover(
    open_page: PageFor, order: Order, complaints: list[str]
) -> None:
    page = open_page(timezone_id="Asia/Kolkata")
    page.goto(reverse("admin:execution_order_changelist"))
    utc = order.created_at.astimezone(UTC)
    shown = page.locator("#result_list time.fks-time").first
    expect(shown).to_have_text(f"{utc.astimezone(ZoneInfo('Asia/Kolkata')):%Y-%m-%d %H:%M:%S}")
    expect(shown).to_have_attribute("title", f"{utc:%Y-%m-%d %H:%M:%S.%f} UTC")
    page.goto("/admin/")
    expect(page.locator(".fks-foot .fks-zone")).to_have_text("GMT+5:30")
    assert complaints == []


def test_a_button_that_was_just_drawn_anew_opens_its_dialog(open_page: PageFor) -> None:
    page = with_clock(open_page())
    page.evaluate("""document.addEventListener("htmx:afterSwap", (event) => {
        if (event.target.id === "dashboard") {
            setTimeout(() => document.getElementById("switch-halt").click());
        }
    })""")
    page.clock.run_for(POLL)
    expect(page.locator("#modal-content input[name=reason]")).to_be_focused()
    expect(page).to_have_url(re.compile("/admin/$"))


def test_stale_figures_are_called_stale(open_page: PageFor) -> None:
    page = with_clock(open_page())
    expect(page.locator("#dashboard-stale")).to_be_hidden()
    page.route("**/admin/dashboard/", lambda route: route.abort())
    page.clock.run_for(POLL)
    expect(page.locator("#dashboard-stale")).to_be_visible()
    page.unroute("**/admin/dashboard/")
    page.clock.run_for(POLL)
    expect(page.locator("#dashboard-stale")).to_be_hidden()


def test_halting_with_the_keyboard_alone(open_page: PageFor, complaints: list[str]) -> None:
    page = open_page()
    page.locator("#switch-halt").focus()
    page.keyboard.press("Enter")
    reason = page.locator("#modal-content input[name=reason]")
    expect(reason).to_be_focused()
    page.keyboard.type("the venue misbehaves")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Trading is halted")).to_be_visible()
    row = TradingState.objects.get()
    assert (row.state, row.reason) == ("halted", "the venue misbehaves")
    assert (
        AuditEvent.objects.exclude(kind__startswith="login.").get().kind == "trading_state.changed"
    )
    assert complaints == []


def test_escape_closes_the_dialog_and_changes_nothing(open_page: PageFor) -> None:
    page = open_page()
    page.locator("#switch-halt").click()
    expect(page.locator("#modal-content input[name=reason]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#modal-content")).to_be_hidden()
    assert not TradingState.objects.exists()


def test_an_order_is_asked_about_before_it_is_canceled(
    open_page: PageFor, complaints: list[str], order: Order
) -> None:
    page = open_page()
    page.goto(_address(order))
    page.get_by_role("link", name="Cancel order").click()
    dialog = page.locator("#modal-content")
    expect(dialog.get_by_role("button", name="Cancel the order")).to_be_visible()
    expect(dialog.locator("input[name=reason]")).to_be_focused()
    with page.expect_navigation(url=f"**{_address(order)}"):
        dialog.get_by_role("link", name="Back").click()
    assert not AuditEvent.objects.exclude(kind__startswith="login.").exists()
    assert complaints == []


@pytest.mark.drives("execution_lab")
@pytest.mark.parametrize(
    "device",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    ],
    ids=["light", "dark", "phone"],
)
def test_an_alert_is_tried_in_the_lab(
    open_page: PageFor, complaints: list[str], device: dict[str, Any]
) -> None:
    strategy, secret = webhook()
    page = open_page(**device)
    page.goto(f"{reverse('admin:execution_lab')}?strategy={strategy.slug}")
    alert = {"secret": secret, "symbol": "BTC/USDT", "action": "buy", "quantity": "0.01"}
    page.get_by_label("Alert").fill(json.dumps(alert | {"comment": HOSTILE, HOSTILE: "1"}))
    page.get_by_role("button", name="Try it").press("Enter")
    expect(page.get_by_role("heading", name="1 of 1 orders would be sent")).to_be_visible()
    assert secret not in page.content()
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not Signal.objects.exists()
    assert complaints == []


@pytest.mark.core
@pytest.mark.drives("decide_approval approve")
def test_an_order_is_approved_on_a_phone(open_page: PageFor, complaints: list[str]) -> None:
    """The list is drawn anew every two seconds; the dialog over it stays, with what was typed."""
    order = OrderFactory.create(
        state=OrderState.AWAITING_APPROVAL,
        approve_by=timezone.now() + timedelta(minutes=10),
        strategy=StrategyFactory.create(slug="night"),
        signal=SignalFactory.create(
            state=SignalState.WORKING,
            alert={"symbol": "BTC/USDT", "action": "buy", "comment": HOSTILE},
        ),
        verdicts=[{"rule": "max_spread", "passed": False, "mode": "observe", "detail": HOSTILE}],
    )
    phone = {"width": 390, "height": 844}
    page = open_page(viewport=phone, is_mobile=True, has_touch=True)
    page.goto("/admin/")
    page.get_by_role("link", name="1 order waits for approval").tap()
    expect(page.get_by_role("heading", name="Buy 0.01 BTC/USDT")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("link", name="Approve").tap()
    dialog = page.locator("#modal-content")
    dialog.locator("input[name=reason]").fill("woken up for this")
    page.evaluate("document.getElementById('waiting').dataset.drawn = 'before'")
    expect(page.locator("#waiting")).not_to_have_attribute("data-drawn", "before")
    expect(dialog.locator("input[name=reason]")).to_have_value("woken up for this")
    dialog.get_by_role("button", name="Approve").tap()
    expect(page.get_by_text("It is judged once more, then sent.")).to_be_visible()
    order.refresh_from_db()
    assert order.state == OrderState.APPROVED
    assert AuditEvent.objects.get(kind="order.approved").reason == "woken up for this"
    assert page.evaluate("window.pwned") is None
    assert complaints == []


@pytest.mark.drives("execution_strategy_messages")
def test_messages_are_copied_with_the_keyboard_alone(
    open_page: PageFor, complaints: list[str]
) -> None:
    strategy, _ = webhook()
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(reverse("admin:execution_strategy_messages", args=[strategy.pk]))
    page.locator("[data-copy=copy-strategy]").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert json.loads(copied)["action"] == "{{strategy.order.action}}"
    assert complaints == []


@pytest.mark.core
@pytest.mark.drives("second_factor")
def test_a_second_factor_is_set_up(open_page: PageFor, complaints: list[str]) -> None:
    page = open_page()
    page.goto("/admin/second-factor/")
    expect(page.get_by_role("img", name="QR code of the key below")).to_be_visible()
    key = page.locator("#second-factor-key").inner_text()
    page.get_by_label("Code").fill(f"{totp(base64.b32decode(key)):06}")
    page.get_by_role("button", name="Go on").click()
    assert len(page.locator("#recovery-codes").inner_text().split()) == 10
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("link", name="Halt")).to_be_visible()
    assert complaints == []


@pytest.mark.drives("risk_proposal_approve")
def test_another_person_approves_a_release(open_page: PageFor, complaints: list[str]) -> None:
    Safeguards.objects.create(two_person=True)
    switch.change(TradingState.State.HALTED, reason="a drill")
    with audit.acting(audit.Actor("anna")):
        payload = {"mode": "resume", "scope": "global", "key": ""}
        row = proposals.submit("release", payload, reason="drill over")
    assert row is not None
    page = open_page()
    page.goto(reverse("admin:risk_proposal_change", args=[row.pk]))
    expect(page.get_by_role("cell", name="halted")).to_be_visible()
    page.get_by_role("link", name="Approve").first.click()
    page.get_by_label("Reason").fill("agreed")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("trading for everything: approved.")).to_be_visible()
    assert TradingState.objects.get().state == TradingState.State.ACTIVE
    assert complaints == []
