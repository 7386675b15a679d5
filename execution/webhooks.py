"""The webhook: one alert in, one answer out. Nothing is acknowledged before it is committed."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar
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
from execution.alerts import Alert
from execution.authentication import Delivery, LiveSecret
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
_Result = TypeVar("_Result")

PATH = re.compile(r"webhook/(?P<strategy>[^/]+)(?:/(?P<token>[\s\S]+?))?/?\Z")
_LENGTH = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Post:
    """One delivery, and what its path names."""

    request: HttpRequest
    strategy: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a delivery, in a word for the metrics and in JSON for the sender."""

    status: str
    http: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class _Valid:
    """An alert that may be stored; its id is known before."""

    received: intake.Received
    signal_id: UUID
    secret: LiveSecret | None


def webhook(request: HttpRequest, strategy: str, token: str = "") -> HttpResponse:
    """``POST /webhook/<strategy>`` and ``POST /webhook/<strategy>/<token>``: one that came alone.

    A plain view: a quarter of the request's time went into what a framework's view does beside.
    """
    if request.method != "POST":
        detail = f'Method "{request.method}" not allowed.'
        refused = _refusal("method_not_allowed", 405, "METHOD_NOT_ALLOWED", detail)
        metrics.webhook_requests.labels(refused.status).inc()
        return _response(replace(refused, headers={"Allow": "POST"}))
    [answer] = receive([Post(request, strategy, token)])
    if answer.status == "accepted":
        answer = _wait_if_preferred(request, answer)
    return _response(answer)


def _response(answer: Answer) -> HttpResponse:
    return HttpResponse(
        answer.content,
        content_type="application/json",
        status=answer.http,
        headers=answer.headers,
    )


def _refusal(
    status: str, http: int, code: str, detail: str, errors: list[dict[str, str]] | None = None
) -> Answer:
    """``errors`` lists what is wrong field by field."""
    body: dict[str, Any] = {"code": code, "detail": detail}
    if errors is not None:
        body["errors"] = errors
    return Answer(status, http, body)


def receive(posts: Sequence[Post]) -> list[Answer]:
    """Take deliveries that came at about the same time: an answer for each, in their order.

    What is valid is stored together, with one commit; what is wrong with one is its own affair.
    """
    started = time.perf_counter()
    # A dead connection shows itself in the statement; asking first would double the round trips.
    connection.health_check_done = True  # type: ignore[attr-defined]
    checked = _checked(posts)
    stored = iter(_stored([one for one in checked if not isinstance(one, Answer)]))
    answers = [one if isinstance(one, Answer) else next(stored) for one in checked]
    for answer in answers:
        metrics.webhook_requests.labels(answer.status).inc()
        metrics.stage_seconds["accept"].observe(time.perf_counter() - started)
    return answers


def _checked(posts: Sequence[Post]) -> list[Answer | _Valid]:
    checked: list[Answer | _Valid] = []
    for post in posts:
        try:
            checked.append(_tried_twice(partial(_check, post)))
        except UnreadablePostError:
            detail = "the body ended too early"
            checked.append(_refusal("broken_off", 400, "BROKEN_OFF", detail))
        except (OperationalError, InterfaceError) as error:
            # Asking it again for each of the others would keep them waiting for the same answer.
            return [*checked, *[_failed(error)] * (len(posts) - len(checked))]
        except Exception as error:
            # A defect of ours that one delivery meets must not refuse those beside it.
            checked.append(_failed(error))
    return checked


def _stored(alerts: Sequence[_Valid]) -> list[Answer]:
    if not alerts:
        return []
    began = time.time_ns()
    try:
        results = _tried_twice(
            lambda: intake.accept_all([(one.received, one.signal_id) for one in alerts])
        )
    except (OperationalError, InterfaceError) as error:
        return [_failed(error)] * len(alerts)
    except Exception as error:
        # What the database refuses of one must not refuse those beside it. Their ids are known: what
        # has been stored of them all the same is found.
        if len(alerts) == 1:
            return [_failed(error)]
        return [answer for alert in alerts for answer in _stored([alert])]
    answers = [
        _settled(one.received, accepted, began)
        for one, accepted in zip(alerts, results, strict=True)
    ]
    for one in alerts:
        _note(one.secret)
    return answers


def _tried_twice(ask: Callable[[], _Result]) -> _Result:
    """The second time on a new connection: most likely the server has dropped the first.

    Ids that are known before make that safe: had the first try been committed after all, the second
    finds its own rows.
    """
    try:
        return ask()
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block:
            raise
        connection.close()
        return ask()


def _failed(error: Exception) -> Answer:
    logger.error("a delivery could not be stored", exc_info=error)
    if isinstance(error, Error):
        detail = "the alert could not be stored; send it again"
        return _refusal("not_stored", 503, "NOT_STORED", detail)
    return _refusal("failed", 500, "INTERNAL_ERROR", "internal error")


def _check(post: Post) -> Answer | _Valid:
    """An alert that may be stored, or why not. What is wrong with one of a known sender is kept."""
    request = post.request
    if _declares_too_much(request):
        return _too_large()
    signal_id = uuid7()
    config = config_of(post.strategy)
    address = client_ip(request)
    if config and not _may_post(config, address):
        detail = "this address may not post here"
        return _refusal("not_allowed", 403, "ADDRESS_NOT_ALLOWED", detail)
    # Only now: whoever sends slowly holds a thread of ours.
    body = _body(request)
    if len(body) > settings.MAX_BODY_BYTES:
        return _too_large()
    format = config.format if config else FORMATS["fks"]
    delivery = authentication.delivery_of(body, post.token, format, request.META)
    parsed = _parsed(body, format)
    document = None if isinstance(parsed, Unreadable) else parsed
    secret = authentication.verify(delivery, document, config.secrets if config else ())
    user = "" if secret else _bearer(request, config)
    profile = secret.profile if secret else user and Strategy.Auth.JWT.value
    if config is None or not profile or not _has_certificate(request, config):
        return _refused(address)
    read = _read(request, config, profile, delivery, parsed, address)
    if isinstance(read, Answer):
        _note(secret)
        return read
    if user:
        read = replace(read, alert=replace(read.alert, posted_by=user))
    return _Valid(read, signal_id, secret)


def _note(secret: LiveSecret | None) -> None:
    """Statistics, which come after what they count is kept."""
    if secret:
        authentication.note_use(secret)
    network_hits.write_if_due()


def _refused(address: str | None) -> Answer:
    wait = ratelimit.failed(address)
    if not wait:
        return _refusal("unauthenticated", 401, "UNAUTHENTICATED", "authentication failed")
    detail = "too many failed attempts from this address"
    refused = _refusal("rate_limited", 429, "RATE_LIMITED", detail)
    return replace(refused, headers={"Retry-After": str(wait)})


def _bearer(request: HttpRequest, config: WebhookConfig | None) -> str:
    """The id of the user whose token came, if they may post; else nothing."""
    token = bearer.token_in(request.META.get("HTTP_AUTHORIZATION", ""))
    return "" if config is None else bearer.sender(token, config.senders) or ""


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


def _read(
    request: HttpRequest,
    config: WebhookConfig,
    profile: str,
    delivery: Delivery,
    parsed: dict[str, Any] | Unreadable,
    address: str | None,
) -> Answer | intake.Received:
    """An authenticated delivery as it is stored; what cannot be read goes into quarantine."""
    document = None if isinstance(parsed, Unreadable) else parsed
    credentials = masking.credentials_in(delivery, document, config.secrets)
    body = masking.mask_body(delivery, document, credentials)
    if isinstance(parsed, Unreadable):
        parsed = located(parsed, delivery.body)
        detail = masking.mask_text(parsed.detail, credentials)
        intake.quarantine(config.strategy_id, body, address, parsed.code, detail)
        place = [] if parsed.position is None else [{"position": str(parsed.position)}]
        return _refusal("invalid", 400, parsed.code, detail, place)
    try:
        masked = masking.mask_document(parsed, credentials, config.format)
        alert = _alert(masked, delivery, profile)
    except Invalid as error:
        intake.quarantine(config.strategy_id, body, address, "INVALID", str(error))
        return _refusal("invalid", 400, "INVALID", "the alert is not valid", error.errors)
    return intake.Received(
        strategy_id=config.strategy_id,
        dedupe_window=config.dedupe_window,
        raw=delivery.body,
        body=body,
        alert=alert,
        header_key=_header_key(request, delivery, profile),
        address=address,
        auth=profile,
    )


def _alert(document: dict[str, Any], delivery: Delivery, profile: str) -> Alert:
    alert = delivery.format.alert(document)
    if profile == Strategy.Auth.STANDARD and alert.sent_at is None and delivery.head:
        return replace(alert, sent_at=delivery.head.sent_at)
    if profile == Strategy.Auth.HMAC and alert.sent_at is None:
        detail = "signed alerts need it"
        raise Invalid([{"field": "timestamp", "code": "REQUIRED", "detail": detail}])
    return alert


def _settled(received: intake.Received, accepted: intake.Accepted, began: int) -> Answer:
    """Tell the workers, and the sender, of an alert that has been committed."""
    alert = received.alert
    answered = str(accepted.signal_id)
    what = "repeated" if accepted.is_duplicate else "stored"
    about = {"signal_id": answered, "symbol": alert.symbol}
    logger.info("alert %s: %s", what, alert.action.value, extra=about)
    if accepted.other:
        try:
            _keep_reused(received, accepted)
        except Error as error:
            return _failed(error)
    if accepted.is_duplicate:
        return Answer("duplicate", 200, {"status": "duplicate", "signal_id": answered})
    tracing.note_arrival(answered, began, symbol=alert.symbol)
    closes = alert.wants_flat or alert.reduce_only
    send = nudge.nudge_exit if closes else nudge.nudge_signal
    send(answered)
    return Answer("accepted", 202, {"status": "accepted", "signal_id": answered})


def _keep_reused(received: intake.Received, accepted: intake.Accepted) -> None:
    """Another alert has had its key: a duplicate to the sender, and somebody has to hear of it, unless
    it has been let in since.
    """
    if received.alert.idempotency_key and intake.stored_as(received.strategy_id, received.alert):
        return
    asked = intake.asked(received.alert.to_json())
    detail = f"its id or key is that of another alert: {accepted.other}, and this is {asked}"
    intake.quarantine(
        received.strategy_id, received.body, received.address, intake.KEY_REUSED, detail
    )


def _header_key(request: HttpRequest, delivery: Delivery, profile: str) -> str:
    if profile == Strategy.Auth.STANDARD and delivery.head:
        return delivery.head.id
    key: str = request.META.get("HTTP_IDEMPOTENCY_KEY", "")
    return key


def _declares_too_much(request: HttpRequest) -> bool:
    declared = request.META.get("CONTENT_LENGTH") or "0"
    return not _LENGTH.fullmatch(declared) or int(declared) > settings.MAX_BODY_BYTES


def _too_large() -> Answer:
    detail = f"the body is larger than {settings.MAX_BODY_BYTES} bytes"
    return _refusal("too_large", 413, "TOO_LARGE", detail)


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


def _wait_if_preferred(request: HttpRequest, answer: Answer) -> Answer:
    seconds = waiting.seconds_preferred(request.META.get("HTTP_PREFER", ""))
    if not seconds:
        return answer
    try:
        outcome = waiting.wait_for(answer.body["signal_id"], seconds)
    except Error:
        logger.warning("a stored signal could not be watched", exc_info=True)
        return answer
    return answer if outcome is None else replace(answer, http=200, body=outcome)
