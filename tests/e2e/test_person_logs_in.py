"""A whole installation at a venue that wants a person: an alarm, the log-in, trades, a lost answer."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.desk import signed_in
from tests.e2e.product import Product, eventually, running_product
from tests.e2e.test_product import query
from tests.venues.client import RunningVenue, running_venue
from tests.venues.credentials import SCHWAB_KEY, SCHWAB_SECRET
from tests.venues.faults import Action, Fault
from tests.venues.schwab.rules import ACCOUNT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
WAIT = {"Prefer": "wait=10"}


def alarms(product: Product) -> str:
    return query(
        product, "list(Alarm.objects.filter(cleared_at=None).values_list('kind', flat=True))"
    )


def log_in_at_the_venue(product: Product) -> httpx.Response:
    """As an operator does it: into the admin, to the venue's page, and the address pasted back."""
    with signed_in(product) as browser:
        pk = query(product, "Account.objects.get(name='shares').pk")
        page = browser.get(f"/admin/brokers/account/{pk}/change/")
        assert "needs log-in: nobody has" in page.text
        link = re.search(r'href="([^"]+/log[-_]in[^"]*)"', page.text)
        assert link is not None
        page = browser.get(html.unescape(link[1]))
        venue = re.search(r'id="to-the-venue" href="([^"]+)"', page.text)
        assert venue is not None
        led_to = httpx.get(html.unescape(venue[1])).headers["Location"]
        assert urlsplit(led_to).hostname == "127.0.0.1"
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token is not None
        form = {"address": led_to, "csrfmiddlewaretoken": token[1]}
        return browser.post(str(page.url), data=form, headers={"Referer": str(page.url)})


def strategy(product: Product, venue: RunningVenue) -> str:
    product.manage(
        "add_account",
        "shares",
        "--broker=schwab",
        "--environment=sandbox",
        f"--options={json.dumps({'base_url': venue.base_url, 'account': ACCOUNT})}",
        "--credentials-file=-",
        stdin=json.dumps({"api_key": SCHWAB_KEY, "api_secret": SCHWAB_SECRET}),
    )
    product.manage("set_limit", "max_position_value", "100000", "--reason=test")
    created = product.manage(
        "add_strategy", "test", "--accounts=shares", '--options={"allowlist": "none"}'
    )
    return f"/webhook/test/{created['token']}"


def test_a_share_is_bought_and_sold_at_schwab_once_somebody_has_logged_in(tmp_path: Path) -> None:
    with running_venue() as venue, running_product(tmp_path / "var") as product:
        path = strategy(product, venue)
        buy = {"symbol": "NASDAQ:AAPL", "action": "buy", "quantity": "3", "stop_loss": "240"}
        eventually(lambda: "login_needed" in alarms(product), seconds=90, what="the alarm")
        _, refused = product.post(path, {**buy, "id": "early"}, WAIT)
        assert (refused["status"], refused["reason"]) == ("denied", "LOGIN_NEEDED"), refused

        done = log_in_at_the_venue(product)
        assert "is logged in at its venue" in done.text
        assert "logged in, 6 days left" in done.text
        eventually(lambda: alarms(product) == "[]", seconds=90, what="the alarm's end")

        _, bought = product.post(path, {**buy, "id": "1"}, WAIT)
        assert bought["status"] == "executed", bought
        eventually(
            lambda: (
                [one.type for one in venue.control.ledger("schwab").orders] == ["market", "stop"]
            ),
            seconds=60,
            what="the stop loss at the venue",
        )

        venue.control.queue_faults(Fault(Action.DROP, venue="schwab"))
        more = {"symbol": "AAPL", "action": "buy", "quantity": "2", "id": "2"}
        product.post(path, more)
        eventually(
            lambda: query(product, "Position.objects.get().quantity") == "Decimal('5')",
            seconds=60,
            what="the order whose answer was lost, recognised",
        )
        placed = venue.control.ledger("schwab").orders
        assert [one.quantity for one in placed if one.type == "market"] == [3, 2]

        _, closed = product.post(path, {"symbol": "AAPL", "action": "close", "id": "3"}, WAIT)
        eventually(
            lambda: query(product, "Position.objects.get().quantity") == "Decimal('0')",
            seconds=60,
            what=f"the position closed, after {closed}",
        )
        assert query(product, "Difference.objects.count()") == "0"
        assert stored_secrets(product) == []


def stored_secrets(product: Product) -> list[str]:
    """Tables that hold a token in the clear."""
    wanted = "loopback-(access|refresh)"
    tables = {
        "log-ins": product.rows("SELECT 1 FROM brokers_accountlogin t WHERE t::text ~ %s", wanted),
        "audit": product.rows("SELECT 1 FROM risk_auditevent t WHERE t::text ~ %s", wanted),
        "journal": product.rows("SELECT 1 FROM execution_orderevent t WHERE t::text ~ %s", wanted),
    }
    return [name for name, rows in tables.items() if rows]
