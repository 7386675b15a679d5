"""What a venue reports becomes fills, a position and a state: once, in any order, repeatedly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from prometheus_client import REGISTRY

from brokers.types import OrderReport, VenueStatus
from execution import fills
from execution.models import Fill, Order, OrderEvent, Position
from execution.states import OrderState
from risk.models import AuditEvent
from risk.types import ReasonCode
from tests.brokers.scripted import AT, report_of, trade
from tests.factories import OrderFactory, SignalFactory
from tests.threads import together

pytestmark = pytest.mark.django_db
S, V = OrderState, VenueStatus
D = Decimal


def sent_order(**columns: object) -> Order:
    return OrderFactory.create(**{"state": S.SUBMITTING, "attempt": 1} | columns)


def apply(order: Order, *reports: OrderReport) -> list[fills.Applied]:
    results = [fills.apply_report(order, report, source="test") for report in reports]
    order.refresh_from_db()
    return results


def position() -> tuple[Decimal, Decimal | None, Decimal, Decimal]:
    row = Position.objects.get()
    return row.quantity, row.average_price, row.realised_pnl, row.fees


def test_a_whole_fill_books_everything_at_once() -> None:
    order = sent_order()
    assert apply(order, report_of(order, V.FILLED, trade("1", fee="0.6"))) == [
        fills.Applied(new_fills=1, moved=True)
    ]
    assert (order.state, order.filled_quantity, order.average_price) == (S.FILLED, D("0.01"), 60000)
    assert order.broker_order_id == f"V{order.identity[-8:]}"
    assert order.acknowledged_at is not None
    assert order.finished_at is not None
    fill = Fill.objects.get()
    assert (fill.order, fill.trade_id, fill.quantity, fill.price) == (order, "1", D("0.01"), 60000)
    assert (fill.fee, fill.fee_currency, fill.realised_pnl, fill.at) == (
        D("0.6"),
        "USDT",
        D("-0.6"),
        AT,
    )
    assert position() == (D("0.01"), 60000, D("-0.6"), D("0.6"))
    assert OrderEvent.objects.get().detail == "test"


def test_the_same_report_twice_changes_nothing_the_second_time() -> None:
    order = sent_order()
    report = report_of(order, V.FILLED, trade("1"))
    assert apply(order, report, report)[1] == fills.Applied(new_fills=0, moved=False)
    assert Fill.objects.count() == OrderEvent.objects.count() == 1
    assert position()[0] == D("0.01")


def test_a_trade_listed_twice_in_one_report_counts_once() -> None:
    order = sent_order()
    apply(order, report_of(order, V.FILLED, trade("1"), trade("1"), filled="0.01"))
    assert (order.state, Fill.objects.count()) == (S.FILLED, 1)


def test_partial_fills_add_up() -> None:
    order = sent_order()
    first, second = trade("1", "0.004", 60000), trade("2", "0.006", 61000)
    apply(order, report_of(order, V.PARTIALLY_FILLED, first))
    assert (order.state, order.filled_quantity, order.remaining) == (
        S.PARTIALLY_FILLED,
        D("0.004"),
        D("0.006"),
    )
    assert order.next_check_at is not None
    apply(order, report_of(order, V.FILLED, first, second))
    assert (order.state, order.average_price) == (S.FILLED, 60600)
    assert position()[:2] == (D("0.01"), 60600)


def test_fills_of_one_report_are_booked_in_the_order_they_happened() -> None:
    order = sent_order()
    late = trade("a", "0.004", 50000, at=AT + timedelta(seconds=1))
    apply(order, report_of(order, V.FILLED, late, trade("b", "0.006", 60000)))
    assert list(Fill.objects.order_by("id").values_list("trade_id", flat=True)) == ["b", "a"]


def test_an_older_report_takes_nothing_back() -> None:
    order = sent_order()
    done = report_of(order, V.FILLED, trade("1", "0.004"), trade("2", "0.006"))
    older = report_of(order, V.PARTIALLY_FILLED, trade("1", "0.004"))
    oldest = report_of(order, V.OPEN)
    apply(order, done)
    assert apply(order, older, oldest) == [fills.Applied(0, moved=False)] * 2
    assert (order.state, order.filled_quantity) == (S.FILLED, D("0.01"))
    assert not AuditEvent.objects.exists()


def test_open_is_old_news_once_something_traded() -> None:
    order = sent_order()
    apply(
        order, report_of(order, V.PARTIALLY_FILLED, trade("1", "0.004")), report_of(order, V.OPEN)
    )
    assert order.state == S.PARTIALLY_FILLED


@pytest.mark.parametrize("status", [V.FILLED, V.CANCELED, V.EXPIRED])
def test_an_end_is_believed_only_once_its_fills_are_here(status: VenueStatus) -> None:
    order = sent_order()
    apply(order, report_of(order, status, filled="0.01"))
    assert (order.state, order.filled_quantity) == (S.OPEN, 0)
    apply(order, report_of(order, status, trade("1", "0.004"), filled="0.01"))
    assert (order.state, order.filled_quantity) == (S.PARTIALLY_FILLED, D("0.004"))
    apply(order, report_of(order, status, trade("2", "0.006"), filled="0.01"))
    assert order.state == status.value


def test_filled_without_a_single_fill_is_not_believed() -> None:
    order = sent_order()
    apply(order, report_of(order, V.FILLED))
    assert order.state == S.OPEN


def test_a_report_of_working_whose_fills_make_it_whole_is_a_fill() -> None:
    order = sent_order()
    apply(order, report_of(order, V.PARTIALLY_FILLED, trade("1")))
    assert order.state == S.FILLED


def test_a_late_fill_after_canceled_is_booked_and_told() -> None:
    order = sent_order(state=S.OPEN, broker_order_id="V1")
    apply(order, report_of(order, V.CANCELED))
    apply(order, report_of(order, V.CANCELED, trade("1", "0.004")))
    assert (order.state, order.filled_quantity) == (S.CANCELED, D("0.004"))
    assert position()[0] == D("0.004")
    assert OrderEvent.objects.last().event == "late_fill"
    assert AuditEvent.objects.get().kind == "order.corrected"


def test_a_cancel_that_lost_against_a_fill_ends_filled() -> None:
    order = sent_order(state=S.OPEN, broker_order_id="V1")
    apply(order, report_of(order, V.CANCELED), report_of(order, V.FILLED, trade("1")))
    assert (order.state, order.reason) == (S.FILLED, "")
    told = AuditEvent.objects.get()
    assert (told.before, told.after) == ({"state": "canceled"}, {"state": "filled"})


def test_an_order_proven_absent_that_turns_up_is_reopened() -> None:
    order = sent_order(state=S.NOT_PLACED, reason=ReasonCode.NOT_PLACED)
    apply(order, report_of(order, V.OPEN))
    assert (order.state, order.reason, order.finished_at) == (S.OPEN, "", None)
    assert AuditEvent.objects.get().kind == "order.corrected"


def test_a_report_reaches_an_order_that_waits_to_be_sent_again() -> None:
    order = sent_order(state=S.PENDING)
    apply(order, report_of(order, V.FILLED, trade("1")))
    assert order.state == S.FILLED


def test_what_a_venue_fills_beyond_the_order_is_booked_and_told() -> None:
    order = sent_order()
    report = report_of(order, V.FILLED, trade("1", "0.008"), trade("2", "0.007"))
    apply(order, report, report)
    assert (order.state, order.filled_quantity) == (S.FILLED, D("0.01"))
    assert position()[0] == D("0.015")
    told = AuditEvent.objects.get()
    assert (told.kind, told.subject) == ("order.overfilled", f"order {order.pk}")
    assert (told.before, told.after) == ({"quantity": "0.01"}, {"filled": "0.015"})


def test_a_late_overfill_is_booked_and_told() -> None:
    order = sent_order()
    apply(order, report_of(order, V.FILLED, trade("1")))
    apply(order, report_of(order, V.FILLED, trade("1"), trade("2", "0.005")))
    assert position()[0] == D("0.015")
    assert {told.kind for told in AuditEvent.objects.all()} == {
        "order.corrected",
        "order.overfilled",
    }


def test_a_fee_in_the_coin_leaves_the_position() -> None:
    order = sent_order()
    fee = trade("1", fee="0.00001", fee_currency="BTC")
    apply(order, report_of(order, V.FILLED, fee))
    assert order.filled_quantity == D("0.01")
    assert position() == (D("0.00999"), 60000, D("-0.6"), D("0.6"))


def test_a_fee_in_a_third_currency_is_noted_and_not_counted() -> None:
    order = sent_order()
    apply(order, report_of(order, V.FILLED, trade("1", fee="0.001", fee_currency="BNB")))
    assert position() == (D("0.01"), 60000, 0, 0)
    assert Fill.objects.get().fee_currency == "BNB"


def test_a_trade_booked_on_another_order_is_not_booked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = sent_order()
    apply(first, report_of(first, V.FILLED, trade("1")))
    second = sent_order(account=first.account)
    apply(second, report_of(second, V.FILLED, trade("1")))
    assert (second.state, Fill.objects.count()) == (S.OPEN, 1)
    assert f"of order {second.pk} is booked on {first.pk}" in caplog.text


def test_a_trade_the_venue_corrects_stays_as_booked_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    order = sent_order()
    apply(order, report_of(order, V.FILLED, trade("1")))
    apply(order, report_of(order, V.FILLED, trade("1")))
    assert caplog.text == ""
    apply(order, report_of(order, V.FILLED, trade("1", price=59000)))
    assert position()[:2] == (D("0.01"), 60000)
    told = f"trade 1 of order {order.pk} is booked as 0.01 at 60000"
    assert f"{told}, and the venue now says 0.01 at 59000" in caplog.text


def test_the_same_trade_id_in_two_symbols_of_an_account_is_two_trades() -> None:
    """Binance counts its trades per symbol."""
    first = sent_order()
    second = sent_order(account=first.account, symbol="ETH/USDT")
    for order in (first, second):
        assert apply(order, report_of(order, V.FILLED, trade("1")))[0].new_fills == 1
        assert order.state == S.FILLED
    booked = Fill.objects.order_by("id").values_list("symbol", "trade_id", "order")
    assert [*booked] == [(first.symbol, "1", first.pk), ("ETH/USDT", "1", second.pk)]
    assert {row.symbol: row.quantity for row in Position.objects.all()} == {
        first.symbol: D("0.01"),
        "ETH/USDT": D("0.01"),
    }


def test_the_same_trade_id_on_two_accounts_is_two_trades() -> None:
    for _ in range(2):
        order = sent_order()
        apply(order, report_of(order, V.FILLED, trade("1")))
    assert Fill.objects.count() == Position.objects.count() == 2


@pytest.mark.parametrize(
    ("state", "reason", "status", "kept"),
    [
        (S.UNKNOWN, "VENUE_UNREACHABLE", V.OPEN, ""),
        (S.UNKNOWN, "VENUE_UNREACHABLE", V.REJECTED, "VENUE_REJECTED"),
        (S.UNKNOWN, "VENUE_UNREACHABLE", V.CANCELED, ""),
        (S.CANCELING, "CANCELED_BY_SIGNAL", V.OPEN, "CANCELED_BY_SIGNAL"),
        (S.CANCELING, "CANCELED_BY_SIGNAL", V.CANCELED, "CANCELED_BY_SIGNAL"),
    ],
)
def test_the_reason_fits_the_state(
    state: OrderState, reason: str, status: VenueStatus, kept: str
) -> None:
    order = sent_order(state=state, reason=reason, detail="as it was")
    apply(order, report_of(order, status))
    assert order.reason == kept


def test_a_cancel_overtaken_by_the_fill_leaves_no_reason() -> None:
    order = sent_order(state=S.CANCELING, reason="CANCELED_BY_SIGNAL", detail="a signal asked")
    apply(order, report_of(order, V.FILLED, trade("1")))
    assert (order.state, order.reason, order.detail) == (S.FILLED, "", "")


def test_the_venues_words_stay_on_a_rejected_order() -> None:
    order = sent_order()
    apply(order, report_of(order, V.REJECTED, reason="Filter failure: NOTIONAL"))
    assert (order.state, order.reason, order.detail) == (
        S.REJECTED,
        "VENUE_REJECTED",
        "Filter failure: NOTIONAL",
    )


def test_a_report_clears_the_doubt() -> None:
    order = sent_order(state=S.UNKNOWN, unknown_since=AT, looks=1)
    apply(order, report_of(order, V.OPEN))
    assert (order.state, order.unknown_since, order.looks) == (S.OPEN, None, 0)


@time_machine.travel(AT, tick=False)
def test_questions_about_a_resting_order_grow_rarer() -> None:
    order = sent_order()
    delays = []
    for _ in range(7):
        apply(order, report_of(order, V.OPEN))
        assert order.next_check_at is not None
        delays.append((order.next_check_at - AT).total_seconds())
    assert delays == [0.2, 0.5, 1, 2, 3, 3, 3]
    assert OrderEvent.objects.count() == 1


def test_the_time_to_the_last_fill_is_observed() -> None:
    def observed() -> tuple[float, float]:
        names = ("fks_fill_seconds_count", "fks_fill_seconds_sum")
        count, total = (REGISTRY.get_sample_value(name) or 0.0 for name in names)
        return count, total

    order = sent_order()
    apply(order, report_of(order, V.OPEN))
    Order.objects.update(acknowledged_at=order.acknowledged_at - timedelta(seconds=7))
    count, total = observed()
    filled = report_of(order, V.FILLED, trade("1"))
    late = report_of(order, V.FILLED, trade("1"), trade("2"))
    apply(order, filled, filled, late)
    assert observed()[0] == count + 1
    assert 7 <= observed()[1] - total < 17


@pytest.mark.parametrize(
    ("side", "role", "price", "bucket"),
    [
        ("buy", "entry", "59940", "0.002"),
        ("sell", "exit", "59940", "-0.001"),
        ("sell", "entry", "60000", "0.0"),
        ("sell", "stop_loss", "59940", ""),
        ("buy", "entry", "", ""),
    ],
)
def test_slippage_to_the_alert_is_observed_once(
    side: str, role: str, price: str, bucket: str
) -> None:
    def observed() -> dict[str, float]:
        [family] = [one for one in REGISTRY.collect() if one.name == "fks_slippage"]
        upto = {one.labels["le"]: one.value for one in family.samples if "le" in one.labels}
        below = [0.0, *upto.values()]
        return {le: count - below[n] for n, (le, count) in enumerate(upto.items())}

    alert = {"symbol": "BTC/USDT", "action": side} | ({"price": price} if price else {})
    signal = SignalFactory.create(alert=alert)
    order = sent_order(side=side, role=role, signal=signal)
    before = observed()
    filled = report_of(order, V.FILLED, trade("1"))

    apply(order, report_of(order, V.OPEN), filled, filled)

    after = observed()
    assert [le for le in after if after[le] > before[le]] == [one for one in [bucket] if one]
    assert sum(after.values()) - sum(before.values()) == bool(bucket)


@pytest.mark.django_db(transaction=True)
def test_the_same_report_from_many_threads_is_booked_once() -> None:
    order = sent_order()
    report = report_of(order, V.FILLED, trade("1", "0.004"), trade("2", "0.006"))
    results = together(
        *[lambda: fills.apply_report(order, report, source="test") for _ in range(6)]
    )
    assert sorted(result.new_fills for result in results) == [0] * 5 + [2]
    assert OrderEvent.objects.count() == 1
    assert position()[0] == D("0.01")


@pytest.mark.django_db(transaction=True)
def test_reports_of_several_orders_add_up_in_one_position() -> None:
    first = sent_order()
    orders = [first] + [
        sent_order(account=first.account, state=S.OPEN, side=side)
        for side in ("buy", "sell", "buy", "buy")
    ]
    calls: list[Callable[[], fills.Applied]] = [
        lambda o=order, i=i: fills.apply_report(
            o, report_of(o, V.FILLED, trade(f"t{i}")), source="test"
        )
        for i, order in enumerate(orders)
    ]
    together(*calls, *calls)
    assert position()[0] == D("0.03")
    assert Fill.objects.count() == 5


def test_a_report_with_other_ids_keeps_what_is_known() -> None:
    order = sent_order(state=S.OPEN, broker_order_id="V1")
    apply(order, replace(report_of(order, V.FILLED, trade("1")), broker_order_id=""))
    assert order.broker_order_id == "V1"
