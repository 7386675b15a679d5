"""What is kept of an authenticated delivery: everything but its credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from execution.authentication import BODY_FIELDS, Delivery, LiveSecret, digest_of, presented
from execution.parsing import decode, legible

MASK = "***"
LEAST_LENGTH = 20
_NAMES = "|".join(BODY_FIELDS)
# Exact in JSON without a backslash: a quote then always opens or closes a text.
_FIELD = re.compile(rf'("(?:{_NAMES})"\s*:\s*)"[^"]*"')
# Whatever somebody may have meant as a credential field, closed or cut off.
_LIKELY_FIELD = re.compile(
    rf"""(?isx) (\b(?:{_NAMES})\b ["'“”]? \s* [:=] \s*)
    (?: "(?:[^"\\]|\\.)*"? | '(?:[^'\\]|\\.)*'? | [“”][^“”]*[“”]? | [^\s,;&\}}"'“”]+ )"""
)


def credentials_in(
    delivery: Delivery, document: Mapping[str, Any] | None, live_secrets: tuple[LiveSecret, ...]
) -> tuple[str, ...]:
    """What must not be kept, longest first: live secrets, and whatever else looks like one.

    A short text that opens nothing is cut out with its field only: masked everywhere, a ``key`` of
    "buy" would eat the alert's action.
    """
    known = {secret.digest for secret in live_secrets}
    known |= {digest_of(secret.key.decode()) for secret in live_secrets if secret.key}
    found = {
        value
        for value in presented(delivery, document)
        if len(value) >= LEAST_LENGTH or digest_of(value) in known
    }
    return tuple(sorted(found, key=len, reverse=True))


def mask_text(text: str, credentials: tuple[str, ...]) -> str:
    for value in credentials:
        text = text.replace(value, MASK)
    return text


def mask_document(document: Mapping[str, Any], credentials: tuple[str, ...]) -> dict[str, Any]:
    """``document`` without its credential fields, and without ``credentials`` anywhere else."""
    kept = {name: value for name, value in document.items() if name not in BODY_FIELDS}
    masked: dict[str, Any] = _masked(kept, credentials)
    return masked


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
    if document is None:
        text = _LIKELY_FIELD.sub(rf"\1{MASK}", legible(delivery.body))
        as_json = tuple(json.dumps(value, ensure_ascii=False)[1:-1] for value in credentials)
        return mask_text(mask_text(text, as_json), credentials)
    text = decode(delivery.body)
    given = [name for name in BODY_FIELDS if name in document]
    if "\\" in text or not all(isinstance(document[name], str) for name in given):
        shown = dict.fromkeys(given, MASK) | mask_document(document, credentials)
        return json.dumps(shown, default=str)
    return mask_text(_FIELD.sub(rf'\1"{MASK}"', text), credentials)
