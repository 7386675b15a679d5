"""``/api/token``: a JSON Web Token for a username and password, and a new one before it expires.

Whoever has a second factor, or must have one, gives its code as well.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import InvalidToken
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from risk import second_factor


class TokenSerializer(TokenObtainPairSerializer):
    """Username, password, and a one-time code where a second factor is asked for."""

    code = serializers.CharField(required=False, write_only=True, max_length=20)

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        code = attrs.pop("code", "")
        tokens: dict[str, str] = super().validate(attrs)
        user = self.user
        if not isinstance(user, User):
            raise AuthenticationFailed
        if second_factor.is_asked(user) and not second_factor.verify(user, code):
            raise AuthenticationFailed("a one-time code is needed", "second_factor_required")
        return tokens


class TokenView(TokenObtainPairView):
    """A short-lived access token and a refresh token. Too many failures lock the name out."""

    serializer_class = TokenSerializer


class RefreshView(TokenRefreshView):
    """A new access token for a refresh token that has not expired."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        try:
            return super().post(request, *args, **kwargs)
        except get_user_model().DoesNotExist:
            raise InvalidToken("the user of this token is gone") from None
