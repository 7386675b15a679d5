"""The control side, the journal and the process itself."""

from __future__ import annotations

import http.client
import json
import threading
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import ccxt
import pytest

from tests.venues.client import ControlError, RunningVenue, VenueControl, running_venue
from tests.venues.connecting import VENUES, buy
from tests.venues.faults import Action, Fault

D = Decimal


@pytest.mark.parametrize("name", VENUES)
def test_the_journal_masks_secrets(name: str, client: Any, control: VenueControl) -> None:
    control.queue_faults(Fault(Action.DROP))
    with pytest.raises(ccxt.NetworkError):
        buy(client(name), name, "noted")
    (entry,) = control.requests()
    (order,) = control.ledger(name).orders
    assert (entry.venue, entry.method, entry.endpoint) == (name, "POST", "order")
    assert (entry.order_id, entry.status, entry.fault) == (order.id, 0, "drop:after")
    field = {"binance": "newClientOrderId", "kraken": "cl_ord_id"}[name]
    assert entry.params[field] == "noted"
    assert entry.params.get("signature", "***") == "***"
    assert control.requests(since=entry.sequence) == []


def test_fills_by_hand_must_fit_the_order(client: Any, control: VenueControl) -> None:
    order = buy(client("binance"), "binance", "hand", "50000")
    for quantity, price in (("0.6", "50000"), ("0.1", "50001"), ("0", "50000")):
        with pytest.raises(ControlError, match="does not fit"):
            control.fill("binance", order["id"], quantity, price)
    trade = control.fill("binance", order["id"], "0.5", "49000")
    assert (trade.price, trade.quantity, trade.maker) == (D(49000), D("0.5"), True)


@pytest.mark.parametrize(
    "raw",
    [
        {"action": "late", "when": "before"},
        {"action": "code"},
        {"action": "explode"},
        {"action": "drop", "where": "here"},
    ],
)
def test_nonsense_faults_are_refused(
    raw: dict[str, str], server: RunningVenue, control: VenueControl
) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=5)
    connection.request("POST", "/_venue/faults", json.dumps({"queue": [raw]}))
    assert connection.getresponse().status == http.client.BAD_REQUEST
    assert control.pending_faults() == []
    connection.close()


def test_many_threads_leave_an_exact_ledger(client: Any, control: VenueControl) -> None:
    control.set_price("binance", "BTC/USDT", 50000, spread=0)

    def trade(number: int) -> None:
        exchange = client("binance", timeout=10_000)
        for turn in range(25):
            params = {"clientOrderId": f"t{number}x{turn}"}
            exchange.create_order("BTC/USDT", "market", "buy", "0.001", None, params)

    threads = [threading.Thread(target=trade, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = control.ledger("binance")
    assert len({o.client_id for o in ledger.orders}) == len(ledger.orders) == 200
    assert ledger.counts["accepted"] == 200
    assert ledger.free[("main", "USDT")] == 1_000_000 - 200 * 50
    assert ledger.free[("main", "BTC")] == 100 + 200 * D("0.001") - 200 * D("0.000001")


def test_a_venue_stops_with_its_context() -> None:
    with running_venue(id_rule="forever") as venue:
        assert venue.control.ledger("binance").orders == []
    with pytest.raises(ConnectionRefusedError):
        venue.control.ledger("binance")
