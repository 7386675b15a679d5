"""What must hold before anything is started: one run per directory, room, a free port, the keys."""

from __future__ import annotations

import base64
import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fks_site import processes
from fks_site.processes import StartError

LEAST_FREE_BYTES = 200_000_000
KEY_BYTES = 32


@contextmanager
def sole_run(var: Path) -> Iterator[None]:
    """Make ``var`` and hold it for this process; the kernel lets go of it however we end.

    Raises:
        StartError: it cannot be written (``VAR_NOT_WRITABLE``) or is held (``ALREADY_RUNNING``).
    """
    try:
        processes.make_var(var)
        lock = os.open(var / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(
            "VAR_NOT_WRITABLE",
            f"{var} cannot be written ({error.strerror}): name another directory with --var.",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StartError(
            "ALREADY_RUNNING",
            f"FKS is already running on {var}: stop it first, or name another directory with --var "
            "and another port with --http.",
        ) from None
    finally:
        os.close(lock)


def check_disk(var: Path) -> None:
    """Refuse to start with less than 200 MB free: a full disk stops the database in mid-trade."""
    free = shutil.disk_usage(var).free
    if free < LEAST_FREE_BYTES:
        raise StartError(
            "DISK_FULL",
            f"Only {free // 1_000_000} MB are free at {var}; FKS needs at least "
            f"{LEAST_FREE_BYTES // 1_000_000} MB.",
        )


def check_port(host: str, port: int) -> None:
    """Refuse a ``host`` and ``port`` the web server could not listen on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        # As the web server does it: connections of an earlier run may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError("PORT_UNAVAILABLE", _port_sentence(host, port, error)) from None


def _port_sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else 8000
        return f"Port {port} is in use: choose another one with --http {host}:{other}."
    return f"{host}:{port} cannot be listened on ({error.strerror}): choose another with --http."


def ensure_keys(var: Path) -> None:
    """Make the keys of this installation unless they exist or the environment names its own.

    Raises:
        StartError: the key of stored credentials is gone (``CREDENTIAL_KEYS_LOST``); a new one
            would leave them unreadable.
    """
    if not given("SECRET_KEY"):
        _ensure_key(var / "secret_key")
    if not given("CREDENTIAL_KEYS"):
        path = var / "credential_keys"
        if not path.exists() and (var / "postgres").exists():
            raise StartError(
                "CREDENTIAL_KEYS_LOST",
                f"{path} is missing, and what it encrypted is in the database: put it back, or "
                "set CREDENTIAL_KEYS.",
            )
        _ensure_key(path)


def given(name: str) -> bool:
    """Whether the environment names ``name``, itself or as a file."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def _ensure_key(path: Path) -> None:
    if path.exists():
        return
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, base64.urlsafe_b64encode(os.urandom(KEY_BYTES)) + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    draft.rename(path)
