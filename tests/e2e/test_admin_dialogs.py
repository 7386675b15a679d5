"""What a browser shows where the answer is not what a page asked for: a refusal, or the log-in."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from execution.models import Order
from execution.states import OrderState
from tests.e2e.browser import POLL, PageFor, with_clock
from tests.factories import OrderFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def _cancel(page: Page, symbol: str) -> None:
    row = page.locator("#result_list tr").filter(has_text=symbol)
    row.get_by_role("button", name="More actions").click()
    page.get_by_role("link", name="Cancel order").click()


def test_a_refused_dialog_says_so_and_never_shows_the_one_before(open_page: PageFor) -> None:
    OrderFactory.create(state=OrderState.OPEN, symbol="BTC/USDT")
    ends = OrderFactory.create(state=OrderState.OPEN, symbol="ETH/USDT")
    page = open_page()
    page.goto(reverse("admin:execution_order_changelist"))
    Order.objects.filter(pk=ends.pk).update(state=OrderState.FILLED)
    dialog = page.locator("#modal-content")
    _cancel(page, "BTC/USDT")
    expect(dialog.locator("input[name=reason]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    _cancel(page, "ETH/USDT")
    expect(dialog.get_by_role("alert")).to_have_text(
        "This cannot be done now: the state does not allow it, or you may not do it."
    )
    expect(dialog.locator("form")).to_have_count(0)
    close = dialog.get_by_role("button", name="Close")
    expect(close).to_be_focused()
    close.press("Enter")
    expect(dialog).to_be_hidden()


@pytest.mark.parametrize("name", ["index", "unknown_desk"])
def test_a_page_that_follows_goes_to_the_log_in_when_the_session_has_ended(
    open_page: PageFor, name: str
) -> None:
    page = open_page()
    page.goto(reverse(f"admin:{name}"))
    with_clock(page)
    page.context.clear_cookies()
    page.clock.run_for(POLL)
    address = re.escape(f"{reverse('admin:login')}?next={reverse(f'admin:{name}')}")
    expect(page).to_have_url(re.compile(f"{address}$"))


def test_the_palette_goes_to_the_log_in_when_the_session_has_ended(open_page: PageFor) -> None:
    page = open_page()
    page.context.clear_cookies()
    page.keyboard.press("Control+k")
    expect(page).to_have_url(re.compile(re.escape("/admin/login/?next=/admin/") + "$"))
