"""A position in a contract whose alias means the next one by now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from brokers.models import Account, SymbolAlias
from execution import commands, tasks
from execution.alerts import Alert
from execution.legs import symbol_on
from execution.models import Order, Position, Signal, Strategy
from execution.pipeline import Step, decide_announced
from execution.queues import waiting_for
from execution.routing import open_legs
from execution.states import OrderState, SignalState
from tests.brokers.scripted import CAPABILITIES, script_of
from tests.factories import (
    FillFactory,
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db(transaction=True)
OLD, NEW = "ESZ6/USDT", "ESH7/USDT"


@pytest.fixture
def account(scripted: Callable[..., Account], eager: None) -> Account:
    return scripted()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    """It trades ES1!, which means the next contract since today."""
    allow_trading()
    today = timezone.now().date()
    until_yesterday = {"valid_until": today - timedelta(days=1)}
    SymbolAlias.objects.create(alias="ES1!", symbol=OLD, **until_yesterday)
    since_today = {"valid_from": today, "valid_until": today + timedelta(days=90)}
    SymbolAlias.objects.create(alias="ES1!", symbol=NEW, **since_today)
    return RouteFactory.create(account=account).strategy


def hold(account: Account, symbol: str, quantity: str) -> None:
    PositionFactory.create(account=account, symbol=symbol, quantity=Decimal(quantity))


def bought_by(strategy: Strategy, account: Account, symbol: str, quantity: str = "1") -> None:
    """The strategy's position there is its own."""
    whole = {"account": account, "symbol": symbol, "quantity": Decimal(quantity)}
    order = OrderFactory.create(strategy=strategy, state=OrderState.FILLED, **whole)
    FillFactory.create(order=order, quantity=order.quantity)


def sold_by(strategy: Strategy, account: Account, symbol: str, quantity: str = "1") -> None:
    whole = {"account": account, "symbol": symbol, "quantity": Decimal(quantity), "side": "sell"}
    order = OrderFactory.create(
        strategy=strategy, state=OrderState.FILLED, role=Order.Role.EXIT, **whole
    )
    FillFactory.create(order=order, quantity=order.quantity)


def send(strategy: Strategy, action: str, **alert: Any) -> Signal:
    fields = {"symbol": "CME_MINI:ES1!", "action": action} | alert
    signal = SignalFactory.create(
        strategy=strategy, action=action, symbol=fields["symbol"], alert=fields
    )
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal


def held() -> dict[str, Decimal]:
    return dict(Position.objects.exclude(quantity=0).values_list("symbol", "quantity"))


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "close"},
        {"action": "sell", "quantity": "1"},
        {"action": "sell", "quantity": "1", "reduce_only": True},
        {"action": "sell", "quantity": "1", "market_position": "flat"},
    ],
)
def test_what_takes_off_goes_where_the_position_is(
    account: Account, strategy: Strategy, alert: dict[str, Any]
) -> None:
    hold(account, OLD, "1")

    signal = send(strategy, **alert)

    assert (signal.state, held()) == (SignalState.EXECUTED, {})


def test_also_where_the_alias_has_no_other_row(account: Account, strategy: Strategy) -> None:
    SymbolAlias.objects.filter(symbol=NEW).delete()
    hold(account, OLD, "1")

    assert send(strategy, "close").state == SignalState.EXECUTED
    assert held() == {}
    assert send(strategy, "close").reason == "UNKNOWN_SYMBOL"


def test_what_opens_or_adds_goes_into_todays_contract(account: Account, strategy: Strategy) -> None:
    hold(account, OLD, "1")

    send(strategy, "buy", quantity="1")

    assert held() == {OLD: 1, NEW: 1}


@pytest.mark.parametrize(("action", "size"), [("buy", 3), ("sell", 1), ("buy", 1), ("buy", 2)])
def test_a_target_counts_what_is_held_in_the_old_contract(
    account: Account, strategy: Strategy, action: str, size: int
) -> None:
    hold(account, OLD, "2")

    send(strategy, action, quantity="1", market_position="long", market_position_size=str(size))

    assert held() == {OLD: size}


def test_a_target_on_the_other_side_is_opened_in_todays_contract(
    account: Account, strategy: Strategy
) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True)
    hold(account, OLD, "2")

    send(strategy, "sell", market_position="short", market_position_size="1")

    assert held() == {NEW: -1}


def test_todays_contract_comes_first_where_something_is_held_in_it(
    account: Account, strategy: Strategy
) -> None:
    hold(account, OLD, "1")
    hold(account, NEW, "2")

    send(strategy, "close")
    assert held() == {OLD: 1}
    send(strategy, "close")
    assert held() == {}


def test_what_ends_in_the_old_contract_wakes_what_waits_for_it(
    account: Account, strategy: Strategy
) -> None:
    waiting = SignalFactory.create(strategy=strategy, symbol="CME_MINI:ES1!", action="close")

    assert [last.signal_id for last in waiting_for(account, OLD)] == [waiting.pk]
    assert waiting_for(account, "ESU6/USDT") == []


def test_a_reversal_closes_the_old_contract_and_opens_todays(
    account: Account, strategy: Strategy
) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True)
    hold(account, OLD, "1")

    send(strategy, "sell", quantity="3", market_position="short")

    assert held() == {NEW: -2}


def test_a_cancel_reaches_what_works_in_the_old_contract(
    account: Account, strategy: Strategy
) -> None:
    hold(account, NEW, "1")
    resting = OrderFactory.create(
        account=account, strategy=strategy, symbol=OLD, state=OrderState.PENDING, type="limit",
        price=Decimal(50000),
    )  # fmt: skip

    signal = send(strategy, "cancel")

    assert Order.objects.get(pk=resting.pk).state == OrderState.CANCELED
    assert signal.state == SignalState.EXECUTED


@pytest.mark.parametrize("of_another", ["0", "1"])
def test_what_a_person_traded_or_nobody_is_the_strategys_own(
    account: Account, strategy: Strategy, of_another: str
) -> None:
    """An order that an operator amends is one by hand from then on; what was adopted has no fill."""
    by_hand = StrategyFactory.create(slug="manual")
    other = RouteFactory.create(account=account).strategy
    hold(account, OLD, str(2 + int(of_another)))
    bought_by(by_hand, account, OLD)
    if int(of_another):
        bought_by(other, account, OLD, of_another)

    assert send(strategy, "close").state == SignalState.EXECUTED
    assert held() == {}


def test_an_order_by_hand_in_the_old_contract_is_cancelled(
    account: Account, strategy: Strategy
) -> None:
    resting = OrderFactory.create(
        account=account, strategy=StrategyFactory.create(slug="manual"), symbol=OLD,
        state=OrderState.PENDING, type="limit", price=Decimal(50000),
    )  # fmt: skip

    assert send(strategy, "cancel").state == SignalState.EXECUTED
    assert Order.objects.get(pk=resting.pk).state == OrderState.CANCELED


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "close"},
        {"action": "sell", "quantity": "1"},
        {"action": "sell", "quantity": "1", "market_position": "long", "market_position_size": "0"},
    ],
)
def test_an_approved_exit_leaves_the_contract_it_was_shown_for(
    account: Account, strategy: Strategy, alert: dict[str, Any]
) -> None:
    """An entry has filled in today's while a person thought about it."""
    Strategy.objects.update(needs_approval=True, exits_need_approval=True)
    strategy.refresh_from_db()
    hold(account, OLD, "1")
    exit_ = Order.objects.get(signal=send(strategy, **alert))
    assert (exit_.symbol, exit_.state) == (OLD, OrderState.AWAITING_APPROVAL)
    hold(account, NEW, "2")
    bought_by(strategy, account, NEW, "2")

    commands.decide_on_order(exit_, UserFactory.create(), approve=True, note="")

    exit_.refresh_from_db()
    assert (exit_.state, exit_.reason, held()) == (OrderState.FILLED, "", {NEW: 2})


def test_an_approved_entry_of_the_contract_before_is_not_sent(
    account: Account, strategy: Strategy
) -> None:
    Strategy.objects.update(needs_approval=True)
    strategy.refresh_from_db()
    hold(account, OLD, "1")
    goal = {"market_position": "long", "market_position_size": "2"}
    entry = Order.objects.get(signal=send(strategy, "buy", **goal))
    assert (entry.symbol, entry.state) == (OLD, OrderState.AWAITING_APPROVAL)
    hold(account, NEW, "1")

    commands.decide_on_order(entry, UserFactory.create(), approve=True, note="")

    entry.refresh_from_db()
    assert (entry.state, entry.reason) == (OrderState.DENIED, "APPROVAL_OUTDATED")
    assert held() == {OLD: 1, NEW: 1}


@pytest.fixture
def coming(account: Account, strategy: Strategy) -> Order:
    """An entry that rests in today's contract, while 1 is held in the one before."""
    hold(account, OLD, "1")
    bought_by(strategy, account, OLD)
    rests = {"type": "limit", "price": Decimal(50000), "state": OrderState.OPEN}
    return OrderFactory.create(account=account, strategy=strategy, symbol=NEW, **rests)


def leads_to(strategy: Strategy, action: str, size: str) -> str:
    target = {"market_position": "long", "market_position_size": size}
    alert = Alert.from_json({"symbol": "ES1!", "action": action} | target)
    return symbol_on(strategy.routes.get(), alert)


@pytest.mark.parametrize(
    ("action", "size", "symbol"),
    [("sell", "0.5", NEW), ("buy", "3", OLD)],
    ids=["goes as an exit does", "a person agrees to it first"],
)
def test_an_entry_in_todays_contract_counts_where_it_gives_way(
    strategy: Strategy, coming: Order, action: str, size: str, symbol: str
) -> None:
    assert leads_to(strategy, action, size) == NEW
    strategy.needs_approval = True
    assert leads_to(strategy, action, size) == symbol


def test_so_does_one_that_an_operator_amended(strategy: Strategy, coming: Order) -> None:
    first = coming.pk
    Order.objects.filter(pk=first).update(state=OrderState.CANCELED)
    amend = SignalFactory.create(strategy=StrategyFactory.create(slug="manual"))
    amend.alert |= {"replaces": str(first)}
    amend.save()
    OrderFactory.create(
        account=coming.account, strategy=amend.strategy, signal=amend, symbol=NEW,
        type="limit", price=Decimal(51000), state=OrderState.OPEN,
    )  # fmt: skip
    assert leads_to(strategy, "sell", "0.5") == NEW


class TestTwoStrategiesOfOneAccount:
    """ES2! is the later contract of the two: what is tomorrow's of one is today's of the other."""

    @pytest.fixture
    def other(self, account: Account, strategy: Strategy) -> Strategy:
        return RouteFactory.create(account=account).strategy

    @pytest.fixture(params=["the next contract", "the one before"])
    def theirs(
        self, request: pytest.FixtureRequest, account: Account, strategy: Strategy, other: Strategy
    ) -> str:
        """A contract that ES1! means on another day, in which the other strategy holds 1."""
        script_of(account).capabilities = replace(CAPABILITIES, short_selling=True)
        if request.param == "the next contract":
            rolls = timezone.now().date() + timedelta(days=5)
            SymbolAlias.objects.filter(symbol=OLD).update(valid_until=rolls - timedelta(days=1))
            SymbolAlias.objects.filter(symbol=NEW).update(valid_from=rolls)
        symbol = NEW if request.param == "the next contract" else OLD
        hold(account, symbol, "1")
        bought_by(other, account, symbol)
        return symbol

    @pytest.fixture
    def ours(self, theirs: str) -> str:
        return OLD if theirs == NEW else NEW

    @pytest.mark.parametrize("size", [1, 2])
    def test_a_target_does_not_count_what_the_other_holds(
        self, strategy: Strategy, theirs: str, ours: str, size: int
    ) -> None:
        send(strategy, "buy", market_position="long", market_position_size=str(size))

        assert held() == {theirs: 1, ours: size}

    def test_a_plain_sale_sells_nothing_of_the_other(
        self, strategy: Strategy, theirs: str, ours: str
    ) -> None:
        send(strategy, "sell", quantity="1")

        assert held() == {theirs: 1, ours: -1}

    @pytest.mark.parametrize(
        "alert",
        [
            {"action": "close"},
            {"action": "sell", "quantity": "1", "reduce_only": True},
            {"action": "sell", "quantity": "1", "market_position": "flat"},
        ],
    )
    def test_an_exit_leaves_what_the_other_holds(
        self, strategy: Strategy, theirs: str, alert: dict[str, Any]
    ) -> None:
        signal = send(strategy, **alert)

        assert (signal.reason, held()) == ("NOTHING_TO_CLOSE", {theirs: 1})

    def test_what_it_sold_again_is_the_others_alone(
        self, account: Account, strategy: Strategy, theirs: str
    ) -> None:
        bought_by(strategy, account, theirs)
        sold_by(strategy, account, theirs)

        assert send(strategy, "close").reason == "NOTHING_TO_CLOSE"
        assert held() == {theirs: 1}

    @pytest.mark.parametrize("closing", [0, 1])
    @pytest.mark.parametrize("bought", ["1", "2"])
    def test_either_may_close_what_is_left_after_a_sale_by_hand(
        self, account: Account, strategy: Strategy, other: Strategy, closing: int, bought: str
    ) -> None:
        both = (strategy, other)
        for who, quantity in zip(both, (bought, "2"), strict=True):
            bought_by(who, account, OLD, quantity)
        sold_by(StrategyFactory.create(slug="manual"), account, OLD, bought)
        hold(account, OLD, "2")

        assert send(both[closing], "close").state == SignalState.EXECUTED
        assert held() == {}

    def test_a_cancel_leaves_the_others_order(
        self, account: Account, strategy: Strategy, other: Strategy, theirs: str
    ) -> None:
        resting = OrderFactory.create(
            account=account, strategy=other, symbol=theirs, state=OrderState.PENDING, type="limit",
            price=Decimal(50000),
        )  # fmt: skip

        assert send(strategy, "cancel").reason == "NOTHING_TO_CANCEL"
        assert Order.objects.get(pk=resting.pk).state == OrderState.PENDING

    def test_an_exit_reaches_its_own_beside_what_the_other_holds_in_todays(
        self, account: Account, strategy: Strategy, other: Strategy
    ) -> None:
        for who, symbol in ((strategy, OLD), (other, NEW)):
            hold(account, symbol, "1")
            bought_by(who, account, symbol)

        send(strategy, "close")

        assert held() == {NEW: 1}


class TestTheOldContractIsClosedWhileTheAlertIsRead:
    def read_and_close(self, account: Account, signal: Signal) -> Step:
        """Decide with what was read before the position in the old contract was closed."""
        alert = Alert.from_json(signal.alert)
        legs = open_legs(signal, alert)
        assert [leg.symbol for leg in legs] == [OLD]
        Position.objects.filter(account=account, symbol=OLD).update(quantity=Decimal(0))
        return decide_announced(signal, alert, legs).step

    def test_a_target_is_opened_in_todays(self, account: Account, strategy: Strategy) -> None:
        hold(account, OLD, "1")
        fields = {"symbol": "ES1!", "action": "buy", "market_position": "long"}
        fields["market_position_size"] = "2"
        signal = SignalFactory.create(strategy=strategy, symbol="ES1!", alert=fields)

        assert self.read_and_close(account, signal) is Step.WAIT
        tasks.process_signal(str(signal.pk))

        assert held() == {NEW: 2}

    def test_the_other_side_of_a_reversal_is_opened_in_todays(
        self, account: Account, strategy: Strategy
    ) -> None:
        script_of(account).capabilities = replace(CAPABILITIES, short_selling=True)
        hold(account, OLD, "1")
        fields = {"symbol": "ES1!", "action": "sell", "quantity": "3", "market_position": "short"}
        signal = SignalFactory.create(strategy=strategy, symbol="ES1!", action="sell", alert=fields)
        exit_ = OrderFactory.create(
            signal=signal, account=account, strategy=strategy, symbol=OLD, side="sell",
            role=Order.Role.EXIT, reverses=True, quantity=Decimal(1), filled_quantity=Decimal(1),
            state=OrderState.FILLED,
        )  # fmt: skip

        assert self.read_and_close(account, signal) is Step.WAIT
        assert list(Order.objects.values_list("pk", flat=True)) == [exit_.pk]
        tasks.process_signal(str(signal.pk))

        assert held() == {NEW: -2}

    def test_also_where_the_alias_means_nothing_by_now(
        self, account: Account, strategy: Strategy
    ) -> None:
        SymbolAlias.objects.filter(symbol=NEW).delete()
        hold(account, OLD, "1")
        fields = {"symbol": "ES1!", "action": "close"}
        signal = SignalFactory.create(
            strategy=strategy, symbol="ES1!", action="close", alert=fields
        )

        assert self.read_and_close(account, signal) is Step.WAIT
        tasks.process_signal(str(signal.pk))

        signal.refresh_from_db()
        assert signal.reason == "UNKNOWN_SYMBOL"
