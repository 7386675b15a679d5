"""One-time codes (TOTP, RFC 6238: six digits, 30 s) and recovery codes: proof of a second thing.

A code works once, also when two requests bring it at one moment. Five wrong ones in a row close the
door for a minute.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import timedelta
from time import time
from urllib.parse import quote

from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.db.models import Exists, F, Q
from django.utils import timezone
from django_otp.oath import totp

from brokers import crypto
from risk import audit, sign_out
from risk.models import RecoveryCode, Safeguards, SecondFactor

STEP = 30  # seconds
DRIFT = 1  # steps a clock may be off, either way
KEY_BYTES = 20
RECOVERY_CODES = 10
MOST_FAILURES = 5
LOCKED_FOR = timedelta(minutes=1)
FRESH = 10 * 60  # seconds a proof counts for what loosens
PROVED = "proved"
"""Where a session keeps when it was proved."""


def has_one(user: User | AnonymousUser) -> bool:
    """Whether the person has set it up."""
    return SecondFactor.objects.filter(user_id=user.pk or 0, is_confirmed=True).exists()


def is_begun(user: User) -> bool:
    """Whether there is one to reset, set up to the end or not."""
    return SecondFactor.objects.filter(user=user).exists()


def is_asked(user: User | AnonymousUser) -> bool:
    """Whether the person must prove it: whoever has one, and all of them where it is required."""
    asked = Q(pk=user.pk, second_factor__is_confirmed=True)
    asked |= Q(Exists(Safeguards.objects.filter(second_factor=True)))
    return User.objects.filter(asked).exists()


def is_required() -> bool:
    """Whether everybody must have one."""
    return Safeguards.objects.filter(second_factor=True).exists()


def note_proof(session: SessionBase) -> None:
    """``session`` has proved it now."""
    session[PROVED] = int(time())


def age_of_proof(session: SessionBase) -> int | None:
    """The seconds since ``session`` proved it, ``None`` for never."""
    proved: int | None = session.get(PROVED)
    return None if proved is None else int(time()) - proved


def is_due(user: User | AnonymousUser, session: SessionBase) -> bool:
    """Whether ``session`` must prove it anew for what loosens."""
    age = age_of_proof(session)
    return (age is None or age > FRESH) and is_asked(user)


def after_reset(user: User) -> str:
    """What a reset means for ``user``, in a sentence."""
    if is_required():
        return f"{user} sets up another second factor at the next login."
    return f"The password of {user} alone opens the door until they set up another second factor."


def begin(user: User) -> str:
    """The base32 key to set up; the same one until it is confirmed. Raises ValueError after that."""
    row = SecondFactor.objects.filter(user=user).first()
    if row is not None and row.is_confirmed:
        raise ValueError("it is set up already")
    if row is None:
        key = base64.b32encode(secrets.token_bytes(KEY_BYTES)).decode()
        row = SecondFactor(
            user=user, sealed=crypto.encrypt({"key": key}, bound_to=binding_of(user))
        )
        row.save()
    return crypto.decrypt(row.sealed, bound_to=binding_of(user))["key"]


def address_of(user: User, key: str) -> str:
    """What the QR code says, as authenticator apps read it."""
    return f"otpauth://totp/FKS:{quote(user.get_username())}?secret={key}&issuer=FKS"


@transaction.atomic
def confirm(user: User, code: str, *, session: str | None = None) -> list[str]:
    """Finish setting up with a first code; the recovery codes, shown once, or none if it is wrong.

    What the password alone has opened ends, except the session of key ``session``.
    """
    row = SecondFactor.objects.filter(user=user, is_confirmed=False).first()
    if row is None or not _use(row, code):
        return []
    SecondFactor.objects.filter(pk=row.pk).update(is_confirmed=True)
    codes = [secrets.token_hex(5) for _ in range(RECOVERY_CODES)]
    RecoveryCode.objects.filter(user=user).delete()
    RecoveryCode.objects.bulk_create(
        [RecoveryCode(user=user, digest=_digest(one)) for one in codes]
    )
    audit.record("second_factor.set_up", f"user {user}")
    sign_out.everywhere(user, "a second factor was set up", but=session)
    return codes


def verify(user: User, code: str) -> bool:
    """Whether ``code`` is the person's current one, or an unused recovery code; it is used up."""
    row = SecondFactor.objects.filter(user=user, is_confirmed=True).first()
    if row is None or (row.locked_until is not None and row.locked_until > timezone.now()):
        return False
    if _use(row, code) or _use_recovery(user, code):
        SecondFactor.objects.filter(pk=row.pk).update(failures=0, locked_until=None)
        return True
    _count_failure(row)
    return False


def reset(user: User, reason: str) -> None:
    """Forget the person's second factor, and end what it has opened; they set up another one."""
    with transaction.atomic():
        SecondFactor.objects.filter(user=user).delete()
        RecoveryCode.objects.filter(user=user).delete()
        audit.record("second_factor.reset", f"user {user}", reason=reason)
        sign_out.everywhere(user, reason)


def binding_of(user: User) -> str:
    """What a key's token is bound to."""
    return f"second factor of user {user.pk}"


def _use(row: SecondFactor, code: str) -> bool:
    key = base64.b32decode(crypto.decrypt(row.sealed, bound_to=binding_of(row.user))["key"])
    now, given = int(time()) // STEP, code.replace(" ", "")
    for step in range(now - DRIFT, now + DRIFT + 1):
        expected = f"{totp(key, step=STEP, drift=step - now):06}"
        if secrets.compare_digest(expected.encode(), given.encode()):
            unused = SecondFactor.objects.filter(pk=row.pk, last_step__lt=step)
            return bool(unused.update(last_step=step))
    return False


def _use_recovery(user: User, code: str) -> bool:
    unused = RecoveryCode.objects.filter(user=user, digest=_digest(code), used_at=None)
    if not unused.update(used_at=timezone.now()):
        return False
    audit.record("second_factor.recovered", f"user {user}")
    return True


def _count_failure(row: SecondFactor) -> None:
    mine = SecondFactor.objects.filter(pk=row.pk)
    mine.update(failures=F("failures") + 1)
    late = Q(failures__gte=MOST_FAILURES)
    if mine.filter(late).update(failures=0, locked_until=timezone.now() + LOCKED_FOR):
        audit.record("second_factor.locked", f"user {row.user}")


def _digest(code: str) -> str:
    return hashlib.sha256(code.replace(" ", "").lower().encode("utf-8", "replace")).hexdigest()
