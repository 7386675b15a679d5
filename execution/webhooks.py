"""The webhook: one alert in, one answer out. Nothing is acknowledged before it is committed."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.handlers.wsgi import LimitedStream
from django.db import Error, InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, UnreadablePostError

from execution import (
    authentication,
    bearer,
    intake,
    masking,
    metrics,
    nudge,
    tracing,
    waiting,
)
from execution.aims import wants_flat
from execution.alerts import Alert
from execution.authentication import Delivery
from execution.certificates import is_presented
from execution.formats import FORMATS, Format
from execution.guards import came_by_proxy, client_ip
from execution.ids import uuid7
from execution.locating import located
from execution.models import Strategy
from execution.parsing import Unreadable
from execution.schema import Invalid
from execution.webhook_config import WebhookConfig, config_of
from risk import network_hits, ratelimit
from risk.allowlist import matching, parse_address

logger = logging.getLogger(__name__)

_LENGTH = re.compile(r"\d{1,9}", re.ASCII)


def webhook(request: HttpRequest, strategy: str, token: str = "") -> HttpResponse:
    """``POST /webhook/<strategy>`` and ``POST /webhook/<strategy>/<token>``.

    A plain view: a quarter of the request's time went into what a framework's view does beside.
    """
    if request.method != "POST":
        response = answer("METHOD_NOT_ALLOWED", f'Method "{request.method}" not allowed.', 405)
        response["Allow"] = "POST"
        return response
    started = time.perf_counter()
    status, response = receive(request, strategy, token)
    metrics.webhook_requests.labels(status).inc()
    metrics.stage_seconds["accept"].observe(time.perf_counter() - started)
    if status == "accepted":
        return _wait_if_preferred(request, response)
    return response


def answer(
    code: str, detail: str, http: int, errors: list[dict[str, str]] | None = None
) -> HttpResponse:
    """One error answer; ``errors`` lists what is wrong field by field."""
    body: dict[str, Any] = {"code": code, "detail": detail}
    if errors is not None:
        body["errors"] = errors
    return _json(body, http)


def _json(body: dict[str, Any], http: int) -> HttpResponse:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(text.encode(), content_type="application/json", status=http)


def receive(request: HttpRequest, slug: str, path_token: str) -> tuple[str, HttpResponse]:
    """Take one delivery; returns its status for the metrics and the answer."""
    # A dead connection shows itself in the statement; asking first would double the round trips.
    connection.health_check_done = True  # type: ignore[attr-defined]
    signal_id = uuid7()
    try:
        try:
            return _receive(request, slug, path_token, signal_id)
        except (OperationalError, InterfaceError):
            # Most likely a connection the server dropped. The same id makes the second try safe: had
            # the first been committed after all, it finds its own row.
            if connection.in_atomic_block:
                raise
            connection.close()
            return _receive(request, slug, path_token, signal_id)
    except Error:
        logger.exception("a delivery could not be stored")
        return "not_stored", answer(
            "NOT_STORED", "the alert could not be stored; send it again", 503
        )
    except UnreadablePostError:
        return "broken_off", answer("BROKEN_OFF", "the body ended too early", 400)


def _receive(
    request: HttpRequest, slug: str, path_token: str, signal_id: UUID
) -> tuple[str, HttpResponse]:
    if _declares_too_much(request):
        return _too_large()
    config = config_of(slug)
    address = client_ip(request)
    if config and not _may_post(config, address):
        return "not_allowed", answer("ADDRESS_NOT_ALLOWED", "this address may not post here", 403)
    # Only now: whoever sends slowly holds a thread of ours.
    body = _body(request)
    if len(body) > settings.MAX_BODY_BYTES:
        return _too_large()
    format = config.format if config else FORMATS["fks"]
    delivery = authentication.delivery_of(body, path_token, format, request.META)
    parsed = _parsed(body, format)
    document = None if isinstance(parsed, Unreadable) else parsed
    secret = authentication.verify(delivery, document, config.secrets if config else ())
    profile = secret.profile if secret else _bearer_profile(request, config)
    if config is None or not profile or not _has_certificate(request, config):
        return _refused(address)
    taken = _take(request, config, profile, delivery, parsed, address, signal_id)
    if secret:
        authentication.note_use(secret)
    network_hits.write_if_due()
    return taken


def _refused(address: str | None) -> tuple[str, HttpResponse]:
    wait = ratelimit.failed(address)
    if not wait:
        return "unauthenticated", answer("UNAUTHENTICATED", "authentication failed", 401)
    response = answer("RATE_LIMITED", "too many failed attempts from this address", 429)
    response["Retry-After"] = str(wait)
    return "rate_limited", response


def _bearer_profile(request: HttpRequest, config: WebhookConfig | None) -> str:
    token = bearer.token_in(request.META.get("HTTP_AUTHORIZATION", ""))
    if config is None or bearer.sender(token, config.senders) is None:
        return ""
    return Strategy.Auth.JWT.value


def _has_certificate(request: HttpRequest, config: WebhookConfig) -> bool:
    """Whether the strategy's pinned certificate was shown to a proxy we trust, if it wants one."""
    if config.certificate is None:
        return True
    return came_by_proxy(request) and is_presented(config.certificate, request.META)


def _may_post(config: WebhookConfig, address: str | None) -> bool:
    if config.networks is None or config.allowlist_id is None:
        return True
    network = matching(config.networks, parse_address(address or ""))
    if network is None:
        return False
    network_hits.count(config.allowlist_id, network)
    return True


def _take(
    request: HttpRequest,
    config: WebhookConfig,
    profile: str,
    delivery: Delivery,
    parsed: dict[str, Any] | Unreadable,
    address: str | None,
    signal_id: UUID,
) -> tuple[str, HttpResponse]:
    """Store an authenticated delivery: as a signal, or in quarantine with what is wrong with it."""
    document = None if isinstance(parsed, Unreadable) else parsed
    credentials = masking.credentials_in(delivery, document, config.secrets)
    body = masking.mask_body(delivery, document, credentials)
    if isinstance(parsed, Unreadable):
        parsed = located(parsed, delivery.body)
        detail = masking.mask_text(parsed.detail, credentials)
        intake.quarantine(config.strategy_id, body, address, parsed.code, detail)
        place = [] if parsed.position is None else [{"position": str(parsed.position)}]
        return "invalid", answer(parsed.code, detail, 400, place)
    try:
        masked = masking.mask_document(parsed, credentials, config.format)
        alert = _alert(masked, delivery, profile)
    except Invalid as error:
        intake.quarantine(config.strategy_id, body, address, "INVALID", str(error))
        return "invalid", answer("INVALID", "the alert is not valid", 400, error.errors)
    return _accept(
        intake.Received(
            strategy_id=config.strategy_id,
            dedupe_window=config.dedupe_window,
            raw=delivery.body,
            body=body,
            alert=alert,
            header_key=_header_key(request, delivery, profile),
            address=address,
            auth=profile,
        ),
        signal_id,
    )


def _alert(document: dict[str, Any], delivery: Delivery, profile: str) -> Alert:
    alert = delivery.format.parse(document)
    if profile == Strategy.Auth.STANDARD and alert.sent_at is None and delivery.head:
        return replace(alert, sent_at=delivery.head.sent_at)
    if profile == Strategy.Auth.HMAC and alert.sent_at is None:
        detail = "signed alerts need it"
        raise Invalid([{"field": "timestamp", "code": "REQUIRED", "detail": detail}])
    return alert


def _accept(received: intake.Received, signal_id: UUID) -> tuple[str, HttpResponse]:
    began = time.time_ns()
    accepted = intake.accept(received, signal_id)
    answered = str(accepted.signal_id)
    what = "repeated" if accepted.is_duplicate else "stored"
    about = {"signal_id": answered, "symbol": received.alert.symbol}
    logger.info("alert %s: %s", what, received.alert.action.value, extra=about)
    if accepted.is_duplicate:
        return "duplicate", _json({"status": "duplicate", "signal_id": answered}, 200)
    tracing.note_arrival(answered, began, symbol=received.alert.symbol)
    closes = wants_flat(received.alert) or received.alert.reduce_only
    wake = nudge.nudge_exit if closes else nudge.nudge_signal
    wake(answered)
    return "accepted", _json({"status": "accepted", "signal_id": answered}, 202)


def _header_key(request: HttpRequest, delivery: Delivery, profile: str) -> str:
    if profile == Strategy.Auth.STANDARD and delivery.head:
        return delivery.head.id
    key: str = request.META.get("HTTP_IDEMPOTENCY_KEY", "")
    return key


def _declares_too_much(request: HttpRequest) -> bool:
    declared = request.META.get("CONTENT_LENGTH") or "0"
    return not _LENGTH.fullmatch(declared) or int(declared) > settings.MAX_BODY_BYTES


def _too_large() -> tuple[str, HttpResponse]:
    detail = f"the body is larger than {settings.MAX_BODY_BYTES} bytes"
    return "too_large", answer("TOO_LARGE", detail, 413)


def _body(request: HttpRequest) -> bytes:
    """The body, also one that comes in chunks; one byte too many is as far as those are read.

    Raises UnreadablePostError.
    """
    coding = request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
    if "chunked" in coding and request.META.get("wsgi.input_terminated"):
        # Django reads what Content-Length declares, and a body in chunks declares nothing.
        limit = settings.MAX_BODY_BYTES + 1
        request._stream = LimitedStream(request.META["wsgi.input"], limit)  # type: ignore[assignment]
    return request.body


def _parsed(body: bytes, format: Format) -> dict[str, Any] | Unreadable:
    try:
        return format.read(body)
    except Unreadable as error:
        return error


def _wait_if_preferred(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    seconds = waiting.seconds_preferred(request.META.get("HTTP_PREFER", ""))
    if not seconds:
        return response
    try:
        outcome = waiting.wait_for(json.loads(response.content)["signal_id"], seconds)
    except Error:
        logger.warning("a stored signal could not be watched", exc_info=True)
        return response
    return response if outcome is None else _json(outcome, 200)
