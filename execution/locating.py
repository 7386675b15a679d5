"""Where a JSON body is wrong. Asked once a sender has proved itself: reading keeps no count of it,
which would cost every alert what only a refused one needs, and strangers could make us work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from execution.parsing import (
    MAX_DEPTH,
    MAX_KEYS,
    STRAIGHTENED,
    Unreadable,
    decimal_from,
    decode,
    refuse_text,
)
from execution.textual import place_in

# A text that is not closed goes to the end: searching it again from every quote would take minutes.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\]:]|(?:\\.|[^\s{}\[\],:"\\])+', re.DOTALL)
_COLON = re.compile(r"\s*:")


def located(error: Unreadable, body: bytes) -> Unreadable:
    """``error``, with the place in ``body`` if it does not say it yet."""
    if error.position is not None:
        return error
    text = decode(body)
    complaints = _complaints(text.translate(STRAIGHTENED))
    start = next((start for code, start in complaints if code == error.code), 0)
    return Unreadable(error.code, f"{error.detail} at {place_in(text, start)}", start)


def _complaints(text: str) -> Iterator[tuple[str, int]]:
    """What is wrong in ``text``, token by token, with its first character."""
    keys, open_keys = 0, list[set[str]]()
    for token in _TOKEN.finditer(text):
        word, start = token[0], token.start()
        if word in "{[":
            open_keys.append(set())
            if len(open_keys) > MAX_DEPTH:
                yield "TOO_DEEP", start
        elif word in "]}":
            del open_keys[-1:]
        elif word[0] == '"':
            is_key = _COLON.match(text, token.end()) is not None
            keys += is_key
            if keys > MAX_KEYS:
                yield "TOO_MANY_KEYS", start
            yield _of_text(word, open_keys[-1] if is_key and open_keys else set()), start
        elif word.removeprefix("-")[:1].isdigit():
            yield _of_number(word), start


def _of_text(word: str, seen: set[str]) -> str:
    """What is wrong with a text, if anything; a key is added to those ``seen`` in its object."""
    try:
        text = json.loads(word, strict=False)
        refuse_text(text)
    except json.JSONDecodeError:
        return ""
    except Unreadable as error:
        return error.code
    if text in seen:
        return "DUPLICATE_KEY"
    seen.add(text)
    return ""


def _of_number(word: str) -> str:
    try:
        decimal_from(word)
    except Unreadable as error:
        return error.code
    return ""
