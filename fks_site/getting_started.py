"""From an empty installation to the first paper fill, in the browser: four steps, each with its button.

What is done is read off the rows, so the page may be left and come back to, and is right for an
installation that was set up in another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminTextInputWidget

from brokers import access
from brokers.models import Account, validate_name
from brokers.types import Environment
from execution import manual
from execution.alerts import Action, Alert
from execution.models import Order, Strategy, WebhookSecret
from execution.states import TERMINAL, OrderState
from execution.strategies import StrategyError, create_strategy
from risk import proposals
from risk.accounts import add_account
from risk.check import REQUIRED
from risk.limits import usual_limits
from risk.models import Channel, Proposal, RiskLimit
from risk.proposable import LIMIT, limit_payload

LOOK = ("brokers.view_account", "execution.view_strategy", "execution.view_order")
RIGHTS = {
    "account": ("brokers.add_account",),
    "limits": ("risk.add_risklimit", LIMIT.right),
    "strategy": ("execution.add_strategy", "execution.change_webhooksecret"),
    "order": ("execution.add_order",),
}
"""What each step takes."""
PAPER, QUANTITY = "paper", Decimal("0.001")
SYMBOL, PRICE = "BTC/USDT", Decimal(60_000)
WHY = "getting started"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the installation is. ``proposed`` are limits that wait for another person."""

    account: Account | None
    has_limits: bool
    proposed: int
    strategy: Strategy | None
    order: Order | None

    @property
    def is_filled(self) -> bool:
        return self.order is not None and self.order.state == OrderState.FILLED

    @property
    def is_under_way(self) -> bool:
        return self.order is not None and self.order.state not in TERMINAL


def progress() -> Progress:
    """As the rows are now. An order that was filled counts before one that failed."""
    account = Account.objects.filter(broker="paper", is_active=True).order_by("pk").first()
    secrets = WebhookSecret.objects.order_by("strategy_id").select_related("strategy")
    secret = secrets.filter(strategy__is_enabled=True).first()
    orders = Order.objects.filter(account=account) if account else Order.objects.none()
    filled = orders.filter(state=OrderState.FILLED).order_by("-id").first()
    return Progress(
        account=account,
        has_limits=not _missing_limits(),
        proposed=_proposed_limits().count(),
        strategy=secret.strategy if secret else None,
        order=filled or orders.order_by("-id").first(),
    )


def _missing_limits() -> set[str]:
    """The rules without which no entry passes, and that are in force nowhere."""
    enforced = RiskLimit.objects.filter(rule__in=REQUIRED, mode=RiskLimit.Mode.ENFORCE)
    return set(REQUIRED) - set(enforced.values_list("rule", flat=True))


def _proposed_limits() -> QuerySet[Proposal]:
    return Proposal.objects.filter(
        kind=LIMIT.name, state=Proposal.State.OPEN, expires_at__gt=timezone.now()
    )


class StrategyForm(forms.Form):
    """What the first strategy is called."""

    slug = forms.CharField(
        label="Name of the strategy",
        max_length=63,
        initial="first",
        validators=[validate_name],
        widget=UnfoldAdminTextInputWidget({"autocomplete": "off"}),
        help_text="It is part of the address its alerts are posted to.",
    )


def may_look(user: Any) -> bool:
    """The steps are an installation's: not for those who work with some of its accounts only."""
    return user.has_perms(LOOK) and not access.is_restricted(user)


def page(request: HttpRequest) -> HttpResponse:
    """The steps; a POST does the one its ``step`` names."""
    if not may_look(request.user):
        raise PermissionDenied
    now, form = progress(), StrategyForm(request.POST if _asks(request, "strategy") else None)
    created = None
    if request.method == "POST":
        if form.is_bound:
            created = _make_strategy(request, form, now)
        else:
            _carry_out(request, now)
            return HttpResponseRedirect(request.path)
    context = {
        **admin.site.each_context(request),
        "title": "Getting started",
        "progress": progress(),
        "form": form,
        "created": created,
        "symbol": SYMBOL,
        "quantity": QUANTITY,
        "has_channel": Channel.objects.filter(is_active=True).exists(),
        "is_proven": hasattr(request.user, "second_factor"),
        "may": {step: request.user.has_perms(rights) for step, rights in RIGHTS.items()},
    }
    request.current_app = admin.site.name
    response = TemplateResponse(request, "fks/getting_started.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _asks(request: HttpRequest, step: str) -> bool:
    return request.method == "POST" and request.POST.get("step") == step


def _must(request: HttpRequest, step: str) -> None:
    if not request.user.has_perms(RIGHTS[step]):
        raise PermissionDenied


def _carry_out(request: HttpRequest, now: Progress) -> None:
    """Steps without questions; one that is done already does nothing."""
    if _asks(request, "account"):
        _must(request, "account")
        if now.account is None:
            _make_account()
            messages.success(request, "The paper account is there.")
    elif _asks(request, "limits"):
        _must(request, "limits")
        if not now.has_limits and not now.proposed:
            _set_limits(request)
    elif _asks(request, "order"):
        _must(request, "order")
        if now.account is not None and not now.is_under_way:
            _place(now.account)
            messages.success(request, "The order is on its way.")


def _set_limits(request: HttpRequest) -> None:
    """The usual limits that are not set yet, as the page of the limits would set each."""
    everywhere = RiskLimit.objects.filter(
        policy__account=None, policy__strategy="", policy__symbol=""
    )
    known = set(everywhere.values_list("rule", flat=True))
    waiting = {}
    with transaction.atomic():
        for rule, value, mode in usual_limits({}):
            if rule not in known:
                payload = limit_payload(rule, value, mode=mode)
                if proposal := proposals.submit(LIMIT.name, payload, reason=WHY):
                    waiting[rule] = str(proposal)
    _say_what_holds(request, waiting)


def _say_what_holds(request: HttpRequest, waiting: Mapping[str, str]) -> None:
    if waiting:
        rules = ", ".join(waiting.values())
        messages.warning(request, f"Another person has to approve this before it holds: {rules}.")
    if left := sorted(_missing_limits() - set(waiting)):
        text = f"Set by somebody, and not enforced: {', '.join(left)}. Enforce it under Limits; "
        messages.warning(request, f"{text}until then every entry is refused.")
    elif not waiting:
        messages.success(request, "Limits are in force; change them under Limits.")


def _make_account() -> None:
    name = PAPER
    while Account.objects.filter(name=name).exists():
        name += "-1"
    add_account(
        name,
        broker="paper",
        environment=Environment.DRY_RUN.value,
        options={},
        credentials={},
        reason=WHY,
    )


def _place(account: Account) -> None:
    alert = Alert(
        symbol=SYMBOL, account=account.name, action=Action.BUY, quantity=QUANTITY, price=PRICE
    )
    manual.submit(alert, reason=WHY)


def _make_strategy(request: HttpRequest, form: StrategyForm, now: Progress) -> Any:
    """The new strategy's secret and texts, shown in this answer and never again."""
    _must(request, "strategy")
    if now.account is None:
        form.add_error(None, "It needs an account first.")
    if not form.is_valid() or now.account is None:
        return None
    try:
        created = create_strategy(
            form.cleaned_data["slug"],
            accounts=[now.account.name],
            options={"quantity": str(QUANTITY)},
        )
    except StrategyError as error:
        form.add_error("slug", str(error))
        return None
    address = request.build_absolute_uri(f"/webhook/{created.strategy.slug}")
    return {
        "strategy": created.strategy,
        "secret": created.secret,
        "address": f"{address}/{created.secret}",
        "page": reverse("admin:execution_strategy_change", args=[created.strategy.pk]),
    }
