"""Celery tasks for whole accounts: compare, watch, probe, wind down."""

from __future__ import annotations

import logging

from celery import shared_task
from django.db import InterfaceError
from django.db import OperationalError as DatabaseDown

from brokers.errors import BrokerError, CredentialError
from brokers.models import Account
from execution import (
    alarms,
    keys,
    probing,
    reconcile,
    resolving,
    sweeping,
    venue_logins,
    watched_stops,
    watching,
    winding_down,
)
from execution.alarms import Kind
from execution.exclusive import Work, exclusive
from execution.handing_out import EXITS, hand_out
from execution.models import Difference
from execution.tasks import after, guard, process_signal, run_lane
from risk.types import Refusal

logger = logging.getLogger(__name__)


@shared_task
def wind_down(account_id: int) -> None:
    """Do what the kill switch and operators want of an account: cancel, close.

    One thread per account: a venue that hangs must not hold them all.
    """
    account = Account.objects.get(pk=account_id)
    with exclusive(Work.WIND_DOWN, account_id) as mine:
        done, symbols = winding_down.step(account) if mine else ([], [])
    after(done)
    for symbol in symbols:
        hand_out(run_lane, account_id, symbol, queue=EXITS)


@shared_task
def watch(account_id: int) -> None:
    """Look whether the market has reached a target, or passed a stop that is not at the venue.

    One thread per account: a venue that hangs must not hold them all.
    """
    with exclusive(Work.WATCH, account_id) as mine:
        sent = watching.watch(account_id) if mine else []
    for signal_id in sent:
        hand_out(process_signal, str(signal_id), queue=EXITS)
    for symbol in watched_stops.passed(account_id):
        hand_out(guard, account_id, symbol)


@shared_task
def probe_venue(account_id: int) -> None:
    """Ask a venue whose breaker was open; once it works again, exits go first."""
    if probing.probe(account_id):
        for lane_account, symbol in sweeping.lanes_of(account_id):
            run_lane.apply_async((lane_account, symbol), retry=False)


@shared_task
def reconcile_account(account_id: int) -> None:
    account = Account.objects.get(pk=account_id)
    try:
        with exclusive(Work.RECONCILE, account_id) as mine:
            if not mine:
                return
            keys.ask_first(account)
            reconcile.reconcile_account(account)
    except (InterfaceError, DatabaseDown):
        raise
    except Exception as error:
        # The boundary to foreign code: whatever went wrong, somebody must hear that nothing is traded.
        _cannot_compare(account, error)
        return
    alarms.clear(Kind.NOT_RECONCILED, account.name)
    if not venue_logins.is_needed(account_id):
        alarms.clear(Kind.LOGIN_NEEDED, account.name)
    for lane_account, symbol in sweeping.lanes_of(account_id):
        run_lane.apply_async((lane_account, symbol), retry=False)


def _cannot_compare(account: Account, error: Exception) -> None:
    """Say it once for as long as it lasts: the sweep asks every second while the account waits."""
    account.refresh_from_db()
    why = str(error)
    if not isinstance(error, (BrokerError, Refusal)):
        logger.error("comparing an account raised", exc_info=error)
        why = f"comparing it failed: {type(error).__name__}"
    if isinstance(error, CredentialError):
        alarms.sound(alarms.Seen(Kind.LOGIN_NEEDED, account.name, str(error), account))
    elif account.reconciled_at is None:
        detail = f"it does not trade: {why}"
        alarms.sound(alarms.Seen(Kind.NOT_RECONCILED, account.name, detail, account))
    else:
        logger.warning("reconciliation of %s is not possible now: %s", account.name, why)


@shared_task
def resolve_difference(difference_id: int) -> None:
    """Close or cancel at the venue what an operator wants gone there.

    One thread per difference: a venue that hangs must not hold them all.
    """
    row = Difference.objects.select_related("account").get(pk=difference_id)
    try:
        with exclusive(Work.RESOLVE, difference_id) as mine:
            if not mine:
                return
            symbol = resolving.carry_out(difference_id)
    except (BrokerError, Refusal, ValueError) as error:
        logger.warning("%s cannot be resolved now: %s", row, error)
        return
    if symbol is not None:
        hand_out(run_lane, row.account_id, symbol, queue=EXITS)
    elif row.state in (Difference.State.CANCELING, Difference.State.FLATTENING):
        reconcile_account.apply_async((row.account_id,), retry=False)


@shared_task
def ask_about_key(account_id: int) -> None:
    """Ask one venue; one thread per account, so that one that hangs does not hold them all."""
    keys.ask(Account.objects.get(pk=account_id))
    keys.look()
