"""Which alerts of a batch want a thread of their own: the same answer one by one and all together."""

from __future__ import annotations

from random import Random

import pytest

from brokers.prepared import Prepared
from execution import queues
from execution.models import Signal
from execution.states import SignalState
from tests.factories import RouteFactory, SignalFactory

pytestmark = pytest.mark.django_db

ACTIONS = ("buy", "buy", "buy", "sell", "close")


def received(count: int, seed: int, actions: tuple[str, ...] = ACTIONS) -> list[Signal]:
    random = Random(seed)
    strategies = [RouteFactory.create().strategy, RouteFactory.create().strategy]
    return [
        SignalFactory.create(
            strategy=random.choice(strategies),
            symbol=random.choice(["BTC/USDT", "ETH/USDT"]),
            action=random.choice(actions),
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
    strategy = RouteFactory.create().strategy
    waiting = [
        SignalFactory.create(strategy=strategy, symbol="BTC/USDT", action=action)
        for action in ("sell", "buy", "buy", "buy")
    ]
    told = [queues.may_overtake(one.pk) for one in waiting]
    assert told == [False, True, True, False]


def test_the_first_and_the_last_of_a_flood_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "LOOKED_AT", 2)
    monkeypatch.setattr(queues, "_newest", Prepared(queues._newest.queryset))
    route = RouteFactory.create()
    symbols = ["BTC/USDT", "BTC/USDT", "ETH/USDT", "ETH/USDT", "BTC/USDT"]
    waiting = [SignalFactory.create(strategy=route.strategy, symbol=one) for one in symbols]

    for last, symbol in ((waiting[4], "BTC/USDT"), (waiting[3], "ETH/USDT")):
        found = queues.waiting_for(route.account, symbol)
        assert found == [(last.pk, queues.key_of(last))]

    waiting.append(SignalFactory.create(strategy=route.strategy, symbol="BTC/USDT"))
    waiting.append(SignalFactory.create(strategy=route.strategy, symbol="BTC/USDT"))
    assert queues.waiting_for(route.account, "ETH/USDT") == []
