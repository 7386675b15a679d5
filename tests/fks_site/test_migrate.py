"""``manage.py migrate`` beside traffic: it waits a moment for a table, never with others behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _migrations(settings: Any) -> Iterator[None]:
    """Those of held_migrations, under the name of an app that has none of its own."""
    settings.MIGRATION_MODULES = {"humanize": "tests.fks_site.held_migrations"}
    migrate("0001")
    yield
    migrate("zero")


def migrate(to: str, **options: Any) -> None:
    call_command("migrate", "humanize", to, verbosity=0, **options)


@pytest.fixture
def other() -> Iterator[psycopg.Connection[Any]]:
    """Somebody else at the same database, in a transaction that has read the table."""
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as one:
        one.execute("SELECT * FROM held")
        yield one
        one.rollback()


def columns() -> list[str]:
    with connection.cursor() as cursor:
        return [one.name for one in connection.introspection.get_table_description(cursor, "held")]


def lock_timeout() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        return str(cursor.fetchone()[0])


class Hears(StringIO):
    """Does something when the first sentence is said."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self._then = then

    def write(self, text: str) -> int:
        if "tries again" in text:
            self._then()
        return super().write(text)


def test_a_table_in_use_is_waited_for_in_short_turns(other: psycopg.Connection[Any]) -> None:
    said = Hears(other.rollback)
    migrate("0002", lock_timeout=0.05, lock_pause=0, stdout=said)

    assert columns() == ["a", "b"]
    assert said.getvalue() == (
        "\nhumanize.0002_column waited 0.05 s for a table that others use. It tries again in 0 s, "
        "29 more times.\n"
    )
    assert lock_timeout() == "0"


def test_in_the_end_it_says_what_to_look_for(other: psycopg.Connection[Any]) -> None:
    with pytest.raises(CommandError, match=r"0002_column waited 0.05 s .* pg_stat_activity"):
        migrate("0002", lock_timeout=0.05, lock_attempts=2, lock_pause=0)

    assert columns() == ["a"]
    assert lock_timeout() == "0"


@pytest.mark.parametrize("attempts", [0, -1])
def test_no_attempt_at_all_is_refused(attempts: int) -> None:
    with pytest.raises(CommandError, match="at least 1"):
        migrate("0002", lock_attempts=attempts)

    assert columns() == ["a"]


def test_what_is_not_atomic_does_not_wait_without_limit(other: psycopg.Connection[Any]) -> None:
    other.rollback()
    migrate("0003")
    other.execute("SELECT * FROM held")

    with pytest.raises(CommandError, match=r"0004_not_atomic waited 0.05 s"):
        migrate("0004", lock_timeout=0.05, lock_attempts=1)

    other.rollback()
    assert columns() == ["a", "b"]


def test_an_index_made_beside_traffic_waits_as_long_as_it_takes(
    other: psycopg.Connection[Any],
) -> None:
    """Given up half made it would be there, invalid, at the next attempt."""
    is_made = threading.Event()

    def make() -> None:
        try:
            migrate("0003", lock_timeout=0.05, lock_attempts=1)
        finally:
            connections.close_all()
            is_made.set()

    other.rollback()
    migrate("0002")
    other.execute("INSERT INTO held (a) VALUES (1)")
    thread = threading.Thread(target=make)
    thread.start()
    assert not is_made.wait(0.3)
    other.commit()
    thread.join(20)

    with connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'held_b'::regclass")
        assert cursor.fetchone() == (True,)
