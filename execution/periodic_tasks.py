"""What beat calls: the sweep every second, and what is looked at from time to time."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from brokers.models import Account
from execution import (
    adoptions,
    alarms,
    approvals,
    differences,
    dispositions,
    keys,
    lanes,
    liveness,
    notify,
    outlived,
    parents,
    protect,
    silence,
    spreads,
    sweeping,
    venue_holds,
    venue_logins,
    watching,
    weekly,
)
from execution.account_tasks import (
    ask_about_key,
    probe_venue,
    reconcile_account,
    resolve_difference,
    watch,
    wind_down,
)
from execution.handing_out import EXITS, ORDERS
from execution.tasks import (
    adopt_order,
    after,
    check_order,
    guard,
    is_under_way,
    process_signal,
    release_order,
    run_lane,
    work_slices,
)
from risk import breakers, proposals, ratelimit, sealing

GUARD_EVERY = timedelta(seconds=3)


@shared_task
def sweep() -> None:
    """Find what was left behind by a lost message or a dead worker, and send it on its way.

    One sweep at a time: a second one finds the lock taken and leaves. Beat published this.
    """
    liveness.beat("beat")
    due = sweeping.due_orders()
    if due is None:
        return
    now = timezone.now()
    for order in lanes.lease_ended_before(now):
        lanes.lose_sight(order)
        check_order.apply_async((str(order.pk),), retry=False)
    for order_id in due:
        check_order.apply_async((str(order_id),), retry=False)
    for lane in sweeping.waiting_lanes():
        if not is_under_way(run_lane, lane):
            run_lane.apply_async(lane, retry=False)
    for signal_id in sweeping.undecided_signals():
        process_signal.apply_async((str(signal_id),), retry=False)
    for signal_id in sweeping.unsettled_signals():
        dispositions.settle(signal_id)
    after(approvals.expire())
    for order_id, leaves in parents.under_way():
        queue = EXITS if leaves else ORDERS
        work_slices.apply_async((str(order_id),), retry=False, expires=5, queue=queue)
    for order_id in approvals.approved():
        release_order.apply_async((str(order_id),), retry=False, expires=5)
    _sweep_accounts()


def _sweep_accounts() -> None:
    """What is to be done for whole accounts and positions; dropped if it waits until the next sweep."""
    accounts = Account.objects.filter(is_active=True, reconciled_at__isnull=True)
    for account_id in {*accounts.values_list("pk", flat=True), *venue_holds.accounts_to_compare()}:
        reconcile_account.apply_async((account_id,), retry=False, expires=5)
    for account_id, symbol in protect.due(timezone.now() - GUARD_EVERY):
        guard.apply_async((account_id, symbol), retry=False, expires=10)
    for account_id in watching.watched_accounts():
        watch.apply_async((account_id,), retry=False, expires=5)
    for account_id in breakers.due(timezone.now()):
        probe_venue.apply_async((account_id,), retry=False, expires=5)
    outlived.want_gone()
    for account_id in sweeping.accounts_to_wind_down():
        wind_down.apply_async((account_id,), retry=False, expires=5)
    for adoption_id in adoptions.due():
        adopt_order.apply_async((adoption_id,), retry=False, expires=5)
    for difference_id in differences.asked():
        resolve_difference.apply_async((difference_id,), retry=False, expires=5)
    alarms.look()
    for channel_id in notify.due_channels():
        tell_channel.apply_async((channel_id,), retry=False, expires=5)


@shared_task
def tell_channel(channel_id: int) -> None:
    """Send a channel what waits for it.

    One thread per channel: a service that hangs must not hold them all.
    """
    notify.deliver(channel_id)


@shared_task
def sum_up_the_week() -> None:
    """On Mondays, for the channels that asked for it."""
    weekly.look()


@shared_task
def look_at_venue_logins() -> None:
    """Alarm for accounts somebody must log in at their venue, soon or now."""
    venue_logins.look()


@shared_task
def look_at_keys() -> None:
    """Nudge the daily question what each key may do, and alarm for what was found."""
    for account_id in keys.due(timezone.now()):
        ask_about_key.apply_async((account_id,), retry=False, expires=10)
    keys.look()


@shared_task
def look_at_spreads() -> None:
    """Nudge a look at each watched instrument whose time has come; late ones are dropped."""
    for watch_id in spreads.due(timezone.now()):
        look_at_spread.apply_async((watch_id,), retry=False, expires=5)


@shared_task
def look_at_spread(watch_id: int) -> None:
    """Compare one instrument's quotes between accounts. Nothing is traded."""
    spreads.look(watch_id)


@shared_task
def look_for_silence() -> None:
    """Alarm for alerts that did not come."""
    silence.look()


@shared_task
def forget_quiet_addresses() -> None:
    """Keep the table of failed attempts small: whoever stopped knocking is dropped."""
    ratelimit.forget_quiet_addresses()


@shared_task
def reconcile_all() -> None:
    """Nudge the reconciliation of every account in use."""
    for account_id in Account.objects.filter(is_active=True).values_list("pk", flat=True):
        reconcile_account.apply_async((account_id,), retry=False, expires=60)


@shared_task
def seal_audit() -> None:
    """Link what was recorded since the last time into the audit chain, proposals' ends included."""
    proposals.expire()
    sealing.seal()


@shared_task
def verify_audit() -> None:
    """Prove the audit chain; whoever changed it is named by an alarm."""
    alarms.look_at_audit()
