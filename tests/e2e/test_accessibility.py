"""Every page for everybody: axe-core finds nothing serious, light, dark and on a phone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from django.apps import apps
from django.urls import reverse
from playwright.sync_api import Page, ViewportSize

from brokers.connection import Connection
from execution.models import Adoption, Order
from execution.states import OrderState
from tests.e2e import inventory, rows
from tests.e2e.browser import PageFor, settled
from tests.e2e.test_keyboard import found, palette

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(600),
]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What is right is not listed: that would cost most of the time.
SCAN = """rules => axe.run(document, {runOnly: rules, resultTypes: ["violations"]}).then(
    (found) => found.violations.filter((one) => ["serious", "critical"].includes(one.impact)))"""
# What is to be pressed or filled in and sticks out of the screen, but for what is scrolled to.
BEYOND = """() => [...document.querySelectorAll("#content :is(a, button, input, select, textarea)")]
    .filter((one) => one.checkVisibility())
    .filter((one) => {
        for (let around = one; around; around = around.parentElement) {
            if (["auto", "scroll"].includes(getComputedStyle(around).overflowX)) return false;
        }
        const { left, right } = one.getBoundingClientRect();
        return left < 0 || right > window.innerWidth;
    })
    .map((one) => one.outerHTML.slice(0, 120))"""
# Tall, so that nothing lies under the bar with the buttons at the lower edge.
DESK: ViewportSize = {"width": 1440, "height": 2600}
PHONE: ViewportSize = {"width": 390, "height": 2600}
MAIN = {
    "index",
    "execution_order_change",
    "execution_order_changelist",
    "execution_signal_change",
    "execution_strategy_change",
    "trading",
}
ASKED = {
    "execution_order_adopt",
    "execution_strategy_rotate",
    "risk_circuitbreaker_reset",
    "risk_riskpolicy_delete",
}
"""Of the pages that ask, one of each sort."""
ELSEWHERE = {"login", "risk_safeguards_changelist"}
"""The page for who is not logged in; one row, no list."""


@pytest.fixture
def everything(order: Order) -> Order:
    rows.a_row_of_everything(order)
    return order


@pytest.fixture(autouse=True)
def _quick_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the venue would start a process."""
    told = Connection((), ("the key may withdraw",), latency_ms=12, may_trade=True)
    monkeypatch.setattr("risk.admin.accounts.test_connection", lambda _: told)


def address(name: str, order: Order) -> str:
    """Where the page of that name is; of a row, where what it shows is there to be shown."""
    chosen: dict[str, Any] = {
        "adoption": Adoption.objects.get,
        "auth_group_change": lambda: apps.get_model("auth.group").objects.get(name=rows.GROUP),
        "brokers_account_log_in": lambda: apps.get_model("brokers.account").objects.get(
            name=rows.SHARES
        ),
        "execution_order_adopt": lambda: Order.objects.filter(state=OrderState.UNKNOWN).get(),
        "execution_order_change": lambda: order,
        "execution_signal_change": lambda: order.signal,
    }
    *label, verb = name.split("_", 2)
    if name in chosen:
        return reverse(f"admin:{name}", args=[chosen[name]().pk])
    if len(label) < 2 or verb in ("changelist", "add") or "_".join(label) not in MODELS:
        return reverse(f"admin:{name}")
    row = MODELS["_".join(label)]._default_manager.order_by("pk").first()
    assert row is not None, name
    return reverse(f"admin:{name}", args=[row.pk])


MODELS = {f"{one._meta.app_label}_{one._meta.model_name}": one for one in apps.get_models()}


def serious(page: Page, rules: Iterable[str] = RULES) -> list[str]:
    """What axe-core calls serious or critical on the page."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    return [
        f"{page.url} {one['id']}: {node['target']} {node['html'][:120]}"
        for one in page.evaluate(SCAN, list(rules))
        for node in one["nodes"]
    ]


def in_every_look(page: Page) -> list[str]:
    """Light, dark, and on a phone, without loading it anew. A theme is a matter of colours only."""
    findings = serious(page)
    page.evaluate("document.documentElement.classList.add('dark')")
    settled(page)
    findings += [f"dark: {one}" for one in serious(page, ["color-contrast"])]
    page.evaluate("document.documentElement.classList.remove('dark')")
    page.set_viewport_size(PHONE)
    settled(page)
    findings += [f"phone: {one}" for one in serious(page)]
    findings += [f"phone: {page.url} beyond-the-edge: {one}" for one in page.evaluate(BEYOND)]
    if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
        findings.append(f"phone: {page.url} scrolls-sideways")
    page.set_viewport_size(DESK)
    return findings


def scanned(page: Page, names: Iterable[str], order: Order) -> list[str]:
    findings = []
    for name in sorted(names):
        answer = page.goto(address(name, order))
        assert answer is not None
        assert answer.status == 200, name
        settled(page)
        findings += in_every_look(page)
    return findings


SHARES = {
    "lists": lambda name: name.endswith("_changelist"),
    "rows": lambda name: name.endswith("_change"),
    "the rest": lambda name: not name.endswith(("_changelist", "_change")),
}


@pytest.mark.core
def test_no_main_page_has_a_serious_finding(open_page: PageFor, everything: Order) -> None:
    page = open_page(viewport=DESK)
    assert scanned(page, MAIN, everything) == []


@pytest.mark.parametrize("share", SHARES)
def test_no_other_page_has_a_serious_finding(
    open_page: PageFor, everything: Order, complaints: list[str], share: str
) -> None:
    names = (inventory.pages() | ASKED) - MAIN - ELSEWHERE
    page = open_page(viewport=DESK)
    assert scanned(page, filter(SHARES[share], names), everything) == []
    assert complaints == []


@pytest.mark.parametrize("width", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_palette_and_the_keys_have_no_serious_finding(
    open_page: PageFor, everything: Order, width: ViewportSize, scheme: str
) -> None:
    page = open_page(viewport=width, color_scheme=scheme)
    palette(page, "BTC")
    found(page, "BTC")
    settled(page)
    findings = serious(page)
    page.keyboard.press("Escape")
    page.locator("#palette").wait_for(state="hidden")
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keyboard").wait_for()
    settled(page)
    assert findings + serious(page) == []


def test_the_login_page_has_no_serious_finding(page_for: PageFor) -> None:
    page = page_for(None, viewport=DESK)
    page.goto("/admin/login/")
    settled(page)
    assert in_every_look(page) == []


def test_what_is_wrong_is_found(open_page: PageFor) -> None:
    """A picture and a field without names are serious, and so are words too pale in the dark."""
    page = open_page(viewport=DESK)
    page.evaluate("document.body.innerHTML = '<main><img src=\"/x\"><input></main>'")
    assert {one.split()[1] for one in serious(page)} >= {"image-alt:", "label:"}
    page.evaluate("""document.body.innerHTML = '<main><h1 class="fks-loss">Lost</h1></main>'""")
    page.evaluate("document.body.style.background = 'white'")
    assert [one.split()[0] for one in in_every_look(page)] == ["dark:"]
