"""New secrets for old ones: a strategy's senders change over within the grace, or at once."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from execution.authentication import new_secret
from execution.models import Strategy
from risk import audit
from risk.models import AuditEvent

GRACE = timedelta(hours=24)
ROTATED, ENDED, RESTORED = "secret.rotated", "secret.ended", "secret.restored"
PROFILE = "profile"
"""In what the audit trail says of secrets that ended: which profile took the place of theirs."""


def rotate(strategy: Strategy, *, at_once: bool, reason: str) -> dict[str, str]:
    """A second live secret for each profile its senders use; the ones before end at once or within
    24 hours. Returns the new values by profile, the strategy's own first; ``jwt`` has none to make.
    """
    now = timezone.now()
    end = now if at_once else now + GRACE
    with transaction.atomic():
        profiles = profiles_in_use(strategy)
        _end(strategy, end)
        made = {profile: new_secret(strategy, profile) for profile in profiles}
        ended = {"others_end": end.isoformat()}
        for row, _ in made.values():
            after = {"secret": row.pk, PROFILE: row.profile, **ended}
            audit.record(ROTATED, _subject(strategy), after=after, reason=reason)
        if not made:
            audit.record(ENDED, _subject(strategy), after=ended, reason=reason)
    return {profile: value for profile, (_, value) in made.items()}


def profiles_in_use(strategy: Strategy) -> list[str]:
    """Its own profile, and those of secrets that nobody has ended."""
    if strategy.auth == Strategy.Auth.JWT:
        return []
    lasting = strategy.live_secrets.filter(expires_at=None).values_list("profile", flat=True)
    return [str(strategy.auth), *sorted(set(lasting) - {strategy.auth})]


def end_other_profiles(strategy: Strategy, *, reason: str) -> datetime | None:
    """Let the secrets end, within the grace, that the strategy's profile has no use for; when, if there
    are any.
    """
    end = timezone.now() + GRACE
    with transaction.atomic():
        if not _end(strategy, end, ~Q(profile=strategy.auth)):
            return None
        after = {PROFILE: str(strategy.auth), "others_end": end.isoformat()}
        audit.record(ENDED, _subject(strategy), after=after, reason=reason)
    return end


def take_back(strategy: Strategy, *, reason: str) -> bool:
    """Where the strategy has its former profile again: let the secrets last that the change to another
    one was to end, and whether there were any. Not those that anybody has replaced since.
    """
    with transaction.atomic():
        ends = _ends_by_changes(strategy)
        mine = strategy.live_secrets.filter(profile=strategy.auth, expires_at__in=ends)
        since = mine.order_by("expires_at").values_list("expires_at", flat=True).first()
        if since is None:
            return False
        undone = [end for end in ends if end >= since]
        strategy.live_secrets.filter(expires_at__in=undone).update(expires_at=None)
        after = {PROFILE: str(strategy.auth)}
        audit.record(RESTORED, _subject(strategy), after=after, reason=reason)
    return True


def _ends_by_changes(strategy: Strategy) -> list[datetime]:
    """When secrets end that a change of profile was to end, and nobody's order: since they were last
    replaced.
    """
    told = AuditEvent.objects.filter(
        kind__in=(ENDED, ROTATED), subject=_subject(strategy), at__gt=timezone.now() - GRACE
    )
    ends = []
    for event in told.order_by("-id"):
        after = event.after or {}
        if event.kind == ROTATED or PROFILE not in after:
            break
        ends.append(datetime.fromisoformat(after["others_end"]))
    return ends


def _subject(strategy: Strategy) -> str:
    return f"strategy {strategy}"


def _end(strategy: Strategy, end: datetime, which: Q | None = None) -> int:
    later = Q(expires_at=None) | Q(expires_at__gt=end)
    return strategy.live_secrets.filter(later, which or Q()).update(expires_at=end)
