"""Where the servers of a ``var`` directory listen: the databases on unix sockets, known before they
are started, the web server where the last ``up`` put it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fks_site.processes import StartError

ROLE = "fks"  # the database and the role that owns it
USUAL_HTTP = "127.0.0.1:8000"
POSTGRES_PORT = 5432  # only names the socket; explicit in the URL lest PGPORT changes it
_SOCKET_PATH_LIMIT = 103  # bytes: sun_path of unix(7) is 108 long on Linux, 104 on macOS, with NUL


@dataclass(frozen=True)
class Urls:
    """Where the servers are: ``database`` for psycopg and Django, ``redis`` for redis-py."""

    database: str
    redis: str


def runtime_directory(var: Path) -> Path:
    """The directory of ``var``'s sockets: inside it or, if that path is too long, below ``/tmp``.

    Raises:
        StartError: somebody else has taken the directory below ``/tmp``.
    """
    var = var.resolve()
    inside = var / "run"
    if len(os.fsencode(postgres_socket(inside))) <= _SOCKET_PATH_LIMIT:
        return inside
    # Not $TMPDIR: a command in another terminal must find the same place.
    outside = Path("/tmp", f"fks-{digest(var)}")  # noqa: S108
    owner = var.stat().st_uid if var.exists() else os.geteuid()
    if outside.is_symlink() or (outside.exists() and outside.stat().st_uid != owner):
        raise StartError("SOCKET_DIRECTORY_FOREIGN", f"{outside} belongs to somebody else.")
    return outside


def urls(var: Path) -> Urls:
    """The addresses of the servers of ``var``, running or not."""
    directory = runtime_directory(var)
    host = quote(str(directory / "postgres"))
    return Urls(
        database=f"postgres://{ROLE}@/{ROLE}?host={host}&port={POSTGRES_PORT}",
        redis=f"unix://{quote(str(valkey_socket(directory)))}?db=0",
    )


def note_http(var: Path, address: str) -> None:
    """Let commands in other terminals know where the web server of ``var`` listens."""
    (var / "http").write_text(f"{address}\n")


def http(var: Path) -> str:
    """``HOST:PORT`` of the web server of ``var``, running or not."""
    try:
        return (var / "http").read_text().strip() or USUAL_HTTP
    except OSError:
        return USUAL_HTTP


def postgres_socket(directory: Path) -> Path:
    return directory / "postgres" / f".s.PGSQL.{POSTGRES_PORT}"


def valkey_socket(directory: Path) -> Path:
    return directory / "valkey" / "valkey.sock"


def digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
