"""``/api/token``: a JSON Web Token for a username and password, and a new one before it expires."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import InvalidToken
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView


class TokenView(TokenObtainPairView):
    """A short-lived access token and a refresh token. Too many failures lock the name out."""


class RefreshView(TokenRefreshView):
    """A new access token for a refresh token that has not expired."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        try:
            return super().post(request, *args, **kwargs)
        except get_user_model().DoesNotExist:
            raise InvalidToken("the user of this token is gone") from None
