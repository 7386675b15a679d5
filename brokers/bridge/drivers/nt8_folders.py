"""NinjaTrader 8's two folders and its log: files written, taken back, and read.

What real machines do (and the tests imitate): the reader sleeps for hours and executes old files when
it wakes; it reads a file before it is complete; it swallows names that do not start with ``oif``; it
empties its outgoing folder at a restart. So a file that is not taken in time is taken back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brokers.errors import BrokerError, ConfigurationError, QueryFailedError

POLL = 0.02
DIRECT, MOVE = "direct", "move"
LOG_TAIL = 256 * 1024


class NotTakenError(BrokerError):
    """NinjaTrader did not take the file; it has been taken back, so nothing happened."""

    code = "VENUE_UNREACHABLE"


class Folders:
    """``incoming``, ``outgoing`` and ``log``, all named by the operator: a default could be the folder
    of a chart that trades. Raises ConfigurationError."""

    def __init__(self, options: Mapping[str, Any], take_seconds: float) -> None:
        self.incoming = _folder(options, "incoming")
        self.outgoing = _folder(options, "outgoing")
        self.log = _folder(options, "log")
        self._take_seconds = take_seconds
        self._way = options.get("placing", DIRECT)
        if self._way not in (DIRECT, MOVE):
            raise ConfigurationError("placing is direct or move")
        self._staging = _folder(options, "staging") if self._way == MOVE else None

    def hand_over(self, name: str, line: str) -> None:
        """Give NinjaTrader one file and see it taken.

        Raises NotTakenError when it was taken back, QueryFailedError when nobody can tell.
        """
        path = self.incoming / f"oif{name}.txt"
        try:
            self._write(path, line)
        except FileExistsError as error:
            raise QueryFailedError(f"{path.name} is there already") from error
        if wait_until(lambda: not path.exists(), self._take_seconds):
            return
        if self.withdraw(name):
            raise NotTakenError(f"NinjaTrader did not take {path.name}: it was taken back")

    def withdraw(self, name: str) -> bool:
        """Whether the file was still there and is now gone. Raises QueryFailedError."""
        try:
            (self.incoming / f"oif{name}.txt").unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise QueryFailedError(f"oif{name}.txt cannot be taken back: {error}") from error
        return True

    def state_file(self, account: str, order_id: str) -> str | None:
        """The text of an order's state file, by either of its known names."""
        for name in (f"{account}_{order_id}.txt", f"{order_id}.txt"):
            text = read(self.outgoing / name)
            if text is not None:
                return text
        return None

    def oldest_waiting(self) -> float:
        """Seconds the oldest instruction has been waiting; 0 when none is."""
        ages = [0.0]
        for path in self.incoming.glob("oif*.txt"):
            try:
                ages.append(time.time() - path.stat().st_mtime)
            except FileNotFoundError:
                continue
        return max(ages)

    def complaint(self, order_id: str) -> str:
        """The newest line of NinjaTrader's log that refuses this order's instruction."""
        for path in sorted(self.log.glob("log.*.txt"), reverse=True)[:2]:
            try:
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - LOG_TAIL))
                    lines = file.read().decode("utf-8", "replace").splitlines()
            except OSError:
                continue
            for line in reversed(lines):
                if order_id in line and "invalid" in line.lower():
                    return line.strip()
        return ""

    def _write(self, path: Path, line: str) -> None:
        """In one piece, under a name that was never used."""
        target = path if self._staging is None else self._staging / path.name
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(handle, line.encode("ascii"))
        finally:
            os.close(handle)
        if target is not path:
            target.replace(path)


def read(path: Path) -> str | None:
    """A small file's text; ``None`` when it is not there or locked just now."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL)
    return True


def _folder(options: Mapping[str, Any], name: str) -> Path:
    given = options.get(name)
    path = Path(given) if isinstance(given, str) else None
    if path is None or not path.is_absolute() or not path.is_dir():
        raise ConfigurationError(f"[nt8] {name} must name an existing folder, from its root")
    return path
