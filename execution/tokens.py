"""``/api/token``: a JSON Web Token for a username and password, and a new one before it expires.

Whoever has a second factor, or must have one, gives its code as well.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import InvalidToken
from rest_framework_simplejwt.serializers import (
    TokenObtainPairSerializer,
    TokenRefreshSerializer,
)
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from execution.guards import client_ip
from execution.token_keys import RefreshToken
from risk import access_news, log_ins, second_factor
from risk.models import SignOut


class TokenSerializer(TokenObtainPairSerializer):
    """Username, password, and a one-time code where a second factor is asked for."""

    token_class = RefreshToken
    code = serializers.CharField(required=False, write_only=True, max_length=20)

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        code = attrs.pop("code", "")
        tokens: dict[str, str] = super().validate(attrs)
        user = self.user
        if not isinstance(user, User):
            raise AuthenticationFailed
        if second_factor.is_asked(user) and not second_factor.verify(user, code):
            raise AuthenticationFailed("a one-time code is needed", "second_factor_required")
        address = client_ip(self.context["request"]) or ""
        log_ins.came(user.get_username(), address, access_news.TOKEN)
        return tokens


class TokenView(TokenObtainPairView):
    """A short-lived access token and a refresh token. Too many failures lock the name out."""

    serializer_class = TokenSerializer


@extend_schema_serializer(component_name="TokenRefresh")
class RefreshSerializer(TokenRefreshSerializer):
    """Refuses tokens made before their user was last signed out everywhere."""

    token_class = RefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        claims = self.token_class(attrs["refresh"]).payload
        made = datetime.fromtimestamp(claims["iat"], UTC)
        user = claims.get(api_settings.USER_ID_CLAIM)
        if SignOut.objects.filter(user=user, at__gte=made).exists():
            raise InvalidToken("its user has signed out everywhere since")
        tokens: dict[str, str] = super().validate(attrs)
        return tokens


class RefreshView(TokenRefreshView):
    """A new access token for a refresh token that has not expired."""

    serializer_class = RefreshSerializer

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        try:
            return super().post(request, *args, **kwargs)
        except get_user_model().DoesNotExist:
            raise InvalidToken("the user of this token is gone") from None
