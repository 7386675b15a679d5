from __future__ import annotations

from execution.turns import Turns


def test_one_has_the_turn_and_looks_again_for_those_who_came() -> None:
    turns = Turns()
    assert turns.take("a")
    assert not turns.take("a")
    assert not turns.take("a")
    assert turns.take("b")
    assert not turns.leave("a")
    assert turns.leave("a")
    assert turns.leave("b")
    assert turns.take("a")


def test_who_comes_while_the_holder_looks_again_is_not_forgotten() -> None:
    turns = Turns()
    assert turns.take("a")
    assert not turns.take("a")
    assert not turns.leave("a")
    assert not turns.take("a")
    assert not turns.leave("a")
    assert turns.leave("a")


def test_a_failure_frees_the_turn() -> None:
    turns = Turns()
    assert turns.take("a")
    assert not turns.take("a")
    turns.drop("a")
    assert turns.take("a")
    assert turns.leave("a")


def test_who_asks_is_seen_to_by_the_holder_and_takes_nothing() -> None:
    turns = Turns()
    assert not turns.ask("a")
    assert turns.take("a")
    assert turns.ask("a")
    assert not turns.leave("a")
    assert turns.leave("a")
    assert not turns.ask("a")
