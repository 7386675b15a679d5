"""New secrets for old ones: a strategy's senders change over within the grace, or at once."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from execution.authentication import new_secret
from execution.models import Strategy
from risk import audit

GRACE = timedelta(hours=24)


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
            after = {"secret": row.pk, "profile": row.profile, **ended}
            audit.record("secret.rotated", f"strategy {strategy}", after=after, reason=reason)
        if not made:
            audit.record("secret.ended", f"strategy {strategy}", after=ended, reason=reason)
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
        after = {"profile": str(strategy.auth), "others_end": end.isoformat()}
        audit.record("secret.ended", f"strategy {strategy}", after=after, reason=reason)
    return end


def _end(strategy: Strategy, end: datetime, which: Q | None = None) -> int:
    later = Q(expires_at=None) | Q(expires_at__gt=end)
    return strategy.live_secrets.filter(later, which or Q()).update(expires_at=end)
