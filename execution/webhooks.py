"""The webhook: one alert in, one answer out. Nothing is acknowledged before it is committed."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from execution import authentication, intake, metrics, tasks, waiting
from execution.authentication import SIGNATURE_HEADERS, Delivery
from execution.errors import answer
from execution.formats import PARSERS
from execution.guards import client_ip
from execution.models import Strategy
from execution.parsing import Unreadable, parse_object
from execution.schema import Invalid
from execution.webhook_config import WebhookConfig, config_of
from risk.allowlist import contains, parse_address

logger = logging.getLogger(__name__)


class AlwaysJson(BaseContentNegotiation):
    """Senders accept whatever they like; the answer is JSON."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return None

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return JSONRenderer(), "application/json"


class WebhookView(APIView):
    """``POST /webhook/<strategy>`` and ``POST /webhook/<strategy>/<token>``."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    content_negotiation_class = AlwaysJson
    http_method_names = ("post",)
    schema = None

    def post(self, request: Request, strategy: str, token: str = "") -> Response:
        started = time.perf_counter()
        status, response = receive(request._request, strategy, token)
        metrics.webhook_requests.labels(status).inc()
        metrics.stage_seconds["accept"].observe(time.perf_counter() - started)
        if status == "accepted":
            response = _wait_if_preferred(request, response)
        return response


def receive(request: HttpRequest, slug: str, path_token: str) -> tuple[str, Response]:
    """Take one delivery; returns its status for the metrics and the answer."""
    try:
        return _receive(request, slug, path_token)
    except DatabaseError:
        logger.exception("a delivery could not be stored")
        return "not_stored", answer(
            "NOT_STORED", "the alert could not be stored; send it again", 503
        )


def _receive(request: HttpRequest, slug: str, path_token: str) -> tuple[str, Response]:
    body = _body(request)
    if body is None:
        return "too_large", answer(
            "TOO_LARGE", f"the body is larger than {settings.MAX_BODY_BYTES} bytes", 413
        )
    config = config_of(slug)
    address = client_ip(request)
    if config and not _may_post(config, address):
        return "not_allowed", answer("ADDRESS_NOT_ALLOWED", "this address may not post here", 403)
    delivery = Delivery(body, path_token, _signature(request))
    document, unreadable = _parsed(body)
    secret = authentication.verify(delivery, document, config.secrets if config else ())
    if config is None or secret is None:
        return "unauthenticated", answer("UNAUTHENTICATED", "authentication failed", 401)
    return _store(request, config, secret.profile, delivery, document, unreadable, address)


def _may_post(config: WebhookConfig, address: str | None) -> bool:
    return config.networks is None or contains(config.networks, parse_address(address or ""))


def _store(
    request: HttpRequest,
    config: WebhookConfig,
    profile: str,
    delivery: Delivery,
    document: dict[str, Any] | None,
    unreadable: Unreadable | None,
    address: str | None,
) -> tuple[str, Response]:
    body = authentication.masked_body(delivery, document)
    try:
        if document is None:
            raise unreadable or Unreadable("NOT_JSON", "the body is not JSON")
        alert = PARSERS[config.format](_without_credentials(document))
        if profile == Strategy.Auth.HMAC and alert.sent_at is None:
            raise Invalid(
                [{"field": "timestamp", "code": "REQUIRED", "detail": "signed alerts need it"}]
            )
    except Unreadable as error:
        intake.quarantine(config.strategy_id, body, address, error.code, error.detail)
        place = [] if error.position is None else [{"position": str(error.position)}]
        return "invalid", answer(error.code, error.detail, 400, place)
    except Invalid as error:
        intake.quarantine(config.strategy_id, body, address, "INVALID", str(error))
        return "invalid", answer("INVALID", "the alert is not valid", 400, error.errors)
    accepted = intake.accept(
        intake.Received(
            strategy_id=config.strategy_id,
            dedupe_window=config.dedupe_window,
            raw=delivery.body,
            body=body,
            alert=alert,
            credentials=authentication.credentials_in(delivery, document),
            header_key=request.META.get("HTTP_IDEMPOTENCY_KEY", "")[:150],
            address=address,
            auth=profile,
        )
    )
    if accepted.is_duplicate:
        return "duplicate", Response(
            {"status": "duplicate", "signal_id": str(accepted.signal_id)}, status=200
        )
    tasks.nudge_signal(str(accepted.signal_id))
    return "accepted", Response(
        {"status": "accepted", "signal_id": str(accepted.signal_id)}, status=202
    )


def _body(request: HttpRequest) -> bytes | None:
    """The body, or ``None`` when it is too large; a large one is not read to its end."""
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if not declared.isdigit() or int(declared) > settings.MAX_BODY_BYTES:
        return None
    body = request.body
    return body if len(body) <= settings.MAX_BODY_BYTES else None


def _signature(request: HttpRequest) -> str:
    return next((request.META[name] for name in SIGNATURE_HEADERS if name in request.META), "")


def _parsed(body: bytes) -> tuple[dict[str, Any] | None, Unreadable | None]:
    try:
        return parse_object(body), None
    except Unreadable as error:
        return None, error


def _without_credentials(document: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in document.items() if name not in authentication.BODY_FIELDS
    }


def _wait_if_preferred(request: Request, response: Response) -> Response:
    seconds = waiting.seconds_preferred(request.META.get("HTTP_PREFER", ""))
    if not seconds:
        return response
    outcome = waiting.wait_for(response.data["signal_id"], seconds)
    return response if outcome is None else Response(outcome, status=200)
