"""Alerts that reach FKS another way than by the webhook: a log or a mailbox of the sender's, and bodies
taken out of quarantine. Each is stored once, and traded only if it is still fresh. Its id is of the
moment it should have come at: a close that came after it makes it void, as if both had come in turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import transaction

from execution import authentication, intake, masking, nudge
from execution.alerts import Alert
from execution.approvals import LET_IN
from execution.authentication import Delivery, LiveSecret
from execution.dry_run import IMPORTED
from execution.formats import Format, format_of
from execution.ids import first_id_at, moment_of, uuid7_at
from execution.locating import located
from execution.models import QuarantinedBody, Signal, Strategy
from execution.parsing import Unreadable
from execution.schema import Invalid
from execution.webhook_config import config_of
from risk import audit

EARLY, LATE = timedelta(seconds=60), timedelta(seconds=180)
"""How far a delivery may lie from the time the sender's log gives it: clocks, and four attempts."""
TICK = timedelta(milliseconds=1)
AT_ONCE = timedelta(seconds=5)
"""How long an alert's first attempt may take: what the log has after it has come after that. One that
came by a further attempt says nothing of what came meanwhile.
"""
STILL_COMING = timedelta(seconds=30)
"""TradingView tries four times, 5 s apart and 3 s long: until then the webhook may still bring it."""
REQUEUED = "quarantine"
"""How a signal is marked that was taken out of quarantine."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One alert as the sender's log or mail has it. ``place`` says where, for people; ``names`` are the
    alert's own, if the log has them.
    """

    place: str
    at: datetime
    bodies: tuple[bytes, ...]
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What came of a file. ``imported`` are the signals stored now: those ``missed`` were too old to
    trade, the others went to the workers. ``others`` carry another strategy's token; those
    ``still_coming`` are so young that the webhook may bring them yet.
    """

    read: int = 0
    others: int = 0
    still_coming: int = 0
    received_already: int = 0
    imported: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)


def import_alerts(strategy: Strategy, logged: Iterable[Logged], now: datetime) -> Report:
    """Store every alert the webhook has not delivered. The same file again stores nothing more.

    Raises DatabaseError.
    """
    report = Report()
    config = config_of(strategy.slug)
    secrets = config.secrets if config else ()
    format = format_of(strategy.format, strategy.format_options)
    reader = _Reader(format, secrets, checks=strategy.auth == Strategy.Auth.TOKEN)
    used: set[UUID] = set()
    told_at: dict[str, datetime] = {}
    came_at = datetime.min.replace(tzinfo=UTC)
    for one in sorted(logged, key=lambda entry: entry.at):
        report.read += 1
        came_at = max(one.at, came_at + TICK)  # the log's order also within its second
        try:
            body, alert = reader.first(one.bodies)
        except _NotOurs:
            report.others += 1
            continue
        except (Unreadable, Invalid) as error:
            code = error.code if isinstance(error, Unreadable) else "INVALID"
            report.unreadable.append({"place": one.place, "code": code, "detail": str(error)})
            continue
        words = hashlib.sha256(body.encode()).hexdigest()
        if not alert.idempotency_key and _is_repeated(strategy, told_at, words, one.at):
            report.received_already += 1
            continue
        key = f"{one.at.isoformat()} {words}"
        known = _known(strategy, alert, body, one.at, key, used)
        if known is not None:
            used.add(known)
            if moment_of(known) - one.at <= AT_ONCE:
                came_at = max(came_at, moment_of(known))
            report.received_already += 1
            continue
        if now - one.at < STILL_COMING:
            report.still_coming += 1
            continue
        timed = replace(alert, sent_at=alert.sent_at or one.at)
        stored = _store(strategy, timed, body, auth=IMPORTED, key=key, came_at=came_at)
        if stored.is_duplicate:
            report.received_already += 1
            continue
        report.imported.append(str(stored.signal_id))
        if now - (timed.sent_at or now) > timedelta(seconds=strategy.max_age):
            report.missed.append(str(stored.signal_id))
    return report


def _is_repeated(
    strategy: Strategy, told_at: dict[str, datetime], words: str, at: datetime
) -> bool:
    """Whether the log has the same bytes within the strategy's window before: the webhook would have
    counted the two as one.
    """
    before = told_at.get(words)
    if before is not None and at - before < timedelta(seconds=strategy.dedupe_window):
        return True
    told_at[words] = at
    return False


def take_out(row: QuarantinedBody, *, reason: str) -> intake.Accepted:
    """Store a quarantined body as a signal, read by today's format; twice is once, and so is one its
    sender has brought again by now. Its age counts from its arrival, unless it says itself when it
    was sent.

    Raises Unreadable or Invalid when it still cannot be read, and DatabaseError.
    """
    strategy = row.strategy
    reader = _Reader(format_of(strategy.format, strategy.format_options), (), checks=False)
    body, alert = reader.first((row.body.encode(),))
    timed = replace(alert, sent_at=alert.sent_at or row.received_at)
    with transaction.atomic():
        key = f"quarantined {row.pk}"
        accepted = _came_again(row, body) or _store(
            strategy, timed, body, auth=REQUEUED, key=key, came_at=row.received_at
        )
        audit.record(
            LET_IN,
            f"quarantined body {row.pk} of {strategy}",
            after={"signal": str(accepted.signal_id), "is_duplicate": accepted.is_duplicate},
            reason=reason,
            correlation_id=str(accepted.signal_id),
        )
    return accepted


def _came_again(row: QuarantinedBody, body: str) -> intake.Accepted | None:
    """The signal of the same words that came while ``row`` could still be traded: its sender repeats
    what was refused, and the delivery's own key is not known any more. ``body`` is what today's format
    keeps of it: one that could not read it masked otherwise.
    """
    last = row.received_at + timedelta(seconds=row.strategy.max_age)
    again = Signal.objects.filter(
        strategy=row.strategy,
        pk__range=(first_id_at(row.received_at), first_id_at(last)),
        body__in=(row.body, body),
    ).exclude(auth=REQUEUED)
    first = again.order_by("id").values_list("pk", flat=True).first()
    return intake.Accepted(first, is_duplicate=True) if first else None


class _NotOurs(Exception):
    """The alert carries a token that is none of the strategy's: a log has all alerts of its sender."""


class _Reader:
    """Reads a body as the webhook would, credentials masked; a token in it is checked if asked."""

    def __init__(self, format: Format, secrets: tuple[LiveSecret, ...], *, checks: bool) -> None:
        self._format = format
        self._secrets = secrets
        self._checks = checks

    def first(self, bodies: tuple[bytes, ...]) -> tuple[str, Alert]:
        """The first of ``bodies`` that is an alert. Raises what is wrong with the first."""
        complaint: Unreadable | Invalid | None = None
        for body in bodies:
            try:
                return self._read(body)
            except Unreadable as error:
                complaint = complaint or located(error, body)
            except Invalid as error:
                complaint = complaint or error
        raise complaint or Unreadable("EMPTY", "there is no text")

    def _read(self, body: bytes) -> tuple[str, Alert]:
        document = self._format.read(body)
        delivery = Delivery(body, "", "", self._format)
        is_named = self._checks and authentication.presented(delivery, document)
        if is_named and authentication.verify(delivery, document, self._secrets) is None:
            raise _NotOurs
        credentials = masking.credentials_in(delivery, document, self._secrets)
        alert = self._format.alert(masking.mask_document(document, credentials, self._format))
        return masking.mask_body(delivery, document, credentials), alert


def _known(
    strategy: Strategy, alert: Alert, body: str, at: datetime, key: str, used: set[UUID]
) -> UUID | None:
    """The signal this alert was imported, delivered or let in as; each answers for one line of the
    log only. One that was imported must not take the delivery of the next that is alike.
    """
    if alert.idempotency_key and (stored := intake.stored_as(strategy.pk, alert)):
        return stored
    imported = intake.stored_under(strategy.pk, key)
    if imported is not None and imported not in used:
        return imported
    near = Signal.objects.filter(
        strategy=strategy,
        symbol=alert.symbol,
        action=alert.action.value,
        pk__range=(first_id_at(at - EARLY), first_id_at(at + LATE)),
    ).exclude(auth=IMPORTED)
    told = alert.to_json()
    for row in near.order_by("id"):
        # What was let in has been given the time of its arrival, if it told none itself.
        if row.pk not in used and (row.alert == told or row.body == body):
            return row.pk
    return None


def _store(
    strategy: Strategy, alert: Alert, body: str, *, auth: str, key: str, came_at: datetime
) -> intake.Accepted:
    received = intake.Received(
        strategy_id=strategy.pk,
        dedupe_window=0,
        raw=b"",
        body=body,
        alert=alert,
        header_key=key,
        address=None,
        auth=auth,
    )
    accepted = intake.accept(received, uuid7_at(came_at))
    for apart in intake.keys_apart(alert) if alert.idempotency_key else ():
        if accepted.other:
            # Its id is another alert's, which must not swallow this one here as well.
            unnamed = replace(alert, idempotency_key="")
            other = replace(received, alert=unnamed, header_key=apart)
            accepted = intake.accept(other, uuid7_at(came_at))
    if not accepted.is_duplicate:
        signal_id = str(accepted.signal_id)
        transaction.on_commit(lambda: nudge.nudge_signal(signal_id))
    return accepted
