"""The embedded servers: what they promise, and that no way of dying keeps them from starting."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import environ
import kombu
import psutil
import psycopg
import pytest
import redis

from fks_site import addresses, processes
from fks_site.celery import transport_url
from fks_site.embedded import Postgres, Valkey
from fks_site.processes import StartError

ROOT = Path(__file__).resolve().parents[2]

needs_setpriv = pytest.mark.skipif(not shutil.which("setpriv"), reason="needs util-linux")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down")


def eventually(check: Callable[[], bool], *, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def postgres(var: Path) -> Iterator[Postgres]:
    server = Postgres(var, throw_away=True)
    server.start()
    yield server
    server.stop()


def connect(var: Path) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(addresses.urls(var).database, autocommit=True)


def value(var: Path, query: str) -> object:
    with connect(var) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def pid_of(server: Postgres) -> int:
    return int((server.data / "postmaster.pid").read_text().splitlines()[0])


class TestPostgres:
    @pytest.mark.parametrize(
        ("setting", "expected"),
        [
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("data_checksums", "on"),
            ("listen_addresses", ""),
            ("max_connections", "200"),
            ("server_encoding", "UTF8"),
            ("TimeZone", "UTC"),
        ],
    )
    def test_is_durable_and_only_on_its_socket(
        self, shared: Path, setting: str, expected: str
    ) -> None:
        assert value(shared, f"SHOW {setting}") == expected

    def test_sorts_by_code_point_and_keeps_every_digit(self, shared: Path) -> None:
        assert value(shared, "SELECT 'a' < 'B'") is False
        assert value(shared, "SELECT 1234567890.123456789012") == Decimal("1234567890.123456789012")

    def test_role_of_the_application_is_no_superuser(self, shared: Path) -> None:
        with (
            connect(shared) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("SELECT pg_read_file('postgresql.conf')")

    def test_keeps_its_rows_over_a_stop_and_over_a_kill(
        self, var: Path, postgres: Postgres
    ) -> None:
        with connect(var) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        postgres.stop()
        postgres.start()
        os.kill(pid_of(postgres), signal.SIGKILL)
        assert eventually(lambda: postgres.exit_status() is not None)
        postgres.start()
        assert value(var, "SELECT count(*) FROM kept") == 1

    def test_a_server_left_behind_is_stopped_first(self, var: Path, postgres: Postgres) -> None:
        first = pid_of(postgres)
        second = Postgres(var, throw_away=True)
        second.start()
        try:
            assert not alive(first)
            assert alive(pid_of(second))
            assert value(var, "SELECT 1") == 1
        finally:
            second.stop()

    def test_lock_files_of_a_stranger_are_stale(self, var: Path, postgres: Postgres) -> None:
        lock = postgres.data / "postmaster.pid"
        socket_lock = postgres.sockets / ".s.PGSQL.5432.lock"
        contents = lock.read_text(), socket_lock.read_text()
        pid = pid_of(postgres)
        postgres.stop()
        for path, text in zip((lock, socket_lock), contents, strict=True):
            path.write_text(text.replace(str(pid), str(os.getpid())))

        postgres.start()

        assert value(var, "SELECT 1") == 1

    def test_half_a_cluster_is_made_anew(self, var: Path) -> None:
        draft = var / "postgres.new"
        draft.mkdir(parents=True)
        (draft / "PG_VERSION").write_text("18\n")
        server = Postgres(var, throw_away=True)
        server.start()
        try:
            assert value(var, "SHOW fsync") == "off"
            assert not draft.exists()
        finally:
            server.stop()

    def test_says_why_it_does_not_start(self, var: Path, postgres: Postgres) -> None:
        postgres.stop()
        (postgres.data / "PG_VERSION").write_text("9.6\n")
        with pytest.raises(StartError) as caught:
            postgres.start()
        assert caught.value.code == "SERVER_NOT_READY"
        assert "FATAL" in str(caught.value)
        assert str(var / "log" / "postgres.log") in str(caught.value)

    @needs_root
    def test_below_a_private_directory_root_lends_one_capability(self, tmp_path: Path) -> None:
        private, program = tmp_path / "private", Path("/usr/bin/true")
        private.mkdir(mode=0o700)
        account = processes.unprivileged_account(private / "postgres", program)
        assert account is not None
        assert account.uid != 0
        assert account.capability in ("dac_read_search", "dac_override")

    @needs_root
    def test_files_belong_to_the_user_it_runs_as(self, shared: Path) -> None:
        owner = (shared / "postgres" / "PG_VERSION").stat().st_uid
        assert owner != 0
        assert psutil.Process(pid_of(Postgres(shared))).uids().effective == owner


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    var = tmp_path_factory.mktemp("shared") / "var"
    server = Postgres(var)
    server.start()
    yield var
    server.stop()


class TestValkey:
    def test_listens_only_on_its_socket(self, var: Path) -> None:
        server = Valkey(var)
        server.start()
        try:
            with redis.Redis.from_url(addresses.urls(var).redis) as client:
                assert client.config_get("port") == {"port": "0"}
                assert client.config_get("save") == {"save": ""}
        finally:
            server.stop()

    def test_one_left_behind_is_stopped_and_a_killed_one_starts_again(self, var: Path) -> None:
        first, second = Valkey(var), Valkey(var)
        first.start()
        second.start()
        try:
            assert eventually(lambda: first.exit_status() is not None)
            (one,) = [
                process
                for process in psutil.process_iter()
                if process.pid != os.getpid() and str(second.data) in _command(process)
            ]
            one.kill()
            assert eventually(lambda: second.exit_status() == -signal.SIGKILL)
            second.start()
            assert second.exit_status() is None
        finally:
            first.stop()
            second.stop()


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


class TestAddresses:
    def test_every_client_understands_them_in_an_odd_directory(self) -> None:
        with TemporaryDirectory() as short:
            self.check(Path(short, "a b%c"))

    def check(self, var: Path) -> None:
        postgres, valkey = Postgres(var, throw_away=True), Valkey(var)
        postgres.start()
        valkey.start()
        try:
            urls = addresses.urls(var)
            options = environ.Env.db_url_config(urls.database)["OPTIONS"]
            assert options == {"host": str(var / "run" / "postgres"), "port": 5432}
            assert value(var, "SELECT current_user::text") == "fks"
            with kombu.Connection(transport_url(urls.redis)) as broker:
                assert broker.default_channel.client.ping() is True
        finally:
            valkey.stop()
            postgres.stop()

    def test_the_web_server_is_where_it_was_last_put(self, tmp_path: Path) -> None:
        assert addresses.http(tmp_path) == "127.0.0.1:8000"
        addresses.note_http(tmp_path, "[::1]:9000")
        assert addresses.http(tmp_path) == "[::1]:9000"

    def test_a_path_too_long_for_a_socket_has_them_below_tmp(self, tmp_path: Path) -> None:
        var = tmp_path / ("d" * 60) / ("e" * 60) / "var"
        directory = addresses.runtime_directory(var)
        assert directory.parent == Path("/tmp")  # noqa: S108
        server = Valkey(var)
        try:
            server.start()
            with redis.Redis.from_url(addresses.urls(var).redis) as client:
                assert client.ping() is True
        finally:
            server.stop()
            shutil.rmtree(directory)

    def test_a_directory_below_tmp_may_not_be_somebody_elses(self, tmp_path: Path) -> None:
        var = tmp_path / ("d" * 60) / ("e" * 60) / "var"
        trap = addresses.runtime_directory(var)
        trap.symlink_to(tmp_path)
        try:
            with pytest.raises(StartError) as caught:
                addresses.urls(var)
        finally:
            trap.unlink()
        assert caught.value.code == "SOCKET_DIRECTORY_FOREIGN"


@needs_setpriv
def test_servers_end_with_a_killed_parent(var: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from fks_site.embedded import Postgres, Valkey\n"
        "servers = [kind(Path(sys.argv[1]), throw_away=True) for kind in (Postgres, Valkey)]\n"
        "for server in servers: server.start()\n"
        "print(*(server._process.pid for server in servers), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(var)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert [alive(pid) for pid in pids] == [True, True]
        parent.kill()
    assert eventually(lambda: not any(alive(pid) for pid in pids))
