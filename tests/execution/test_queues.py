"""Which alerts of a batch want a thread of their own: the same answer one by one and all together."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import pytest

from brokers.prepared import Prepared
from execution import queues
from execution.models import Signal, Strategy
from execution.states import SignalState
from tests.factories import PositionFactory, RouteFactory, SignalFactory

pytestmark = pytest.mark.django_db

ACTIONS = ("buy", "buy", "buy", "sell", "close")


def waits(strategy: Strategy, symbol: str, action: str) -> Signal:
    """An undecided alert; a close is of everything."""
    alert = {"symbol": symbol, "action": action} | (
        {} if action == "close" else {"quantity": "0.01"}
    )
    return SignalFactory.create(strategy=strategy, symbol=symbol, action=action, alert=alert)


def received(count: int, seed: int, actions: tuple[str, ...] = ACTIONS) -> list[Signal]:
    """Of two strategies that hold what they bought."""
    random = Random(seed)
    routes = [RouteFactory.create(), RouteFactory.create()]
    for route in routes:
        PositionFactory.create(account=route.account)
    return [
        waits(
            random.choice(routes).strategy,
            random.choice(["BTC/USDT", "ETH/USDT"]),
            random.choice(actions),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_is_seen_as_its_alerts_are_one_by_one(seed: int) -> None:
    waiting = received(24, seed, ACTIONS if seed % 2 else ("buy", "close"))
    Signal.objects.filter(pk=waiting[3].pk).update(state=SignalState.WORKING)
    batch = [str(one.pk) for one in waiting[seed:]]

    alone = [place for one in batch for place in queues.places([one])]

    assert queues.places(batch) == alone
    assert waiting[3].pk not in {place.signal_id for place in alone}
    assert {place.may_overtake for place in alone} == {False, True}


def test_a_flood_of_one_kind_may_not_overtake_itself() -> None:
    waiting = received(30, 1, ("buy",))
    found = queues.places([str(one.pk) for one in waiting])
    assert [place.signal_id for place in found] == [one.pk for one in waiting]
    assert not any(place.may_overtake for place in found)


def test_only_what_waits_right_before_an_alert_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "LOOKED_AT", 2)
    monkeypatch.setattr(queues, "_places", Prepared(queues._places.queryset))
    route = RouteFactory.create()
    PositionFactory.create(account=route.account, quantity=Decimal("-0.01"))
    actions = ("sell", "buy", "buy", "buy")
    waiting = [waits(route.strategy, "BTC/USDT", action) for action in actions]
    told = [queues.may_overtake(one.pk) for one in waiting]
    assert told == [False, True, True, False]


@pytest.mark.parametrize(
    ("held", "alert", "may_overtake"),
    [
        ("0.01", {"action": "sell"}, True),
        ("-0.01", {"action": "sell"}, False),
        ("-0.01", {"action": "buy"}, True),
        ("0.01", {"action": "buy"}, False),
        ("0", {"action": "sell"}, False),
        ("0", {"action": "sell", "market_position": "flat"}, True),
        ("0", {"action": "close"}, True),
        ("0", {"action": "close", "quantity": "0.01"}, False),
    ],
)
def test_only_what_may_leave_a_position_may_overtake(
    held: str, alert: dict[str, str], may_overtake: bool
) -> None:
    route = RouteFactory.create()
    PositionFactory.create(account=route.account, symbol="SOL/USDT", quantity=Decimal(held))
    PositionFactory.create()
    for action in ("cancel", alert["action"]):
        last = SignalFactory.create(
            strategy=route.strategy, action=action, alert={"symbol": "BTC/USDT"} | alert
        )
    (place,) = queues.places([str(last.pk)])
    assert (place.may_overtake, place.is_behind) == (may_overtake, True)


def test_one_by_hand_may_overtake_whatever_the_strategy_holds() -> None:
    strategy = RouteFactory.create().strategy
    alert = {"symbol": "BTC/USDT", "quantity": "0.01", "account": "other"}
    for action in ("buy", "sell"):
        last = SignalFactory.create(
            strategy=strategy, action=action, alert=alert | {"action": action}
        )
    assert queues.may_overtake(last.pk)


def test_what_is_behind_another_in_a_blocked_queue_wakes_none() -> None:
    strategy = RouteFactory.create().strategy
    first, second = (waits(strategy, "BTC/USDT", "buy") for _ in range(2))
    alone = waits(strategy, "ETH/USDT", "buy")
    blocked = {queues.key_of(first), queues.key_of(alone)}
    woken = [queues.to_wake([str(one.pk)], blocked) for one in (first, second, alone)]
    assert woken == [([], [queues.key_of(first)]), ([], []), ([], [queues.key_of(alone)])]


def test_the_first_and_the_last_of_a_flood_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "LOOKED_AT", 2)
    monkeypatch.setattr(queues, "_newest", Prepared(queues._newest.queryset))
    route = RouteFactory.create()
    symbols = ["BTC/USDT", "BTC/USDT", "ETH/USDT", "ETH/USDT", "BTC/USDT"]
    waiting = [SignalFactory.create(strategy=route.strategy, symbol=one) for one in symbols]

    for last, symbol in ((waiting[4], "BTC/USDT"), (waiting[3], "ETH/USDT")):
        found = queues.waiting_for(route.account, symbol)
        assert found == [(last.pk, queues.key_of(last), "buy", False)]

    waiting.append(SignalFactory.create(strategy=route.strategy, symbol="BTC/USDT"))
    waiting.append(SignalFactory.create(strategy=route.strategy, symbol="BTC/USDT"))
    assert queues.waiting_for(route.account, "ETH/USDT") == []
