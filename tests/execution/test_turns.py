from __future__ import annotations

from execution.turns import Turn, Turns


def taken(turns: Turns, key: str) -> Turn:
    turn = turns.take(key)
    assert turn is not None
    return turn


def test_one_has_the_turn_and_looks_again_for_those_who_came() -> None:
    turns = Turns()
    first = taken(turns, "a")
    assert turns.take("a") is None
    assert turns.take("a") is None
    second = taken(turns, "b")
    assert not turns.leave(first)
    assert turns.leave(first)
    assert turns.leave(second)
    assert turns.take("a")


def test_who_comes_while_the_holder_looks_again_is_not_forgotten() -> None:
    turns = Turns()
    turn = taken(turns, "a")
    assert turns.take("a") is None
    assert not turns.leave(turn)
    assert turns.take("a") is None
    assert not turns.leave(turn)
    assert turns.leave(turn)


def test_a_failure_frees_the_turn() -> None:
    turns = Turns()
    turn = taken(turns, "a")
    assert turns.take("a") is None
    turns.drop(turn)
    assert turns.leave(taken(turns, "a"))


def test_who_asks_is_seen_to_by_the_holder_and_takes_nothing() -> None:
    turns = Turns()
    assert not turns.ask("a")
    turn = taken(turns, "a")
    assert turns.ask("a")
    assert not turns.leave(turn)
    assert turns.leave(turn)
    assert not turns.ask("a")


def test_a_thread_that_hangs_keeps_nobody_out_and_ends_no_turn_of_another() -> None:
    now = 0.0
    turns = Turns(longest=15, clock=lambda: now)
    hangs = taken(turns, "a")
    now = 15.0
    assert turns.ask("a")
    now = 15.1
    assert not turns.ask("a")
    other = taken(turns, "a")
    assert turns.leave(hangs)
    turns.drop(hangs)
    assert turns.take("a") is None
    assert not turns.leave(other)
    now = 30.0
    assert turns.ask("a"), "a turn that is kept begins anew"
