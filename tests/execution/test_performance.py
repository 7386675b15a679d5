"""Round trips, their figures, the curve and its deepest fall."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from execution.performance import (
    Figures,
    Traded,
    Trip,
    curve,
    deepest_drawdown,
    figures,
    trips,
    trips_of_parts,
)

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
BTC = ("paper", "BTC/USDT")
ETH = ("paper", "ETH/USDT")


def trade(minute: int, quantity: str, realised: str = "0", lane: tuple[str, str] = BTC) -> Traded:
    return Traded(lane, START + timedelta(minutes=minute), Decimal(quantity), Decimal(realised))


def trip(minute: int, result: str, lane: tuple[str, str] = BTC) -> Trip:
    return Trip(lane, START + timedelta(minutes=minute), Decimal(result))


def of(strategy: str, minute: int, quantity: str, realised: str = "0") -> Traded:
    return replace(trade(minute, quantity, realised), lane=(*BTC, strategy))


def part(strategy: str, minute: int, result: str) -> Trip:
    return replace(trip(minute, result), lane=(*BTC, strategy))


class TestTrips:
    def test_from_flat_to_flat_with_all_its_parts_and_fees(self) -> None:
        trades = [
            trade(0, "1", "-2"),
            trade(1, "1", "-2"),
            trade(2, "-0.5", "9"),
            trade(3, "-1.5", "20"),
        ]
        assert trips(trades) == [trip(3, "25")]

    def test_what_is_still_open_is_no_trip(self) -> None:
        assert trips([trade(0, "1", "-2"), trade(1, "-0.5", "9")]) == []

    def test_a_turn_over_ends_one_and_begins_the_next(self) -> None:
        trades = [trade(0, "1"), trade(1, "-3", "7"), trade(2, "2", "-4")]
        assert trips(trades) == [trip(1, "7"), trip(2, "-4")]

    def test_a_fee_in_the_coin_leaves_dust_that_ends_the_trip(self) -> None:
        trades = [
            trade(0, "0.999"),
            trade(1, "-0.998", "5"),
            trade(2, "0.5"),
            trade(3, "-0.5", "3"),
        ]
        assert trips(trades) == [trip(1, "5"), trip(3, "3")]

    def test_more_than_dust_is_a_position(self) -> None:
        assert trips([trade(0, "1"), trade(1, "-0.994", "5")]) == []

    def test_lanes_are_apart(self) -> None:
        trades = [
            trade(0, "1"),
            trade(1, "2", lane=ETH),
            trade(2, "-2", "1", ETH),
            trade(3, "-1", "2"),
        ]
        assert trips(trades) == [trip(2, "1", ETH), trip(3, "2")]

    def test_what_was_held_before_the_first_trade_counts(self) -> None:
        assert trips([trade(0, "-1", "6")], {BTC: Decimal(1)}) == [trip(0, "6")]
        assert trips([trade(0, "-1", "6")]) == []


class TestTripsOfParts:
    def test_a_part_ends_by_its_own_trades_while_others_hold(self) -> None:
        trades = [of("holds", 0, "5"), of("trend", 1, "1", "-1"), of("trend", 2, "-1", "8")]
        assert trips_of_parts(trades) == [part("trend", 2, "7")]

    def test_a_part_ends_with_the_position_whoever_closed_it(self) -> None:
        trades = [of("trend", 0, "1", "-1"), of("by hand", 1, "-1", "50")]
        again = [of("trend", 2, "1", "-1"), of("trend", 3, "-1", "101")]
        ended = [part("trend", 1, "-1"), part("by hand", 1, "50"), part("trend", 3, "100")]
        assert trips_of_parts([*trades, *again]) == ended

    def test_all_parts_end_with_a_position_that_is_turned_over(self) -> None:
        trades = [of("first", 0, "1", "-1"), of("second", 1, "-3", "9")]
        again = [of("first", 2, "1", "2"), of("first", 3, "1", "3")]
        ended = [part("first", 1, "-1"), part("second", 1, "9")]
        both = [part("second", 3, "0"), part("first", 3, "5")]
        assert trips_of_parts([*trades, *again]) == [*ended, *both]

    def test_one_part_is_the_whole(self) -> None:
        moves = [("1", "-1"), ("-3", "7"), ("2", "-4"), ("0.999", "0"), ("-0.998", "5")]
        trades = [of("only", n, *move) for n, move in enumerate(moves)]
        assert trips_of_parts(trades) == [
            part("only", 1, "6"),
            part("only", 2, "-4"),
            part("only", 4, "5"),
        ]

    def test_parts_held_before_that_add_up_to_nothing_are_over(self) -> None:
        held = {(*BTC, "trend"): Decimal(1), (*BTC, "by hand"): Decimal("-0.999")}
        trades = [of("trend", 0, "1"), of("trend", 1, "-1", "100")]
        assert trips_of_parts(trades, held) == [part("trend", 1, "100")]
        held[*BTC, "by hand"] = Decimal("-0.5")
        assert trips_of_parts(trades, held) == []


class TestFigures:
    def test_of_gains_and_losses(self) -> None:
        found = figures([trip(0, "10"), trip(1, "-4"), trip(2, "0"), trip(3, "6")])
        assert found == Figures(4, 2, Decimal(12), Decimal(3), Decimal(4))
        assert found.win_rate == Decimal("0.5")

    def test_of_nothing(self) -> None:
        assert figures([]) == Figures(0, 0, Decimal(0), None, None)
        assert figures([]).win_rate is None

    def test_without_a_loss_there_is_no_profit_factor(self) -> None:
        assert figures([trip(0, "10")]).profit_factor is None


def test_the_curve_adds_up_and_its_deepest_fall_is_measured_from_the_peak() -> None:
    results = ["5", "-2", "4", "-9", "1"]
    points = curve(trade(n, "1", result) for n, result in enumerate(results))
    assert [str(point.total) for point in points] == ["5", "3", "7", "-2", "-1"]
    assert deepest_drawdown(points) == Decimal(9)


def test_a_loss_from_the_start_is_a_fall_from_zero() -> None:
    assert deepest_drawdown(curve([trade(0, "1", "-3")])) == Decimal(3)
    assert deepest_drawdown([]) == 0


@given(st.lists(st.tuples(st.integers(-5, 5).filter(bool), st.integers(-50, 50)), max_size=40))
def test_no_result_is_counted_twice_or_lost(moves: list[tuple[int, int]]) -> None:
    trades = [trade(n, str(quantity), str(result)) for n, (quantity, result) in enumerate(moves)]
    held = sum(quantity for quantity, _ in moves)
    closing = [] if held == 0 else [trade(len(moves), str(-held), "0")]
    ended = trips([*trades, *closing])
    assert sum(one.result for one in ended) == sum(result for _, result in moves)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-5, 5).filter(bool), st.integers(-50, 50)),
        max_size=40,
    )
)
def test_parts_bring_what_the_whole_brought(moves: list[tuple[str, int, int]]) -> None:
    trades = [
        of(name, n, str(quantity), str(result)) for n, (name, quantity, result) in enumerate(moves)
    ]
    held = sum(quantity for _, quantity, _ in moves)
    if held:
        trades.append(of("d", len(moves), str(-held)))
    ended = trips_of_parts(trades)
    assert sum(one.result for one in ended) == sum(result for _, _, result in moves)
