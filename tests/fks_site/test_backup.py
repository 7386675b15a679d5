"""``backup`` and ``restore``: the same rows, or none; and nothing trades before it was compared."""

from __future__ import annotations

import gzip
import io
import json
import os
import secrets
import tarfile
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, ProgrammingError, connection
from django.utils import timezone

from brokers.models import Account, ExchangeCredential
from execution.models import Fill, Heartbeat, Order, Signal
from execution.states import OrderState, SignalState
from fks_site import backup
from fks_site.sealed_files import BLOCK
from risk import audit, sealing
from risk.models import AuditEvent, TradingState
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(240)]
PRICE = Decimal("60000.000000000000000001")


def run(command: str, *arguments: object) -> dict[str, Any]:
    out = io.StringIO()
    call_command(command, *map(str, arguments), stdout=out)
    answer: dict[str, Any] = json.loads(out.getvalue())
    return answer


def changed(whole: bytes, start: int, step: int = 1) -> Iterator[bytes]:
    """The backup with one bit another, here and there from ``start`` on. Deflate can say the same
    thing in several ways: a bit that changes nothing of what is restored is passed over."""
    text = unpacked(whole)
    for at in range(start, len(whole), step):
        other = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        if text is None or unpacked(other) != text:
            yield other


def unpacked(packed: bytes) -> bytes | None:
    """None for what is no gzip, such as an encrypted backup."""
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error):
        return None


def everything() -> dict[str, list[Any]]:
    """All rows of all tables."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        rows = {}
        for table in tables:
            cursor.execute(f'SELECT t::text FROM "{table}" AS t ORDER BY 1')  # noqa: S608
            rows[table] = cursor.fetchall()
    return rows


@pytest.fixture
def book() -> Order:
    """A little of everything that must come back to the last digit."""
    account = AccountFactory.create(name="desk", reconciled_at=timezone.now())
    signal = SignalFactory.create(state=SignalState.EXECUTED, body='{"comment": "a\\tb\\\\.\\n"}')
    order = OrderFactory.create(account=account, signal=signal, state=OrderState.FILLED)
    FillFactory.create(order=order, price=PRICE)
    PositionFactory.create(account=account, realised_pnl=Decimal("-0.1"))
    audit.record("drill", "desk", after={"note": "ünïcode \u2028"})
    sealing.seal()
    return order


@pytest.mark.parametrize("options", [(), ("--encrypt",)])
def test_what_was_backed_up_comes_back_and_what_came_later_goes(
    book: Order, tmp_path: Path, options: tuple[str, ...]
) -> None:
    before = everything()
    file = tmp_path / "fks.backup"
    made = run("backup", file, *options)
    assert made["encrypted"] == bool(options)
    assert made["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("restore", file, "--check")["rows"] == made["rows"]
    AccountFactory.create(name="later")
    Fill.objects.all().delete()

    answer = run("restore", file, "--replace")

    assert answer["made_at"] == made["made_at"]
    after = everything()
    changed = {
        "brokers_account",  # to be compared
        "risk_tradingstate",  # halted
        "risk_auditevent",  # both said so
        "execution_heartbeat",
    }
    same = before.keys() - changed
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert Fill.objects.get().price == PRICE
    assert list(Account.objects.values_list("name", "reconciled_at")) == [("desk", None)]
    assert set(before["risk_auditevent"]) <= set(after["risk_auditevent"])
    sealing.seal()
    assert sealing.verify() is not None
    with connection.cursor() as cursor:
        cursor.execute("SELECT has_schema_privilege('public', 'public', 'USAGE')")
        assert cursor.fetchone() == (True,), "roles beside ours see the tables they were granted"


@pytest.fixture
def _more_migrations(settings: Any) -> Iterator[None]:
    """Those of held_migrations, under the name of an app that has none of its own."""
    settings.MIGRATION_MODULES = {"humanize": "tests.fks_site.held_migrations"}
    yield
    call_command("migrate", "humanize", "zero", verbosity=0)


@pytest.mark.usefixtures("_more_migrations")
def test_a_backup_of_older_code_is_brought_up_to_this_one(book: Order, tmp_path: Path) -> None:
    """Also over an index that is built without a transaction."""
    call_command("migrate", "humanize", "0002", verbosity=0)
    call_command("migrate", "risk", "0001", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO held (a, b) VALUES (1, 2)")
    try:
        run("backup", tmp_path / "b")
    finally:
        call_command("migrate", verbosity=0)
    newest = _applied()
    Fill.objects.all().delete()

    run("restore", tmp_path / "b", "--replace")

    assert Fill.objects.get().price == PRICE
    assert _applied() == newest
    assert "held_b" in _indexes()
    with connection.cursor() as cursor:
        cursor.execute("SELECT a, b, c FROM held")
        assert cursor.fetchall() == [(1, 2, None)]
    with pytest.raises(ProgrammingError, match="never changed or removed"):
        AuditEvent.objects.update(reason="another")


def _applied() -> set[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT app, name FROM django_migrations")
        return set(cursor.fetchall())


def _indexes() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.parametrize("failing", ["_copy_everything", "_migrate"])
def test_what_fails_on_the_way_leaves_the_database_as_it_was(
    book: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    run("backup", tmp_path / "b")
    AccountFactory.create(name="later")
    before = everything()

    def full(*_: object) -> None:
        raise OperationalError("no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(backup, failing, full)
        with pytest.raises(CommandError, match="nothing was restored: no space left"):
            run("restore", tmp_path / "b", "--replace")
    assert everything() == before

    run("restore", tmp_path / "b", "--replace")
    assert list(Account.objects.values_list("name", flat=True)) == ["desk"]


def test_new_rows_get_new_ids(book: Order, tmp_path: Path) -> None:
    last = AuditEvent.objects.latest("pk").pk
    run("backup", tmp_path / "b")
    run("restore", tmp_path / "b", "--replace")

    assert audit.record("drill", "after").pk > last
    assert AccountFactory.create(name="next").pk > Account.objects.get(name="desk").pk


def test_nothing_trades_before_it_was_compared(book: Order, tmp_path: Path) -> None:
    """What was on its way may have been sent since, so it is looked for and not sent."""
    now = timezone.now()
    account = Account.objects.get()
    waiting = OrderFactory.create(account=account, signal=None)
    sending = OrderFactory.create(
        account=account,
        signal=None,
        state=OrderState.SUBMITTING,
        attempt=1,
        submitted_at=now,
        lease_until=now + timedelta(seconds=30),
    )
    undecided = SignalFactory.create()
    Heartbeat.objects.create(name="worker", at=now - timedelta(minutes=5))
    run("backup", tmp_path / "b")

    answer = run("restore", tmp_path / "b", "--replace")

    assert (answer["orders_in_doubt"], answer["signals_expired"]) == (2, 1)
    for order in (waiting, sending):
        order.refresh_from_db()
        assert order.state == OrderState.UNKNOWN
        assert "restored from a backup" in order.detail
    assert [row.event for row in waiting.journal.order_by("id")][-2:] == ["claim", "lose_sight"]
    undecided.refresh_from_db()
    assert (undecided.state, undecided.reason) == (SignalState.EXPIRED, "STALE")
    switch = TradingState.objects.get(scope=TradingState.Scope.GLOBAL)
    assert switch.state == TradingState.State.HALTED
    assert answer["made_at"] in switch.reason
    assert not Heartbeat.objects.exists()
    assert AuditEvent.objects.filter(kind="backup.restored").count() == 1


def test_nobody_stays_logged_in(tmp_path: Path) -> None:
    Session.objects.create(session_key="k" * 32, expire_date=timezone.now() + timedelta(days=1))
    run("backup", tmp_path / "b")
    run("restore", tmp_path / "b", "--replace")

    assert not Session.objects.exists()


def test_one_snapshot_whatever_is_written_meanwhile(
    book: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, late = backup._copy_out, []

    def copy_slowly(*arguments: Any) -> int:
        if not late:
            late.append(SignalFactory.create())
        return original(*arguments)

    monkeypatch.setattr(backup, "_copy_out", copy_slowly)
    run("backup", tmp_path / "b")
    run("restore", tmp_path / "b", "--replace")

    assert list(Signal.objects.values_list("pk", flat=True)) == [book.signal_id]


class TestRefusals:
    def test_a_backup_is_never_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_text("precious")
        with pytest.raises(CommandError, match="never overwritten"):
            run("backup", tmp_path / "b")
        assert (tmp_path / "b").read_text() == "precious"

    def test_a_failure_leaves_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(backup, "_copy_out", fail)
        with pytest.raises(CommandError, match="No space left"):
            run("backup", tmp_path / "b")
        assert list(tmp_path.iterdir()) == []

    def test_not_over_rows_without_being_told(self, book: Order, tmp_path: Path) -> None:
        run("backup", tmp_path / "b")
        with pytest.raises(CommandError, match="not empty"):
            run("restore", tmp_path / "b")
        assert Account.objects.get().reconciled_at is not None

    def test_not_while_fks_runs(self, book: Order, tmp_path: Path) -> None:
        run("backup", tmp_path / "b")
        Heartbeat.objects.create(name="worker", at=timezone.now())
        with pytest.raises(CommandError, match="running"):
            run("restore", tmp_path / "b", "--replace")
        assert Order.objects.get() == book

    @pytest.mark.parametrize("options", [(), ("--encrypt",)])
    def test_not_from_a_file_that_was_cut_off_or_changed(
        self, book: Order, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        file = tmp_path / "b"
        run("backup", file, *options)
        whole = file.read_bytes()
        for share in (0.0, 0.3, 0.7, 0.99):
            file.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(CommandError, match="no whole backup"):
                run("restore", file, "--replace")
        for share in (0.3, 0.6, 0.9):
            file.write_bytes(next(changed(whole, int(len(whole) * share))))
            with pytest.raises(CommandError, match="no whole backup"):
                run("restore", file, "--replace")
        assert Order.objects.get() == book

    @pytest.mark.parametrize("options", [(), ("--encrypt",)])
    def test_no_bit_of_it_may_be_another(
        self, book: Order, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        file = tmp_path / "b"
        run("backup", file, *options)
        whole = file.read_bytes()
        header = 10  # of gzip: when it was packed, and by which system
        for other in changed(whole, header, step=max(1, len(whole) // 400)):
            file.write_bytes(other)
            with pytest.raises(backup.Unusable):
                backup.check(file)

    def test_not_with_another_head(self, book: Order, tmp_path: Path) -> None:
        """A name changed and packed again, so that every checksum but its own is right."""
        file = tmp_path / "b"
        run("backup", file)
        text = gzip.decompress(file.read_bytes())
        changed = text.replace(b'"failures"', b'"failurse"', 1)
        assert changed != text
        file.write_bytes(gzip.compress(changed))
        with pytest.raises(CommandError, match="no whole backup"):
            run("restore", file, "--replace")
        assert Order.objects.get() == book

    def test_not_with_another_key(self, book: Order, tmp_path: Path, settings: Any) -> None:
        run("backup", tmp_path / "b", "--encrypt")
        mine = settings.CREDENTIAL_KEYS
        settings.CREDENTIAL_KEYS = [urlsafe_b64encode(os.urandom(32)).decode()]
        with pytest.raises(CommandError, match="none of CREDENTIAL_KEYS"):
            run("restore", tmp_path / "b", "--check")
        settings.CREDENTIAL_KEYS = [*settings.CREDENTIAL_KEYS, *mine]
        assert run("restore", tmp_path / "b", "--check")["rows"] > 0

    def test_not_from_newer_code(self, book: Order, tmp_path: Path) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO django_migrations (app, name, applied) "
                "VALUES ('execution', '9999_tomorrow', now())"
            )
        try:
            run("backup", tmp_path / "b")
            with pytest.raises(CommandError, match=r"newer code: execution\.9999_tomorrow"):
                run("restore", tmp_path / "b", "--replace")
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM django_migrations WHERE name = '9999_tomorrow'")
        assert Order.objects.get() == book


def test_an_encrypted_backup_shows_nothing(book: Order, tmp_path: Path) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    Signal.objects.update(body=canary * (BLOCK // 20))
    run("backup", tmp_path / "sealed", "--encrypt")
    run("backup", tmp_path / "plain")

    assert canary.encode() in gzip.decompress((tmp_path / "plain").read_bytes())
    sealed = (tmp_path / "sealed").read_bytes()
    assert canary.encode() not in sealed
    with pytest.raises(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(sealed)):
        pass
    run("restore", tmp_path / "sealed", "--replace")
    assert Signal.objects.get().body.startswith(canary)


def test_credentials_come_back_sealed(book: Order, tmp_path: Path) -> None:
    credential = ExchangeCredential(account=Account.objects.get())
    credential.seal({"api_key": "k" * 20, "api_secret": "s" * 20})
    credential.save()
    run("backup", tmp_path / "b")
    run("restore", tmp_path / "b", "--replace")

    assert b"s" * 20 not in gzip.decompress((tmp_path / "b").read_bytes())
    assert ExchangeCredential.objects.get().reveal()["api_secret"] == "s" * 20
