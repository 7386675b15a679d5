"""A position somebody opened at the venue by hand, in a symbol FKS has never traded."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.desk import oanda_desk
from tests.e2e.product import Product, eventually, running_product
from tests.venues.client import RunningVenue, running_venue
from tests.venues.credentials import OANDA_TOKEN
from tests.venues.oanda.rules import ACCOUNT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

COMPARE = """
from brokers.models import Account
from execution.reconcile import reconcile_account
found = reconcile_account(Account.objects.get(name="oanda"))
answer = [[one.symbol, one.ours, one.theirs] for one in found]
"""
RESOLVE = """
from execution import differences
from execution.models import Difference
differences.{how}(Difference.objects.get(state="open"), reason="opened by hand")
"""
HELD = "SELECT symbol, quantity FROM execution_position WHERE quantity <> 0"
STATES = "SELECT state FROM execution_difference ORDER BY id"


@pytest.fixture
def venue() -> Iterator[RunningVenue]:
    with running_venue() as running:
        yield running


def trade_by_hand(venue: RunningVenue, instrument: str, units: str) -> None:
    """As in the broker's own app."""
    order = {
        "type": "MARKET",
        "instrument": instrument,
        "units": units,
        "timeInForce": "FOK",
        "positionFill": "DEFAULT",
    }
    address = urlsplit(venue.base_url).netloc
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request(
            "POST",
            f"/v3/accounts/{ACCOUNT}/orders",
            json.dumps({"order": order}),
            {"Authorization": f"Bearer {OANDA_TOKEN}", "Content-Type": "application/json"},
        )
        response = connection.getresponse()
        assert response.status == http.client.CREATED, response.read()


def buy(product: Product, path: str, key: str, symbol: str = "USDJPY") -> dict[str, str]:
    """A bought position's order, as the webhook answers it."""
    body = {"symbol": symbol, "action": "buy", "quantity": "10", "id": key}
    _, answer = product.post(path, body, {"Prefer": "wait=10"})
    order: dict[str, str] = answer["orders"][0]
    return order


def test_it_blocks_its_symbol_until_an_operator_has_it_flattened_or_adopted(
    tmp_path: Path, venue: RunningVenue
) -> None:
    with running_product(tmp_path / "var") as product:
        path = oanda_desk(product, venue)
        assert product.within(COMPARE) == []
        trade_by_hand(venue, "USD_JPY", "500")

        assert product.within(COMPARE) == [["USD/JPY", "0", "500"]]

        refused = buy(product, path, "1")
        assert (refused["status"], refused["reason"]) == ("denied", "DRIFT")
        assert buy(product, path, "2", "EURUSD")["status"] == "filled"

        product.within(RESOLVE.format(how="ask_flatten"))
        eventually(
            lambda: product.rows(STATES) == [("flattened",)] and len(product.rows(HELD)) == 1,
            seconds=60,
            what="the foreign position closed at the venue",
        )
        last = venue.control.ledger("oanda").orders[-1]
        assert (last.symbol, last.side, last.quantity, last.status) == (
            "USD/JPY",
            "sell",
            500,
            "filled",
        )
        assert buy(product, path, "3")["status"] == "filled"

        trade_by_hand(venue, "JP225_USD", "-2")
        eventually(
            lambda: product.within(COMPARE) == [["JP225/USD", "0", "-2"]],
            seconds=60,
            what="the foreign short found",
        )
        product.within(RESOLVE.format(how="adopt"))
        assert ("JP225/USD", Decimal(-2)) in product.rows(HELD)
