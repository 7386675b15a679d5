"""Which key an API token is proven with: after a rotation the older one still counts."""

from __future__ import annotations

import hmac
from typing import Any

from django.conf import settings
from jwt.utils import base64url_decode
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.settings import api_settings


class RotatingBackend(TokenBackend):
    """Signs with SECRET_KEY, and also believes what a key of SECRET_KEY_FALLBACKS has signed."""

    def get_verifying_key(self, token: Any) -> Any:
        text = token.encode() if isinstance(token, str) else bytes(token)
        signed, _, signature = text.rpartition(b".")
        try:
            given = base64url_decode(signature)
        except ValueError:
            return super().get_verifying_key(token)  # which finds it malformed as well
        for key in settings.SECRET_KEY_FALLBACKS:
            if hmac.compare_digest(hmac.digest(key.encode(), signed, "sha256"), given):
                return self._prepare_key(key)
        return super().get_verifying_key(token)


_backend = RotatingBackend(
    "HS256",
    api_settings.SIGNING_KEY,
    audience=api_settings.AUDIENCE,
    issuer=api_settings.ISSUER,
    leeway=api_settings.LEEWAY,
    json_encoder=api_settings.JSON_ENCODER,
)


class AccessToken(tokens.AccessToken):
    """What the API and strategies of profile ``jwt`` are spoken to with."""

    _token_backend = _backend


class RefreshToken(tokens.RefreshToken):
    """What a new access token is made from."""

    _token_backend = _backend
    access_token_class = AccessToken
