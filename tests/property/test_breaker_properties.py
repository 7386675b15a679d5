"""Whatever went before: a venue's breaker heals by itself once the venue answers, and one dead account
there neither keeps it open nor opens it again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from brokers.models import Account
from risk import breakers
from risk.models import CircuitBreaker

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
TICK = timedelta(seconds=5)
HEALED_WITHIN = timedelta(minutes=10)
DEAD, ALL, ASKS, SWEEPS = "dead", "all", "asks", "sweeps"


class Venue:
    """Three accounts: the key of one is refused for ever, the others fail while the venue is down."""

    def __init__(self, clock: time_machine.Coordinates, order: list[str]) -> None:
        self.clock = clock
        self.is_down = False
        self.accounts = {
            name: Account.objects.create(name=name, broker="ccxt", options={"exchange": "kraken"})
            for name in order
        }

    def ask(self, who: str) -> None:
        """Questions that no breaker stands before."""
        for account in self.accounts.values():
            if who in (ALL, account.name):
                self.reports(account)

    def reports(self, account: Account) -> None:
        if self.is_down or account.name == DEAD:
            breakers.failed(account, "no answer")
        else:
            breakers.succeeded(account)

    def sweep(self) -> None:
        """Those that are due ask at the same time, some of them twice."""
        self.clock.shift(TICK)
        due = breakers.due(timezone.now())
        asking = [one for one in self.accounts.values() if one.pk in due] * 2
        for account in [one for one in asking if breakers.admits(one)]:
            self.reports(account)

    def is_closed(self) -> bool:
        return not CircuitBreaker.objects.filter(account=None).exclude(state="closed").exists()

    def trades(self) -> bool:
        alive = [one for name, one in self.accounts.items() if name != DEAD]
        return all(breakers.are_closed(one) for one in alive)


EVENTS = st.one_of(
    st.tuples(st.just(ASKS), st.sampled_from([DEAD, "left", "right", ALL]), st.integers(1, 6)),
    st.tuples(st.just(SWEEPS), st.booleans(), st.integers(1, 15)),
)


@pytest.mark.django_db
@pytest.mark.timeout(300)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(order=[DEAD, "left", "right"], events=[(SWEEPS, True, 1), (ASKS, ALL, 6)])
@given(order=st.permutations([DEAD, "left", "right"]), events=st.lists(EVENTS, max_size=12))
def test_it_heals_and_a_dead_account_does_not_break_it(
    order: list[str], events: list[tuple[str, str | bool, int]]
) -> None:
    with time_machine.travel(START, tick=False) as clock, transaction.atomic():
        venue = Venue(clock, order)
        for kind, what, count in events:
            venue.is_down = what if isinstance(what, bool) else venue.is_down
            for _ in range(count):
                if kind == ASKS:
                    venue.ask(str(what))
                else:
                    venue.sweep()
        venue.is_down = False
        latest = timezone.now() + HEALED_WITHIN
        while not venue.trades():
            assert timezone.now() < latest, "it does not heal"
            venue.sweep()
            venue.ask(DEAD)
        CircuitBreaker.objects.filter(account=None).update(failures=0)
        for _ in range(40):
            venue.ask(DEAD)
            venue.sweep()
            assert venue.is_closed()
        transaction.set_rollback(True)


@pytest.mark.django_db
@pytest.mark.parametrize("order", [[DEAD], ["left"], [DEAD, "left", "right"]])
def test_an_outage_opens_it_whoever_is_asked(order: list[str]) -> None:
    with time_machine.travel(START, tick=False) as clock:
        venue = Venue(clock, order)
        venue.is_down = True
        for number in range(15):
            venue.ask(order[number % len(order)])
        assert not venue.is_closed()
        venue.is_down = False
