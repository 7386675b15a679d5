"""What would become of an alert now: authentication, reading, size, verdicts and orders, by the same
code that trades. Nothing is sent, and the decision is rolled back: what stays is what the venues said
of prices, rules and balances, as after any other question.

They are asked before the decision's transaction: one that waits for a venue must hold no lock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.models import Account
from execution import authentication, bearer, masking, pipeline, timeliness
from execution.alerts import Alert
from execution.authentication import Delivery
from execution.formats import format_of
from execution.ids import uuid7
from execution.legs import no_route
from execution.locating import located
from execution.models import Order, RoutingDecision, Signal, Strategy
from execution.parsing import Unreadable
from execution.pipeline import Step
from execution.routing import all_legs
from execution.schema import Invalid
from execution.states import OrderState
from execution.watching import OWN_ALERT
from execution.webhook_config import WebhookConfig, config_of
from risk.types import Refusal

Result = TypeVar("Result")
AUTH = "dry run"
IMPORTED = "import"
"""How a signal is marked that came by the second channel (``import_alerts``)."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
SECONDS = 30
WITHOUT_SDK = frozenset({"paper"})
"""Brokers whose plugin a web process may load; any other is asked from a process of its own."""
_STEPS = {
    Step.WAIT: "It would wait until the orders under way in its symbol are settled or canceled.",
    Step.GONE: "",
    Step.DECIDED: "",
}


class DryRunFailed(Exception):
    """No answer; the message is a sentence for the operator."""


def dry_run(
    strategy: Strategy,
    body: bytes,
    *,
    path_token: str = "",
    headers: Mapping[str, str] = NO_HEADERS,
) -> dict[str, Any]:
    """Everything that would be said of ``body``, as JSON values; credentials masked."""
    result, alert = _read(strategy, body, path_token, headers)
    return result if alert is None else result | decision_on(strategy, alert)


def from_a_web_process(
    strategy: Strategy,
    body: bytes,
    *,
    path_token: str = "",
    headers: Mapping[str, str] = NO_HEADERS,
) -> dict[str, Any]:
    """``dry_run`` where no SDK may be loaded: a venue that needs one is asked from a process of its
    own, which gets the body without its credentials. Raises DryRunFailed.
    """
    result, alert = _read(strategy, body, path_token, headers)
    if alert is None:
        return result
    if _asks_no_sdk(strategy):
        return result | decision_on(strategy, alert)
    mine = {"authentication": result["authentication"]}
    return _in_a_process(strategy, result["body"]) | mine


def replay(signal: Signal) -> dict[str, Any]:
    """What would become of a stored signal today: its body read anew, by today's settings."""
    if signal.body and signal.auth not in ("operator", OWN_ALERT):
        result = dry_run(signal.strategy, signal.body.encode())
        result.pop("authentication")
    else:  # pruned; or an operator's or FKS's own: it never was a sender's body
        result = decision_on(signal.strategy, Alert.from_json(signal.alert), auth=signal.auth)
    then = {"state": signal.state, "reason": signal.reason, "detail": signal.detail}
    return {"signal_id": str(signal.pk), "then": then} | result


def replay_from_a_web_process(signal: Signal) -> dict[str, Any]:
    """``replay`` where no SDK may be loaded. Raises DryRunFailed."""
    account = signal.alert.get("account", "")
    return replay(signal) if _asks_no_sdk(signal.strategy, account) else _by_command(str(signal.pk))


def _asks_no_sdk(strategy: Strategy, account: str = "") -> bool:
    """Whether a web process may judge what goes where the strategy's routes lead, or to ``account``."""
    named = Account.objects.filter(name=account)
    routed = Account.objects.filter(routes__strategy=strategy, routes__is_enabled=True)
    brokers = (named if account else routed).values_list("broker", flat=True)
    return set(brokers) <= WITHOUT_SDK


def decision_on(strategy: Strategy, alert: Alert, *, auth: str = AUTH) -> dict[str, Any]:
    """What would be decided on ``alert`` if it came now. An alert that would be refused as a whole
    is judged all the same: the rest is what an operator wants to see as well.
    """
    now = timezone.now()
    signal = Signal(
        id=uuid7(),
        strategy=strategy,
        received_at=now,
        sent_at=alert.sent_at,
        auth=auth,
        body="",
        alert=alert.to_json(),
        symbol=alert.symbol,
        action=alert.action.value,
    )
    shown = alert.to_json()
    result: dict[str, Any] = {"error": None, "alert": shown, "unread": shown.pop("extras", {})}
    try:
        timeliness.refuse_signal(signal, alert)
        result["refusal"] = None
    except Refusal as refusal:
        result["refusal"] = _refusal(refusal)
    legs, decisions = all_legs(signal, alert)
    result["routing"] = [_routing(one) for one in decisions]
    if not legs:
        result["refusal"] = result["refusal"] or _refusal(no_route())
        return result | {"orders": [], "waits": "", "cancels": 0}

    def decide() -> dict[str, Any]:
        signal.save(force_insert=True)
        decision = pipeline.decide_locked(signal, alert, legs)
        orders = Order.objects.filter(signal=signal).select_related("account").order_by("id")
        return {
            "orders": [_order(order) for order in orders],
            "waits": _STEPS[decision.step],
            "cancels": len(decision.cancels),
        }

    return result | _undone(decide)


def _read(
    strategy: Strategy, body: bytes, path_token: str, headers: Mapping[str, str]
) -> tuple[dict[str, Any], Alert | None]:
    format = format_of(strategy.format, strategy.format_options)
    delivery = authentication.delivery_of(body, path_token, format, headers)
    parsed: dict[str, Any] | Unreadable
    try:
        parsed = format.read(body)
    except Unreadable as error:
        parsed = located(error, body)
    document = None if isinstance(parsed, Unreadable) else parsed
    config = config_of(strategy.slug)
    secrets = config.secrets if config else ()
    credentials = masking.credentials_in(delivery, document, secrets)
    result: dict[str, Any] = {
        "strategy": strategy.slug,
        "format": strategy.format,
        "authentication": _authentication(strategy, delivery, document, config, headers),
        "body": masking.mask_body(delivery, document, credentials),
        "error": None,
        "orders": [],
    }
    if isinstance(parsed, Unreadable):
        detail = masking.mask_text(parsed.detail, credentials)
        place = [] if parsed.position is None else [{"position": str(parsed.position)}]
        result["error"] = {"code": parsed.code, "detail": detail, "errors": place}
        return result, None
    try:
        return result, format.alert(masking.mask_document(parsed, credentials, format))
    except Invalid as error:
        complaint = {"code": "INVALID", "detail": "the alert is not valid", "errors": error.errors}
        return result | {"error": complaint}, None


def _authentication(
    strategy: Strategy,
    delivery: Delivery,
    document: dict[str, Any] | None,
    config: WebhookConfig | None,
    headers: Mapping[str, str],
) -> dict[str, Any]:
    """What the webhook would say of the credential in the body, the path or the headers given."""
    is_token = strategy.auth == Strategy.Auth.TOKEN
    if not is_token and not headers:
        detail = (
            f"a sender of {strategy.slug} proves itself by headers; give them to have them judged"
        )
        return {"passed": None, "detail": detail}
    if is_token and not authentication.presented(delivery, document):
        names = ", ".join(delivery.format.secrets)
        detail = f"no token: it goes into the address or a field of the body ({names})"
        return {"passed": False, "detail": detail}
    if strategy.auth == Strategy.Auth.JWT:
        token = bearer.token_in(headers.get("HTTP_AUTHORIZATION", ""))
        passed = bearer.sender(token, config.senders if config else frozenset()) is not None
        word = "is" if passed else "is not"
        return {"passed": passed, "detail": f"the bearer token {word} of a user who may post"}
    proven = authentication.verify(delivery, document, config.secrets if config else ())
    if is_token:
        detail = f"the token is {'one' if proven else 'none'} of the strategy's live secrets"
    elif proven:
        detail = "the signature is by one of the strategy's live secrets"
    else:
        detail = (
            "no signature is by one of the strategy's live secrets, over these bytes and in time"
        )
    return {"passed": proven is not None, "detail": detail}


def _in_a_process(strategy: Strategy, body: str) -> dict[str, Any]:
    tried = ["--format", strategy.format, "--format-options", json.dumps(strategy.format_options)]
    return _by_command("--strategy", strategy.slug, "--file", "-", *tried, body=body)


def _by_command(*arguments: str, body: str = "") -> dict[str, Any]:
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "replay_signal", *arguments]
    try:
        finished = subprocess.run(  # noqa: S603
            command, input=body, capture_output=True, text=True, timeout=SECONDS, check=True
        )
        result: dict[str, Any] = json.loads(finished.stdout)
    except subprocess.TimeoutExpired as error:
        raise DryRunFailed(f"the venue gave no answer within {SECONDS} s") from error
    except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
        raise DryRunFailed("the process that asks the venue failed; see the log") from error
    return result


def _undone(work: Callable[[], Result]) -> Result:
    """What ``work`` returns, and nothing it wrote."""
    with transaction.atomic():
        result = work()
        transaction.set_rollback(True)
    return result


def _refusal(refusal: Refusal) -> dict[str, Any]:
    numbers = {name: str(value) for name, value in refusal.numbers.items()}
    return {"code": refusal.code.value, "detail": refusal.detail, "numbers": numbers}


def _routing(decision: RoutingDecision) -> dict[str, Any]:
    return {
        "group": decision.group,
        "detail": decision.detail,
        "reason": decision.reason,
        "candidates": decision.candidates,
    }


def _order(order: Order) -> dict[str, Any]:
    numbers = (
        "quantity",
        "price",
        "stop_price",
        "trailing_percent",
        "reference_price",
        "reserved_value",
    )
    shown = {name: getattr(order, name) for name in numbers}
    return {
        "account": order.account.name,
        "environment": order.account.get_environment_display(),
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "role": order.role,
        **{name: None if value is None else decimal_text(value) for name, value in shown.items()},
        "time_in_force": order.time_in_force,
        "post_only": order.post_only,
        "reduce_only": order.reduce_only,
        "reverses": order.reverses,
        "would_be_sent": order.state != OrderState.DENIED,
        "needs_approval": order.state == OrderState.AWAITING_APPROVAL,
        "reason": order.reason,
        "detail": order.detail,
        "sizing": order.sizing,
        "verdicts": order.verdicts,
    }
