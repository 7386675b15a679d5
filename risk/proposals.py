"""The two-person rule: what loosens a safeguard waits until another person approves it.

A change is described by a kind (``risk.proposable``) and a payload. ``submit`` makes it at once where
the rule is off or the change only tightens; else it becomes a proposal. Approval applies it in its own
transaction, and only if what it changes is still what it was when it was proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.utils import timezone

from brokers import access, crypto
from risk import audit
from risk.models import Proposal, Safeguards

State = Proposal.State
Payload = Mapping[str, Any]
Secrets = Mapping[str, str]
Shown = dict[str, Any]


class NotDecided(Exception):
    """A proposal that cannot be decided so; ``code`` and the message say why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of change. ``right`` is the permission to propose and to approve it.

    ``before`` and ``after`` are what people compare; ``apply`` makes the change with its audit row,
    and raises ValueError, in a sentence for the operator, when it can no longer be made.
    """

    name: str
    label: str
    right: str
    subject: Callable[[Payload], str]
    before: Callable[[Payload], Shown]
    after: Callable[[Payload], Shown]
    loosens: Callable[[Payload, Secrets], bool]
    apply: Callable[[Payload, Secrets, str], None]


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    KINDS[kind.name] = kind
    return kind


def must_wait(name: str, payload: Payload, secrets: Secrets | None = None) -> bool:
    """Whether ``submit`` would propose this change instead of making it."""
    return Safeguards.current().two_person and KINDS[name].loosens(payload, secrets or {})


def submit(
    name: str, payload: Payload, *, reason: str, secrets: Secrets | None = None
) -> Proposal | None:
    """Make the change now, or propose it: ``None`` when it is made.

    ``payload`` must be JSON-ready; ``secrets`` are sealed with the proposal and shown to nobody.
    """
    kind, hidden = KINDS[name], dict(secrets or {})
    with transaction.atomic():
        if must_wait(name, payload, hidden):
            return propose(name, payload, reason=reason, secrets=hidden)
        kind.apply(payload, hidden, reason)
    return None


@transaction.atomic
def propose(
    name: str, payload: Payload, *, reason: str, secrets: Secrets | None = None
) -> Proposal:
    """Have the change wait for another person."""
    kind, hidden = KINDS[name], dict(secrets or {})
    now, subject = timezone.now(), kind.subject(payload)[:200]
    same = Proposal.objects.select_for_update().filter(kind=kind.name, subject=subject)
    for older in same.filter(state=State.OPEN):
        _end(older, State.SUPERSEDED, audit.current_actor().name, "")
    row = Proposal(
        kind=kind.name,
        subject=subject,
        payload=dict(payload),
        before=kind.before(payload),
        after=kind.after(payload) | dict.fromkeys(hidden, "*** (new)"),
        reason=reason,
        proposed_by=audit.current_actor().name,
        proposed_at=now,
        expires_at=now + timedelta(hours=Safeguards.current().proposal_hours),
    )
    if hidden:
        row.sealed = crypto.encrypt(hidden, bound_to=binding(row))
    row.save(force_insert=True)
    audit.record(
        "proposal.made",
        f"proposal {row.pk}: {subject}",
        before=row.before,
        after=row.after,
        reason=reason,
    )
    return row


def may_decide(user: User | AnonymousUser, row: Proposal) -> bool:
    """Whether ``user`` is another person with the right that this change takes, on its accounts."""
    if user.get_username() == row.proposed_by or not user.has_perm(KINDS[row.kind].right):
        return False
    return access.may_change(user, row)


def approve(proposal_id: UUID, user: User, note: str) -> Proposal:
    """Make the proposed change, once. Raises NotDecided; what changed meanwhile ends it OUTDATED."""
    with transaction.atomic():
        row = _open_one(proposal_id, user)
        try:
            fresh = KINDS[row.kind].before(row.payload) == row.before
            if fresh:
                _apply(row)
        except ValueError as error:
            raise NotDecided("NOT_POSSIBLE", f"it can no longer be made: {error}") from error
        _end(row, State.APPROVED if fresh else State.OUTDATED, user.get_username(), note)
    if not fresh:
        raise NotDecided("OUTDATED", "what it changes has changed since it was proposed")
    return row


def _apply(row: Proposal) -> None:
    why = f"{row.reason} (proposed by {row.proposed_by}: {row.pk})"
    secrets = crypto.decrypt(row.sealed, bound_to=binding(row)) if row.sealed else {}
    KINDS[row.kind].apply(row.payload, secrets, why)


def reject(proposal_id: UUID, user: User, note: str) -> Proposal:
    """End a proposal without its change; who made it may take it back. Raises NotDecided."""
    with transaction.atomic():
        row = _open_one(proposal_id, user, or_own=True)
        _end(row, State.REJECTED, user.get_username(), note)
    return row


def expire() -> int:
    """End what nobody decided on in time; how many those were."""
    with transaction.atomic():
        late = Proposal.objects.select_for_update(skip_locked=True).filter(
            state=State.OPEN, expires_at__lte=timezone.now()
        )
        rows = list(late)
        for row in rows:
            _end(row, State.EXPIRED, audit.current_actor().name, "")
    return len(rows)


def _open_one(proposal_id: UUID, user: User, *, or_own: bool = False) -> Proposal:
    """The open proposal, locked, if ``user`` may decide on it."""
    row = Proposal.objects.select_for_update().filter(pk=proposal_id).first()
    if row is None:
        raise NotDecided("NOT_FOUND", "there is no such proposal")
    own = user.get_username() == row.proposed_by
    if own and not or_own:
        raise NotDecided("OWN_PROPOSAL", "nobody approves what they proposed")
    if not own and not may_decide(user, row):
        raise NotDecided("NOT_ALLOWED", f"this takes the right {KINDS[row.kind].right}")
    if row.state == State.OPEN and row.expires_at <= timezone.now():
        raise NotDecided("EXPIRED", "it has expired")
    if row.state != State.OPEN:
        raise NotDecided("NOT_OPEN", f"it is {row.get_state_display()} already")
    return row


def _end(row: Proposal, state: Proposal.State, who: str, note: str) -> None:
    """The row's last state; its secrets are not needed any more."""
    row.state, row.decided_by, row.decided_at, row.note = state, who, timezone.now(), note
    row.sealed = ""
    row.save(update_fields=["state", "decided_by", "decided_at", "note", "sealed"])
    audit.record(
        f"proposal.{state.value}",
        f"proposal {row.pk}: {row.subject}",
        after={"proposed_by": row.proposed_by},
        reason=note or row.reason,
    )


def binding(row: Proposal) -> str:
    """What a proposal's secrets are bound to."""
    return f"proposal {row.pk}"
