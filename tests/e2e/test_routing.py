"""Of two venues the better one gets the entry; when it is cut off, the other one does."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.desk import routed_desk, signed_in
from tests.e2e.product import Product, eventually, running_product
from tests.e2e.test_product import query
from tests.venues.client import RunningVenue, running_venue

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
SYMBOL = "BTC/USDT"
UNREACHABLE = {"VENUE_UNREACHABLE", "BREAKER_OPEN"}


def bought(product: Product, path: str, quantity: str) -> dict[str, Any]:
    """The order an alert came to."""
    body = {"symbol": "BTCUSDT", "action": "buy", "quantity": quantity}
    _, answer = product.post(path, body, {"Prefer": "wait=10"})
    assert answer["status"] == "executed", answer
    [order] = answer["orders"]
    return dict(order)


def offered(venue: RunningVenue, name: str, price: str) -> None:
    venue.control.set_depth(name, SYMBOL, bids=[("59000", "5")], asks=[(price, "5")])


def test_the_better_venue_takes_the_entry_and_the_other_one_once_it_is_cut_off(
    tmp_path: Path,
) -> None:
    with (
        running_venue() as bybit,
        running_product(tmp_path / "var") as product,
        ExitStack() as line,
    ):
        binance = line.enter_context(running_venue())
        offered(binance, "binance", "59900")
        offered(bybit, "bybit", "60000")
        path = routed_desk(product, {"binance": binance, "bybit": bybit})
        eventually(
            lambda: query(product, "Account.objects.filter(reconciled_at=None).count()") == "0",
            seconds=20,
            what="both accounts reconciled",
        )

        first = bought(product, path, "0.01")
        assert (first["account"], first["average_price"]) == ("binance", "59900")
        assert len(binance.control.ledger("binance").orders) == 1
        assert bybit.control.ledger("bybit").orders == []
        with signed_in(product) as browser:
            page = browser.get(f"/admin/execution/order/{first['order_id']}/change/").text
        assert "Why this account" in page
        assert "binance has the best price after fees" in page
        assert "59959.9" in page  # 59900 and the taker's 0.1 %
        assert "0.1669 % worse after fees" in page

        line.close()
        second = bought(product, path, "0.02")
        assert (second["account"], second["average_price"]) == ("bybit", "60000")
        candidates = "RoutingDecision.objects.latest('at').candidates"
        left_out = query(product, f"[one.get('code') for one in {candidates}]")
        assert any(left_out == f"[None, '{code}']" for code in UNREACHABLE), left_out
