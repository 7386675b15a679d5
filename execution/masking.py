"""What is kept of an authenticated delivery: everything but its credentials."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from execution import standard_webhooks
from execution.authentication import Delivery, LiveSecret, digest_of, presented
from execution.formats import FORMATS, Format
from execution.formats.pineconnector import LICENSE
from execution.parsing import MISSING, SMART_QUOTES, decode, legible
from execution.textual import TextDocument

MASK = "***"
LEAST_LENGTH = 20
_SECRETIVE = "\\" + SMART_QUOTES
"""Characters behind which a credential could hide from the patterns: such a body is written anew."""
_QUOTES = "\"'" + SMART_QUOTES
_LICENSE = re.compile(r"^(\s*)\d{6,}")


@cache
def _field(names: tuple[str, ...]) -> re.Pattern[str]:
    """Exact in JSON without a backslash: a quote then always opens or closes a text. A number too
    long for one is read as text.
    """
    return re.compile(rf'("(?:{"|".join(names)})"\s*:\s*)(?:"[^"]*"|-?\d[\d.eE+-]*)')


@cache
def _likely_field(names: tuple[str, ...]) -> re.Pattern[str]:
    """Whatever somebody may have meant as a credential field, closed or cut off."""
    return re.compile(
        rf"""(?isx) (\b(?:{"|".join(names)})\b ["'“”]? \s* [:=] \s*)
        (?: "(?:[^"\\]|\\.)*"? | '(?:[^'\\]|\\.)*'? | [“”][^“”]*[“”]? | [^\s,;|&\}}"'“”]+ )"""
    )


def credentials_in(
    delivery: Delivery, document: Mapping[str, Any] | None, live_secrets: tuple[LiveSecret, ...]
) -> tuple[str, ...]:
    """What must not be kept, longest first: live secrets, and whatever else looks like one. A signing
    key is looked for everywhere; of a token only a digest is known, so it is found where it stands.

    A short text that opens nothing is cut out with its field only: masked everywhere, a ``key`` of
    "buy" would eat the alert's action.
    """
    keys = {secret.key.decode() for secret in live_secrets if secret.key}
    keys |= {key.removeprefix(standard_webhooks.PREFIX) for key in keys}
    known = {secret.digest for secret in live_secrets} | set(map(digest_of, keys))
    found = {key for key in keys if len(key) >= LEAST_LENGTH} | {
        value
        for value in presented(delivery, document)
        if (len(value) >= LEAST_LENGTH and value.strip("*")) or digest_of(value) in known
    }
    return tuple(sorted(found, key=len, reverse=True))


def _starred(match: re.Match[str]) -> str:
    """As many asterisks as there were characters: the complaint's place stays where it was. Quotes
    stay, so that what only its format could not read can be read by another.
    """
    value = match[0][len(match[1]) :]
    opening = value[0] if value[0] in _QUOTES else ""
    closing = value[-1] if opening and value[1:] and value[-1] in _QUOTES else ""
    stars = "*" * (len(value) - len(opening + closing))
    return f"{match[1]}{opening}{stars}{closing}"


def mask_text(text: str, credentials: tuple[str, ...]) -> str:
    for value in credentials:
        text = text.replace(value, MASK)
    return text


def mask_document(
    document: Mapping[str, Any], credentials: tuple[str, ...], format: Format = FORMATS["fks"]
) -> dict[str, Any]:
    """``document`` without its credential fields, and without ``credentials`` anywhere else."""
    kept = document.copy() if isinstance(document, TextDocument) else dict(document)
    for name in format.confidential:
        kept.pop(name, None)
    for name, value in list(kept.items()):
        del kept[name]
        kept[mask_text(name, credentials)] = _masked(value, credentials)
    return kept


def _masked(value: Any, credentials: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return mask_text(value, credentials)
    if isinstance(value, list):
        return [_masked(item, credentials) for item in value]
    if isinstance(value, dict):
        return {mask_text(name, credentials): _masked(v, credentials) for name, v in value.items()}
    return value


def mask_body(
    delivery: Delivery, document: Mapping[str, Any] | None, credentials: tuple[str, ...]
) -> str:
    """The body as it is stored. One with escapes, where a credential could hide, is written anew."""
    names = delivery.format.confidential
    if document is None:
        text = _likely_field(names).sub(_starred, legible(delivery.body))
        if LICENSE in names:
            text = _LICENSE.sub(_starred, text)
        for value in credentials:
            for one in (json.dumps(value, ensure_ascii=False)[1:-1], value):
                text = text.replace(one, "*" * len(one))
        return text
    if isinstance(document, TextDocument):
        return mask_text(document.masked(names), credentials)
    text = decode(delivery.body)
    given = [name for name in names if name in document]
    hidden = any(character in text for character in _SECRETIVE)
    if hidden or not all(isinstance(document[name], str) for name in given):
        rest = mask_document(document, credentials, delivery.format)
        anew = json.dumps(dict.fromkeys(given, MASK) | rest, default=_written)
        # An escape may swallow a credential's first letters, and be written out again as them.
        return mask_text(anew, credentials)
    return mask_text(_field(names).sub(rf'\1"{MASK}"', text), credentials)


def _written(value: Any) -> Any:
    """What JSON has no word for, so that it is read again as it was."""
    return math.nan if value is MISSING else str(value)
