"""Failures by address: what the bucket lets through, lock-outs, releases, and what is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from risk import audit, ratelimit
from risk.models import AuditEvent, ClientAddress, RateLimit
from tests.threads import together

pytestmark = pytest.mark.django_db

START = datetime(2026, 3, 2, 14, 5, 7, tzinfo=UTC)
ADDRESS = "203.0.113.9"
LOGIN = ClientAddress.Door.LOGIN


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    ratelimit.forget()
    yield
    ratelimit.forget()


def limit(**fields: int | bool) -> RateLimit:
    ratelimit.forget()
    row, _ = RateLimit.objects.update_or_create(pk=1, defaults=fields)
    return row


def fail(times: int = 1, address: str | None = ADDRESS, **where: str) -> list[int]:
    return [ratelimit.failed(address, **where) for _ in range(times)]


class TestBucket:
    def test_100_in_a_minute_and_10_more_at_once(self) -> None:
        with time_machine.travel(START, tick=False) as clock:
            waits = fail(112)
            assert waits[:110] == [0] * 110
            assert waits[110:] == [1, 1]
            clock.shift(timedelta(seconds=6))
            assert Counter(wait > 0 for wait in fail(12)) == {False: 10, True: 2}
            clock.shift(timedelta(hours=1))
            assert Counter(wait > 0 for wait in fail(112)) == {False: 110, True: 2}

    def test_how_long_to_wait(self) -> None:
        limit(requests=1, window=60, burst=0)

        with time_machine.travel(START, tick=False) as clock:
            assert fail(2) == [0, 60]
            clock.shift(timedelta(seconds=45))
            assert fail() == [15]
            clock.shift(timedelta(seconds=15))
            assert fail(2) == [0, 60]

    def test_a_changed_limit_acts_at_once_in_a_new_process(self) -> None:
        limit(requests=1, window=60, burst=0)
        assert [wait > 0 for wait in fail(2)] == [False, True]
        limit(requests=100, window=1, burst=0)
        assert [wait > 0 for wait in fail(1, "203.0.113.10")] == [False]

    def test_each_address_has_its_own(self) -> None:
        limit(requests=1, window=60, burst=0)

        for address in (ADDRESS, "203.0.113.10", "2001:db8:0:1::1", "2001:db8:0:2::1", None):
            assert [wait > 0 for wait in fail(2, address)] == [False, True]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("2001:db8::1", "2001:db8::ffff:1"),
            ("203.0.113.9", "::ffff:203.0.113.9"),
            (None, ""),
            ("nonsense", None),
        ],
    )
    def test_what_counts_as_one_client(self, one: str | None, other: str | None) -> None:
        limit(requests=1, window=60, burst=0)

        assert (fail(1, one), fail(1, other)) == ([0], [60])

    def test_a_clock_that_steps_back_refills_nothing(self) -> None:
        limit(requests=1, window=60, burst=0)

        with time_machine.travel(START, tick=False) as clock:
            fail()
            clock.shift(timedelta(seconds=-30))
            assert fail() == [60]


@pytest.mark.django_db(transaction=True)
def test_many_at_once_get_no_more_than_the_bucket_holds() -> None:
    limit(requests=1, window=3600, burst=9)

    waits = together(*[lambda: [ratelimit.failed(ADDRESS) for _ in range(5)]] * 8)

    assert Counter(wait > 0 for one in waits for wait in one) == {False: 10, True: 30}


class TestLockout:
    def test_an_address_that_goes_on_is_locked_for_a_minute(self) -> None:
        limit(requests=10, window=60, burst=0, lockout_after=20)

        with time_machine.travel(START, tick=False) as clock:
            waits = fail(20)
            assert waits[:10] == [0] * 10
            assert waits[19] == 60
            clock.shift(timedelta(seconds=59))
            assert fail() == [1]
            clock.shift(timedelta(seconds=1))
            assert fail() == [0]
        (event,) = AuditEvent.objects.all()
        assert (event.kind, event.subject) == ("address.locked", f"address {ADDRESS} (webhook)")
        assert event.after == {"failures": 20, "seconds": 60, "lockouts": 1}

    @pytest.mark.parametrize(
        ("doubles", "expected"), [(True, [60, 120, 240, 300, 300]), (False, [60] * 5)]
    )
    def test_further_lock_outs(self, doubles: bool, expected: list[int]) -> None:
        limit(
            requests=10,
            window=60,
            burst=0,
            lockout_after=2,
            lockout_doubles=doubles,
            longest_lockout=300,
        )
        seen = []

        with time_machine.travel(START, tick=False) as clock:
            for _ in expected:
                seen.append(fail(2)[1])
                clock.shift(timedelta(seconds=seen[-1]))
                ratelimit.forget()
        assert seen == expected

    def test_without_a_lock_out(self) -> None:
        limit(requests=1, window=60, burst=0, lockout_after=0)

        fail(50)

        assert ClientAddress.objects.get().locked_until is None

    def test_while_locked_hardly_anything_is_asked(self, django_assert_num_queries) -> None:
        limit(requests=1, window=60, burst=0, lockout_after=2)
        fail(3)

        with django_assert_num_queries(0):
            fail(200)

    def test_a_release_is_audited_and_acts_within_a_second(self) -> None:
        limit(requests=1, window=60, burst=0, lockout_after=2)
        fail(2)
        assert ratelimit.locked_for(ADDRESS) > 0

        with audit.acting(audit.Actor("carol")):
            ratelimit.release(ClientAddress.objects.get(), "our own server")

        assert ratelimit.locked_for(ADDRESS) == 0
        assert fail() == [0]
        event = AuditEvent.objects.get(kind="address.released")
        assert (event.actor, event.reason) == ("carol", "our own server")

    def test_logins_are_counted_for_themselves(self) -> None:
        limit(login_failures=3)

        waits = fail(3, door=LOGIN)

        assert [wait > 0 for wait in waits] == [False, False, True]
        assert ratelimit.locked_for(ADDRESS, LOGIN) > 0
        assert ratelimit.locked_for(ADDRESS) == 0


class TestMemory:
    def test_what_is_quiet_is_forgotten_and_what_is_locked_is_not(self) -> None:
        limit(requests=10, window=60, burst=0, lockout_after=3)
        with time_machine.travel(START, tick=False) as clock:
            fail(3, "192.0.2.1")
            fail(1, "192.0.2.2")
            assert ratelimit.forget_quiet_addresses() == 0
            clock.shift(timedelta(minutes=16))
            assert ratelimit.forget_quiet_addresses() == 1
            assert ClientAddress.objects.get().network == "192.0.2.1"
            clock.shift(timedelta(days=2))
            assert ratelimit.forget_quiet_addresses() == 1

    def test_a_process_remembers_only_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ratelimit, "MAX_REMEMBERED", 5)

        for number in range(30):
            fail(1, f"192.0.2.{number}")

        assert len(ratelimit._locked) <= 5
