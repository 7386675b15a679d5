"""Child processes that do not outlive their parent: spawn them, stop them, find leftovers.

Every child leads its own process group, so a Ctrl-C in the terminal reaches only the parent, which
then stops its children in order. Where ``setpriv`` exists (util-linux), the kernel signals a child
whose parent was killed; elsewhere the next start ends what was left behind.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil  # type: ignore[import-untyped]

LOG_LIMIT = 5_000_000  # bytes; a longer log is set aside as .1 when its process starts

# capabilities(7)
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


class StartError(Exception):
    """A process of ours cannot start; ``code`` is a reason code, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Account:
    """The unprivileged user a server runs as when we are root.

    ``capability`` (``dac_read_search`` or ``dac_override``) is given to the server when its files
    lie below a directory that user may not enter, such as ``/root``; otherwise it is ``None``.
    """

    uid: int
    gid: int
    capability: str | None = None

    @property
    def setpriv_options(self) -> list[str]:
        options = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--no-new-privs"]
        if self.capability:
            options += [f"--inh-caps=+{self.capability}", f"--ambient-caps=+{self.capability}"]
            # Else access(2), by which PostgreSQL looks for its programs, would disregard it.
            options += ["--securebits=+no_setuid_fixup"]
        return options


def unprivileged_account(data: Path, program: Path) -> Account | None:
    """Who ``program`` runs as to work in ``data``: ``None`` (ourselves) unless we are root.

    An existing ``data`` directory keeps its owner, so root can go on with what a user began.

    Raises:
        StartError: root cannot step down here (code ``CANNOT_DROP_ROOT``).
    """
    if os.geteuid() != 0:
        return None
    if shutil.which("setpriv") is None:
        raise _cannot_drop_root("setpriv (package util-linux) is missing")
    owner = data.stat().st_uid if data.exists() else 0
    try:
        user = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        raise _cannot_drop_root("there is no user to run it as") from None
    return Account(user.pw_uid, user.pw_gid, _missing_capability(data, program))


def _missing_capability(data: Path, program: Path) -> str | None:
    """The smallest capability with which any user reaches both paths; ``None`` when none is."""
    executable = program.stat().st_mode & stat.S_IXOTH
    if executable and _open_to_all(data) and _open_to_all(program):
        return None
    if executable and _have_capability(_CAP_DAC_READ_SEARCH):
        return "dac_read_search"
    if _have_capability(_CAP_DAC_OVERRIDE):
        return "dac_override"
    raise _cannot_drop_root(f"other users may not enter {data.parent} or {program.parent}")


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


def _have_capability(number: int) -> bool:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _cannot_drop_root(why: str) -> StartError:
    return StartError(
        "CANNOT_DROP_ROOT",
        f"The embedded PostgreSQL does not run as root, and {why}: "
        "run as a normal user, or set DATABASE_URL and REDIS_URL.",
    )


def make_directory(path: Path, *, owner: int | None = None, mode: int = 0o700) -> None:
    """Make ``path`` (and its parents) if missing; give it exactly this mode and, as root, owner."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    if owner is not None and path.stat().st_uid != owner:
        os.chown(path, owner, -1)


def make_var(var: Path) -> None:
    """Make the directory of all state, closed to others.

    Root's servers run as somebody else, who may pass through it but not look into it.
    """
    make_directory(var, mode=passage_mode())


def passage_mode() -> int:
    return 0o711 if os.geteuid() == 0 else 0o700


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    stdout: BinaryIO | None = None,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    cwd: Path = Path("/"),
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a process group of its own, its output appended to ``log``.

    ``stdout`` takes the standard output instead. ``death_signal`` is what the child gets when the
    calling thread ends without stopping it.
    """
    prefix: list[str] = []
    if shutil.which("setpriv"):
        prefix = ["setpriv", f"--pdeathsig={death_signal.name.removeprefix('SIG')}"]
        prefix += [*(account.setpriv_options if account else []), "--"]
    with _open_log(log) as output:
        return subprocess.Popen(  # noqa: S603  (every caller names its program itself)
            [*prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout or output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            process_group=0,
        )


def _open_log(path: Path) -> BinaryIO:
    make_directory(path.parent)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


def stop(process: subprocess.Popen[bytes], first: signal.Signals, grace: float) -> None:
    """Send ``first``, wait up to ``grace`` seconds, then kill whatever is left of the group."""
    if process.poll() is None:
        process.send_signal(first)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    kill_group(process)
    process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and every descendant that stayed in its group; safe in a signal handler."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_leftovers(
    belongs: Callable[[psutil.Process], bool],
    first: signal.Signals = signal.SIGTERM,
    grace: float = 10.0,
) -> int:
    """End the processes an earlier run left behind (killed after ``grace`` seconds); say how many.

    ``belongs`` may raise ``psutil.Error``: what we may not look into is not ours.
    """
    found = [process for process in psutil.process_iter() if _matches(process, belongs)]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(first)
    if _still_alive(found, grace):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _still_alive(found, grace)
    return len(found)


def _still_alive(found: list[psutil.Process], grace: float) -> bool:
    """Wait up to ``grace`` seconds; a zombie has ended, whether or not anybody ever reaps it."""
    deadline = time.monotonic() + grace
    while not all(_ended(process) for process in found):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


def _ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _matches(process: psutil.Process, belongs: Callable[[psutil.Process], bool]) -> bool:
    try:
        return process.pid != os.getpid() and belongs(process)
    except psutil.Error:
        return False
