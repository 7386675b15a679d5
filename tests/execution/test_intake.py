"""The one statement behind every 202: what counts as the same delivery, also at the same moment."""

from __future__ import annotations

import hashlib
from concurrent.futures import TimeoutError as Unfinished
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.db import DatabaseError, connection, transaction
from django.db.models import F

from execution import intake, silence
from execution.alerts import Action, Alert
from execution.ids import uuid7
from execution.intake import Accepted, Received, accept
from execution.models import IdempotencyKey, QuarantinedBody, Signal, Strategy
from tests.execution.posting import body_of, post, signature_of, stored
from tests.factories import StrategyFactory, webhook
from tests.threads import beside, together

START = datetime(2026, 3, 2, 14, 5, 7, tzinfo=UTC)
ALERT = Alert(symbol="BTC/USDT", action=Action.BUY)


def received(strategy: Strategy | None = None, **changes: Any) -> Received:
    strategy = strategy or StrategyFactory.create()
    plain = Received(
        strategy_id=strategy.pk,
        dedupe_window=60,
        raw=b"raw",
        body="masked",
        alert=ALERT,
        header_key="",
        address="192.0.2.1",
        auth=Strategy.Auth.TOKEN,
    )
    return replace(plain, **changes)


def with_id(delivery: Received, key: str) -> Received:
    return replace(delivery, alert=replace(delivery.alert, idempotency_key=key))


@pytest.mark.django_db
class TestAccept:
    def test_everything_is_stored(self) -> None:
        delivery = received(alert=replace(ALERT, sent_at=START, comment="x"))

        with time_machine.travel(START + timedelta(seconds=1), tick=False):
            accepted = accept(delivery)

        signal = Signal.objects.get()
        assert accepted == Accepted(signal.pk, is_duplicate=False)
        assert signal.strategy_id == delivery.strategy_id
        assert (signal.body, signal.address, signal.auth) == ("masked", "192.0.2.1", "token")
        assert (signal.symbol, signal.action, signal.state) == ("BTC/USDT", "buy", "received")
        assert (signal.sent_at, signal.received_at) == (START, START + timedelta(seconds=1))
        assert Alert.from_json(signal.alert) == delivery.alert
        key = IdempotencyKey.objects.get()
        assert key.signal == signal
        assert key.key == f"body:{hashlib.sha256(b'raw').hexdigest()}"
        assert key.expires_at == START + timedelta(seconds=61)

    def test_what_postgresql_refuses_leaves_nothing(self) -> None:
        delivery = received()

        for changes in ({"address": "nonsense"}, {"body": "\x00"}, {"strategy_id": None}):
            with pytest.raises(DatabaseError), transaction.atomic():
                accept(replace(delivery, **changes))

        assert stored() == (0, 0, 0)

    @pytest.mark.parametrize(
        ("seconds", "window", "is_duplicate"),
        [(0, 60, True), (59, 60, True), (60, 60, False), (61, 60, False), (0, 0, False)],
    )
    def test_the_same_bytes_count_once_within_the_window(
        self, seconds: int, window: int, is_duplicate: bool
    ) -> None:
        delivery = received(dedupe_window=window)

        with time_machine.travel(START, tick=False):
            first = accept(delivery)
        with time_machine.travel(START + timedelta(seconds=seconds), tick=False):
            second = accept(delivery)

        assert second.is_duplicate is is_duplicate
        assert (second.signal_id == first.signal_id) is is_duplicate
        assert Signal.objects.count() == (1 if is_duplicate else 2)
        assert IdempotencyKey.objects.get().signal_id == second.signal_id

    @pytest.mark.parametrize(("minutes", "is_duplicate"), [(5, True), (6, False), (60, False)])
    def test_after_the_clock_was_set_back_the_same_bytes_are_a_new_alert(
        self, minutes: int, is_duplicate: bool
    ) -> None:
        """Nobody knows how long ago the first came: by a little it may be a twin that overtook."""
        delivery = received()

        with time_machine.travel(START + timedelta(minutes=minutes), tick=False):
            accept(delivery)
        with time_machine.travel(START, tick=False):
            assert accept(delivery).is_duplicate is is_duplicate
            assert accept(delivery).is_duplicate is True

    @pytest.mark.parametrize("later", [timedelta(seconds=61), timedelta(days=3650)])
    @pytest.mark.parametrize(
        "delivery",
        [
            {"alert": replace(ALERT, idempotency_key="a")},
            {"header_key": "a"},
            {"auth": Strategy.Auth.HMAC},
        ],
        ids=["id", "header", "signed body"],
    )
    def test_a_key_of_the_senders_own_counts_for_ever(
        self, delivery: dict[str, Any], later: timedelta
    ) -> None:
        same = received(**delivery)
        with time_machine.travel(START, tick=False):
            first = accept(same)
        with time_machine.travel(START + later, tick=False):
            assert accept(same) == Accepted(first.signal_id, is_duplicate=True)
        assert IdempotencyKey.objects.get().expires_at is None

    def test_the_id_goes_before_the_header_and_the_header_before_the_body(self) -> None:
        plain = received()
        id_of = intake.idempotency_key

        assert id_of(with_id(replace(plain, header_key="h"), "i"), START) == ("id:i", None)
        header = f"header:{hashlib.sha256(b'h').hexdigest()}"
        assert id_of(replace(plain, header_key="h"), START) == (header, None)
        body = f"body:{hashlib.sha256(b'raw').hexdigest()}"
        assert id_of(plain, START) == (body, START + timedelta(seconds=60))

    def test_keys_of_different_kinds_and_strategies_do_not_meet(self) -> None:
        digest = hashlib.sha256(b"raw").hexdigest()
        mine, other = received(), received()
        deliveries = [
            mine,
            other,
            replace(mine, raw=b"RAW"),
            with_id(mine, digest),
            with_id(mine, f"body:{digest}"),
            with_id(other, digest),
            replace(mine, header_key=digest),
            replace(mine, header_key="raw"),
        ]

        assert [accept(one).is_duplicate for one in deliveries] == [False] * 8
        assert [accept(one).is_duplicate for one in deliveries] == [True] * 8

    @pytest.mark.parametrize("key", ["x" * 150, "ключ", "a\tb", "' OR 1=1 --", "%s"])
    def test_keys_are_data(self, key: str) -> None:
        delivery = with_id(received(), key)

        assert accept(delivery).is_duplicate is False
        assert accept(delivery).is_duplicate is True

    @pytest.mark.parametrize("window", [60, 0])
    def test_a_second_try_finds_what_the_first_committed(self, window: int) -> None:
        delivery, signal_id = received(dedupe_window=window), uuid7()

        for _ in range(3):
            assert accept(delivery, signal_id) == Accepted(signal_id, is_duplicate=False)

        assert Signal.objects.get().pk == signal_id

    def test_a_second_try_may_find_that_a_twin_was_first(self) -> None:
        delivery = received()
        first = accept(delivery)

        assert accept(delivery, uuid7()) == Accepted(first.signal_id, is_duplicate=True)

    def test_a_quarantined_body_is_kept_as_it_is_given(self) -> None:
        strategy = StrategyFactory.create()

        intake.quarantine(strategy.pk, "{oops", None, "NOT_JSON", "not JSON at line 1")

        row = QuarantinedBody.objects.get()
        assert (row.strategy, row.body, row.address) == (strategy, "{oops", None)
        assert (row.code, row.detail) == ("NOT_JSON", "not JSON at line 1")


@pytest.mark.django_db
@pytest.mark.usefixtures("new_process")
class TestByHttp:
    def test_the_same_delivery_again(self, nudged: list[str]) -> None:
        strategy, token = webhook()
        body = body_of(secret=token)

        first, *others = [post(strategy.slug, body) for _ in range(4)]

        assert first.status_code == 202
        for other in others:
            assert other.status_code == 200
            assert other.json() == {"status": "duplicate", "signal_id": first.json()["signal_id"]}
        assert len(nudged) == 1
        assert stored() == (1, 1, 0)

    @pytest.mark.parametrize(("seconds", "status"), [(59, 200), (61, 202)])
    def test_the_strategys_window(self, nudged: list[str], seconds: int, status: int) -> None:
        strategy, token = webhook(dedupe_window=60)
        body = body_of(secret=token)

        with time_machine.travel(START, tick=False):
            assert post(strategy.slug, body).status_code == 202
        with time_machine.travel(START + timedelta(seconds=seconds), tick=False):
            assert post(strategy.slug, body).status_code == status
        assert len(nudged) == Signal.objects.count() == (2 if status == 202 else 1)

    def test_the_same_id_with_another_body_is_still_the_first_alert(
        self, nudged: list[str]
    ) -> None:
        strategy, token = webhook()
        first = post(strategy.slug, body_of(secret=token, id="a")).json()

        second = post(strategy.slug, body_of(secret=token, id="a", quantity="9"))

        assert second.status_code == 200
        assert second.json() == first | {"status": "duplicate"}
        assert Signal.objects.get().alert["quantity"] == "0.01"

    @pytest.mark.parametrize(
        "other",
        [
            {"quantity": 0.010, "price": 59990, "comment": "second try"},
            {"action": "BUY", "quantity": "1e-2", "quantity_type": "base", "reduce_only": False},
        ],
    )
    def test_a_second_try_of_the_senders_written_anew_is_the_same_alert(
        self, nudged: list[str], other: dict[str, Any]
    ) -> None:
        strategy, token = webhook()
        first = post(strategy.slug, body_of(secret=token, id="a", price=60000)).json()

        second = post(strategy.slug, body_of(secret=token, id="a", **other))

        assert second.json() == first | {"status": "duplicate"}
        assert stored() == (1, 1, 0)

    @pytest.mark.parametrize(
        "other",
        [
            {"action": "close"},
            {"symbol": "ETH/USDT"},
            {"quantity": "0.02"},
            {"quantity_type": "quote"},
            {"reduce_only": True},
            {"market_position": "flat"},
            {"market_position": "long", "market_position_size": "0.01"},
        ],
        ids=lambda other: " ".join(other),
    )
    def test_another_alert_under_the_same_id_is_kept_and_told(
        self, nudged: list[str], other: dict[str, str]
    ) -> None:
        strategy, token = webhook()
        first = post(strategy.slug, body_of(secret=token, id="a")).json()

        second = post(strategy.slug, body_of(secret=token, id="a", **other))

        assert second.status_code == 200
        assert second.json() == first | {"status": "duplicate"}
        row = QuarantinedBody.objects.get()
        assert (row.strategy, row.code, token in row.body) == (strategy, "KEY_REUSED", False)
        assert "another alert: buy BTC/USDT, quantity 0.01, and this is " in row.detail
        [alarm] = silence.look()
        assert (alarm.kind, alarm.key) == ("unread", f"{strategy.slug} KEY_REUSED")

    @pytest.mark.parametrize("symbol", ["btc/usdt", "BINANCE:BTC/USDT"])
    def test_the_same_symbol_written_otherwise_is_the_same_alert(
        self, nudged: list[str], symbol: str
    ) -> None:
        strategy, token = webhook()
        first = post(strategy.slug, body_of(secret=token, id="a")).json()

        second = post(strategy.slug, body_of(secret=token, id="a", symbol=symbol))

        assert second.json() == first | {"status": "duplicate"}
        assert stored() == (1, 1, 0)

    def test_the_same_ticker_of_another_exchange_is_another_alert(self, nudged: list[str]) -> None:
        strategy, token = webhook()
        bodies = [
            body_of(secret=token, id="a", symbol=symbol)
            for symbol in ("NSE:RELIANCE", "nse:reliance", "RELIANCE", "BSE:RELIANCE")
        ]

        assert [post(strategy.slug, body).status_code for body in bodies] == [202, 200, 200, 200]
        assert stored() == (1, 1, 1)
        assert '"BSE:RELIANCE"' in QuarantinedBody.objects.get().body

    @pytest.mark.parametrize("symbol", ["BTC/USDT:USDT", "BTC/USDT.P"])
    def test_a_perpetual_is_another_symbol(self, nudged: list[str], symbol: str) -> None:
        strategy, token = webhook()
        for one in ("BTC/USDT", symbol):
            post(strategy.slug, body_of(secret=token, id="a", symbol=one))

        assert stored() == (1, 1, 1)

    def test_a_reused_id_that_cannot_be_kept_is_sent_again(
        self, nudged: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strategy, token = webhook()
        post(strategy.slug, body_of(secret=token, id="a"))

        def broken(*_: object) -> None:
            raise DatabaseError("no space left")

        monkeypatch.setattr(intake, "quarantine", broken)
        answer = post(strategy.slug, body_of(secret=token, id="a", action="close"))

        assert (answer.status_code, answer.json()["code"]) == (503, "NOT_STORED")

    def test_the_header_idempotency_key(self, nudged: list[str]) -> None:
        strategy, token = webhook()
        long = "x" * 300

        def send(key: str, quantity: str) -> tuple[int, str]:
            body = body_of(secret=token, quantity=quantity)
            response = post(strategy.slug, body, HTTP_IDEMPOTENCY_KEY=key)
            return response.status_code, response.json()["signal_id"]

        status, first = send(long, "1")
        assert status == 202
        assert send(long, "2") == (200, first)
        assert send(f"{long}y", "1")[0] == 202
        assert send("ü\x00", "1")[0] == 202

    def test_a_signed_body_cannot_be_replayed_within_its_freshness(self, nudged: list[str]) -> None:
        strategy, key = webhook(auth=Strategy.Auth.HMAC)
        body = body_of(timestamp=int(START.timestamp()))
        proof = {"HTTP_X_WEBHOOK_SIGNATURE": signature_of(body, key)}

        with time_machine.travel(START, tick=False):
            assert post(strategy.slug, body, **proof).status_code == 202
        with time_machine.travel(START + timedelta(seconds=200), tick=False):
            assert post(strategy.slug, body, **proof).json()["status"] == "duplicate"

    def test_a_body_that_was_refused_may_be_sent_corrected(self, nudged: list[str]) -> None:
        strategy, token = webhook()

        assert post(strategy.slug, body_of(secret=token, id="a", quantity="x")).status_code == 400
        assert post(strategy.slug, body_of(secret=token, id="a")).status_code == 202

    def test_signal_ids_are_ordered_by_arrival(self, nudged: list[str]) -> None:
        strategy, token = webhook()

        ids = [
            UUID(post(strategy.slug, body_of(secret=token, id=str(n))).json()["signal_id"])
            for n in range(20)
        ]

        assert ids == sorted(ids)
        assert {one.version for one in ids} == {7}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("new_process")
class TestAtTheSameMoment:
    @pytest.mark.parametrize("fields", [{}, {"id": "a"}], ids=["same bytes", "same id"])
    def test_ten_deliveries_make_one_signal(
        self, nudged: list[str], fields: dict[str, str]
    ) -> None:
        strategy, token = webhook()
        body = body_of(secret=token, **fields)

        answers = together(*[lambda: post(strategy.slug, body) for _ in range(10)])

        assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
        assert {answer.json()["signal_id"] for answer in answers} == {str(Signal.objects.get().pk)}
        assert stored() == (1, 1, 0)
        assert len(nudged) == 1

    def test_ten_different_ones_make_ten(self, nudged: list[str]) -> None:
        strategy, token = webhook()

        answers = together(
            *[lambda n=n: post(strategy.slug, body_of(secret=token, id=str(n))) for n in range(10)]
        )

        assert [answer.status_code for answer in answers] == [202] * 10
        assert stored() == (10, 10, 0)

    def test_an_expired_key_is_taken_over_once(self) -> None:
        delivery = received()
        first = accept(delivery)
        IdempotencyKey.objects.update(expires_at=F("expires_at") - timedelta(seconds=61))

        results = together(*[lambda: accept(delivery) for _ in range(10)])

        assert sorted(result.is_duplicate for result in results) == [False] + [True] * 9
        (second,) = {result.signal_id for result in results}
        assert second != first.signal_id
        assert Signal.objects.count() == 2

    @pytest.mark.parametrize("commits", [True, False])
    def test_a_twin_waits_for_the_first_to_commit_or_takes_its_place(self, commits: bool) -> None:
        delivery = with_id(received(), "a")
        with transaction.atomic():
            first = accept(delivery)
            twin = beside(lambda: accept(delivery))
            _until_somebody_waits()
            with pytest.raises(Unfinished):
                twin.result(0)
            transaction.set_rollback(not commits)

        second = twin.result(30)

        assert second.is_duplicate is commits
        assert (second.signal_id == first.signal_id) is commits
        assert Signal.objects.get().pk == second.signal_id


def _until_somebody_waits() -> None:
    """Returns once another connection waits for a lock of ours."""
    with connection.cursor() as cursor:
        for _ in range(10_000):
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits")
