"""A file encrypted block by block (AES-256-GCM): changed, cut off, reordered or foreign blocks do not
open. The key is derived from CREDENTIAL_KEYS, so what is needed to use the content opens it.
"""

from __future__ import annotations

import io
import os
import struct
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokers import crypto

MAGIC = b"FKS sealed file 1\n"
BLOCK = 1 << 20
_PURPOSE = b"fks backup"
_MORE, _LAST = b"more", b"last"
_HEADER = struct.Struct(">8s8s")  # key id, prefix of the nonces
_LENGTH = struct.Struct(">I")
_TAG_BYTES = 16


class Unsealable(Exception):
    """The file does not open: no configured key fits, or it was changed or cut off."""


class SealingWriter(io.RawIOBase):
    """Encrypts what is written into ``target``; without ``close`` the file stays unreadable."""

    def __init__(self, target: IO[bytes]) -> None:
        key_id, key = next(iter(crypto.derived_keys(_PURPOSE).items()))
        self._target, self._cipher = target, AESGCM(key)
        self._prefix, self._count, self._waiting = os.urandom(8), 0, bytearray()
        target.write(MAGIC + _HEADER.pack(key_id.encode(), self._prefix))

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._waiting += data
        while len(self._waiting) > BLOCK:
            self._seal(bytes(self._waiting[:BLOCK]), _MORE)
            del self._waiting[:BLOCK]
        return len(data)

    def finish(self) -> None:
        """Write the last block."""
        self._seal(bytes(self._waiting), _LAST)
        self._waiting.clear()

    def _seal(self, block: bytes, place: bytes) -> None:
        nonce = self._prefix + _LENGTH.pack(self._count)
        sealed = self._cipher.encrypt(nonce, block, place)
        self._target.write(_LENGTH.pack(len(sealed)) + sealed)
        self._count += 1


class SealedReader(io.RawIOBase):
    """Decrypts ``source``, which stands behind the magic line. Raises Unsealable while reading."""

    def __init__(self, source: IO[bytes]) -> None:
        key_id, self._prefix = _HEADER.unpack(_exactly(source, _HEADER.size))
        key = crypto.derived_keys(_PURPOSE).get(key_id.decode(errors="replace"))
        if key is None:
            raise Unsealable("none of CREDENTIAL_KEYS opens this file")
        self._source, self._cipher = source, AESGCM(key)
        self._count, self._opened, self._ended = 0, b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        while not self._opened and not self._ended:
            self._opened = self._next()
        part = self._opened[: len(buffer)]
        self._opened = self._opened[len(part) :]
        buffer[: len(part)] = part
        return len(part)

    def _next(self) -> bytes:
        (length,) = _LENGTH.unpack(_exactly(self._source, _LENGTH.size))
        if length > BLOCK + _TAG_BYTES:
            raise Unsealable("the file was changed")
        sealed = _exactly(self._source, length)
        nonce = self._prefix + _LENGTH.pack(self._count)
        self._count += 1
        for place in (_MORE, _LAST):
            try:
                opened = self._cipher.decrypt(nonce, sealed, place)
            except InvalidTag:
                continue
            self._ended = place is _LAST
            return opened
        raise Unsealable("the file was changed")


def _exactly(source: IO[bytes], count: int) -> bytes:
    data = source.read(count)
    if len(data) != count:
        raise Unsealable("the file is cut off")
    return data
