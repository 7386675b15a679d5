"""The strict parser: what it reads exactly, and what it refuses, with where and why, at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest

from execution.locating import located
from execution.parsing import MISSING, Unreadable, decimal_from, legible, parse_object


@contextmanager
def within_a_second() -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < 1


def refusal_of(body: bytes) -> Unreadable:
    with within_a_second(), pytest.raises(Unreadable) as caught:
        parse_object(body)
    with within_a_second():
        return located(caught.value, body)


def test_numbers_are_exact_decimals() -> None:
    document = parse_object(b'{"a": 0.1, "b": 123456789012345678, "c": -1e2, "d": 1.50}')

    assert document == {
        "a": Decimal("0.1"),
        "b": Decimal(123456789012345678),
        "c": Decimal(-100),
        "d": Decimal("1.5"),
    }
    assert all(type(value) is Decimal for value in document.values())


def test_other_values_stay_what_they_are() -> None:
    document = parse_object(b'{"a": true, "b": null, "c": "NaN", "d": [], "e": {"f": "g"}}')

    assert document == {"a": True, "b": None, "c": "NaN", "d": [], "e": {"f": "g"}}
    assert document["a"] is True


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_plot_without_a_value_is_missing_not_a_number(literal: bytes) -> None:
    assert parse_object(b'{"plot": %s}' % literal)["plot"] is MISSING


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"symbol": "BTC/USDT"}',
        b'{"symbol": "BTC/USDT"}\n',
        b'\r\n{\r\n\t"symbol": "BTC/USDT"\r\n}\r\n',
    ],
    ids=["byte order mark", "trailing newline", "CRLF"],
)
def test_what_senders_put_around_the_object(body: bytes) -> None:
    assert parse_object(body) == {"symbol": "BTC/USDT"}


HOSTILE = {
    "empty": (b"", "NOT_JSON", 0),
    "blank": (b" \r\n", "NOT_JSON", 3),
    "words": (b"buy BTC", "NOT_JSON", 0),
    "cut off": (b'{"symbol": "BTC/USDT", "act', "NOT_JSON", 23),
    "two objects": (b"{}{}", "NOT_JSON", 2),
    "single quotes": (b"{'symbol': 1}", "NOT_JSON", 1),
    "half a smart quote": ("{“symbol: 1}".encode(), "NOT_JSON", 1),
    "trailing comma": (b'{"a": 1,}', "NOT_JSON", 8),
    "comment": (b'{"a": 1} // x', "NOT_JSON", 9),
    "line break in a text": (b'{"a": "x\ny"}', "NOT_JSON", 8),
    "NUL byte": (b'{"a": "x\x00y"}', "NOT_JSON", 8),
    "list": (b'[{"symbol": "BTC/USDT"}]', "NOT_AN_OBJECT", 0),
    "number": (b"5", "NOT_AN_OBJECT", 0),
    "text": (b'"buy"', "NOT_AN_OBJECT", 0),
    "null": (b"null", "NOT_AN_OBJECT", 0),
    "NaN alone": (b"NaN", "NOT_AN_OBJECT", 0),
    "not UTF-8": (b'{"a": "\xff"}', "NOT_UTF8", 7),
    "encoded surrogate": (b'{"a": "\xed\xa0\x80"}', "NOT_UTF8", 7),
    "UTF-16 with a mark": ('{"a": 1}'.encode("utf-16"), "NOT_UTF8", 0),
    "UTF-16": ('{"a": 1}'.encode("utf-16-le"), "NOT_JSON", 1),
    "duplicate key": (b'{"quantity": 1, "quantity": 9}', "DUPLICATE_KEY", 16),
    "duplicate key further in": (b'{"a": [{"b": 1, "b": 2}]}', "DUPLICATE_KEY", 16),
    "duplicate key in escapes": (b'{"price": 1, "\\u0070rice": 2}', "DUPLICATE_KEY", 13),
    "lone surrogate": (b'{"a": "\\ud800"}', "FORBIDDEN_CHARACTER", 6),
    "lone surrogate in a key": (b'{"\\udfff": 1}', "FORBIDDEN_CHARACTER", 1),
    "NUL escape": (b'{"a": "x\\u0000"}', "FORBIDDEN_CHARACTER", 6),
    "NUL escape in a list": (b'{"a": [["x\\u0000"]]}', "FORBIDDEN_CHARACTER", 8),
    "terminal escape": (b'{"a": "\\u001b[2J"}', "FORBIDDEN_CHARACTER", 6),
    "long text": (b'{"a": "%s"}' % (b"x" * 4097), "TEXT_TOO_LONG", 6),
    "long key": (b'{"%s": 1}' % (b"x" * 4097), "TEXT_TOO_LONG", 1),
    "many keys": (
        b"{%s}" % b",".join(b'"k%d": 1' % n for n in range(257)),
        "TOO_MANY_KEYS",
        2451,
    ),
    "many objects": (b'{"a": [%s]}' % b",".join([b'{"k": 1}'] * 256), "TOO_MANY_KEYS", 2303),
    "100,000 lists": (b"[" * 100_000, "TOO_DEEP", 16),
    "100,000 lists, closed": (b"[" * 100_000 + b"]" * 100_000, "TOO_DEEP", 16),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "TOO_DEEP", 80),
    "17 levels": (b'{"a":' + b"[" * 16 + b"]" * 16 + b"}", "TOO_DEEP", 20),
    "depth behind an escaped quote": (b'{"a\\"": "\\"", "b":' + b"[" * 99, "TOO_DEEP", None),
    "depth behind typographic quotes": (
        ('{"a”: ' + "[" * 30_000 + "]" * 30_000 + "}").encode(),
        "TOO_DEEP",
        21,
    ),
    "17 levels behind typographic quotes": (
        ('{"a”: ' + "[" * 16 + "]" * 16 + "}").encode(),
        "TOO_DEEP",
        21,
    ),
    "quotes that never close": (b'\\"' * 30_000 + b"[" * 17, "TOO_DEEP", 60_016),
    "5,000 digits": (b'{"quantity": %s}' % (b"9" * 5000), "NUMBER_INVALID", 13),
    "5,000 decimals": (b'{"quantity": 0.%s}' % (b"9" * 5000), "NUMBER_INVALID", 13),
    "leading zero": (b'{"quantity": 007}', "NOT_JSON", 14),
    "hexadecimal": (b'{"quantity": 0x10}', "NOT_JSON", 14),
    "underscore": (b'{"quantity": 1_000}', "NOT_JSON", 14),
    "64 KiB of quotes": (b'"' * 65_536, "NOT_JSON", 2),
    "64 KiB of backslashes": (b'{"a": "' + b"\\" * 65_529, "NOT_JSON", None),
}


@pytest.mark.parametrize(("body", "code", "position"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_bodies_are_refused_at_once(body: bytes, code: str, position: int | None) -> None:
    refusal = refusal_of(body)

    assert refusal.code == code
    if position is not None:
        assert refusal.position == position
    assert len(refusal.detail) < 120


def test_a_refusal_says_where() -> None:
    assert (
        refusal_of(b'{"a": 1,\n "b": }').detail == "not JSON at line 2, column 7: Expecting value"
    )
    assert refusal_of(b'{"a": "\xff"}').detail == "the body is not UTF-8 text at byte 7"
    assert (
        refusal_of(b'{"a": 1, "a": 2}').detail == "the key 'a' appears twice at line 1, column 10"
    )
    assert refusal_of(b'{"a": "\\u0007"}').detail == "a text contains U+0007 at line 1, column 7"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[" * 15 + b"]" * 15 + b"}",
        b'{"a": "%s"}' % (b"[{" * 2000),
        b'{"a": [%s]}' % b",".join([b"[]"] * 100),
        b"{%s}" % b",".join(b'"k%d": 1' % n for n in range(256)),
        b'{"a": "%s"}' % (b"x" * 4096),
        '{"a": "₿ \\ud83d\\ude80 tab\\t line\\n"}'.encode(),
    ],
    ids=["16 levels", "brackets in a text", "side by side", "256 keys", "4096 characters", "emoji"],
)
def test_what_is_just_allowed(body: bytes) -> None:
    assert list(parse_object(body))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", "0"),
        ("0.00", "0"),
        ("-0", "0"),
        ("0e98", "0"),
        ("1", "1"),
        ("-1.5", "-1.5"),
        ("007", "7"),
        ("1e3", "1000"),
        ("1E-18", "0.000000000000000001"),
        ("1e18", "1000000000000000000"),
        ("37774.433333333334", "37774.433333333334"),
        ("1234567890.123456789012345678", "1234567890.123456789012345678"),
        ("0.0014705882352941176", "0.001470588235294117"),
        ("1.2345678901234568e-05", "0.000012345678901234"),
        ("-0.0014705882352941176", "-0.001470588235294117"),
        ("1.99e-18", "0.000000000000000001"),
        ("1.23e-17", "0.000000000000000012"),
        ("1000000000000000000.0000000000000000000", "1000000000000000000"),
        ("1.0000000000000000000000000", "1"),
        ("0.1000000000000000000000000000000000000000", "0.1"),
    ],
)
def test_plain_numbers(text: str, number: str) -> None:
    result = decimal_from(text)

    assert result == Decimal(number)
    assert not result.is_signed() or result < 0
    assert -18 <= int(result.as_tuple().exponent) <= 18


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", " 5", "5 ", "5\n", "1 e5", "\x005", "5\u200b"),
        *("1_000", "1,000", "+5", ".5", "5.", "1.2.3", "--1", "0x10", "1e", "e5", "1e1000"),
        *("١٢٣", "५", "²", "٣.٤"),
        *("NaN", "nan", "sNaN", "inf", "-Infinity", "null", "na", "{{strategy.order.contracts}}"),
        *("9" * 41, "0." + "1" * 41),
    ],
)
def test_what_is_no_plain_number(text: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decimal_from(text)

    assert caught.value.code == "NUMBER_INVALID"


@pytest.mark.parametrize(
    "text",
    ["1e19", "1e-19", "9.9e-19", "1e99", "1e-999", "9" * 20, "9" * 29, "0.0000000000000000001"],
)
def test_numbers_beyond_the_bounds(text: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decimal_from(text)

    assert caught.value.code == "NUMBER_OUT_OF_BOUNDS"


@pytest.mark.parametrize(
    "token", ["1e19", "1e-19", "1e400", "1e-400", "1E+999999", "1e999999999", "9" * 29, "9" * 4096]
)
def test_a_number_that_is_none_here_is_left_to_who_reads_its_field(token: str) -> None:
    body = f'{{"quantity": 5, "volume": {token}, "plots": [{{"a": {token}}}]}}'.encode()

    with within_a_second():
        document = parse_object(body)

    assert document == {"quantity": Decimal(5), "volume": token, "plots": [{"a": token}]}
    with within_a_second(), pytest.raises(Unreadable) as caught:
        parse_object(body, decimal_from)
    assert located(caught.value, body).position == 26


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a": "\xff"}', '{"a": "\\xff"}'),
        (b"\xef\xbb\xbf{", "{"),
        ('{"secret"'.encode("utf-16-le"), '{"secret"'),
        (b'"\\u0073\\u0065cret"', '"secret"'),
        (b'"\\u00e9\\u20bf"', '"é₿"'),
        (b'"\\u0000 \\ud800 \\u0022 \\u005c"', '"\\u0000 \\ud800 \\" \\\\"'),
        (b'"\\/ \\n \\\\u0041 \\\\/"', '"/ \\n \\\\u0041 \\\\/"'),
        (b'"\\', '"\\'),
    ],
)
def test_a_body_nobody_could_parse_is_kept_legible(body: bytes, text: str) -> None:
    assert legible(body) == text


def test_quotes_of_rich_text_are_read_as_straight_ones() -> None:
    assert parse_object('{“symbol”: „BTC”, "n": 1}'.encode()) == {
        "symbol": "BTC",
        "n": Decimal(1),
    }


def test_typographic_quotes_inside_a_text_stay() -> None:
    assert parse_object('{"comment": "he said “buy”"}'.encode()) == {"comment": "he said “buy”"}
