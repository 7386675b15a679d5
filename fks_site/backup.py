"""The whole database as one file, and back. docs/adr/0020 says why not ``pg_dump``.

A backup is a gzipped tar: ``head.json``, one member of COPY text per table, all of one snapshot, and
``end.json`` with the rows of each table and the checksum of each member: without it, or with another
sum, nothing is restored.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

import psycopg
from django.db import connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from psycopg import sql

from fks_site.sealed_files import MAGIC, SealedReader, SealingWriter, Unsealable

FORMAT = 1
FORGOTTEN = ("django_session",)
"""Whose rows are left out: a restored session would let somebody in who has logged out since."""
_BESIDE = "fks_restoring"
_IN_MEMORY = 16 << 20
_SUFFIX = ".copy"
_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, KeyError)

Migration = tuple[str, str]


class Unusable(Exception):
    """This file cannot be restored here; the message says why."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a whole and sound backup holds. ``tables`` maps each to its number of rows."""

    made_at: str
    migrations: frozenset[Migration]
    tables: dict[str, int]
    encrypted: bool


def write(path: Path, *, encrypted: bool) -> Contents:
    """Dump one snapshot into ``path``, which must not exist. Trading goes on meanwhile.

    Raises FileExistsError. A failure leaves no file.
    """
    draft, done = path.with_name(path.name + ".part"), False
    path.open("xb").close()
    try:
        with draft.open("wb") as file:
            draft.chmod(0o600)
            contents = _write_sealed(file) if encrypted else _write(file, encrypted=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        done = True
    finally:
        if not done:
            draft.unlink(missing_ok=True)
            path.unlink()
    return contents


def _write_sealed(file: IO[bytes]) -> Contents:
    sealing = SealingWriter(file)
    contents = _write(cast(IO[bytes], sealing), encrypted=True)
    sealing.finish()
    return contents


def _write(file: IO[bytes], *, encrypted: bool) -> Contents:
    made_at, tables, sums = timezone.now().isoformat(), {}, {}
    with (
        _snapshot() as cursor,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file) as zipped,
        tarfile.open(fileobj=zipped, mode="w|") as archive,
    ):
        migrations = cursor.execute("SELECT app, name FROM django_migrations").fetchall()
        columns = _columns(cursor)
        head = {"format": FORMAT, "made_at": made_at, "migrations": migrations}
        sums["head.json"] = _add_json(archive, "head.json", head | {"columns": columns})
        for table, names in columns.items():
            with SpooledTemporaryFile(_IN_MEMORY) as spool:
                if table in FORGOTTEN:
                    tables[table] = 0
                else:
                    tables[table] = _copy_out(cursor, table, names, cast(IO[bytes], spool))
                sums[table + _SUFFIX] = _add(archive, table + _SUFFIX, cast(IO[bytes], spool))
        sequences = dict(
            cursor.execute(
                "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public' "
                "AND last_value IS NOT NULL"
            ).fetchall()
        )
        _add_json(archive, "end.json", {"rows": tables, "sha256": sums, "sequences": sequences})
    named = frozenset((app, name) for app, name in migrations)
    return Contents(made_at, named, tables, encrypted)


@contextmanager
def _snapshot() -> Iterator[psycopg.Cursor[Any]]:
    """A cursor on a connection of its own, in one read-only transaction."""
    own = connections.create_connection("default")
    try:
        own.ensure_connection()
        plain = own.connection
        plain.autocommit = False
        plain.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        plain.read_only = True
        with psycopg.Cursor(plain) as cursor:
            # A large table is compressed between two questions.
            cursor.execute("SET idle_in_transaction_session_timeout = 0")
            yield cursor
        plain.rollback()
    finally:
        own.close()


def _columns(cursor: psycopg.Cursor[Any]) -> dict[str, list[str]]:
    """The columns of every table, generated ones left out."""
    cursor.execute(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c "
        "JOIN information_schema.tables t USING (table_schema, table_name) "
        "WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' "
        "AND c.is_generated = 'NEVER' ORDER BY c.table_name, c.ordinal_position"
    )
    columns: dict[str, list[str]] = {}
    for table, column in cursor.fetchall():
        columns.setdefault(table, []).append(column)
    return columns


def _copy(table: str, columns: list[str], direction: str) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    copy = "COPY {} ({}) TO STDOUT" if direction == "out" else "COPY {} ({}) FROM STDIN"
    return sql.SQL(copy).format(sql.Identifier(table), names)


def _copy_out(
    cursor: psycopg.Cursor[Any], table: str, columns: list[str], target: IO[bytes]
) -> int:
    with cursor.copy(_copy(table, columns, "out")) as copy:
        for block in copy:
            target.write(block)
    return cursor.rowcount


def _add(archive: tarfile.TarFile, name: str, file: IO[bytes]) -> str:
    """Add a file from its beginning; its SHA-256."""
    member = tarfile.TarInfo(name)
    member.size = file.seek(0, io.SEEK_END)
    file.seek(0)
    digest = _sha256(file)
    file.seek(0)
    archive.addfile(member, file)
    return digest


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 16):
        digest.update(block)
    return digest.hexdigest()


def _add_json(archive: tarfile.TarFile, name: str, value: dict[str, Any]) -> str:
    return _add(archive, name, io.BytesIO(json.dumps(value).encode()))


@contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """The members in their order. Raises Unusable, also while they are read."""
    try:
        with path.open("rb") as file:
            sealed = file.read(len(MAGIC)) == MAGIC
            if not sealed:
                file.seek(0)
            plain = io.BufferedReader(SealedReader(file)) if sealed else file
            with (
                gzip.GzipFile(fileobj=plain) as zipped,
                tarfile.open(fileobj=zipped, mode="r|") as a,
            ):
                yield ((member.name, cast(IO[bytes], a.extractfile(member))) for member in a)
                # gzip's own checksum is compared at its very end, behind the last member.
                while zipped.read(1 << 16):
                    pass
    except (*_BROKEN, Unsealable) as error:
        raise Unusable(f"{path} is no whole backup: {error}") from error


def check(path: Path) -> Contents:
    """Read all of it and compare every checksum. Raises Unusable."""
    head: dict[str, Any] = {}
    end: dict[str, Any] = {}
    sums: dict[str, str] = {}
    with _members(path) as members:
        for name, file in members:
            if name == "end.json":
                end = json.load(file)
                continue
            if name == "head.json":
                file = io.BytesIO(file.read())
                head = json.load(file)
                file.seek(0)
            sums[name] = _sha256(file)
    if head.get("format") != FORMAT or end.get("sha256") != sums:
        raise Unusable(f"{path} is no whole backup: it was changed or cut off")
    migrations = frozenset((app, name) for app, name in head["migrations"])
    with path.open("rb") as raw:
        encrypted = raw.read(len(MAGIC)) == MAGIC
    return Contents(head["made_at"], migrations, end["rows"], encrypted)


def load(path: Path, contents: Contents, after: Callable[[], None]) -> None:
    """Replace everything in the database by the backup, migrated to this code and held by ``after``.

    All of it is made beside what is there and takes its place in the last transaction: whatever fails
    on the way, or dies, leaves the database as it was. Nothing else may use the database meanwhile.
    Raises Unusable for a backup of newer code.
    """
    known = set(MigrationExecutor(connection).loader.disk_migrations)
    if newer := sorted(one for one in contents.migrations if _is_newer(one, known)):
        raise Unusable(f"it was made by newer code: {newer[0][0]}.{newer[0][1]} is not known here")
    with _beside():
        _migrate(contents.migrations & known)
        with transaction.atomic():
            _copy_everything(connection.connection, path)
        # Each in its own transaction, or in none, as it was written.
        _migrate(None)
        with transaction.atomic(), connection.cursor() as cursor:
            after()
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("DROP SCHEMA public CASCADE")
            cursor.execute(f"ALTER SCHEMA {_BESIDE} RENAME TO public")


@contextmanager
def _beside() -> Iterator[None]:
    """Let this connection make and fill its tables in a schema of their own."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {_BESIDE} CASCADE")
        cursor.execute(f"CREATE SCHEMA {_BESIDE}")
        cursor.execute(
            f"GRANT USAGE ON SCHEMA {_BESIDE} TO PUBLIC"
        )  # as the one every database has
        cursor.execute(f"SET search_path TO {_BESIDE}")
    try:
        yield
    finally:
        # What it was set to, and what was prepared with it, ends with the connection.
        connection.close()


def _is_newer(migration: Migration, known: set[Migration]) -> bool:
    return migration not in known and migration[0] in {app for app, _ in known}


def _migrate(wanted: frozenset[Migration] | set[Migration] | None) -> None:
    """To exactly ``wanted``, or to everything this code has."""
    executor = MigrationExecutor(connection)
    graph = executor.loader.graph
    if wanted is None:
        targets = graph.leaf_nodes()
    else:
        inner = {node.key for key in wanted for node in graph.node_map[key].parents}
        targets = sorted(wanted - inner)
    executor.migrate(targets)


def _copy_everything(plain: psycopg.Connection[Any], path: Path) -> None:
    columns: dict[str, list[str]] = {}
    with psycopg.Cursor(plain) as cursor, _members(path) as members:
        for name, file in members:
            if name == "head.json":
                columns = json.load(file)["columns"]
                tables = sql.SQL(", ").join(map(sql.Identifier, columns))
                cursor.execute(sql.SQL("TRUNCATE {}").format(tables))
            elif name == "end.json":
                for sequence, value in json.load(file)["sequences"].items():
                    cursor.execute("SELECT setval(%s::regclass, %s)", [sequence, value])
            else:
                table = name.removesuffix(_SUFFIX)
                with cursor.copy(_copy(table, columns[table], "in")) as copy:
                    while block := file.read(1 << 16):
                        copy.write(block)
