"""The audit chain: sealed beside its writers, and broken by whatever is done to it afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from pytest_django import DjangoAssertNumQueries

from risk import audit, correlation, sealing
from risk.management.commands import verify_audit
from risk.models import AuditChain, AuditEvent
from risk.sealing import BrokenChain
from tests.threads import together

pytestmark = pytest.mark.django_db


def write(count: int) -> list[AuditEvent]:
    return [
        audit.record("limit.changed", f"limit {n}", before={"value": "1.50"}, after={"n": n})
        for n in range(count)
    ]


def tamper(sql: str, *values: object) -> None:
    """Change rows as somebody would who owns the database: with the guard switched off."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE risk_auditevent DISABLE TRIGGER risk_guard_audit")
        cursor.execute(sql, values or None)
        cursor.execute("ALTER TABLE risk_auditevent ENABLE TRIGGER risk_guard_audit")


@pytest.fixture
def sealed() -> list[AuditEvent]:
    write(5)
    assert sealing.seal() == 5
    return list(AuditEvent.objects.order_by("position"))


def test_events_are_linked_in_order(sealed: list[AuditEvent]) -> None:
    assert [event.position for event in sealed] == [1, 2, 3, 4, 5]
    assert sealed[0].previous == sealing.GENESIS
    assert [event.previous for event in sealed[1:]] == [event.hash for event in sealed[:-1]]
    assert len({event.hash for event in sealed}) == 5
    end = sealing.verify()
    assert end is not None
    assert (end.position, end.hash) == (5, sealed[-1].hash)


def test_what_is_sealed_is_not_sealed_again(sealed: list[AuditEvent]) -> None:
    assert sealing.seal() == 0
    write(2)
    assert sealing.seal() == 2
    end = sealing.verify()
    assert end is not None
    assert end.position == 7


def test_more_than_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "BATCH", 2)
    write(5)
    assert sealing.seal() == 5
    end = sealing.verify()
    assert end is not None
    assert end.position == 5


def test_nothing_is_an_unbroken_chain() -> None:
    assert sealing.seal() == 0
    assert sealing.verify() is None


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE risk_auditevent SET actor = 'nobody' WHERE position = 3", "position 3: .*changed"),
        (
            'UPDATE risk_auditevent SET before = \'{"value": "1.5"}\' WHERE position = 2',
            "position 2: .*changed",
        ),
        ("UPDATE risk_auditevent SET at = at + interval '1 us' WHERE position = 1", "position 1: "),
        ("DELETE FROM risk_auditevent WHERE position = 3", "position 3 is missing"),
        (
            "UPDATE risk_auditevent SET position = CASE position WHEN 2 THEN -3 ELSE -2 END "
            "WHERE position IN (2, 3);"
            "UPDATE risk_auditevent SET position = -position WHERE position < 0",
            "position 2: .*does not follow",
        ),
        (
            "INSERT INTO risk_auditevent (at, kind, actor, address, correlation_id, subject, reason,"
            " position, previous, hash) VALUES (now(), 'x', 'nobody', '', '', '', '', 0, '', '')",
            "position 0: the chain begins at 1",
        ),
        ("DELETE FROM risk_auditevent WHERE position > 3", "ends at position 3, and 5 were sealed"),
        ("DELETE FROM risk_auditevent", "ends at position 0, and 5 were sealed"),
    ],
    ids=[
        "edit",
        "edit a number",
        "edit the time",
        "delete",
        "reorder",
        "before the first",
        "cut off",
        "empty",
    ],
)
def test_the_first_broken_event_is_named(sealed: list[AuditEvent], sql: str, said: str) -> None:
    tamper(sql)
    with pytest.raises(BrokenChain, match=said):
        sealing.verify()


def test_the_chains_own_row_is_held_to_its_events(sealed: list[AuditEvent]) -> None:
    AuditChain.objects.update(hash="0" * 63 + "1")
    with pytest.raises(BrokenChain, match="position 5: the chain's own row names another hash"):
        sealing.verify()


@pytest.mark.parametrize(
    ("before", "after_page", "seen"),
    [(0, 0, 0), (5, 0, 7), (5, 1, 5)],
    ids=["the first ones", "between two pages", "after the last page"],
)
def test_what_is_sealed_while_the_chain_is_read_is_no_break(
    before: int, after_page: int, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(before)
    sealing.seal()
    read, pages = sealing._page_after, []

    def and_meanwhile(position: int) -> list[AuditEvent]:
        page = read(position)
        pages.append(page)
        if len(pages) == after_page + 1:
            write(2)
            sealing.seal()
        return page

    monkeypatch.setattr(sealing, "_page_after", and_meanwhile)
    end = sealing.verify()
    assert (end.position if end else 0) == seen
    monkeypatch.undo()
    end = sealing.verify()
    assert end is not None
    assert end.position == before + 2


def test_an_event_added_behind_the_end_is_named(sealed: list[AuditEvent]) -> None:
    last = sealed[-1]
    (late,) = write(1)
    tamper(
        "UPDATE risk_auditevent SET position = 6, previous = %s, hash = %s WHERE position IS NULL",
        last.hash,
        sealing.digest(late, 6, last.hash),
    )
    with pytest.raises(BrokenChain, match="ends at position 6, and 5 were sealed"):
        sealing.verify()


def test_a_chain_forged_from_its_end_betrays_itself_to_an_anchor(sealed: list[AuditEvent]) -> None:
    anchor = sealing.verify()
    assert anchor is not None
    tamper("UPDATE risk_auditevent SET position = NULL, previous = '', hash = '', actor = 'x'")
    AuditChain.objects.all().delete()
    sealing.seal()
    assert sealing.verify() is not None, "the forgery is a sound chain"
    with pytest.raises(BrokenChain, match=r"position 5: an anchor of .* names another hash"):
        sealing.verify([anchor])


def test_a_shortened_chain_betrays_itself_to_an_anchor(sealed: list[AuditEvent]) -> None:
    anchor = sealing.verify()
    assert anchor is not None
    tamper("DELETE FROM risk_auditevent WHERE position > 3")
    AuditChain.objects.update(position=3, hash=sealed[2].hash)
    assert sealing.verify() is not None
    with pytest.raises(BrokenChain, match="position 5 is missing"):
        sealing.verify([anchor])


@pytest.mark.parametrize(
    "change",
    [
        lambda: AuditEvent.objects.filter(position=2).update(reason="nicer"),
        lambda: AuditEvent.objects.filter(position=2).update(hash="0" * 64),
        lambda: AuditEvent.objects.filter(position=2).update(position=None),
        lambda: AuditEvent.objects.filter(position=2).delete(),
    ],
)
def test_the_database_refuses_to_change_what_is_sealed(
    sealed: list[AuditEvent], change: Callable[[], object]
) -> None:
    with pytest.raises(DatabaseError, match="never changed or removed"), transaction.atomic():
        change()
    assert sealing.verify() is not None


def test_the_database_refuses_to_change_what_waits_for_its_seal() -> None:
    (event,) = write(1)
    with pytest.raises(DatabaseError), transaction.atomic():
        AuditEvent.objects.filter(pk=event.pk).update(actor="somebody else")
    with pytest.raises(DatabaseError), transaction.atomic():
        event.delete()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE risk_auditevent SET reason = 'nicer'",
        "DELETE FROM risk_auditevent",
        "TRUNCATE risk_auditevent",
        "ALTER TABLE risk_auditevent DISABLE TRIGGER risk_guard_audit",
    ],
)
def test_the_role_of_production_can_record_and_seal_and_nothing_else(sql: str) -> None:
    call_command("grant_role", "--role", "fks_app", stdout=StringIO())
    with connection.cursor() as cursor:
        cursor.execute("GRANT fks_app TO CURRENT_USER; SET LOCAL ROLE fks_app")
        write(3)
        assert sealing.seal() == 3
        assert sealing.verify() is not None
        refused = "permission denied|must be owner"
        with pytest.raises(DatabaseError, match=refused), transaction.atomic():
            cursor.execute(sql)
        cursor.execute("RESET ROLE")


@pytest.mark.django_db(transaction=True)
def test_the_role_is_made_and_logs_in_with_the_password_fks_will_use(tmp_path: Path) -> None:
    address = tmp_path / "database_url"
    address.write_text("postgres://fks_app:pass%40word@db:5432/fks\n")
    said = StringIO()
    try:
        for _ in range(2):  # with every upgrade
            call_command("grant_role", "--url-file", str(address), stdout=said)
        settings = connection.get_connection_params()
        mine = {name: settings[name] for name in ("dbname", "host", "port") if name in settings}
        with psycopg.connect(user="fks_app", password="pass@word", **mine) as fks:
            fks.execute("DELETE FROM execution_order")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                fks.execute("DELETE FROM risk_auditevent")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("GRANT fks_app TO CURRENT_USER")
            cursor.execute("DROP OWNED BY fks_app; DROP ROLE fks_app")
    assert said.getvalue() == (
        "fks_app may do what FKS does, and only add to the audit trail.\n" * 2
    )


def test_the_owner_of_the_tables_is_no_role_for_fks() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        (owner,) = cursor.fetchone()
    with pytest.raises(CommandError, match="owns the tables"):
        call_command("grant_role", "--role", owner)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read"), ("postgres://db:5432/fks", "names no user with a password")],
)
def test_an_address_without_a_role_is_refused(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    address = tmp_path / "database_url"
    if content is not None:
        address.write_text(content)
    with pytest.raises(CommandError, match=sentence):
        call_command("grant_role", "--url-file", str(address))


def test_what_is_recorded_for_a_signal_carries_its_id() -> None:
    with correlation.concerning("0197-signal"):
        inside = audit.record("breaker.opened", "breaker paper")
        named = audit.record("order.corrected", "order", correlation_id="another")
    outside = audit.record("breaker.closed", "breaker paper")
    found = (inside.correlation_id, named.correlation_id, outside.correlation_id)
    assert found == ("0197-signal", "another", "")


@pytest.mark.django_db(transaction=True)
def test_writers_and_sealers_side_by_side_keep_one_chain() -> None:
    together(*[lambda: write(20)] * 4, *[sealing.seal] * 3)
    sealing.seal()
    end = sealing.verify()
    assert end is not None
    assert end.position == 80


@pytest.mark.django_db(transaction=True)
def test_an_event_that_commits_late_is_sealed_after_its_neighbours() -> None:
    with transaction.atomic():
        (late,) = write(1)
        together(lambda: write(2))
        assert together(sealing.seal) == [2]
    assert sealing.seal() == 1
    late.refresh_from_db()
    assert late.position == 3
    assert late.pk < min(AuditEvent.objects.filter(position__lt=3).values_list("pk", flat=True))
    assert sealing.verify() is not None


# --- the command ----------------------------------------------------------------------------------


def test_anchors_are_exported_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "anchors"
    write(2)
    call_command("verify_audit", "--export", str(file))
    write(1)
    call_command("verify_audit", "--export", str(file), "--anchors", str(file))
    assert [json.loads(line)["position"] for line in file.read_text().splitlines()] == [2, 3]
    assert "3 events, unbroken; 0 wait" in capsys.readouterr().out


def test_a_broken_chain_is_named(sealed: list[AuditEvent]) -> None:
    tamper("UPDATE risk_auditevent SET actor = 'nobody' WHERE position = 3")
    with pytest.raises(CommandError, match=f"position 3: event {sealed[2].pk} .* was changed"):
        call_command("verify_audit")


@pytest.mark.parametrize("text", ["{", '{"position": 1}', "[]"])
def test_a_file_that_holds_no_anchors_is_refused(
    tmp_path: Path, sealed: list[AuditEvent], text: str
) -> None:
    (tmp_path / "anchors").write_text(text)
    with pytest.raises(CommandError, match="--anchors cannot be read"):
        call_command("verify_audit", "--anchors", str(tmp_path / "anchors"))


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--anchors", "--anchors cannot be read"), ("--export", "--export cannot be written")],
)
def test_a_file_without_a_name_is_no_file(
    sealed: list[AuditEvent], option: str, sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        call_command("verify_audit", option, "")


def test_a_long_trail_is_read_page_by_page(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    """However long it is, no more than a page of it is in memory, and no statement reads it all."""
    monkeypatch.setattr(sealing, "PAGE", 3)
    write(8)
    sealing.seal()
    seen: list[tuple[int, int]] = []

    with django_assert_num_queries(7) as asked:
        end = sealing.verify(progress=lambda *figures: seen.append(figures))

    assert end is not None
    assert end.position == 8
    assert seen == [(3, 8), (6, 8), (8, 8)]
    before, *pages = [
        one["sql"] for one in asked.captured_queries if "risk_auditevent" in one["sql"]
    ]
    assert before.endswith("LIMIT 1")
    assert len(pages) == 4
    assert all(sql.endswith("LIMIT 3") for sql in pages)


def test_a_broken_event_of_a_later_page_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PAGE", 3)
    events = write(8)
    sealing.seal()
    tamper("UPDATE risk_auditevent SET reason = 'nicer' WHERE id = %s", events[4].pk)
    with pytest.raises(BrokenChain, match="position 5: event"):
        sealing.verify()

    tamper("DELETE FROM risk_auditevent WHERE id = %s", events[4].pk)
    with pytest.raises(BrokenChain, match="position 5 is missing; the next is 6"):
        sealing.verify()


def test_a_long_verification_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PAGE", 3)
    monkeypatch.setattr(verify_audit, "LONG", 8)
    write(7)
    said, told = StringIO(), StringIO()
    call_command("verify_audit", stdout=said, stderr=told)
    assert told.getvalue() == ""

    write(1)
    call_command("verify_audit", stdout=said, stderr=told)
    lines = [re.sub(r"about \d+ s", "about N s", line) for line in told.getvalue().splitlines()]
    assert lines == [
        "3 of 8 events, about N s to go",
        "6 of 8 events, about N s to go",
        "8 of 8 events, about N s to go",
    ]
    assert said.getvalue().endswith("8 events, unbroken; 0 wait to be sealed.\n")
