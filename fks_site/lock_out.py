"""What somebody sees who may not try passwords any more: a page for people, JSON for programs."""

from __future__ import annotations

from typing import Any

from axes.helpers import get_cool_off
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

ADDRESS = "too many failed logins from this address"
NAME = "too many failed logins for this name from this address"


def name_is_locked(
    request: HttpRequest, _response: HttpResponse | None = None, _credentials: Any = None
) -> HttpResponse:
    """The answer when django-axes has locked a name. It is the same for names that do not exist."""
    cool_off = get_cool_off(request)
    return refuse(request, NAME, int(cool_off.total_seconds()) if cool_off else 0)


def refuse(request: HttpRequest, why: str, seconds: int) -> HttpResponse:
    """Status 429, with ``Retry-After`` where a time is known: at most so many ``seconds``."""
    if request.path_info.startswith("/api/"):
        response: HttpResponse = JsonResponse({"code": "RATE_LIMITED", "detail": why}, status=429)
    else:
        context = {
            **admin.site.each_context(request),
            "title": "Locked out",
            "why": why,
            "minutes": -(-seconds // 60),
        }
        response = render(request, "fks/locked_out.html", context, status=429)
        response["Cache-Control"] = "no-store"
    if seconds:
        response["Retry-After"] = str(seconds)
    return response
