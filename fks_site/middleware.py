"""Small middlewares: the short way for machines, the name behind a change, and failed logins."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template.response import SimpleTemplateResponse
from django.urls import Resolver404, resolve
from django.views import defaults

from execution import errors
from execution.guards import client_ip
from fks_site import lock_out
from fks_site.metrics import is_scraper
from risk import audit, ratelimit
from risk.models import ClientAddress

GetResponse = Callable[[HttpRequest], HttpResponseBase]

MACHINE_PATHS = ("/webhook", "/health", "/ready")
METRICS_PATHS = ("/metrics", "/metrics/")


def api_paths(get_response: GetResponse) -> GetResponse:
    """Webhooks and probes skip sessions, CSRF, redirects and every other middleware below.

    They authenticate by themselves, and each middleware would cost them more than their own work.
    So do scrapers, which ask by an address that is in no ALLOWED_HOSTS; staff need their session.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if not _is_for_machines(request):
            return get_response(request)
        response = _answered(request)
        # Without a length the answer would go out in chunks, which simple senders cannot read.
        response.headers["Content-Length"] = str(len(response.content))
        return response

    return middleware


def _is_for_machines(request: HttpRequest) -> bool:
    if request.path_info in METRICS_PATHS:
        return is_scraper(request)
    return request.path_info.startswith(MACHINE_PATHS)


def _answered(request: HttpRequest) -> HttpResponse:
    try:
        match = resolve(request.path_info)
    except Resolver404:
        return JsonResponse({"code": "NOT_FOUND", "detail": "no such path"}, status=404)
    response: HttpResponse = match.func(request, *match.args, **match.kwargs)
    if isinstance(response, SimpleTemplateResponse):
        response.render()
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """The answer to a defect of ours, which Django has logged: machines get JSON."""
    if _wants_json(request):
        return JsonResponse({"code": "INTERNAL_ERROR", "detail": "internal error"}, status=500)
    return defaults.server_error(request)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The answer to what Django takes from nobody, a host it does not serve for one: JSON, too."""
    if not _wants_json(request):
        return defaults.bad_request(request, exception)
    code, detail = errors.of_suspicion(exception)
    return JsonResponse({"code": code, "detail": detail}, status=400)


def _wants_json(request: HttpRequest) -> bool:
    return request.path_info.startswith((*MACHINE_PATHS, "/api/"))


def audit_actor(get_response: GetResponse) -> GetResponse:
    """Changes made during a request are attributed to its user and address."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        user = request.user
        name = user.get_username() if user.is_authenticated else "anonymous"
        with audit.acting(audit.Actor(name, client_ip(request) or "")):
            return get_response(request)

    return middleware


LOGINS = {"/admin/login/": 200, "/api/token": 401, "/api/token/": 401}
"""Where passwords are tried, and the status of a failure there: the admin shows its form again."""


def count_failed_logins(get_response: GetResponse) -> GetResponse:
    """Too many failed logins from one address, whatever the names, and none is tried any more."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        failure = LOGINS.get(request.path_info)
        if request.method != "POST" or failure is None:
            return get_response(request)
        address, door = client_ip(request), ClientAddress.Door.LOGIN
        wait = ratelimit.locked_for(address, door)
        if wait:
            return lock_out.refuse(request, lock_out.ADDRESS, wait)
        response = get_response(request)
        # 403 and 429: the name is locked for this address already.
        if response.status_code in (failure, 403, 429):
            ratelimit.failed(address, door)
        return response

    return middleware
