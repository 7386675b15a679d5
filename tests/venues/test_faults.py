"""Each fault raises what it should in ccxt and leaves the ledger as its name says."""

from __future__ import annotations

import threading
import time
from typing import Any

import ccxt
import pytest

from tests.venues.client import VenueControl
from tests.venues.connecting import SYMBOLS, VENUES, buy, find
from tests.venues.faults import Action, Endpoint, Fault, When

HANG_S = 0.8


BEFORE, AFTER = When.BEFORE, When.AFTER
AMBIGUOUS = {"binance": "-1007", "kraken": "EService:Deadline elapsed"}
REJECT = {"binance": "-2010", "kraken": "EOrder:Insufficient funds"}
THROTTLED = (ccxt.DDoSProtection, ccxt.RateLimitExceeded)
SEEN: list[tuple[Fault, type[Exception] | tuple[type[Exception], ...], int]] = [
    (Fault(Action.DROP, BEFORE), ccxt.NetworkError, 0),
    (Fault(Action.DROP, AFTER), ccxt.NetworkError, 1),
    (Fault(Action.STATUS, BEFORE, status=500), ccxt.ExchangeNotAvailable, 0),
    (Fault(Action.STATUS, AFTER, status=500), ccxt.ExchangeNotAvailable, 1),
    (Fault(Action.STATUS, BEFORE, status=502), ccxt.ExchangeNotAvailable, 0),
    (Fault(Action.STATUS, AFTER, status=502), ccxt.ExchangeNotAvailable, 1),
    (Fault(Action.STATUS, BEFORE, status=503), ccxt.ExchangeNotAvailable, 0),
    (Fault(Action.STATUS, AFTER, status=503), ccxt.ExchangeNotAvailable, 1),
    (Fault(Action.STATUS, BEFORE, status=504), ccxt.RequestTimeout, 0),
    (Fault(Action.STATUS, AFTER, status=504), ccxt.RequestTimeout, 1),
    (Fault(Action.STATUS, BEFORE, status=429), THROTTLED, 0),
    (Fault(Action.STATUS, AFTER, status=429), THROTTLED, 1),
    (Fault(Action.HANG, BEFORE, seconds=HANG_S), ccxt.RequestTimeout, 0),
    (Fault(Action.HANG, AFTER, seconds=HANG_S), ccxt.RequestTimeout, 1),
    (Fault(Action.LATE, seconds=HANG_S), ccxt.RequestTimeout, 1),
    (Fault(Action.TRUNCATE), ccxt.NetworkError, 1),
]


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize(
    ("fault", "raised", "placed"), SEEN, ids=[f"{f.label}:{f.status}" for f, _, _ in SEEN]
)
def test_a_fault_raises_and_leaves_what_it_says(
    name: str,
    fault: Fault,
    raised: type[Exception] | tuple[type[Exception], ...],
    placed: int,
    client: Any,
    control: VenueControl,
) -> None:
    exchange = client(name)
    control.queue_faults(fault)
    with pytest.raises(raised):
        buy(exchange, name, "struck")
    settle(control, name, placed)
    assert [o.client_id for o in control.ledger(name).orders] == ["struck"] * placed
    assert control.pending_faults() == []
    assert len(find(exchange, name, "struck")) == placed


def settle(control: VenueControl, name: str, placed: int) -> None:
    """Wait until the struck request has left the venue: then it is in the journal."""
    give_up = time.monotonic() + 5
    while control.ledger(name).counts.get("order_requests", 0) < 1:
        assert time.monotonic() < give_up, "the request never ended"
        threading.Event().wait(0.02)
    assert control.ledger(name).counts.get("accepted", 0) == placed


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize("action", [Action.CUT_JSON, Action.EMPTY, Action.HTML])
def test_an_unreadable_answer_looks_like_success(
    name: str, action: Action, client: Any, control: VenueControl
) -> None:
    control.queue_faults(Fault(action))
    order = buy(client(name), name, "odd")
    assert order["id"] is None
    assert [o.status for o in control.ledger(name).orders] == ["filled"]


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize(("when", "placed"), [(BEFORE, 0), (AFTER, 1)])
def test_the_venues_own_ambiguous_codes(
    name: str, when: When, placed: int, client: Any, control: VenueControl
) -> None:
    control.queue_faults(Fault(Action.CODE, when, code=AMBIGUOUS[name]))
    with pytest.raises((ccxt.RequestTimeout, ccxt.ExchangeError), match=AMBIGUOUS[name]):
        buy(client(name), name, "maybe")
    assert len(control.ledger(name).orders) == placed


@pytest.mark.parametrize("name", VENUES)
def test_scripted_rejection(name: str, client: Any, control: VenueControl) -> None:
    control.queue_faults(Fault(Action.CODE, BEFORE, code=REJECT[name]))
    with pytest.raises(ccxt.InsufficientFunds):
        buy(client(name), name, "no")
    assert control.ledger(name).orders == []


def test_binance_throttling_says_when_to_retry(client: Any, control: VenueControl) -> None:
    exchange = client("binance")
    control.queue_faults(Fault(Action.CODE, BEFORE, code="-1003"))
    with pytest.raises(ccxt.DDoSProtection, match="429"):
        buy(exchange, "binance", "no")
    assert exchange.last_response_headers["Retry-After"] == "1"


@pytest.mark.parametrize("name", VENUES)
def test_faults_strike_only_their_kind(name: str, client: Any, control: VenueControl) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    cancel = Fault(Action.DROP, AFTER, endpoint=Endpoint.CANCEL, venue=name)
    query = Fault(Action.DROP, BEFORE, endpoint=Endpoint.QUERY, venue=name, count=2)
    control.queue_faults(cancel, query)
    order = buy(exchange, name, "kept", "50000")
    with pytest.raises(ccxt.NetworkError):
        exchange.cancel_order(order["id"], symbol)
    assert control.ledger(name).orders[0].status == "canceled"
    for _ in range(2):
        with pytest.raises(ccxt.NetworkError):
            exchange.fetch_balance()
    exchange.fetch_balance()


@pytest.mark.parametrize("name", VENUES)
def test_fills_may_come_later(name: str, client: Any, control: VenueControl) -> None:
    exchange = client(name)
    control.queue_faults(Fault(Action.DELAY_FILLS, seconds=30))
    buy(exchange, name, "slow")
    assert find(exchange, name, "slow")[0]["status"] == "open"
    assert control.ledger(name).trades == []
    control.set_clock_offset(31_000)
    assert [o.status for o in control.ledger(name).orders] == ["filled"]


def test_trades_may_be_listed_twice(client: Any, control: VenueControl) -> None:
    binance, kraken = client("binance"), client("kraken")
    for exchange in (binance, kraken):
        buy(exchange, exchange.id, "once")
    control.queue_faults(Fault(Action.DOUBLE_FILLS, endpoint=Endpoint.QUERY, count=2))
    ids = [trade["id"] for trade in binance.fetch_my_trades("BTC/USDT")]
    assert ids == ["1", "1"]
    order = kraken.fetch_order(control.ledger("kraken").orders[0].id)
    assert len(order["info"]["trades"]) == 2
    assert len(control.ledger("binance").trades) == 1


@pytest.mark.parametrize("name", VENUES)
def test_a_new_order_may_stay_invisible_for_a_while(
    name: str, client: Any, control: VenueControl
) -> None:
    exchange = client(name)
    control.set_visibility_delay(30_000, venue=name)
    buy(exchange, name, "hidden")
    assert find(exchange, name, "hidden") == []
    assert exchange.fetch_my_trades(SYMBOLS[name]) == []
    assert len(control.ledger(name).orders) == 1
    control.set_clock_offset(31_000)
    exchange.options["timeDifference"] = -31_000
    assert len(find(exchange, name, "hidden")) == 1
    assert len(exchange.fetch_my_trades(SYMBOLS[name])) == 1


def test_fault_rates_follow_the_seed(client: Any, control: VenueControl) -> None:
    def strike() -> list[str]:
        control.reset()
        exchange = client("binance")
        control.set_fault_rates(
            Fault(Action.STATUS, BEFORE, probability=0.2),
            Fault(Action.STATUS, AFTER, probability=0.2),
        )
        for number in range(40):
            try:
                buy(exchange, "binance", f"n{number}")
            except ccxt.ExchangeNotAvailable:
                continue
        return [o.client_id for o in control.ledger("binance").orders]

    first = strike()
    assert 20 <= len(first) < 40
    assert strike() == first


@pytest.mark.parametrize("name", VENUES)
def test_latency_holds_the_answer_back(name: str, client: Any, control: VenueControl) -> None:
    control.set_latency(100)
    exchange = client(name)
    started = time.monotonic()
    buy(exchange, name, "slow")
    assert time.monotonic() - started >= 0.1
