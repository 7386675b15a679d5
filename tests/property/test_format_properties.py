"""Whatever a sender writes: an alert that can be stored and read back, or a coded refusal, soon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.alerts import Alert
from execution.formats import FORMATS, format_of
from execution.formats.mapping import TARGETS, problems
from execution.parsing import MAX_DIGITS, Unreadable
from execution.schema import Invalid
from execution.textual import TextDocument, read_commas, read_lines, read_words

PAYLOADS = Path(__file__).parents[1] / "payloads"
OPTIONS: dict[str, dict[str, Any]] = {
    "pineconnector": {"volume": "base", "targets": "price"},
    "mapping": {"fields": {name: {"path": name} for name in TARGETS}},
}
BODIES = {
    name: [
        path.read_bytes()
        for path in sorted((PAYLOADS / name).iterdir())
        if path.name != "expected.json"
    ]
    for name in FORMATS
}
PIECES = [
    b'"',
    b",",
    b"=",
    b";",
    b"|",
    b"&",
    b"\n",
    b"\r\n",
    b"{",
    b"}",
    b"[",
    b"NaN",
    b"null",
    b"%",
]
PIECES += [b"-1", b"1e400", b"9" * 40, b"\xff", b"\x00", "“".encode(), b"{{close}}", b" ", b"true"]
FEW = settings(max_examples=150, deadline=None)


def outcome(name: str, body: bytes) -> Alert | list[str]:
    """The alert, or the codes of the refusal; anything else is a defect. Takes under a second."""
    format = format_of(name, OPTIONS.get(name, {}))
    started = time.process_time()
    try:
        return format.parse(format.read(body))
    except Unreadable as error:
        return [error.code]
    except Invalid as error:
        return [one["code"] for one in error.errors]
    finally:
        assert time.process_time() - started < 1


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    body = draw(st.sampled_from(BODIES[name]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(start + 12, len(body))))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        body = body[:start] + piece + body[end:]
    return body


def assert_sound(result: Alert | list[str]) -> None:
    if isinstance(result, list):
        assert result
        assert all(code.isupper() for code in result)
        return
    assert Alert.from_json(result.to_json()).to_json() == result.to_json()
    for number in (result.quantity, result.price, result.stop_loss, result.stop_price):
        assert number is None or (number.is_finite() and number > 0)
        assert number is None or len(number.as_tuple().digits) <= 2 * MAX_DIGITS


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@FEW
def test_mutated_alerts(name: str, data: st.DataObject) -> None:
    assert_sound(outcome(name, data.draw(mutated(name))))


@pytest.mark.parametrize("name", FORMATS)
@given(body=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@FEW
def test_any_bytes(name: str, body: bytes) -> None:
    assert_sound(outcome(name, body))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "body",
    [
        b"a=1 " * 16_000,
        b"a,b,c," * 10_000,
        b'"' * 65_536,
        b"=" * 65_536,
        b"," * 65_536,
        b" " * 65_536,
        b'a="' * 21_000,
        b"a" * 65_536,
        b"\n" * 65_536,
        b'{"a":' * 13_000,
        b"s=" + b"9" * 65_000,
    ],
    ids=lambda body: body[:6].decode(),
)
def test_the_largest_bodies_take_no_time(name: str, body: bytes) -> None:
    assert isinstance(outcome(name, body), list)


@pytest.mark.parametrize("read", [read_lines, read_words, lambda b: read_commas(b, ("x", "y"))])
@given(text=st.text(st.sampled_from("abAB12=;,|& \n\"'"), max_size=60))
@FEW
def test_every_value_stands_where_its_place_says(read: Any, text: str) -> None:
    try:
        document: TextDocument = read(text.encode())
    except Unreadable as error:
        at = error.position or 0
        document = TextDocument(text[:at])
        document.places["error"] = (at, at)
        document["error"] = ""
        text = text[:at]
    for name, (start, end) in document.places.items():
        assert document.text[start:end] == document[name]
    masked = document.masked(document.places)
    assert len(masked) == len(text)
    assert all(set(masked[start:end]) <= {"*"} for start, end in document.places.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@given(
    mapping=JSON
    | st.fixed_dictionaries({"fields": st.dictionaries(st.sampled_from(TARGETS), JSON)})
)
@FEW
def test_any_mapping_is_sound_or_told_why_not(mapping: Any) -> None:
    found = problems(mapping)
    assert all(isinstance(one, str) and one for one in found)
    if found:
        with pytest.raises(Invalid):
            format_of("mapping", mapping).parse({"a": "b"})
