"""Errors of the HTTP surface: JSON with ``code`` and ``detail``, and nothing of the inside."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import DisallowedHost, SuspiciousOperation
from django.http import Http404
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.response import Response
from rest_framework.views import exception_handler as default_handler

logger = logging.getLogger(__name__)


def answer(
    code: str, detail: str, http: int, errors: list[dict[str, str]] | None = None
) -> Response:
    """One error answer; ``errors`` lists what is wrong field by field."""
    body: dict[str, Any] = {"code": code, "detail": detail}
    if errors is not None:
        body["errors"] = errors
    return Response(body, status=http)


def of_suspicion(error: Exception) -> tuple[str, str]:
    """Code and detail for what Django takes from nobody."""
    if isinstance(error, DisallowedHost):
        return "HOST_NOT_ALLOWED", "no host of this name is served here (ALLOWED_HOSTS)"
    return "BAD_REQUEST", "the request is not one this server takes"


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exceptions in the house's form; anything else is logged and answered without detail."""
    if isinstance(error, Http404):
        error = NotFound()
    if isinstance(error, SuspiciousOperation):
        return answer(*of_suspicion(error), status.HTTP_400_BAD_REQUEST)
    response = default_handler(error, context)
    if response is None:
        logger.error("unhandled error in %s", type(context["view"]).__name__, exc_info=error)
        return answer("INTERNAL_ERROR", "internal error", status.HTTP_500_INTERNAL_SERVER_ERROR)
    if isinstance(error, APIException) and isinstance(response.data, dict):
        detail = response.data.get("detail")
        if detail is not None:
            response.data = {"code": _code(error), "detail": str(detail)}
            return response
    response.data = {
        "code": "INVALID",
        "detail": "the request is not valid",
        "errors": _field_errors(response.data),
    }
    return response


def _code(error: APIException) -> str:
    codes = error.get_codes()
    return str(codes).upper() if isinstance(codes, str) else error.default_code.upper()


def _field_errors(data: Any) -> list[dict[str, str]]:
    if isinstance(data, dict):
        return [
            {"field": str(name), "detail": str(text)}
            for name, texts in data.items()
            for text in (texts if isinstance(texts, list) else [texts])
        ]
    return [{"field": "", "detail": str(text)} for text in data]
