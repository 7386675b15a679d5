"""The intake under arbitrary input: it reads or refuses, exactly and at once, and believes nobody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from brokers.decimals import decimal_text
from brokers.types import OrderType, TimeInForce
from execution.alerts import Action, Alert, MarketPosition, TakeProfit
from execution.authentication import Delivery, digest_of
from execution.formats import fks
from execution.locating import located
from execution.masking import credentials_in, mask_body, mask_document
from execution.parsing import MISSING, Unreadable, decimal_from, parse_object
from execution.schema import MAX_MOMENT, MIN_MOMENT, Invalid
from risk.allowlist import client_address, contains, networks, parse_address
from risk.types import QuantityType

# --- bodies -----------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    [
        *("symbol", "action", "quantity", "price", "stop_loss", "take_profit", "confidence"),
        *("timestamp", "id", "secret", "comment", "order_type", "post_only", "market_position"),
    ]
)
DOCUMENTS = st.dictionaries(FIELDS | st.text(), VALUES, max_size=12)
TOKENS = st.sampled_from(
    [
        *(b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"-", b"0x", b"[" * 20, b'"a":1,'),
        *(b"NaN", b"1e400", b"1E+999999", b"9" * 50),
        *(b"\\ud800", b"\\u0000", b"\x00", b"\xff", b"\xef\xbb\xbf"),
    ]
)


@contextmanager
def within_a_second() -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < 1


def parsed(body: bytes) -> dict[str, Any] | None:
    """The document, ``None`` when it was refused; anything else fails the test."""
    with within_a_second():
        document = _parsed(body)
    if isinstance(document, Unreadable):
        with within_a_second():
            refusal = located(document, body)
        assert refusal.code.isupper()
        assert 0 < len(refusal.detail) < 200
        assert refusal.position is not None
        assert 0 <= refusal.position <= len(body)
        return None
    assert type(document) is dict
    _assert_storable(document)
    return document


def _parsed(body: bytes) -> dict[str, Any] | Unreadable:
    try:
        return parse_object(body)
    except Unreadable as refusal:
        return refusal


def number_in(text: str) -> Decimal | str:
    """The number, or the code it was refused with."""
    with within_a_second():
        try:
            return decimal_from(text)
        except Unreadable as refusal:
            return refusal.code


def _assert_storable(value: Any) -> None:
    """What PostgreSQL and arithmetic can bear: no float, no NUL, no surrogate, no huge number."""
    if isinstance(value, dict):
        for name, item in value.items():
            _assert_storable(name)
            _assert_storable(item)
    elif isinstance(value, list):
        for item in value:
            _assert_storable(item)
    elif isinstance(value, str):
        assert "\x00" not in value
        value.encode()
    elif isinstance(value, Decimal):
        assert value.is_finite()
        assert len(format(value, "f")) < 60
    else:
        assert value is MISSING or value is None or type(value) is bool


def read(document: dict[str, Any]) -> Alert | None:
    try:
        return fks.parse(document)
    except Invalid:
        return None


@given(st.binary() | st.text().map(str.encode))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'"' * 65_536)
@example(b"\\" * 65_536)
@example(b'\\"' * 32_000 + b"[" * 17)
@example(b'{"' + b'\\"' * 32_000 + b'": 1e400')
def test_arbitrary_bytes_are_read_or_refused(body: bytes) -> None:
    parsed(body)


@given(DOCUMENTS, st.lists(st.tuples(st.integers(0), TOKENS, st.integers(0, 3)), max_size=6))
def test_mutated_json_is_read_or_refused(
    document: dict[str, Any], mutations: list[tuple[int, bytes, int]]
) -> None:
    body = json.dumps(document).encode()
    for place, token, cut in mutations:
        at = place % (len(body) + 1)
        body = body[:at] + token + body[at + cut :]

    result = parsed(body)

    if result is not None:
        alert = read(result)
        if alert is not None:
            json.dumps(alert.to_json()).encode()


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.text(), max_size=8))
def test_what_is_read_is_what_was_written(document: dict[str, Any]) -> None:
    for body in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=1)):
        result = parsed(body.encode("utf-8", "surrogatepass"))
        assert result is None or result == document


@given(st.dictionaries(st.text("abc"), st.lists(st.text("abc")), max_size=8), st.booleans())
def test_harmless_documents_are_always_read(document: dict[str, Any], mark: bool) -> None:
    body = json.dumps(document).encode()

    assert parsed((b"\xef\xbb\xbf" if mark else b"") + body + b"\r\n") == document


# --- numbers ----------------------------------------------------------------------------------

NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=18).filter(
    lambda number: len(number.as_tuple().digits) <= 28 and abs(number) < Decimal("1e10")
)


@given(NUMBERS | st.integers(-(10**18), 10**18).map(Decimal))
def test_numbers_within_the_bounds_are_exact(number: Decimal) -> None:
    for text in (format(number, "f"), str(number), f"{number:e}"):
        result = number_in(text)
        if isinstance(result, str):
            assert result == "NUMBER_OUT_OF_BOUNDS"
            assert abs(number.adjusted()) > 18
        else:
            assert Fraction(result) == Fraction(number)
            assert decimal_from(decimal_text(result)) == result


@given(st.from_regex(r"-?[0-9]{1,45}(\.[0-9]{1,45})?([eE][+-]?[0-9]{1,4})?", fullmatch=True))
def test_any_number_is_exact_to_18_decimals_or_refused(text: str) -> None:
    result = number_in(text)
    if isinstance(result, str):
        assert result in ("NUMBER_INVALID", "NUMBER_OUT_OF_BOUNDS")
        return
    assert len(decimal_text(result)) < 60
    mantissa, _, exponent = text.lower().partition("e")
    written = Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    assert Fraction(result) == Fraction(int(written * 10**18), 10**18)
    assert (result == 0) == (written == 0)


@given(st.floats(1e-18, 1e18) | st.floats(-1e18, -1e-18))
@example(100 / 68000)
@example(1.2345678901234568e-05)
def test_every_number_a_program_computes_is_read(number: float) -> None:
    for text in (repr(number), json.dumps(number)):
        result = decimal_from(text)
        assert 0 <= abs(Fraction(text)) - abs(Fraction(result)) < Fraction(1, 10**18)
        assert result != 0
        assert (result > 0) == (number > 0)


@given(st.text())
@example("1_000")
@example("١٢٣")
@example("5\n")
def test_a_text_is_a_number_only_in_ascii(text: str) -> None:
    assert isinstance(number_in(text), str) or set(text) <= set("0123456789+-.eE")


# --- alerts -----------------------------------------------------------------------------------

POSITIVE = st.decimals(Decimal("1e-18"), Decimal("1e9"), places=18)
OPTIONAL = st.none() | POSITIVE
PLAIN_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
ALERTS = st.builds(
    Alert,
    symbol=PLAIN_TEXT,
    action=st.sampled_from(Action),
    order_type=st.sampled_from(OrderType),
    quantity=OPTIONAL,
    quantity_type=st.sampled_from(QuantityType),
    price=OPTIONAL,
    stop_price=OPTIONAL,
    stop_loss=OPTIONAL,
    take_profit=st.lists(st.builds(TakeProfit, POSITIVE, POSITIVE), max_size=3).map(tuple),
    trailing_percent=OPTIONAL,
    time_in_force=st.sampled_from(TimeInForce),
    post_only=st.booleans(),
    reduce_only=st.booleans(),
    confidence=st.none() | st.decimals(0, 1, places=6),
    sent_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    idempotency_key=PLAIN_TEXT,
    market_position=st.none() | st.sampled_from(MarketPosition),
    market_position_size=OPTIONAL,
    prev_market_position=st.none() | st.sampled_from(MarketPosition),
    comment=PLAIN_TEXT,
    extras=st.dictionaries(PLAIN_TEXT, st.none() | st.booleans() | st.lists(PLAIN_TEXT)),
)


@given(ALERTS)
@example(Alert(symbol="", action=Action.CANCEL, confidence=Decimal(0)))
@example(Alert(symbol="x", action=Action.BUY, quantity=Decimal("1E+18")))
def test_alerts_survive_storage_exactly(alert: Alert) -> None:
    stored = json.loads(json.dumps(alert.to_json()))

    assert Alert.from_json(stored) == alert
    assert Alert.from_json(stored).to_json() == stored


WRITTEN = st.fixed_dictionaries(
    {"symbol": st.just("BTC/USDT"), "action": st.sampled_from(["buy", "SELL", " close "])},
    optional={
        "quantity": st.integers(1, 10**9) | st.floats(0.001, 1e6).map(str),
        "price": st.floats(0.001, 1e6),
        "timestamp": st.integers(946_684_800, 4_000_000_000),
        "id": st.integers(0, 10**9) | st.text("abc", max_size=9),
        "take_profit": st.lists(st.just({"price": "1.50", "percent": 20}), max_size=5),
        "comment": st.text("abc ", max_size=9),
        "plot": st.lists(st.integers(-9, 9) | st.just(float("nan")) | st.text("abc")),
        "nested": st.dictionaries(st.text("abc"), st.floats(0, 1) | st.none()),
    },
)


@given(WRITTEN)
def test_what_a_sender_wrote_is_read_from_storage_as_from_the_wire(written: dict[str, Any]) -> None:
    result = parsed(json.dumps(written).encode())
    alert = None if result is None else read(result)
    assume(alert is not None)
    assert alert is not None

    again = Alert.from_json(json.loads(json.dumps(alert.to_json())))

    assert again.to_json() == alert.to_json()
    assert replace(again, extras={}) == replace(alert, extras={})
    assert alert.quantity is None or alert.quantity > 0
    assert alert.sent_at is None or MIN_MOMENT <= alert.sent_at <= MAX_MOMENT


@given(st.datetimes(datetime(2000, 1, 1), datetime(2199, 12, 31)))  # noqa: DTZ001
def test_a_moment_is_the_same_in_every_notation(moment: datetime) -> None:
    at = moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
    notations: list[Any] = [at.isoformat(), at.isoformat().replace("+00:00", "Z")]
    if at.year >= 2001:
        notations += [Decimal(round(milliseconds)), str(round(milliseconds))]

    for notation in notations:
        alert = read({"symbol": "x", "action": "buy", "timestamp": notation})
        assert alert is not None
        assert alert.sent_at == at


# --- secrets ----------------------------------------------------------------------------------

SECRETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=20, max_size=40)


@given(DOCUMENTS, SECRETS, st.sampled_from(["secret", "token", "passphrase", "key"]), st.data())
def test_no_secret_survives_masking(
    document: dict[str, Any], secret: str, field: str, data: st.DataObject
) -> None:
    document = document | {field: secret, "a": [f"<{secret}>", {secret: secret}]}
    document.pop("secret" if field != "secret" else "token", None)
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans()))
    if data.draw(st.booleans()):
        text = text.replace(secret, "".join(f"\\u{ord(one):04x}" for one in secret))
    if data.draw(st.booleans()):
        text = text[: -data.draw(st.integers(1, 3))]
    body = text.encode("utf-8", "surrogatepass")
    delivery = Delivery(body, secret, "")
    result = parsed(body)

    credentials = credentials_in(delivery, result, ())
    kept = mask_body(delivery, result, credentials)

    assert secret in credentials
    assert digest_of(secret) not in {digest_of(word) for word in kept.split('"')}
    assert secret not in kept
    assert json.dumps(secret)[1:-1] not in kept
    if result is not None:
        assert secret not in str(mask_document(result, credentials))


# --- addresses --------------------------------------------------------------------------------

PROXIES = ("10.0.0.0/8", "fd00::/8")
ADDRESSES = st.ip_addresses().filter(
    lambda address: not contains(networks(PROXIES), parse_address(str(address)))
)
OUR_OWN = st.integers(1, 2**24 - 1).map(lambda n: str(IPv4Address((10 << 24) + n)))
HOPS = st.text() | st.ip_addresses().map(str) | OUR_OWN | st.just("127.0.0.1")
FORGED = st.lists(HOPS, max_size=5).map(",".join)


def plainly(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@given(ADDRESSES, FORGED)
def test_a_client_of_ours_cannot_choose_its_address(
    client: IPv4Address | IPv6Address, forged: str
) -> None:
    assert client_address(str(client), forged, PROXIES) == plainly(client)
    assert client_address(str(client), forged, ()) == plainly(client)


@given(ADDRESSES, FORGED, st.lists(OUR_OWN, max_size=3), OUR_OWN)
def test_nor_can_a_client_behind_our_proxies(
    client: IPv4Address | IPv6Address, forged: str, hops: list[str], last: str
) -> None:
    """Each proxy appends the peer it saw; whatever the client sent stands left of its address."""
    header = ", ".join([*([forged] if forged else []), str(client), *hops])

    assert client_address(last, header, PROXIES) == plainly(client)


@given(st.text(), FORGED)
def test_an_address_is_an_address_or_none(remote: str, forged: str) -> None:
    address = client_address(remote, forged, PROXIES)

    if address is not None:
        assert ip_address(str(address)) == address
        assert not isinstance(address, IPv6Address) or address.ipv4_mapped is None
        assert "%" not in str(address)
        ip_network(str(address))
