"""Too many alerts, silence where one was expected, and alerts that must have got lost in between."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from execution import arrivals, silence
from execution.alerts import Action, Alert, MarketPosition
from execution.ids import uuid7, uuid7_at
from execution.models import Alarm, Order, Signal, Strategy
from execution.pipeline import decide
from execution.states import OrderState, SignalState
from execution.watching import OWN_ALERT
from tests.factories import (
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db

MONDAY = datetime(2026, 3, 2, 14, 0, tzinfo=UTC)


@pytest.fixture
def strategy() -> Strategy:
    allow_trading()
    strategy: Strategy = StrategyFactory.create(most_alerts=3, most_alerts_window=60)
    RouteFactory.create(strategy=strategy)
    return strategy


def decided(strategy: Strategy, **alert: Any) -> Signal:
    base = {"symbol": "BTC/USDT", "action": "buy", "quantity": "0.01"} | alert
    signal = SignalFactory.create(
        id=uuid7(), strategy=strategy, alert=base, symbol=base["symbol"], action=base["action"]
    )
    decide(signal)
    signal.refresh_from_db()
    return signal


def hold(strategy: Strategy, quantity: str) -> None:
    account = strategy.routes.get().account
    PositionFactory.create(account=account, quantity=Decimal(quantity))


class TestThrottle:
    def test_over_the_limit_an_entry_is_stored_and_denied(self, strategy: Strategy) -> None:
        signals = [decided(strategy, symbol=f"{coin}/USDT") for coin in ("BTC", "ETH") * 3]

        assert [signal.reason for signal in signals[:3]].count("THROTTLED") == 0
        assert [signal.reason for signal in signals[3:]] == ["THROTTLED"] * 3
        assert signals[3].state == SignalState.DENIED
        assert signals[3].detail == f"{strategy.slug} has sent 3 alerts in 60 s already"
        assert not signals[3].orders.exists()

    def test_what_was_throttled_does_not_throttle_what_follows(self, strategy: Strategy) -> None:
        for _ in range(6):
            decided(strategy)
        Signal.objects.exclude(reason="THROTTLED").update(
            received_at=datetime.now(UTC) - timedelta(seconds=61)
        )

        assert decided(strategy).reason != "THROTTLED"

    @pytest.mark.parametrize(
        "alert",
        [
            {"action": "close"},
            {"action": "cancel"},
            {"action": "sell"},
            {"market_position": "flat"},
        ],
        ids=str,
    )
    def test_exits_and_cancels_never_are(self, strategy: Strategy, alert: dict[str, str]) -> None:
        hold(strategy, "0.05")
        SignalFactory.create_batch(5, strategy=strategy, symbol="ETH/USDT")

        assert decided(strategy, **alert).reason != "THROTTLED"
        assert decided(strategy, action="buy").reason == "THROTTLED"

    def test_an_exit_never_is_while_its_entry_is_under_way(self, strategy: Strategy) -> None:
        entry = decided(strategy).orders.get()
        SignalFactory.create_batch(5, strategy=strategy, symbol="ETH/USDT")

        leaving = decided(strategy, action="sell")
        assert (leaving.state, leaving.reason) == (SignalState.RECEIVED, "")

        Order.objects.filter(pk=entry.pk).update(state=OrderState.NOT_PLACED)
        decide(leaving)
        leaving.refresh_from_db()
        assert (leaving.state, leaving.reason) == (SignalState.DENIED, "THROTTLED")

    def test_one_told_late_counts_with_those_of_its_own_time(self, strategy: Strategy) -> None:
        then = datetime.now(UTC) - timedelta(minutes=10)
        for second in range(4):
            moment = then + timedelta(seconds=second)
            SignalFactory.create(id=uuid7_at(moment), strategy=strategy, symbol="ETH/USDT")
        for pause, reason in ((30, "THROTTLED"), (300, "")):
            late = SignalFactory.create(
                id=uuid7_at(then + timedelta(seconds=pause)), strategy=strategy
            )
            refusal = arrivals.over_limit(late)
            assert (refusal.code.value if refusal else "") == reason

    def test_each_strategy_counts_for_itself_and_none_is_no_limit(self, strategy: Strategy) -> None:
        for _ in range(4):
            decided(strategy)
        other = StrategyFactory.create(most_alerts=None)
        RouteFactory.create(strategy=other, account=strategy.routes.get().account)
        SignalFactory.create_batch(5, strategy=other, symbol="ETH/USDT")

        assert decided(other).reason != "THROTTLED"

    def test_by_default_a_watchlist_alert_of_1000_passes(self) -> None:
        strategy = Strategy()

        assert (strategy.most_alerts or 0) >= 1000
        assert strategy.most_alerts_window <= 180


LONG, SHORT, FLAT = MarketPosition.LONG, MarketPosition.SHORT, MarketPosition.FLAT


class TestGap:
    @pytest.mark.parametrize(
        ("side", "size", "held", "found"),
        [
            (None, None, "1", ""),
            (FLAT, None, "0", ""),
            (LONG, None, "1", ""),
            (SHORT, None, "-1", ""),
            (FLAT, None, "1", "the sender was flat before this alert, paper is long 1"),
            (LONG, None, "0", "the sender was long before this alert, paper is flat"),
            (LONG, None, "-2", "the sender was long before this alert, paper is short 2"),
            (LONG, "1", "1", ""),
            (LONG, "1", "0.996", ""),
            (LONG, "1", "0.994", "the sender was long 1 before this alert, paper is long 0.994"),
            (SHORT, "2", "-1", "the sender was short 2 before this alert, paper is short 1"),
            (FLAT, "0", "0", ""),
        ],
    )
    def test_what_is_one(
        self, side: MarketPosition | None, size: str | None, held: str, found: str
    ) -> None:
        alert = Alert(
            "BTC/USDT",
            Action.BUY,
            prev_market_position=side,
            prev_market_position_size=None if size is None else Decimal(size),
        )

        assert arrivals.gap(alert, [("paper", Decimal(held))], compares_size=True) == found

    def test_a_size_that_is_not_ours_is_not_compared(self) -> None:
        alert = Alert(
            "BTC/USDT",
            Action.BUY,
            prev_market_position=LONG,
            prev_market_position_size=Decimal(5),
        )

        assert arrivals.gap(alert, [("paper", Decimal(1))], compares_size=False) == ""

    def test_the_longest_names_have_room_in_its_alarm(self) -> None:
        strategy = StrategyFactory.create(slug="s" * 63)
        for symbol in ("A" * 60, "B" * 60):
            SignalFactory.create(
                strategy=strategy, symbol=symbol, gap="it was long", state="executed"
            )
        raised = silence.look()
        assert sorted(one.symbol[0] for one in raised) == ["A", "B"]
        assert {len(one.key) for one in raised} == {100}
        assert silence.look() == []
        assert Alarm.objects.filter(cleared_at=None).count() == 2

    def test_it_is_on_the_signal_and_alarmed_once(
        self, strategy: Strategy, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.ERROR)

        signal = decided(strategy, prev_market_position="long", prev_market_position_size="0.01")

        account = strategy.routes.get().account.name
        assert signal.gap == f"the sender was long 0.01 before this alert, {account} is flat"
        (alarm,) = silence.look()
        assert (alarm.kind, alarm.key, alarm.detail) == (
            Alarm.Kind.GAP,
            f"{strategy.slug} BTC/USDT",
            signal.gap,
        )
        assert "an alert is missing" in caplog.text
        assert silence.look() == []
        SignalFactory.create(strategy=strategy, auth=OWN_ALERT, state=SignalState.EXECUTED)
        assert silence.look() == []
        alarm.refresh_from_db()
        assert alarm.cleared_at is None

        decided(strategy, prev_market_position="flat")

        assert silence.look() == []
        alarm.refresh_from_db()
        assert alarm.cleared_at is not None

    @pytest.mark.parametrize("dropped", range(99))
    def test_one_alert_dropped_of_a_hundred_is_found_with_the_next(self, dropped: int) -> None:
        """A sender that is long 1, short 2, flat, and again, a bar each; our book follows what came."""
        steps = [(LONG, "1"), (SHORT, "-2"), (FLAT, "0")]
        sides, sizes = zip(*(steps[number % 3] for number in range(100)), strict=True)
        book, found = Decimal(0), []
        for number in range(100):
            if number == dropped:
                continue
            before = (FLAT, "0") if number == 0 else (sides[number - 1], sizes[number - 1])
            alert = Alert(
                "BTC/USDT",
                Action.BUY,
                prev_market_position=before[0],
                prev_market_position_size=abs(Decimal(before[1])),
            )
            if arrivals.gap(alert, [("paper", book)], compares_size=True):
                found.append(number)
            book = Decimal(sizes[number])

        assert found == [dropped + 1]

    def test_it_is_alarmed_when_the_next_alert_is_decided(self, strategy: Strategy) -> None:
        """Bought, sold (lost on its way), bought again: the third one says it was flat."""
        hold(strategy, "0.01")
        decided(strategy, action="buy", prev_market_position="long")
        assert silence.look() == []

        decided(strategy, action="buy", prev_market_position="flat")

        (alarm,) = silence.look()
        assert alarm.detail.startswith("the sender was flat before this alert")


class TestSilence:
    def expecting(self, **fields: Any) -> Strategy:
        return StrategyFactory.create(expects_minutes=60, **fields)

    def test_an_overdue_alert_is_alarmed_once_until_the_next_comes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        strategy = self.expecting()
        SignalFactory.create(strategy=strategy, received_at=MONDAY)

        def raised(minutes: int) -> list[str]:
            alarms = silence.look(MONDAY + timedelta(minutes=minutes))
            return [alarm.key for alarm in alarms]

        assert raised(59) == []
        for auth in (OWN_ALERT, "import", "quarantine"):
            later = MONDAY + timedelta(minutes=30)
            SignalFactory.create(strategy=strategy, auth=auth, received_at=later)
        assert raised(60) == [strategy.slug]
        assert raised(61) == []
        alarm = Alarm.objects.get()
        assert (alarm.kind, alarm.detail) == (
            Alarm.Kind.SILENT,
            "no alert since 2026-03-02 14:00 UTC, one expected every 60 minutes",
        )
        assert strategy.slug in caplog.text

        SignalFactory.create(strategy=strategy, received_at=MONDAY + timedelta(minutes=70))
        assert raised(71) == []
        alarm.refresh_from_db()
        assert alarm.cleared_at is not None
        assert raised(130) == [strategy.slug]

    @pytest.mark.parametrize("dropped", [1, 37, 98])
    def test_one_alert_dropped_of_a_hundred_is_found_within_its_bar(self, dropped: int) -> None:
        """One alert an hour, a few seconds late; looked at every minute, as the beat does."""
        strategy = StrategyFactory.create(expects_minutes=61)
        bar = timedelta(hours=1)
        found = []
        for number in range(100):
            opened = MONDAY + number * bar
            if number != dropped:
                late = timedelta(seconds=1 + number % 7)
                SignalFactory.create(strategy=strategy, received_at=opened + late)
            for minute in (1, 2, 30, 59):
                if silence.look(opened + timedelta(minutes=minute)):
                    found.append((number, minute))

        assert found == [(dropped, 2)]

    def test_who_is_not_expected_is_never_overdue(self) -> None:
        StrategyFactory.create()
        self.expecting(is_enabled=False)

        assert silence.look(datetime.now(UTC) + timedelta(days=30)) == []

    def test_one_that_never_sent_counts_from_its_making(self) -> None:
        strategy = self.expecting()

        made = strategy.created_at
        assert silence.look(made + timedelta(minutes=59)) == []
        (alarm,) = silence.look(made + timedelta(minutes=61))
        assert alarm.key == strategy.slug

    @pytest.mark.parametrize(
        ("since", "now", "minutes"),
        [
            ("2026-03-02 15:00", "2026-03-02 16:00", 60),
            ("2026-03-02 20:30", "2026-03-02 23:00", 30),
            ("2026-03-02 20:30", "2026-03-03 15:00", 60),
            ("2026-03-06 20:30", "2026-03-09 15:00", 60),
            ("2026-12-23 20:30", "2026-12-28 14:40", 40),
        ],
    )
    def test_only_expected_hours_count(self, since: str, now: str, minutes: int) -> None:
        strategy = Strategy(
            expects_from=time(14, 30), expects_until=time(21), expects_market="XNYS"
        )

        def moment(text: str) -> datetime:
            return datetime.fromisoformat(text).replace(tzinfo=UTC)

        found = silence.expected_time(strategy, moment(since), moment(now))
        assert found == timedelta(minutes=minutes)

    @pytest.mark.parametrize(
        ("since", "now", "minutes"),
        [
            ("2026-01-05 14:00", "2026-01-05 15:00", 30),
            ("2026-07-06 13:00", "2026-07-06 15:00", 90),
            ("2026-01-05 20:30", "2026-01-05 22:00", 30),
            ("2026-07-06 19:30", "2026-07-06 22:00", 30),
            ("2026-03-06 20:30", "2026-03-09 14:00", 60),
        ],
        ids=["winter opens", "summer opens", "winter closes", "summer closes", "the clock changes"],
    )
    def test_hours_follow_the_clock_of_their_place(
        self, since: str, now: str, minutes: int
    ) -> None:
        strategy = Strategy(
            expects_from=time(9, 30),
            expects_until=time(16),
            expects_market="XNYS",
            expects_zone="America/New_York",
        )
        begun, looked = (datetime.fromisoformat(f"{one}+00:00") for one in (since, now))

        assert silence.expected_time(strategy, begun, looked) == timedelta(minutes=minutes)

    @pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc", "utc\x00"])
    def test_a_clock_nobody_has(self, zone: str) -> None:
        with pytest.raises(ValidationError, match="expects_zone"):
            Strategy(slug="s", expects_zone=zone).full_clean()

    def test_hours_past_midnight(self) -> None:
        strategy = Strategy(expects_from=time(22), expects_until=time(2))
        night = MONDAY.replace(hour=23)

        assert silence.expected_time(strategy, night, night + timedelta(hours=10)) == timedelta(
            hours=3
        )
