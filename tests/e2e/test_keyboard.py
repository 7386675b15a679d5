"""The room without a mouse: the command palette, the list of keys, and long lists."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from execution.models import Order
from execution.states import OrderState
from tests.e2e.browser import HOSTILE, PageFor
from tests.factories import AccountFactory, OrderFactory, StrategyFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def palette(page: Page, term: str) -> None:
    page.keyboard.press("Control+k")
    expect(page.get_by_role("combobox", name="Find a page")).to_be_focused()
    page.keyboard.type(term)


def found(page: Page, term: str) -> None:
    """Wait for the answer to the whole of ``term``: those to its beginning come first."""
    expect(page.locator("#palette-list")).to_have_attribute("data-term", term)


def page_of(order: Order) -> str:
    return reverse("admin:execution_order_change", args=[order.pk])


@pytest.mark.core
@pytest.mark.drives("search")
def test_an_order_is_found_by_its_brokers_id(open_page: PageFor, complaints: list[str]) -> None:
    order = OrderFactory.create(broker_order_id="Venue-77-XYZ")
    page = open_page()
    palette(page, "Venue-77-XYZ")
    page.keyboard.press("Enter")  # before the answer has come
    page.wait_for_url(f"**{page_of(order)}")
    assert complaints == []


def test_arrows_choose_and_enter_opens(open_page: PageFor, complaints: list[str]) -> None:
    page = open_page()
    palette(page, "limit")
    found(page, "limit")
    options = page.get_by_role("option")
    expect(options.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(options.first).to_have_attribute("aria-selected", "false")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(options.last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(options.first).to_contain_text("Limits")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{reverse('admin:risk_riskpolicy_changelist')}")
    assert complaints == []


def test_trading_is_halted_from_the_palette(open_page: PageFor, complaints: list[str]) -> None:
    page = open_page()
    palette(page, "halt")
    found(page, "halt")
    expect(page.get_by_role("option", name="Halt trading")).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/trading/?mode=halt")
    page.get_by_label("Reason").fill("from the keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Trading is halted")).to_be_visible()
    assert complaints == []


def test_escape_leaves_the_page_as_it_was(open_page: PageFor, complaints: list[str]) -> None:
    page = open_page()
    palette(page, "orders")
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    expect(page).to_have_url(re.compile("/admin/$"))
    assert complaints == []


def test_a_key_right_after_escape_is_for_the_page(open_page: PageFor) -> None:
    """The browser leaves the focus in a closed dialog until it draws the next picture."""
    page = open_page()
    page.keyboard.press("Control+k")
    expect(page.get_by_role("combobox", name="Find a page")).to_be_focused()
    focused = page.evaluate("""() => {
        document.getElementById("palette").close();
        const focused = document.activeElement;
        focused.dispatchEvent(new KeyboardEvent("keydown", {key: "?", bubbles: true}));
        return focused.id;
    }""")
    assert focused == "palette-input"
    expect(page.get_by_role("heading", name="Keyboard")).to_be_visible()


def test_the_button_in_the_menu_opens_it_too(open_page: PageFor, complaints: list[str]) -> None:
    page = open_page()
    page.get_by_role("button", name="Find anything").click()
    expect(page.get_by_role("option", name="Home")).to_be_visible()
    assert complaints == []


def test_hostile_rows_are_text_in_the_palette(open_page: PageFor, complaints: list[str]) -> None:
    OrderFactory.create(symbol=HOSTILE[:60], account=AccountFactory.create(name="paper"))
    StrategyFactory.create(slug="odd", note=HOSTILE)
    page = open_page()
    palette(page, "<img")
    found(page, "<img")
    expect(page.get_by_role("option").filter(has_text="<img")).to_be_visible()
    expect(page.get_by_role("option", name="odd")).to_be_visible()
    assert page.evaluate("window.pwned") is None
    assert complaints == []


def test_a_question_mark_typed_into_a_field_is_a_question_mark(open_page: PageFor) -> None:
    page = open_page()
    page.goto(reverse("admin:execution_order_changelist"))
    page.keyboard.press("/")
    expect(page.locator("#searchbar")).to_be_focused()
    page.keyboard.type("what?")
    expect(page.locator("#searchbar")).to_have_value("what?")
    expect(page.locator("#keys")).to_be_hidden()


def test_a_rows_actions_are_reached_by_keyboard(open_page: PageFor, complaints: list[str]) -> None:
    OrderFactory.create(state=OrderState.OPEN)
    page = open_page()
    page.goto(reverse("admin:execution_order_changelist"))
    opener = page.get_by_role("button", name="More actions")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Ask the venue now")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Ask the venue now")).to_be_hidden()
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Ask the venue now")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Cancel order")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#modal-content input[name=reason]")).to_be_focused()
    assert complaints == []


@pytest.mark.parametrize("width", [1440, 390], ids=["desk", "phone"])
def test_a_long_list_is_read_page_by_page(
    open_page: PageFor, complaints: list[str], width: int
) -> None:
    account = AccountFactory.create(name="paper")
    for _ in range(60):
        OrderFactory.create(account=account)
    page = open_page(viewport={"width": width, "height": 900})
    page.goto(f"{reverse('admin:execution_order_changelist')}?side__exact=buy")
    rows, pages = page.locator("#result_list tbody"), page.get_by_role("navigation", name="Pages")
    expect(rows).to_have_count(50)
    expect(pages).to_contain_text("more than 50")
    pages.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(10)
    assert "side__exact=buy" in page.url
    pages.get_by_role("link", name="Newer").click()
    expect(rows).to_have_count(50)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert complaints == []
