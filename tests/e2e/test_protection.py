"""Positions stay guarded at the exchange, whatever the market and the machine do."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.e2e.product import Product, eventually
from tests.e2e.test_product import query
from tests.venues.client import OrderRow, RunningVenue
from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET
from tests.venues.faults import Action, Fault, When

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ENTRY = {
    "symbol": "BTCUSDT",
    "action": "buy",
    "order_type": "limit",
    "price": "59000",
    "quantity": "0.01",
    "stop_loss": "58000",
}
STEP = Decimal("0.00001")
LIVE = ("open", "partially_filled")


def strategy_at(product: Product, venue: RunningVenue, name: str) -> str:
    """A strategy on an account at the loopback Binance, both ``name``; returns the webhook's path."""
    product.manage(
        "add_account",
        name,
        "--broker=ccxt",
        "--environment=sandbox",
        f'--options={{"exchange": "binance", "base_url": "{venue.base_url}"}}',
        "--credentials-file=-",
        stdin=json.dumps({"api_key": BINANCE_KEY, "api_secret": BINANCE_SECRET}),
    )
    product.manage("set_limit", "max_position_value", "100000", "--reason=test")
    created = product.manage(
        "add_strategy", name, f"--accounts={name}", '--options={"allowlist": "none"}'
    )
    return f"/webhook/{name}/{created['token']}"


def resting_entry(product: Product, path: str, **fields: object) -> str:
    """Post the entry and return its id at the venue, once it rests there."""
    _, answer = product.post(path, ENTRY | fields, {"Prefer": "wait=10"})
    assert answer["status"] == "working", answer
    return str(answer["orders"][0]["broker_order_id"])


def stops(venue: RunningVenue) -> list[OrderRow]:
    """The live stops at the venue."""
    orders = venue.control.ledger("binance").orders
    return [one for one in orders if one.trigger_price is not None and one.status in LIVE]


def guarded(venue: RunningVenue, *quantities: str) -> None:
    """Wait until exactly these quantities are guarded at 58000."""
    wanted = sorted(Decimal(one) for one in quantities)
    eventually(
        lambda: sorted(one.quantity for one in stops(venue)) == wanted,
        seconds=60,
        what=f"stops of {quantities} at the venue",
    )
    assert {one.trigger_price for one in stops(venue)} <= {Decimal(58000)}


def ended(product: Product, name: str) -> None:
    """Wait until the plan has ended; less than one step of the coin is left."""
    here = f"account__name='{name}'"
    eventually(
        lambda: query(product, f"Protection.objects.get({here}).is_active") == "False",
        seconds=60,
        what="the plan ended with its position",
    )
    assert Decimal(query(product, f"str(Position.objects.get({here}).quantity)").strip("'")) < STEP


def test_a_position_is_guarded_through_fills_a_target_a_kill_and_its_stop(
    venue: RunningVenue, product: Product
) -> None:
    path = strategy_at(product, venue, "guarded")
    target = [{"price": "61000", "percent": "50"}]
    entry = resting_entry(product, path, take_profit=target)
    assert stops(venue) == []

    venue.control.fill("binance", entry, Decimal("0.004"))
    guarded(venue, "0.00399")  # the fee was taken in the coin
    (first,) = stops(venue)

    for worker in product.workers():
        worker.kill()
    venue.control.fill("binance", entry, Decimal("0.006"))
    guarded(venue, "0.00399", "0.006")
    assert first.id in {one.id for one in stops(venue)}

    venue.control.set_price("binance", "BTC/USDT", 61000, 0)
    guarded(venue, "0.005")

    venue.control.set_price("binance", "BTC/USDT", 57900, 0)
    ended(product, "guarded")
    assert stops(venue) == []
    sold = [one for one in venue.control.ledger("binance").orders if one.side == "sell"]
    assert sum(one.filled for one in sold) == Decimal("0.00999")


def test_a_stop_the_venue_refuses_raises_an_alarm_and_its_price_closes(
    venue: RunningVenue, product: Product
) -> None:
    path = strategy_at(product, venue, "naked")
    entry = resting_entry(product, path)
    refusals = Fault(Action.CODE, When.BEFORE, code="-2010", venue="binance", count=5)
    venue.control.queue_faults(refusals)

    venue.control.fill("binance", entry, Decimal("0.01"))
    eventually(
        lambda: (
            query(
                product,
                "Alarm.objects.filter(kind='naked_position', account__name='naked').exists()",
            )
            == "True"
        ),
        seconds=60,
        what="the alarm",
    )
    assert stops(venue) == []

    venue.control.clear_faults()
    venue.control.set_price("binance", "BTC/USDT", 57900, 0)
    ended(product, "naked")
