"""Alerts that come together: one statement, one commit, and each its own answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DataError, OperationalError, connection
from django.db.models import F
from django.test import RequestFactory

from execution import intake, webhook_config, webhooks
from execution.alerts import Action, Alert
from execution.ids import uuid7
from execution.intake import Accepted, Received, accept, accept_all
from execution.models import IdempotencyKey, Signal, Strategy
from execution.webhooks import Answer, Post, receive
from tests.execution.posting import body_of, stored
from tests.factories import StrategyFactory, webhook
from tests.threads import together


def deliveries(strategy: Strategy, *keys: str) -> list[tuple[Received, UUID]]:
    """Alerts with these ids, in the order they came."""
    plain = Received(
        strategy_id=strategy.pk,
        dedupe_window=60,
        raw=b"raw",
        body="masked",
        alert=Alert(symbol="BTC/USDT", action=Action.BUY),
        header_key="",
        address="192.0.2.1",
        auth=Strategy.Auth.TOKEN,
    )
    return [
        (replace(plain, alert=replace(plain.alert, idempotency_key=key)), uuid7()) for key in keys
    ]


def as_new(several: Sequence[tuple[Received, UUID]]) -> list[Accepted]:
    return [Accepted(signal_id, is_duplicate=False) for _, signal_id in several]


def transactions() -> int:
    """How many transactions have written the signals there are."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT xmin::text) FROM execution_signal")
        (count,) = cursor.fetchone()
        return int(count)


@pytest.mark.django_db(transaction=True)
class TestStored:
    def test_by_one_statement_in_the_order_they_came(self, django_assert_num_queries: Any) -> None:
        several = deliveries(StrategyFactory.create(), *"cabed")

        with django_assert_num_queries(1):
            accepted = accept_all(several)

        assert accepted == as_new(several)
        assert stored() == (5, 5, 0)
        assert transactions() == 1
        came = [signal_id for _, signal_id in several]
        assert list(Signal.objects.order_by("id").values_list("id", flat=True)) == came
        times = list(Signal.objects.order_by("id").values_list("received_at", flat=True))
        assert times == sorted(times)

    def test_each_with_what_is_its_own(self) -> None:
        one, other = StrategyFactory.create(), StrategyFactory.create()
        first, second = deliveries(one, "a")[0], deliveries(other, "a")[0]
        text = 'ключ "\\ \u2028 %s \U0001f680'
        alert = replace(second[0].alert, symbol="ETH/USDT", action=Action.CLOSE, comment=text)
        changed = replace(second[0], body=text, alert=alert, address=None, auth="hmac")

        accept_all([first, (changed, second[1])])

        kept = Signal.objects.get(pk=second[1])
        assert (kept.strategy, kept.body, kept.address, kept.auth) == (other, text, None, "hmac")
        assert (kept.symbol, kept.action, kept.state) == ("ETH/USDT", "close", "received")
        assert Alert.from_json(kept.alert) == alert
        assert Signal.objects.get(pk=first[1]).strategy == one

    def test_the_first_of_one_key_is_stored_and_the_others_repeat_it(self) -> None:
        several = deliveries(StrategyFactory.create(), *"baaba")

        accepted = accept_all(several)

        (b, a) = (several[0][1], several[1][1])
        assert [one.signal_id for one in accepted] == [b, a, a, b, a]
        assert [one.is_duplicate for one in accepted] == [False, False, True, True, True]
        assert stored() == (2, 2, 0)

    def test_without_a_window_the_same_bytes_are_an_alert_each(self) -> None:
        plain = deliveries(StrategyFactory.create(), "", "", "")
        several = [(replace(one, dedupe_window=0), signal_id) for one, signal_id in plain]

        for _ in range(2):  # the second time as after an answer that was lost
            assert accept_all(several) == as_new(several)
            assert stored() == (3, 1, 0)

    def test_what_came_before_is_repeated_and_an_expired_key_taken_over(self) -> None:
        strategy = StrategyFactory.create()
        before, expired = deliveries(strategy, "a", "")
        accept_all([before, expired])
        IdempotencyKey.objects.update(expires_at=F("expires_at") - timedelta(seconds=61))
        again, anew, new = deliveries(strategy, "a", "", "n")

        assert accept_all([again, anew, new]) == [
            Accepted(before[1], is_duplicate=True),
            *as_new([anew, new]),
        ]
        assert stored() == (4, 3, 0)

    def test_a_second_try_finds_what_the_first_committed(self) -> None:
        several = deliveries(StrategyFactory.create(), *"abb")
        first = accept_all(several)

        assert accept_all(several) == first
        assert stored() == (2, 2, 0)

    def test_one_that_is_refused_leaves_nothing_of_the_others(self) -> None:
        one, other = deliveries(StrategyFactory.create(), "a", "b")

        with pytest.raises(DataError):
            accept_all([one, (replace(other[0], body="\x00"), other[1])])

        assert stored() == (0, 0, 0)

    def test_the_same_keys_in_another_order_are_no_deadlock(self) -> None:
        strategy = StrategyFactory.create()
        for turn in range(10):
            keys = [f"{turn} {number}" for number in range(30)]
            there, back = deliveries(strategy, *keys), deliveries(strategy, *reversed(keys))

            one, other = together(lambda: accept_all(there), lambda: accept_all(back))  # noqa: B023

            assert {each.signal_id for each in one} == {each.signal_id for each in other}
            assert sum(each.is_duplicate for each in (*one, *other)) == 30


def post(strategy: str, body: bytes, token: str = "") -> Post:
    request = RequestFactory().post(f"/webhook/{strategy}", body, content_type="text/plain")
    return Post(request, strategy, token)


def codes(answers: list[Answer]) -> list[tuple[int, str]]:
    return [(one.http, one.body.get("code", one.status)) for one in answers]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("new_process")
class TestAnswered:
    def test_each_by_what_it_is(self, nudged: list[str]) -> None:
        strategy, token = webhook()

        answers = receive(
            [
                post(strategy.slug, body_of(secret=token, id="a")),
                post(strategy.slug, body_of(secret="wrong")),
                post(strategy.slug, b"{", token),
                post("nobody", body_of(secret=token)),
                post(strategy.slug, body_of(secret=token, quantity="x")),
                post(strategy.slug, body_of(secret=token, id="a")),
                post(strategy.slug, b" " * 70_000, token),
                post(strategy.slug, body_of(secret=token, id="b")),
            ]
        )

        assert codes(answers) == [
            (202, "accepted"),
            (401, "UNAUTHENTICATED"),
            (400, "NOT_JSON"),
            (401, "UNAUTHENTICATED"),
            (400, "INVALID"),
            (200, "duplicate"),
            (413, "TOO_LARGE"),
            (202, "accepted"),
        ]
        first, last = answers[0].body["signal_id"], answers[-1].body["signal_id"]
        assert answers[5].body == {"status": "duplicate", "signal_id": first}
        assert nudged == [first, last]
        assert stored() == (2, 2, 2)
        assert transactions() == 1
        assert json.loads(answers[0].content) == {"status": "accepted", "signal_id": first}

    def test_a_strategy_that_is_gone_refuses_its_own_alert_only(self, nudged: list[str]) -> None:
        (kept, token), (gone, other) = webhook(), webhook()
        webhook_config.config_of(gone.slug)
        Strategy.objects.filter(pk=gone.pk).delete()

        answers = receive(
            [
                post(kept.slug, body_of(secret=token, id="a")),
                post(gone.slug, body_of(secret=other, id="b")),
                post(kept.slug, body_of(secret=token, id="c")),
            ]
        )

        assert codes(answers) == [(202, "accepted"), (503, "NOT_STORED"), (202, "accepted")]
        assert stored() == (2, 2, 0)
        assert nudged == [answers[0].body["signal_id"], answers[2].body["signal_id"]]

    def test_a_defect_met_by_one_is_its_own(
        self, nudged: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strategy, token = webhook()
        check = webhooks._check

        def fail(one: Post) -> Any:
            if one.strategy == "defect":
                raise ZeroDivisionError("inside")
            return check(one)

        monkeypatch.setattr(webhooks, "_check", fail)
        answers = receive([post("defect", b"{}"), post(strategy.slug, body_of(secret=token))])

        assert codes(answers) == [(500, "INTERNAL_ERROR"), (202, "accepted")]
        assert answers[0].body["detail"] == "internal error"

    @pytest.mark.parametrize("committed", [False, True])
    def test_a_connection_that_drops_before_or_after_the_commit(
        self, nudged: list[str], monkeypatch: pytest.MonkeyPatch, committed: bool
    ) -> None:
        strategy, token = webhook()
        failures = iter([OperationalError("server closed the connection unexpectedly")])

        def drop(several: Sequence[tuple[Received, UUID]]) -> list[Accepted]:
            results = accept_all(several) if committed else []
            for failure in failures:
                raise failure
            return results or accept_all(several)

        monkeypatch.setattr(intake, "accept_all", drop)
        bodies = [body_of(secret=token, id=key) for key in "abca"]
        answers = receive([post(strategy.slug, body) for body in bodies])

        assert [one.http for one in answers] == [202, 202, 202, 200]
        assert stored() == (3, 3, 0)
        assert nudged == [one.body["signal_id"] for one in answers[:3]]
        assert transactions() == 1

    def test_a_connection_the_server_has_ended(self, nudged: list[str]) -> None:
        strategy, token = webhook()
        receive([post(strategy.slug, body_of(secret=token, id="warm"))])
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()

        def end() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        together(end)
        answers = receive([post(strategy.slug, body_of(secret=token, id=key)) for key in "abc"])

        assert [one.http for one in answers] == [202, 202, 202]
        assert stored() == (4, 4, 0)

    def test_a_database_that_is_away_is_asked_twice_for_all_of_them(
        self, nudged: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strategy, token = webhook()
        tries = []

        def away(several: Sequence[tuple[Received, UUID]]) -> list[Accepted]:
            tries.append(len(several))
            raise OperationalError("the database system is shutting down")

        monkeypatch.setattr(intake, "accept_all", away)
        answers = receive([post(strategy.slug, body_of(secret=token, id=key)) for key in "abc"])

        assert codes(answers) == [(503, "NOT_STORED")] * 3
        assert tries == [3, 3]
        assert nudged == []

    def test_a_database_that_cannot_be_reached_keeps_nobody_waiting_for_each_of_the_others(
        self, nudged: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strategy, token = webhook()
        asked = []

        def unreachable(slug: str) -> None:
            asked.append(slug)
            raise OperationalError("connection timeout expired")

        monkeypatch.setattr(webhooks, "config_of", unreachable)
        answers = receive([post(strategy.slug, body_of(secret=token, id=key)) for key in "abc"])

        assert codes(answers) == [(503, "NOT_STORED")] * 3
        assert len(asked) == 2
        assert nudged == []

    def test_an_expired_key_is_taken_over_once_by_many_at_once(self) -> None:
        [(delivery, _)] = deliveries(StrategyFactory.create(), "")
        first = accept(delivery)
        IdempotencyKey.objects.update(expires_at=F("expires_at") - timedelta(seconds=61))
        batches = [[(delivery, uuid7()) for _ in range(5)] for _ in range(4)]

        results = [
            one
            for batch in together(*[lambda batch=batch: accept_all(batch) for batch in batches])
            for one in batch
        ]

        assert sorted(one.is_duplicate for one in results) == [False] + [True] * 19
        (second,) = {one.signal_id for one in results}
        assert second != first.signal_id
        assert Signal.objects.count() == 2
