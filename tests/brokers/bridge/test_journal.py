"""The agent's durable memory."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from brokers.bridge.codec import CodecError, dump, load
from brokers.bridge.journal import Journal, OtherOrderError
from brokers.types import ExecutionResult, OrderRequest, OrderType, Outcome, Quote, Side
from tests.brokers.contract import limit, order

ACCEPTED = ExecutionResult(Outcome.ACCEPTED, "77", detail="done", evidence={"a": ["1"]})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.sqlite3")
    yield made
    made.close()


def test_an_id_is_taken_once_and_gives_its_result(journal: Journal) -> None:
    request = limit()
    assert journal.intend("a", "fks1", request) is None
    begun = journal.intend("a", "fks1", request)
    assert begun is not None
    assert (begun.result, begun.request) == (None, request)
    journal.finish("a", request.identity, ACCEPTED)
    ended = journal.intend("a", "fks1", request)
    assert ended is not None
    assert ended.result == ACCEPTED


def test_the_same_id_with_another_order_is_refused(journal: Journal) -> None:
    request = limit()
    journal.intend("a", "fks1", request)
    with pytest.raises(OtherOrderError):
        journal.intend("a", "fks1", replace(request, quantity=Decimal(1)))
    later = datetime.now(UTC) + timedelta(minutes=1)
    again = replace(request, send_before=later, reference_price=Decimal(7))
    assert journal.intend("a", "fks1", again) is not None


def test_accounts_do_not_share_ids(journal: Journal) -> None:
    request = limit()
    assert journal.intend("a", "fks1", request) is None
    assert journal.intend("b", "fks1", request) is None


@pytest.mark.parametrize(("retry_after", "attempts"), [(1, 2), (None, 1)])
def test_only_what_never_left_and_shall_be_tried_again_is_sent_again(
    journal: Journal, retry_after: int | None, attempts: int
) -> None:
    request = limit()
    journal.intend("a", "fks1", request)
    result = ExecutionResult(Outcome.NOT_SENT, code="X", retry_after=retry_after)
    journal.finish("a", request.identity, result)
    again = journal.intend("a", "fks1", request)
    assert (again is None) is (retry_after is not None)
    found = journal.find("a", request.identity)
    assert found is not None
    assert found.attempt == attempts


def test_notes_add_up_and_orders_are_found_by_both_ids(journal: Journal) -> None:
    request = limit()
    journal.intend("a", "fks1", request)
    journal.note("a", request.identity, {"ticket": 5})
    journal.note("a", request.identity, {"level": "sl"})
    found = journal.by_client_id("a", "fks1")
    assert found is not None
    assert found.notes == {"ticket": 5, "level": "sl"}
    assert journal.since("a", found.sent_at) == [found]
    assert journal.since("a", found.sent_at + timedelta(seconds=1)) == []
    with pytest.raises(KeyError):
        journal.note("a", "unknown", {})


def test_a_second_agent_cannot_share_the_file(tmp_path: Path, journal: Journal) -> None:
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Journal(tmp_path / "journal.sqlite3")


def test_what_was_intended_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from brokers.bridge.journal import Journal;"
        "from tests.brokers.contract import limit;"
        "j = Journal(pathlib.Path(sys.argv[1]));"
        "j.intend('a', 'fks1', limit()); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "journal.sqlite3"
    setup = "import django; django.setup();"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", setup + script, str(path)])
    assert done.returncode == -9
    journal = Journal(path)
    assert journal.unresolved() == 1
    found = journal.by_client_id("a", "fks1")
    assert found is not None
    assert found.result is None
    journal.close()


def test_it_syncs_every_commit(journal: Journal) -> None:
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_values_come_back_as_they_went() -> None:
    request = order(
        quantity=Decimal("0.00000001"),
        price=Decimal("1E+3"),
        send_before=datetime.now(UTC),
        type=OrderType.LIMIT,
    )
    assert load(OrderRequest, dump(request)) == request
    assert dump(request)["quantity"] == "0.00000001"
    assert dump(request)["price"] == "1000"
    assert load(ExecutionResult, dump(ACCEPTED)) == ACCEPTED


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Decimal, "NaN"),
        (Decimal, "1e5"),
        (Decimal, 1),
        (Decimal, "1" * 39),
        (Side, "hold"),
        (datetime, "2026-01-01T00:00:00"),
        (Quote, {"symbol": "X"}),
        (Quote, {"symbol": "X", "colour": "red"}),
        (tuple[Decimal, ...], {"0": "1"}),
        (ExecutionResult, {"outcome": "accepted"}),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(kind: object, data: object) -> None:
    with pytest.raises(CodecError):
        load(kind, data)
