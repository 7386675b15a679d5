"""The gate: what may leave, what is remembered, what is hidden."""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import urlencode

import pytest

from brokers.exchanges import BINANCE_SPOT, KRAKEN_SPOT
from brokers.transport import Gate, RequestRefusedError

HOST = "https://venue.example"
ORDER = f"{HOST}/api/v3/order"
KEY, SECRET = "the+key/1", "the-secret"
WIRE: dict[str, str | Decimal] = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "quantity": Decimal("0.002"),
    "price": Decimal(50000),
    "newClientOrderId": "0123456789abcdef0123456789abcdef",
}
FIELDS = {name: str(value) for name, value in WIRE.items()}
SIGNED = {"timestamp": "1", "recvWindow": "5000", "signature": "ab12"}


@pytest.fixture
def gate() -> Gate:
    return Gate(BINANCE_SPOT, frozenset({HOST}), (KEY, SECRET))


def test_reads_pass_and_leave_no_attempt(gate: Gate) -> None:
    gate.inspect(f"{HOST}/api/v3/account?x=1", "GET", None)
    gate.answered(f"{HOST}/api/v3/account?x=1", "GET", 200, {}, "{}")
    assert (gate.status, gate.body) == (200, "{}")


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "https://api.binance.com/api/v3/account"),
        ("GET", "http://venue.example/api/v3/account"),
        ("GET", "https://venue.example:8443/api/v3/account"),
        ("GET", "https://venue.example@elsewhere.example/api/v3/account"),
        ("GET", f"{HOST}/sapi/v1/capital/withdraw/history"),
        ("POST", f"{HOST}/sapi/v1/capital/withdraw/apply"),
        ("POST", f"{HOST}/api/v3/order/oco"),
        ("POST", f"{HOST}/api/v3/order/cancelReplace"),
        ("DELETE", f"{HOST}/api/v3/openOrders"),
        ("POST", ORDER),
        ("DELETE", ORDER),
    ],
)
def test_what_nobody_announced_stays_in(gate: Gate, method: str, url: str) -> None:
    with pytest.raises(RequestRefusedError):
        gate.inspect(url, method, None)


def test_the_announced_order_leaves_once(gate: Gate) -> None:
    body = urlencode(FIELDS | SIGNED)
    with gate.announce(BINANCE_SPOT.order_endpoint, wire=WIRE) as attempt:
        gate.inspect(ORDER, "POST", body)
        assert attempt.sent
        with pytest.raises(RequestRefusedError, match="second"):
            gate.inspect(ORDER, "POST", body)
    with pytest.raises(RequestRefusedError, match="announced"):
        gate.inspect(ORDER, "POST", body)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clientOrderId": "x"}, "clientOrderId"),
        ({"stopLossPrice": "1"}, "stopLossPrice"),
        ({"triggerPrice": "1"}, "triggerPrice"),
        ({"stopLoss": "{'triggerPrice': 1}"}, "stopLoss"),
        ({"quoteOrderQty": "100"}, "quoteOrderQty"),
        ({"newClientOrderId": "another"}, "newClientOrderId"),
        ({"newClientOrderId": None}, "newClientOrderId"),
        ({"quantity": "0.0019"}, "quantity"),
        ({"quantity": "2E-3"}, "quantity"),
        ({"quantity": "+0.002"}, "quantity"),
        ({"quantity": "NaN"}, "quantity"),
        ({"price": "50000.01"}, "price"),
        ({"price": None}, "price"),
        ({"side": "SELL"}, "side"),
        ({"type": "MARKET"}, "type"),
        ({"symbol": "BTCUSDC"}, "symbol"),
    ],
    ids=str,
)
def test_an_order_that_is_not_what_was_meant_stays_in(
    gate: Gate, changes: dict[str, str | None], says: str
) -> None:
    fields = {k: v for k, v in (FIELDS | SIGNED | changes).items() if v is not None}
    with gate.announce(BINANCE_SPOT.order_endpoint, wire=WIRE) as attempt:
        with pytest.raises(RequestRefusedError, match=says):
            gate.inspect(ORDER, "POST", urlencode(fields))
        assert not attempt.sent


def test_a_field_given_twice_stays_in(gate: Gate) -> None:
    body = urlencode(FIELDS | SIGNED)
    with gate.announce(BINANCE_SPOT.order_endpoint, wire=WIRE) as attempt:
        for url, twice in ((ORDER, f"{body}&quantity=0.002"), (f"{ORDER}?side=SELL", body)):
            with pytest.raises(RequestRefusedError, match="twice"):
                gate.inspect(url, "POST", twice)
        assert not attempt.sent


def test_a_json_body_is_read_as_fields() -> None:
    gate = Gate(KRAKEN_SPOT, frozenset({HOST}), ())
    with gate.announce(KRAKEN_SPOT.order_endpoint, wire={"volume": Decimal("0.1")}) as attempt:
        with pytest.raises(RequestRefusedError, match="close"):
            gate.inspect(
                f"{HOST}/0/private/AddOrder", "POST", '{"nonce":"1","volume":"0.1","close":{}}'
            )
        gate.inspect(f"{HOST}/0/private/AddOrder", "POST", '{"nonce":"1","volume":"0.10"}')
        assert attempt.fields == {"nonce": "1", "volume": "0.10"}


def test_the_answer_is_kept_and_nothing_secret_shows(gate: Gate) -> None:
    with gate.announce(BINANCE_SPOT.order_endpoint, wire=WIRE) as attempt:
        gate.inspect(ORDER, "POST", urlencode(FIELDS | SIGNED))
        echoed = f"{KEY} the%2Bkey%2F1 {SECRET} signature=ab12&x=1" + "." * 3000
        gate.answered(ORDER, "POST", 429, {"Retry-After": "7"}, echoed)
    assert (attempt.status, attempt.retry_after) == (429, 7)
    evidence = gate.evidence(attempt)
    assert evidence["request"]["fields"] == FIELDS | {"timestamp": "1", "recvWindow": "5000"}
    assert evidence["body"].startswith("*** *** *** signature=***&x=1...")
    assert len(evidence["body"]) <= 2000
    assert not [word for word in (KEY, SECRET, "ab12", "%2B") if word in str(evidence)]


@pytest.mark.parametrize("header", [None, "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1.5"])
def test_a_retry_after_that_is_no_number_of_seconds_is_left_out(
    gate: Gate, header: str | None
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    with gate.announce(BINANCE_SPOT.cancel_endpoint) as attempt:
        gate.answered(ORDER, "DELETE", 429, headers, "")
    assert attempt.retry_after is None
