"""Encryption of credentials at rest: AES-256-GCM, keys from ``CREDENTIAL_KEYS``, bound to the row.

A token is ``key id (8 hex) "." base64(nonce + ciphertext)``. The associated data names the row and
the field, so that a ciphertext copied to another row does not decrypt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

NONCE_BYTES = 12


class DecryptionError(Exception):
    """No configured key opens the token, or it belongs to another row."""


@dataclass(frozen=True, slots=True)
class _Key:
    id: str
    raw: bytes = field(repr=False)
    cipher: AESGCM = field(repr=False)


@lru_cache(maxsize=4)
def _keys(encoded: tuple[str, ...]) -> tuple[_Key, ...]:
    keys = []
    for text in encoded:
        raw = base64.urlsafe_b64decode(text)
        if len(raw) != 32:
            raise ValueError("each of CREDENTIAL_KEYS must be 32 bytes, base64url encoded")
        keys.append(_Key(hashlib.sha256(b"fks key id" + raw).hexdigest()[:8], raw, AESGCM(raw)))
    if not keys:
        raise ValueError("CREDENTIAL_KEYS is empty: credentials cannot be stored or read")
    return tuple(keys)


def _configured() -> tuple[_Key, ...]:
    """Those in the file, as it is now: a new key acts without a restart. While the file cannot be read,
    and where there is none, those of the start.
    """
    path: Path | None = settings.CREDENTIAL_KEYS_PATH
    if path is not None:
        with suppress(OSError, ValueError):
            now = path.stat()
            return _in_file(path, now.st_ino, now.st_mtime_ns, now.st_size)
    return _keys(tuple(settings.CREDENTIAL_KEYS))


@lru_cache(maxsize=4)
def _in_file(path: Path, *_version: int) -> tuple[_Key, ...]:
    text = path.read_text(encoding="utf-8").strip()
    return _keys(tuple(key for key in text.split(",") if key))


def current_key_id() -> str:
    """Id of the key that encrypts now; rows with another id are due for ``rotate_keys``."""
    return _configured()[0].id


def derived_keys(purpose: bytes) -> dict[str, bytes]:
    """Keys of 32 bytes for another purpose, by the id of the key each is derived from; the one to
    encrypt with first.
    """
    return {key.id: hmac.digest(key.raw, purpose, "sha256") for key in _configured()}


def encrypt(values: dict[str, str], *, bound_to: str) -> str:
    """``values`` as a token that opens only with the same ``bound_to``."""
    key = _configured()[0]
    nonce = os.urandom(NONCE_BYTES)
    sealed = key.cipher.encrypt(nonce, json.dumps(values).encode(), bound_to.encode())
    return f"{key.id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"


def decrypt(token: str, *, bound_to: str) -> dict[str, str]:
    """The values of a token; raises DecryptionError, never returns ciphertext."""
    key_id, _, body = token.partition(".")
    try:
        raw = base64.urlsafe_b64decode(body)
    except (binascii.Error, ValueError) as error:
        raise DecryptionError("not a credential token") from error
    for key in _configured():
        if key.id != key_id:
            continue
        try:
            opened = key.cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound_to.encode())
        except (InvalidTag, ValueError) as error:
            raise DecryptionError("the credential belongs to another row or was changed") from error
        values: dict[str, str] = json.loads(opened)
        return values
    raise DecryptionError(f"no configured key has the id {key_id}")
