"""Getting about: every entry of the palette, a list's tabs, search and filters, and the CSV."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from execution.admin.orders import STAGES
from execution.models import Order
from execution.states import OrderState
from fks_site import roles
from tests.e2e.browser import PageFor, person
from tests.e2e.pressing import list_of, told
from tests.factories import AccountFactory, FillFactory, OrderFactory, StrategyFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

STATES = {
    OrderState.OPEN: {"Working"},
    OrderState.AWAITING_APPROVAL: {"Working", "Awaiting approval"},
    OrderState.UNKNOWN: {"Working", "Unknown"},
    OrderState.NEEDS_OPERATOR: {"Working", "Needs operator"},
    OrderState.DENIED: {"Denied"},
    OrderState.REJECTED: {"Rejected"},
}
"""Under which tabs an order is, beside All."""


@pytest.mark.parametrize("role", sorted(roles.RIGHTS))
def test_every_entry_of_the_palette_leads_somewhere(page_for: PageFor, role: str) -> None:
    page = page_for(person("anna", role))
    page.goto(reverse("admin:index"))
    page.keyboard.press("Control+k")
    entries = page.get_by_role("option")
    expect(entries.first).to_be_visible()
    links = [str(entry.get_attribute("href")) for entry in entries.all()]
    assert len(links) > 20
    led = {link: page.request.get(link).status for link in links}
    assert {link: status for link, status in led.items() if status != 200} == {}


def test_each_tab_shows_its_orders_and_no_others(page_for: PageFor, complaints: list[str]) -> None:
    for state in STATES:
        OrderFactory.create(state=state, account=AccountFactory.create(name=f"of-{state}"))
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(list_of(Order))
    shown = page.locator("#result_list tbody .field-account")
    expect(shown).to_have_count(len(STATES))
    for label, _ in STAGES.values():
        page.get_by_role("link", name=label, exact=True).click()
        here = [f"of-{state}" for state, tabs in reversed(STATES.items()) if label in tabs]
        expect(shown).to_have_text(here)
    page.get_by_role("link", name="All", exact=True).click()
    expect(shown).to_have_count(len(STATES))
    assert complaints == []


def test_a_list_is_searched_and_filtered(page_for: PageFor, complaints: list[str]) -> None:
    wanted = OrderFactory.create(symbol="ETH/USDT", side="sell")
    OrderFactory.create(symbol="BTC/USDT")
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(list_of(Order))
    shown = page.locator("#result_list tbody tr")
    expect(shown).to_have_count(2)
    page.keyboard.press("/")
    expect(page.locator("#searchbar")).to_be_focused()
    page.keyboard.type("ETH/USDT")
    page.keyboard.press("Enter")
    expect(shown).to_have_count(1)
    expect(shown).to_contain_text(wanted.symbol)
    page.goto(f"{list_of(Order)}?side__exact=buy&q=ETH/USDT")
    told(page, "Nothing matches")
    page.get_by_role("link", name="Show all").click()
    expect(shown).to_have_count(2)
    assert complaints == []


def test_trades_are_downloaded(page_for: PageFor, complaints: list[str]) -> None:
    order = OrderFactory.create(state=OrderState.FILLED, strategy=StrategyFactory.create())
    FillFactory.create(order=order, trade_id="T77")
    page = page_for(person("vera", roles.VIEWER))
    page.goto(reverse("admin:performance"))
    told(page, "Realised, after fees")
    with page.expect_download() as started:
        page.get_by_role("link", name="Trades as CSV").click()
    assert re.fullmatch(r"fills.*\.csv", started.value.suggested_filename)
    lines = started.value.path().read_text().splitlines()
    assert len(lines) == 2
    assert "T77" in lines[1]
    assert complaints == []
