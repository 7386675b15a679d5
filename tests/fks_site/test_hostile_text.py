"""Whatever an outsider can write is text on every page: senders, venues, strangers at the door.

Every free text column of every row is made hostile, so that a new one is covered by being there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import CharField, Field, JSONField, Model, TextField
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from brokers.models import Account, Instrument
from execution.models import (
    Adoption,
    Fill,
    FundingPayment,
    Order,
    RoutingDecision,
    SlicePlan,
    SpreadWatch,
)
from execution.states import OrderState
from fks_site.performance import FORMULA
from risk.models import AuditEvent, Proposal, RiskReport
from tests.factories import OrderFactory, RouteFactory
from tests.fks_site.test_admin import _nothing_cached, everything, story

__all__ = ["_nothing_cached", "everything", "story"]

pytestmark = pytest.mark.django_db
HOSTILE = "=\"'><xss>{{7*7}}"
TAG = "<xss"
FLOORS = ("brokers", "risk", "execution", "axes")
CODE_READS = frozenset(
    ("broker", "cidr", "day_zone", "digest", "door", "environment", "expects_market", "expects_zone",
     "from_state", "kind", "market_type", "network", "rule", "sealed", "service", "slug", "to_state")
)  # fmt: skip
"""Columns by whose value code chooses, or that are no text of anybody's."""
KEYS_STAY = frozenset(("action", "rule", "passed", "mode", "total", "free", "side", "type"))
"""What JSON holds that code chooses by, or that is a number."""


@pytest.fixture
def hostile(everything: None, story: Order) -> None:
    """A row of everything, and then no free text anywhere that is not hostile."""
    _rows_beside(story)
    for model in apps.get_models():
        if model._meta.app_label in FLOORS and model is not AuditEvent:  # never changed
            _poison(model)
    AuditEvent.objects.create(
        at=timezone.now(), kind=HOSTILE, actor=HOSTILE, address=HOSTILE, subject=HOSTILE,
        correlation_id=HOSTILE, before={HOSTILE: HOSTILE}, after={HOSTILE: HOSTILE}, reason=HOSTILE,
    )  # fmt: skip


def _rows_beside(story: Order) -> None:
    now, account, signal = timezone.now(), story.account, story.signal
    assert signal is not None
    RoutingDecision.objects.create(
        signal=signal, group="g", detail="x", at=now,
        candidates=[{"account": "a", "reason": "x", "detail": "x", "chosen": False}],
    )  # fmt: skip
    for state in (OrderState.NEEDS_OPERATOR, OrderState.SLICING):
        order = OrderFactory.create(account=account, state=state)
    SlicePlan.objects.create(
        order=order, algorithm="twap", slices=2, seconds=60, slice_quantity=1, begins_at=now,
        detail="x",
    )  # fmt: skip
    unknown = Order.objects.filter(state=OrderState.UNKNOWN).first()
    assert unknown is not None
    Adoption.objects.create(
        order=unknown, broker_order_id="x", detail="x", reason="x", asked_by="x", asked_at=now,
        next_look_at=now, give_up_at=now, state=Adoption.State.REFUSED,
    )  # fmt: skip
    FundingPayment.objects.create(
        account=account, payment_id="x", symbol="BTC/USDT:USDT", amount=Decimal(-1), currency="x",
        at=now, recorded_at=now,
    )  # fmt: skip
    Instrument.objects.create(
        account=account, symbol="x", venue_symbol="x", base="x", quote="x", refreshed_at=now,
        quantity_step=Decimal(1), price_tick=Decimal(1),
    )  # fmt: skip
    Account.objects.filter(pk=account.pk).update(
        balances={HOSTILE: {"total": "1", "free": "1"}}, equity=Decimal(1)
    )
    SpreadWatch.objects.create(
        symbol="x", looked_at=now, quotes=[{"account": "x", "detail": "x"}]
    ).accounts.set([account])
    Proposal.objects.create(
        kind="safeguards", subject="x", payload={}, before={"x": "x"}, after={"x": "x"},
        reason="x", proposed_by="x", proposed_at=now, expires_at=now + timedelta(hours=1),
    )  # fmt: skip
    RiskReport.objects.create(
        at=now, passed=False, actor="x",
        results=[{"control": "x", "scope": "x", "passed": False, "detail": "x"}],
    )  # fmt: skip


def _poison(model: type[Model]) -> None:
    for field in model._meta.concrete_fields:
        for number, row in enumerate(model._default_manager.all() if _is_free(field) else ()):
            value = _hostile(field, getattr(row, field.name), number)
            try:
                with transaction.atomic():
                    model._default_manager.filter(pk=row.pk).update(**{field.name: value})
            except IntegrityError:
                assert (model._meta.model_name, field.name) in RULED_OUT


def _is_free(field: Field[Any, Any]) -> bool:
    text = isinstance(field, CharField | TextField | JSONField)
    return text and not (field.primary_key or field.choices or field.name in CODE_READS)


def _hostile(field: Field[Any, Any], value: Any, number: int) -> Any:
    if isinstance(field, JSONField):
        return _deep(value)
    text = f"{HOSTILE}{number}" if field.unique or field.name in UNIQUE_TOGETHER else HOSTILE
    return text[: field.max_length]


RULED_OUT = frozenset((("circuitbreaker", "venue"),))
"""The database itself lets no text stand there in these rows."""
UNIQUE_TOGETHER = frozenset(("symbol", "trade_id", "key"))


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: one if name in KEYS_STAY else _deep(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_deep(one) for one in value]
    return HOSTILE if isinstance(value, str) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("-").isdigit()


def _addresses() -> Iterator[str]:
    """Every page of the site, and the page, the form and every question of every row."""
    for name in (
        "index", "dashboard", "trading", "approvals", "unknown_desk", "performance",
        "getting_started", "execution_lab", "second_factor", "sign_out_everywhere",
    ):  # fmt: skip
        yield reverse(f"admin:{name}")
    for model, shown in admin.site._registry.items():
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"admin:{name}_changelist")
        rows = [] if issubclass(model, User) else model._default_manager.all()[:4]
        acts = [one for one in ("change", "delete", "history", *_acts(shown)) if one]
        for row in rows:
            for act in acts:
                try:
                    yield reverse(f"admin:{name}_{act}", args=[row.pk])
                except NoReverseMatch:
                    continue


def _acts(shown: Any) -> Iterator[str]:
    for group in ("actions_row", "actions_detail"):
        yield from (str(one) for one in getattr(shown, group, ()) if isinstance(one, str))


def test_no_page_takes_an_outsiders_text_for_markup(admin_client: Client, hostile: None) -> None:
    seen = ""
    for address in dict.fromkeys(_addresses()):
        answer = admin_client.get(address, follow=True)
        page = b"".join(answer) if answer.streaming else answer.content
        assert answer.status_code in (200, 403, 405), address
        assert TAG.encode() not in page, address
        seen += page.decode()
    assert seen.count("&lt;xss") > 100


def test_what_somebody_looks_for_is_text(admin_client: Client, hostile: None) -> None:
    for address in (
        reverse("admin:search") + "?s=" + quote(HOSTILE),
        reverse("admin:execution_order_changelist") + "?q=" + quote(HOSTILE),
        reverse("admin:performance") + "?symbol=" + quote(HOSTILE),
        reverse("admin:execution_lab") + "?body=" + quote(HOSTILE),
    ):
        assert TAG not in admin_client.get(address, follow=True).content.decode(), address


def test_a_dry_run_shows_hostile_text_as_text(admin_client: Client) -> None:
    strategy = RouteFactory.create().strategy
    body = json.dumps({"symbol": HOSTILE, "action": HOSTILE, "comment": HOSTILE, HOSTILE: HOSTILE})
    given = {"strategy": strategy.pk, "body": body}
    page = admin_client.post(reverse("admin:execution_lab"), given).content.decode()
    assert TAG not in page
    assert "&lt;xss" in page


def test_the_csv_holds_no_formula_in_any_column(admin_client: Client, story: Order) -> None:
    starts = ("=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1")
    fill, now = story.fills.get(), timezone.now()
    FundingPayment.objects.create(
        account=story.account, payment_id="x", symbol="x", amount=-1, currency="x", at=now,
        recorded_at=now,
    )  # fmt: skip
    for start in starts:
        Account.objects.filter(pk=fill.account_id).update(name=start)
        Fill.objects.filter(pk=fill.pk).update(
            symbol=start, fee_currency=start, trade_id=start, side="buy"
        )
        Order.objects.filter(pk=fill.order_id).update(broker_order_id=start)
        FundingPayment.objects.update(symbol=start, currency=start, payment_id=start)
        answer = admin_client.get(reverse("admin:performance"), {"format": "csv", "days": "all"})
        text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
        rows = list(csv.reader(text.splitlines()))
        assert len(rows) == 3, start
        dangerous = [
            cell for row in rows[1:] for cell in row if cell.strip()[:1] in FORMULA and cell
        ]
        assert all(_is_number(cell) for cell in dangerous), (start, dangerous)
