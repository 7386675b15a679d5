"""What a trusted proxy says about the client's TLS certificate, and whether it is the pinned one.

A certificate's subject proves nothing: anybody can sign one with any subject, and where the proxy
asks for a certificate without checking it (nginx: ``optional_no_ca``) it reaches us. A fingerprint
names one certificate whose key the client has; an issuer counts only when the proxy has verified
the chain against its own authorities.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError

VERIFIED = "SUCCESS"
_SEPARATORS = re.compile(r"[\s,;]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PinnedCertificate:
    """What a strategy asks of the certificate: one of the fingerprints, or the issuer."""

    fingerprints: frozenset[str]
    issuer: str

    def is_within(self, other: PinnedCertificate) -> bool:
        """Whether no certificate passes this pin that does not pass the other."""
        return self.fingerprints <= other.fingerprints and self.issuer in ("", other.issuer)


def pinned(fingerprints: str, issuer: str) -> PinnedCertificate | None:
    """The pin written in a strategy's two fields; ``None`` when it asks for no certificate."""
    found = frozenset(_plain(one) for one in _SEPARATORS.split(fingerprints) if one)
    return PinnedCertificate(found, issuer.strip()) if found or issuer.strip() else None


def is_presented(pin: PinnedCertificate, meta: dict[str, Any]) -> bool:
    """Whether the proxy's headers show the pinned certificate.

    The caller has made sure that the request came from a trusted proxy. Header values: the
    verification's result, the SHA-1 or SHA-256 fingerprint in hexadecimal, the issuer's name.
    """
    if _plain(meta.get("HTTP_X_CLIENT_CERT_FINGERPRINT", "")) in pin.fingerprints:
        return True
    if not pin.issuer or meta.get("HTTP_X_CLIENT_CERT_VERIFY") != VERIFIED:
        return False
    return bool(meta.get("HTTP_X_CLIENT_CERT_ISSUER", "").strip() == pin.issuer)


def validate_fingerprints(text: str) -> None:
    """SHA-1 or SHA-256 fingerprints in hexadecimal, with or without colons."""
    for one in _SEPARATORS.split(text):
        if one and not _FINGERPRINT.fullmatch(_plain(one)):
            raise ValidationError(
                f"{one[:80]} is no fingerprint: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits"
            )


def _plain(fingerprint: str) -> str:
    return fingerprint.strip().lower().replace(":", "").removeprefix("sha256=")
