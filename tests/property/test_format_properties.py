"""Whatever a sender writes: an alert that can be stored and read back, or a coded refusal, soon."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.alert_log import BadLog, read_log
from execution.alerts import Alert
from execution.authentication import Delivery
from execution.formats import FORMATS, format_of
from execution.formats.mapping import TARGETS, problems
from execution.masking import credentials_in, mask_body
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
def test_the_largest_bodies_take_no_time_and_little_memory(name: str, body: bytes) -> None:
    assert isinstance(outcome(name, body), list)
    assert kept_of(name, body) is not None
    assert most_memory(lambda: outcome(name, body)) < 32 * 1024 * 1024


def most_memory(work: Callable[[], object]) -> int:
    """The most bytes ``work`` held at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def kept_of(name: str, body: bytes, token: str = "") -> str:
    """What is stored of ``body``, told within a second."""
    format = format_of(name, OPTIONS.get(name, {}))
    delivery = Delivery(body, token, "", format=format)
    started = time.process_time()
    try:
        document = format.read(body)
    except Unreadable:
        document = None
    kept = mask_body(delivery, document, credentials_in(delivery, document, ()))
    assert time.process_time() - started < 1
    return kept


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@FEW
def test_a_token_is_kept_of_no_body_however_mangled(name: str, data: st.DataObject) -> None:
    token = "canary-7f3e9a1c5b2d4860"
    body = data.draw(mutated(name))
    place = data.draw(st.integers(0, len(body)))
    kept = kept_of(name, body[:place] + token.encode() + body[place:], token)
    assert token not in kept


@given(text=st.text(st.sampled_from('Description,Time"\n\r;2026-1 :Z{}'), max_size=80))
@FEW
def test_any_log_is_read_or_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_text(f"Description,Time\n{text}")
    try:
        assert all(one.at.tzinfo is not None for one in read_log(path))
    except BadLog as refused:
        assert str(refused)  # noqa: PT017


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
