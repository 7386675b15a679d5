"""``manage.py wait_for_migrations``: new code starts when its tables are there, and its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from fks_site import schema
from fks_site.management.commands import wait_for_migrations

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_for_migrations, "LOOK", 0.0)


def record(name: str) -> None:
    MigrationRecorder(connection).record_applied("risk", name)


@contextmanager
def forgotten(*names: str) -> Iterator[None]:
    recorder = MigrationRecorder(connection)
    rows = recorder.migration_qs.filter(app="risk", name__in=names)
    assert rows.count() == len(names)
    rows.delete()
    try:
        yield
    finally:
        for name in set(names) - set(rows.values_list("name", flat=True)):
            record(name)


def names_of_risk() -> list[str]:
    rows = MigrationRecorder(connection).migration_qs.filter(app="risk")
    return sorted(rows.values_list("name", flat=True))


class Hears(StringIO):
    """Does something each time a sentence is said."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self._then = then

    def write(self, text: str) -> int:
        if "Waiting" in text:
            self._then()
        return super().write(text)


def test_a_sound_database_is_not_waited_for() -> None:
    said = StringIO()
    call_command("wait_for_migrations", timeout=0.0, stdout=said)

    assert said.getvalue() == "The database has what this code needs.\n"


def test_each_thing_that_is_missing_is_waited_for_and_named_once() -> None:
    *_, before, last = names_of_risk()
    to_come = [before, last]
    said = Hears(lambda: record(to_come.pop(0)))
    with forgotten(before, last):
        call_command("wait_for_migrations", stdout=said)

    assert said.getvalue().splitlines() == [
        f"Waiting: risk.{before} and 1 more not applied.",
        f"Waiting: risk.{last} not applied.",
        "The database has what this code needs.",
    ]


def test_it_gives_up_when_told_to() -> None:
    last = names_of_risk()[-1]
    with forgotten(last), pytest.raises(CommandError, match=rf"after 0 s risk\.{last} not"):
        call_command("wait_for_migrations", timeout=0.0)


def test_migrations_of_newer_code_are_no_reason_to_wait() -> None:
    """Back to the older release: it starts on the database of the newer one."""
    recorder = MigrationRecorder(connection)
    recorder.record_applied("risk", "9999_of_a_later_release")
    try:
        call_command("wait_for_migrations", timeout=0.0, stdout=StringIO())
    finally:
        recorder.record_unapplied("risk", "9999_of_a_later_release")


def test_a_server_that_is_away_is_waited_for_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(connection.settings_dict, "HOST", "/nowhere")
    connection.close()
    with pytest.raises(CommandError, match=r"as it should: OperationalError$"):
        call_command("wait_for_migrations", timeout=0.0)
    connection.close()


def test_tables_our_role_was_not_granted_yet() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE fks_late; GRANT fks_late TO CURRENT_USER")
        cursor.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO fks_late")
        cursor.execute("REVOKE INSERT ON execution_fill FROM fks_late")
        cursor.execute("SET ROLE fks_late")
        try:
            assert schema.closed_tables() == ["execution_fill"]
        finally:
            cursor.execute("RESET ROLE; DROP OWNED BY fks_late; DROP ROLE fks_late")
    assert schema.closed_tables() == []
