"""Strict JSON: the one parser for everything an outsider sends. Bounds come before arithmetic.

Python's own parser accepts NaN, 1e400, duplicate keys and lone surrogates, dies on deep nesting,
and ``int(Decimal("1E+999999"))`` takes half a minute. None of that may reach the rest of FKS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

MAX_DEPTH = 16
MAX_KEYS = 256
MAX_TEXT = 4096
MAX_DIGITS = 28
MAX_EXPONENT = 18
FINEST = Decimal(1).scaleb(-MAX_EXPONENT)

NUMBER = re.compile(r"-?(\d{1,40})(?:\.(\d{1,40}))?(?:[eE]([+-]?\d{1,3}))?", re.ASCII)
_STRUCTURE = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
SMART_QUOTES = "“”„‟"
STRAIGHTENED = str.maketrans(dict.fromkeys(SMART_QUOTES, '"'))


class Unreadable(Exception):
    """The body cannot be read. ``code`` and the message say why, ``position`` where (character)."""

    def __init__(self, code: str, detail: str, position: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.position = position


class _Missing:
    """What TradingView writes for a plot without a value (``NaN``): present, but no number."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


def decode(body: bytes) -> str:
    """The text of ``body``: UTF-8, a byte order mark dropped. Raises Unreadable."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"the body is not UTF-8 text at byte {error.start}"
        raise Unreadable("NOT_UTF8", detail, error.start) from error


def legible(body: bytes) -> str:
    """A body nobody could parse, as text for people: bad bytes escaped, NULs (UTF-16) dropped,
    every character escaped in JSON's shortest way or not at all, so that nothing hides in it.
    """
    text = body.decode("utf-8-sig", "backslashreplace").replace("\x00", "")
    return _ESCAPE.sub(_unescaped, text)


def number_or_text(text: str) -> Decimal | str:
    """A number of JSON; one beyond the bounds as its text, so that only who reads its field complains.

    Raises Unreadable for one that is longer than any text may be.
    """
    try:
        return decimal_from(text)
    except Unreadable:
        if len(text) > MAX_TEXT:
            raise
        return text


def parse_object(
    body: bytes, number: Callable[[str], Decimal | str] = number_or_text
) -> dict[str, Any]:
    """The JSON object in ``body``; numbers are read by ``number``, ``NaN`` and infinities are MISSING.

    Raises Unreadable: too deep, too many keys, duplicate keys, control characters, lone surrogates,
    not JSON, not an object, and what ``number`` raises. Typographic quotes, which rich text puts in
    the place of straight ones, are read as those where the text is no JSON otherwise.
    """
    text = decode(body)
    _refuse_deep(body)
    keys = 0

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys += len(items)
        if keys > MAX_KEYS:
            raise Unreadable("TOO_MANY_KEYS", f"more than {MAX_KEYS} keys")
        result = dict(items)
        if len(result) != len(items):
            raise Unreadable("DUPLICATE_KEY", f"the key {_twice(items)[:40]!r} appears twice")
        for key, value in items:
            refuse_text(key)
            if isinstance(value, str):
                refuse_text(value)
            elif isinstance(value, list):
                _refuse_texts(value)
        return result

    def load(text: str) -> Any:
        return json.loads(
            text,
            object_pairs_hook=pairs,
            parse_float=number,
            parse_int=number,
            parse_constant=lambda _: MISSING,
        )

    try:
        document = load(text)
    except json.JSONDecodeError as error:
        keys = 0
        document = _straightened(text, load, error)
    if not isinstance(document, dict):
        raise Unreadable("NOT_AN_OBJECT", "the body must be a JSON object")
    return document


def _straightened(text: str, load: Callable[[str], Any], first: json.JSONDecodeError) -> Any:
    try:
        if any(quote in text for quote in SMART_QUOTES):
            straight = text.translate(STRAIGHTENED)
            # other quotes close: what was within a text may be a structure now
            _refuse_deep(straight.encode())
            return load(straight)
    except json.JSONDecodeError:
        pass
    raise Unreadable(
        "NOT_JSON",
        f"not JSON at line {first.lineno}, column {first.colno}: {first.msg}",
        first.pos,
    ) from first


def decimal_from(text: str) -> Decimal:
    """``text`` as a Decimal within bounds: at most 28 digits, exponent within ±18. It is exact up to
    18 decimals, and cut after them: a computed number has as many as its binary form needs.

    ASCII digits only; no spaces, underscores, NaN or infinities. Raises Unreadable.
    """
    match = NUMBER.fullmatch(text)
    if match is None:
        raise Unreadable("NUMBER_INVALID", f"{text[:40]!r} is not a plain decimal number")
    whole, fraction, exponent = match[1], match[2] or "", int(match[3] or 0)
    if len((whole + fraction).strip("0")) > MAX_DIGITS:
        raise Unreadable("NUMBER_OUT_OF_BOUNDS", f"{text[:40]!r} has more than {MAX_DIGITS} digits")
    number = Decimal(text) or Decimal(0)
    is_far = number and not -MAX_EXPONENT <= number.adjusted() <= MAX_EXPONENT
    if is_far or not -99 < exponent < 99:
        raise Unreadable("NUMBER_OUT_OF_BOUNDS", f"{text[:40]!r} is beyond 10^±{MAX_EXPONENT}")
    if -int(number.as_tuple().exponent) > MAX_EXPONENT:
        number = number.normalize()
        if -int(number.as_tuple().exponent) > MAX_EXPONENT:
            number = number.quantize(FINEST, ROUND_DOWN)
    return number


def _refuse_deep(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    in_string = False
    for token in _STRUCTURE.findall(body):
        if token == b'"':
            in_string = not in_string
        elif in_string or len(token) > 1:
            continue
        elif token in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Unreadable("TOO_DEEP", f"nested deeper than {MAX_DEPTH} levels")
        else:
            depth -= 1


def refuse_text(text: str) -> None:
    """Raises Unreadable for a text that is too long, or that PostgreSQL or a log could not hold."""
    if len(text) > MAX_TEXT:
        raise Unreadable("TEXT_TOO_LONG", f"a text is longer than {MAX_TEXT} characters")
    found = _FORBIDDEN.search(text)
    if found:
        raise Unreadable("FORBIDDEN_CHARACTER", f"a text contains U+{ord(found[0]):04X}")


def _refuse_texts(values: list[Any]) -> None:
    for value in values:
        if isinstance(value, str):
            refuse_text(value)
        elif isinstance(value, list):
            _refuse_texts(value)


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return "/" if escape[2] == "/" else escape[0]
    character = chr(int(escape[1], 16))
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else escape[0]


def _twice(items: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for key, _ in items:
        if key in seen:
            return key
        seen.add(key)
    return ""
