"""What an account's key may do at its venue: asked there, kept beside the key, and judged.

A key that may withdraw opens nothing: whoever steals it takes everything. Closing and protecting go
on with it, for leaving a position alone would be the greater risk. What a venue does not tell is
warned of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from brokers.errors import BrokerError, ConfigurationError
from brokers.models import Account, ExchangeCredential
from brokers.sessions import plugin_for
from brokers.types import Permissions

ASK_EVERY = timedelta(days=1)
ASK_AGAIN = timedelta(minutes=5)
"""After a question the venue did not answer."""
LONGEST = 200
REFUSED_CODE = "KEY_MAY_WITHDRAW"
REFUSED = (
    "its key may withdraw, so nothing is opened with it: make a key at the venue that may only read "
    "and trade, and enter it on the account's page"
)
REFUSED_STATE, CHANGED, WARNED, FINE, WAITING = "refused", "changed", "warned", "fine", "waiting"
STATE_COLORS = {
    REFUSED_STATE: "danger",
    CHANGED: "danger",
    WARNED: "warning",
    FINE: "success",
    WAITING: "info",
}
WORDS = {True: "yes", False: "no", None: "not told"}


@dataclass(frozen=True, slots=True)
class KeyState:
    """How an account's key stands, with a sentence for its operator."""

    state: str
    text: str


def due(now: datetime) -> QuerySet[ExchangeCredential, int]:
    """The accounts, switched on or not, whose keys are to be asked about."""
    old = Q(checked_at=None) | Q(checked_at__lt=now - ASK_EVERY)
    rested = Q(asked_at=None) | Q(asked_at__lt=now - ASK_AGAIN)
    return ExchangeCredential.objects.filter(old & rested).values_list("account_id", flat=True)


def ask(account: Account) -> Permissions:
    """Ask the venue and keep what it tells. Raises BrokerError, which is kept as well."""
    stored = ExchangeCredential.objects.filter(account=account)
    sealed = stored.values_list("sealed", flat=True).first()
    # read after the key: whoever asks may hold an account from before the key was changed
    newest = Account.objects.filter(pk=account.pk).first() or account
    try:
        told = plugin_for(newest).check_permissions()
    except BrokerError as error:
        found = {"told": str(error)[:LONGEST], "asked_at": timezone.now()}
        stored.filter(sealed=sealed).update(**found)
        raise
    if sealed is not None:
        _keep(account, sealed, told)
    return told


def _keep(account: Account, sealed: str, told: Permissions) -> None:
    """Store an answer about the key it was asked with, and no other."""
    now = timezone.now()
    with transaction.atomic():
        rows = ExchangeCredential.objects.select_for_update()
        row = rows.filter(account=account, sealed=sealed).first()
        if row is None:
            return
        before = _rights(row) if row.checked_at else None
        row.may_trade = told.trade
        # silence takes nothing back: a key known to withdraw stays refused until the venue says no
        if told.withdraw is not None or not row.may_withdraw:
            row.may_withdraw = told.withdraw
        row.ip_restricted, row.told = told.ip_restricted, told.detail[:LONGEST]
        row.asked_at = row.checked_at = now
        if before is not None and before != _rights(row):
            row.change, row.changed_at = _difference(before, _rights(row)), now
        row.save(update_fields=[*VERDICT])
        Account.objects.filter(pk=account.pk).update(is_key_refused=row.may_withdraw is True)


VERDICT = (
    "may_trade", "may_withdraw", "ip_restricted", "told", "asked_at", "checked_at", "change",
    "changed_at",
)  # fmt: skip


def _rights(row: ExchangeCredential) -> dict[str, bool | None]:
    return {
        "may trade": row.may_trade,
        "may withdraw": row.may_withdraw,
        "bound to an address": row.ip_restricted,
    }


def _difference(before: dict[str, bool | None], after: dict[str, bool | None]) -> str:
    moved = [name for name in before if before[name] != after[name]]
    return ", ".join(f"{name}: {WORDS[before[name]]} → {WORDS[after[name]]}" for name in moved)


def problems(told: Permissions) -> list[str]:
    """Why an account must not trade with such a key."""
    found = []
    if told.withdraw:
        found.append("this key may withdraw: make one that may only read and trade")
    if told.trade is False:
        found.append("this key may not trade")
    return found


def warnings(told: Permissions) -> list[str]:
    """What an operator should look at."""
    found = []
    if told.withdraw is None:
        found.append("the venue does not tell whether this key may withdraw: look there")
    if told.ip_restricted is None:
        found.append("the venue does not tell whether this key is bound to an address")
    elif not told.ip_restricted:
        found.append("this key works from any address: bind it to yours")
    return found


def refuse_going_live(account: Account) -> None:
    """Raise ConfigurationError where the stored key is known to be able to withdraw."""
    if account.is_key_refused:
        raise ConfigurationError(f"{account.name}: {REFUSED}", code=REFUSED_CODE)


def state_of(credential: ExchangeCredential) -> KeyState:
    """How the key stands now, as its account's page says it."""
    if credential.may_withdraw:
        return KeyState(REFUSED_STATE, f"Refused: {REFUSED}.")
    if credential.checked_at is None:
        return KeyState(WAITING, _not_known(credential))
    told = Permissions(credential.may_trade, credential.may_withdraw, credential.ip_restricted)
    said = ". ".join(one[0].upper() + one[1:] for one in [*problems(told), *warnings(told)])
    at = f"asked {credential.checked_at:%Y-%m-%d %H:%M} UTC"
    if has_changed(credential):
        return KeyState(CHANGED, f"Changed at the venue: {credential.change} ({at}).")
    if said:
        return KeyState(WARNED, f"{said} ({at}).")
    return KeyState(FINE, f"It may trade, may not withdraw, and is bound to an address ({at}).")


def _not_known(credential: ExchangeCredential) -> str:
    if credential.asked_at is None:
        return "Not asked yet: a worker asks the venue within half a minute. Load the page again."
    return f"The venue has not told: {credential.told}. A worker asks again every five minutes."


def has_changed(credential: ExchangeCredential) -> bool:
    """Whether its rights were seen to change within the last day."""
    changed = credential.changed_at
    return changed is not None and changed > timezone.now() - ASK_EVERY


def alarming() -> Iterator[tuple[Account, KeyState]]:
    """Keys of accounts that somebody must look at: they may withdraw, or have changed."""
    since = timezone.now() - ASK_EVERY
    rows = ExchangeCredential.objects.filter(Q(may_withdraw=True) | Q(changed_at__gt=since))
    for row in rows.select_related("account"):
        yield row.account, state_of(row)
