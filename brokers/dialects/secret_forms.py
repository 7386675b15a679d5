"""What an exchange's secrets look like: one of another form was pasted from somewhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from brokers.errors import CredentialError

NAMES = {
    "text": "text",
    "pem": "a private key in PEM form",
    "base64": "base64 text",
    "hex": "a private key of 64 hex digits",
}
FORMS: Mapping[str, Callable[[str], object]] = {
    "text": lambda _: True,
    "pem": lambda secret: "PRIVATE KEY-----" in secret,
    "base64": re.compile(
        r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    ).fullmatch,
    "hex": re.compile(r"(0x)?[0-9a-fA-F]{64}").fullmatch,
}


def check(label: str, form: str, secret: str) -> None:
    """Raises CredentialError."""
    if secret and not FORMS[form](secret):
        raise CredentialError(f"a {label} secret is {NAMES[form]}")
