"""What our own rows say for the rules that ask."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import QuoteUnavailableError
from brokers.models import Account, Instrument
from brokers.types import Side
from execution import book, days
from execution.models import AccountDay, Strategy
from risk import switch
from risk.book import Book, Day, Exposure, Recent, Resting, Streak
from risk.models import TradingState
from risk.types import Limit, LimitMode
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    StrategyFactory,
)

pytestmark = pytest.mark.django_db
D = Decimal
LANE = "BTC/USDT"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def account() -> Account:
    return AccountFactory.create()


@pytest.fixture
def strategy() -> Strategy:
    return StrategyFactory.create()


def told(
    account: Account, strategy: Strategy, *rules: str, value: int = 60, **parameters: str
) -> Book:
    limits = [Limit(rule, D(value), LimitMode.ENFORCE, "everything", parameters) for rule in rules]
    return book.gather(book.Case(account, strategy, LANE, limits, timezone.now()))


def priced(account: Account, symbol: str = LANE, price: str = "100", **columns: Any) -> None:
    base, quote = symbol.split("/")
    Instrument.objects.create(
        account=account,
        symbol=symbol,
        venue_symbol=symbol,
        base=base,
        quote=quote,
        quantity_step=D("0.001"),
        price_tick=D("0.01"),
        refreshed_at=timezone.now(),
        **{"last_price": D(price), "last_price_at": timezone.now()} | columns,
    )


def test_only_what_a_limit_in_force_needs_is_read(account: Account, strategy: Strategy) -> None:
    assert told(account, strategy, "max_order_value") == Book(account.pk)
    read = told(account, strategy, "max_symbol_orders")
    assert (read.symbol_orders, read.exposures) == (0, None)
    off = Limit("max_symbol_orders", D(1), LimitMode.OFF, "everything")
    case = book.Case(account, strategy, LANE, [off], timezone.now())
    assert book.gather(case).symbol_orders is None


def test_exposures_of_every_account_in_its_currency(account: Account, strategy: Strategy) -> None:
    other = AccountFactory.create(quote_currency="USD")
    foreign = AccountFactory.create(quote_currency="JPY")
    priced(account, price="100", last_rate=D("1.5"))
    PositionFactory.create(account=account, quantity="2")
    PositionFactory.create(account=account, symbol="ETH/USDT", quantity="-3")
    PositionFactory.create(account=other, quantity="0")
    OrderFactory.create(
        account=account, reserved_value="90", quantity="3", filled_quantity="1", state="open"
    )
    OrderFactory.create(account=other, side="sell", reserved_value="7", state="unknown")
    OrderFactory.create(account=other, reserved_value="9", state="denied")
    OrderFactory.create(account=other, reserved_value="9", role="exit")
    OrderFactory.create(account=foreign, reserved_value="9")
    assert told(account, strategy, "max_gross_exposure").exposures == (
        Exposure(account.pk, LANE, D(300), D(60), D(0)),
        Exposure(account.pk, "ETH/USDT", None, D(0), D(0)),
        Exposure(other.pk, LANE, D(0), D(0), D(7)),
        Exposure(foreign.pk, LANE, None, D(9), D(0)),
    )


def test_a_strategys_exposure_is_what_it_traded_itself(
    account: Account, strategy: Strategy
) -> None:
    priced(account)
    priced(account, "ETH/USDT", "10")
    PositionFactory.create(account=account, quantity="5")
    PositionFactory.create(account=account, symbol="ETH/USDT", quantity="1")
    mine = OrderFactory.create(account=account, strategy=strategy, state="filled")
    FillFactory.create(order=mine, quantity="3")
    FillFactory.create(order=mine, quantity="1", side="sell")
    FillFactory.create(order=mine, symbol="ETH/USDT", quantity="4")
    FillFactory.create(order__account=account, quantity="3")
    OrderFactory.create(account=account, strategy=strategy, reserved_value="8")
    assert told(account, strategy, "max_strategy_exposure").strategy_exposures == (
        Exposure(account.pk, LANE, D(200), D(8), D(0)),
        Exposure(account.pk, "ETH/USDT", D(10), D(0), D(0)),
    )


def test_a_strategys_exposure_begins_where_the_position_was_last_flat(
    account: Account, strategy: Strategy
) -> None:
    """It bought 1, which somebody else sold; then it sold 1 short."""
    priced(account)
    mine = OrderFactory.create(account=account, strategy=strategy, state="filled")
    FillFactory.create(order=mine, quantity="1")
    FillFactory.create(order__account=account, quantity="1", side="sell")
    first = FillFactory.create(order=mine, quantity="1", side="sell")
    PositionFactory.create(account=account, quantity="-1", first_fill_id=first.pk)
    assert told(account, strategy, "max_strategy_exposure").strategy_exposures == (
        Exposure(account.pk, LANE, D(-100), D(0), D(0)),
    )


def test_own_limits_rest_at_the_venue_whatever_account_they_are_of(
    account: Account, strategy: Strategy
) -> None:
    limit = {"type": "limit", "state": "open"}
    OrderFactory.create(account=account, price="61000", side="sell", **limit)
    OrderFactory.create(account=AccountFactory.create(), price="59000", **limit)
    OrderFactory.create(account=AccountFactory.create(environment="sandbox"), price="1", **limit)
    OrderFactory.create(account=account, symbol="ETH/USDT", price="2", **limit)
    OrderFactory.create(account=account, price="3", type="limit", state="canceled")
    OrderFactory.create(account=account, price="4", time_in_force="ioc", **limit)
    assert told(account, strategy, "self_match").resting == (
        Resting(Side.SELL, D(61000)),
        Resting(Side.BUY, D(59000)),
    )


@pytest.mark.usefixtures("standing_clock")
def test_recent_orders_count_as_they_were_asked_for(account: Account, strategy: Strategy) -> None:
    """A market order that was sent as a collar's limit is compared as a market order."""
    now = timezone.now()
    market = SignalFactory.create()
    limit = SignalFactory.create(alert={"symbol": LANE, "order_type": "limit", "price": "59000.50"})
    made = {"account": account, "type": "limit", "price": "63000"}
    OrderFactory.create(signal=market, created_at=now - timedelta(seconds=9), **made)
    OrderFactory.create(signal=limit, created_at=now - timedelta(seconds=5), **made)
    OrderFactory.create(signal=limit, role="exit", created_at=now, **made)
    OrderFactory.create(signal=SignalFactory.create(), state="denied", created_at=now, **made)
    OrderFactory.create(
        signal=SignalFactory.create(), created_at=now - timedelta(seconds=11), **made
    )
    found = told(account, strategy, "duplicate_order", value=10).recent
    assert found is not None
    assert sorted(found, key=lambda one: one.at) == [
        Recent(Side.BUY, D("0.01"), None, now - timedelta(seconds=9)),
        Recent(Side.BUY, D("0.01"), D("59000.50"), now - timedelta(seconds=5)),
    ]


@pytest.mark.usefixtures("standing_clock")
def test_entries_are_counted_over_the_window_of_the_limit(
    account: Account, strategy: Strategy
) -> None:
    now = timezone.now()
    Strategy.objects.update(created_at=now - timedelta(days=1))
    strategy.refresh_from_db()
    for seconds in (1, 29, 31):
        OrderFactory.create(strategy=strategy, created_at=now - timedelta(seconds=seconds))
    OrderFactory.create(strategy=strategy, created_at=now, state="denied")
    OrderFactory.create(strategy=strategy, created_at=now, role="exit")
    OrderFactory.create(created_at=now)
    read = told(account, strategy, "repeated_execution", window="30")
    assert read.entries_within == {30: 2}


@pytest.mark.usefixtures("standing_clock")
def test_entries_of_before_the_clock_was_set_back_are_not_within_the_window(
    account: Account, strategy: Strategy
) -> None:
    now = timezone.now()
    for seconds in (59, 61, 3600):
        OrderFactory.create(strategy=strategy, created_at=now + timedelta(seconds=seconds))
    assert told(account, strategy, "repeated_execution").entries_within == {60: 1}


def test_what_was_before_an_operators_release_does_not_count(
    account: Account, strategy: Strategy
) -> None:
    rejected = {"strategy": strategy, "state": "rejected"}
    OrderFactory.create(created_at=timezone.now(), **rejected)
    read = told(account, strategy, "repeated_execution", "reject_streak")
    assert read.entries_within == {60: 1}
    assert read.rejects is not None
    assert read.rejects.count == 1
    for state in (TradingState.State.HALTED, TradingState.State.ACTIVE):
        scope = TradingState.Scope.STRATEGY
        switch.change(state, scope=scope, key=strategy.slug, reason="looked into it")
    read = told(account, strategy, "repeated_execution", "reject_streak")
    assert (read.entries_within, read.rejects) == ({60: 0}, Streak(0))


def test_rejections_in_a_row_end_with_an_order_the_venue_took(
    account: Account, strategy: Strategy
) -> None:
    for state in ("rejected", "filled", "rejected", "denied", "pending", "unknown", "rejected"):
        OrderFactory.create(strategy=strategy, state=state, created_at=timezone.now())
    streak = told(account, strategy, "reject_streak").rejects
    assert streak is not None
    assert streak.count == 2


def test_losses_in_a_row_are_those_of_whole_exits(account: Account, strategy: Strategy) -> None:
    def left(minutes: int, *results: str, **columns: Any) -> None:
        exit = OrderFactory.create(
            **{"account": account, "strategy": strategy, "role": "exit", "filled_quantity": "0.01"}
            | columns
        )
        for result in results:
            FillFactory.create(
                order=exit, realised_pnl=result, recorded_at=NOON + timedelta(minutes=minutes)
            )

    left(1, "-9")
    left(2, "5")
    left(3, "-1")
    left(4, "-4", "3")
    left(5, "-1", role="stop_loss")
    left(6, "-1", role="entry")
    left(7, "5", account=AccountFactory.create())
    assert told(account, strategy, "loss_streak").losses == Streak(3, NOON + timedelta(minutes=5))


def test_slices_and_the_parts_of_a_stop_are_one_exit(account: Account, strategy: Strategy) -> None:
    """Five slices of one sale at a loss are one loss, and so are the stops that were one at a time."""
    signal = SignalFactory.create(strategy=strategy)
    exits = {"account": account, "strategy": strategy, "filled_quantity": "0.01", "role": "exit"}

    def left(minutes: int, result: str, **columns: Any) -> None:
        order = OrderFactory.create(**exits | columns)
        moment = NOON + timedelta(minutes=minutes)
        FillFactory.create(order=order, realised_pnl=result, recorded_at=moment)

    parent = OrderFactory.create(**exits)
    left(1, "-3", parent=parent, slice_number=1)
    left(4, "2", parent=parent, slice_number=2)
    left(2, "-1", role="stop_loss", signal=signal)
    left(3, "-1", role="stop_loss", signal=signal)
    left(5, "-1", signal=signal)
    assert told(account, strategy, "loss_streak").losses == Streak(3, NOON + timedelta(minutes=5))


def test_free_funds_are_what_the_venue_said_less_what_followed(
    account: Account, strategy: Strategy
) -> None:
    now = timezone.now()
    assert told(account, strategy, "max_margin_share").free_funds is None
    account.balances = {name: {"total": "9", "free": "50"} for name in ("USDT", "USD", "BTC")}
    account.balances_at = now
    account.options = {"leverage": 4}
    OrderFactory.create(account=account, reserved_value="8", created_at=now + timedelta(seconds=1))
    earlier = now - timedelta(seconds=1)
    OrderFactory.create(account=account, reserved_value="9", created_at=earlier, state="open")
    for unsent in ("awaiting_approval", "approved", "pending"):
        OrderFactory.create(account=account, reserved_value="4", created_at=earlier, state=unsent)
    OrderFactory.create(account=account, reserved_value="9", created_at=now, state="denied")
    read = told(account, strategy, "max_margin_share")
    assert (read.free_funds, read.leverage) == (95, 4)
    for seconds in (-91, 120):
        account.balances_at = now + timedelta(seconds=seconds)
        assert told(account, strategy, "max_margin_share").free_funds is None


@pytest.mark.parametrize(
    ("state", "acknowledged", "free"),
    [
        ("submitting", None, 60),
        ("unknown", None, 60),
        ("open", 1, 60),
        ("filled", 1, 60),
        ("filled", -1, 100),
        ("not_placed", None, 100),
    ],
)
@pytest.mark.usefixtures("standing_clock")
def test_an_earlier_entry_ties_up_funds_until_the_venue_can_have_counted_it(
    account: Account, strategy: Strategy, state: str, acknowledged: int | None, free: int
) -> None:
    now = timezone.now()
    account.balances = {"USDT": {"total": "100", "free": "100"}}
    account.balances_at = now
    OrderFactory.create(
        account=account,
        reserved_value="40",
        state=state,
        created_at=now - timedelta(minutes=5),
        acknowledged_at=acknowledged and now + timedelta(seconds=acknowledged),
    )
    assert told(account, strategy, "max_margin_share").free_funds == free


@pytest.mark.usefixtures("standing_clock")
def test_what_slices_have_filled_since_ties_up_funds(account: Account, strategy: Strategy) -> None:
    now = timezone.now()
    account.balances = {"USDT": {"total": "100", "free": "100"}}
    account.balances_at = now
    made = {"account": account, "created_at": now - timedelta(minutes=5)}
    parent = OrderFactory.create(
        state="slicing", reserved_value="40", quantity="4", filled_quantity="2", **made
    )
    for number, seconds in ((1, -60), (2, 1)):
        OrderFactory.create(
            parent=parent, slice_number=number, state="filled", reserved_value="10",
            quantity="1", filled_quantity="1",
            acknowledged_at=now + timedelta(seconds=seconds), **made,
        )  # fmt: skip
    assert told(account, strategy, "max_margin_share").free_funds == 70


# --- the account's day ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "starts", "now", "day", "began"),
    [
        ("UTC", time(), "2026-07-01 00:00", "2026-07-01", "2026-07-01 00:00"),
        ("America/New_York", time(17), "2026-07-01 20:59", "2026-06-30", "2026-06-30 21:00"),
        ("America/New_York", time(17), "2026-07-01 21:00", "2026-07-01", "2026-07-01 21:00"),
        ("America/New_York", time(17), "2026-12-01 21:30", "2026-11-30", "2026-11-30 22:00"),
        ("Europe/Zurich", time(0), "2026-03-29 12:00", "2026-03-29", "2026-03-28 23:00"),
    ],
)
def test_a_day_begins_by_the_accounts_own_clock(
    account: Account, zone: str, starts: time, now: str, day: str, began: str
) -> None:
    account.day_zone, account.day_starts = zone, starts
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    found, since = days.day_of(account, moment)
    assert (f"{found}", f"{since.astimezone(UTC):%Y-%m-%d %H:%M}") == (day, began)


def test_a_days_result_is_what_was_realised_and_what_prices_changed_since_it_began(
    account: Account,
) -> None:
    for hours, pnl in ((13, "-100"), (11, "-7"), (1, "2")):
        FillFactory.create(
            order__account=account, recorded_at=NOON - timedelta(hours=hours), realised_pnl=pnl
        )
    PositionFactory.create(account=account, quantity="2", average_price="90")
    priced(account, price="100")
    assert days.today(account, NOON) == Day(D(-5), D(0), D(0))
    Instrument.objects.update(last_price=D(110))
    assert days.today(account, NOON) == Day(D(-5), D(20), D(15))
    Instrument.objects.update(last_price=D(80))
    assert days.today(account, NOON) == Day(D(-5), D(-40), D(15))
    assert AccountDay.objects.get().opening_unrealised == 20
    tomorrow = days.today(account, NOON + timedelta(days=1))
    assert tomorrow == Day(D(0), D(0), D(0))


def test_prices_of_a_real_venue_grow_old(account: Account) -> None:
    PositionFactory.create(account=account)
    assert days.today(account, timezone.now()).result is None
    priced(account)
    Account.objects.update(environment="sandbox")
    assert days.today(account, timezone.now()).unrealised == 0
    with time_machine.travel(timezone.now() + timedelta(minutes=6), tick=False):
        assert days.today(account, timezone.now()).unrealised is None
        Account.objects.update(environment="dry_run")
        assert days.today(account, timezone.now()).unrealised == 0


def test_a_read_notes_the_price_every_few_seconds(scripted: Callable[..., Account]) -> None:
    from execution import facts
    from execution.alerts import Action, Alert
    from tests.brokers.scripted import script_of

    account = scripted()
    script, alert = script_of(account), Alert(symbol=LANE, action=Action.BUY)
    now = timezone.now()
    seen = []
    for seconds, price in ((0, 100), (1, 200), (6, 200), (12, 200)):
        script.price = D(price)
        with time_machine.travel(now + timedelta(seconds=seconds), tick=False):
            before = facts.read_market(account, LANE, alert, is_exit=False).previous
            seen.append(before and before.price)
    assert seen == [None, 100, 100, 200]


def test_a_gap_over_the_weekend_belongs_to_the_day_it_opens_on(
    scripted: Callable[..., Account],
) -> None:
    from execution.reconcile import reconcile_account
    from tests.brokers.scripted import script_of

    account = scripted(environment="sandbox")
    script = script_of(account)
    script.price = D(100)
    PositionFactory.create(account=account, quantity="2", average_price="90")
    friday = datetime(2026, 7, 3, 20, tzinfo=UTC)
    with time_machine.travel(friday, tick=False):
        reconcile_account(account)
    script.quote_failure = QuoteUnavailableError("the market is closed")
    sunday = friday + timedelta(days=2)
    with time_machine.travel(sunday, tick=False):
        reconcile_account(account)
        assert days.today(account, sunday) == Day(D(0), None, D(0))
    script.quote_failure, script.price = None, D(80)
    for opening in (sunday + timedelta(hours=2), sunday + timedelta(days=14)):
        with time_machine.travel(opening, tick=False):
            reconcile_account(account)
            assert days.today(account, opening) == Day(D(0), D(-40), D(0))
        script.price = D(60)


def test_a_day_that_begins_as_the_market_opens_begins_with_the_prices_before_it(
    scripted: Callable[..., Account],
) -> None:
    """Also where an alert is decided before anybody compares the account."""
    from execution import facts
    from execution.alerts import Action, Alert
    from tests.brokers.scripted import script_of

    account = scripted(environment="sandbox", day_zone="America/New_York", day_starts=time(hour=17))
    script, alert = script_of(account), Alert(symbol=LANE, action=Action.BUY)
    PositionFactory.create(account=account, quantity="2", average_price="90")
    opens = datetime(2026, 7, 5, 21, tzinfo=UTC)
    for moment, price in ((opens - timedelta(days=2), 100), (opens, 80)):
        script.price = D(price)
        with time_machine.travel(moment, tick=False):
            facts.read_market(account, LANE, alert, is_exit=False)
    assert days.today(account, opens) == Day(D(0), D(-40), D(0))


def test_a_price_of_before_the_clock_was_set_back_says_nothing_of_now(
    scripted: Callable[..., Account],
) -> None:
    from execution import facts
    from execution.alerts import Action, Alert
    from tests.brokers.scripted import script_of

    account = scripted(environment="sandbox")
    script, alert = script_of(account), Alert(symbol=LANE, action=Action.BUY)
    PositionFactory.create(account=account, quantity="1", average_price="90")
    script.price = D(100)
    later = timezone.now()
    with time_machine.travel(later, tick=False):
        facts.read_market(account, LANE, alert, is_exit=False)
    script.price = D(70)
    now = later - timedelta(hours=1)
    with time_machine.travel(now, tick=False):
        assert days.unrealised(account, now) is None
        assert facts.read_market(account, LANE, alert, is_exit=False).previous is None
        assert days.unrealised(account, now) == -20


def test_a_reconciliation_looks_at_what_positions_are_worth(
    scripted: Callable[..., Account],
) -> None:
    from execution.reconcile import reconcile_account
    from tests.brokers.scripted import script_of

    account = scripted(environment="sandbox")
    script_of(account).price = D(100)
    PositionFactory.create(account=account, quantity="2", average_price="90")
    reconcile_account(account)
    assert days.unrealised(account, timezone.now()) == 20
    assert AccountDay.objects.get().opening_unrealised == 20
