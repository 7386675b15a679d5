"""The audit trail. A change and its audit row belong in one transaction: call ``record`` inside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils import timezone

from risk import access_news, correlation
from risk.models import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

MASKED_FIELDS = frozenset(
    {"sealed", "password", "digest", "secret", "token", "get_data", "post_data"}
)
"""Columns of credentials, and of what somebody typed into a log-in form."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user's name, ``command`` or ``system``; ``address`` where it came over HTTP."""

    name: str
    address: str = ""


SYSTEM = Actor("system")
_actor: ContextVar[Actor] = ContextVar("audit_actor", default=SYSTEM)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Everything recorded inside is attributed to ``actor``."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> Actor:
    return _actor.get()


def record(
    kind: str,
    subject: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    correlation_id: str = "",
) -> AuditEvent:
    """Append one event; ``before`` and ``after`` must be JSON-ready and free of secrets."""
    actor = current_actor()
    event = AuditEvent.objects.create(
        at=timezone.now(),
        kind=kind,
        actor=actor.name,
        address=actor.address,
        subject=subject[:120],
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
        reason=reason,
        correlation_id=correlation_id or correlation.current(),
    )
    access_news.tell(event)
    return event


def snapshot(row: models.Model) -> dict[str, str | None]:
    """The row's columns as text for ``before``/``after``; secrets appear as ``***``."""
    values: dict[str, str | None] = {}
    for field in row._meta.concrete_fields:
        value = field.value_from_object(row)
        if field.name in MASKED_FIELDS:
            values[field.name] = "***"
        else:
            values[field.name] = None if value is None else str(value)
    return values
