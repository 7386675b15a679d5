"""NinjaTrader 8's two folders and its log: files written, taken back, and read.

What real machines do (and the tests imitate): the reader sleeps for hours and executes old files when
it wakes; it reads a file before it is complete, and deletes it long after it has read it; it swallows
names that do not start with ``oif``; it empties its outgoing folder at a restart. So a file that is not
taken in time is taken back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from brokers.errors import BrokerError, ConfigurationError, QueryFailedError

POLL = 0.02
DIRECT, MOVE = "direct", "move"
LOG_TAIL = 256 * 1024


class NotTakenError(BrokerError):
    """NinjaTrader did not take the file: it is gone by our hand and nothing came of it."""

    code = "VENUE_UNREACHABLE"


class Folders:
    """``incoming``, ``outgoing`` and ``log``, all named by the operator: a default could be the folder
    of a chart that trades. Raises ConfigurationError."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.incoming = _folder(options, "incoming")
        self.outgoing = _folder(options, "outgoing")
        self.log = _folder(options, "log")
        self._way = options.get("placing", DIRECT)
        if self._way not in (DIRECT, MOVE):
            raise ConfigurationError("placing is direct or move")
        self._staging = _folder(options, "staging") if self._way == MOVE else None

    def hand_over(self, name: str, line: str, seconds: float) -> bool:
        """Give NinjaTrader one file; whether it took it, or it was deleted here after ``seconds``.

        Raises QueryFailedError when nobody can tell.
        """
        path = self.incoming / f"oif{name}.txt"
        try:
            self._write(path, line)
        except FileExistsError as error:
            raise QueryFailedError(f"{path.name} is there already") from error
        return wait_until(lambda: not path.exists(), seconds) or not self.withdraw(name)

    def withdraw(self, name: str) -> bool:
        """Whether the file was still there and is now gone; it may have been read all the same.

        Raises QueryFailedError.
        """
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
        refusals = (line for line in self._logged(order_id) if "invalid" in line.lower())
        return next(refusals, "")

    def logs(self, text: str) -> bool:
        """Whether NinjaTrader's log speaks of ``text``."""
        return next(self._logged(text), None) is not None

    def names(self, order_id: str) -> bool:
        """Whether NinjaTrader has heard of this order: a state file, whatever is in it, or its log."""
        return any(self.outgoing.glob(f"*{order_id}.txt")) or self.logs(order_id)

    def _logged(self, text: str) -> Iterator[str]:
        """The lines of the log that hold ``text``, newest first."""
        for path in sorted(self.log.glob("log.*.txt"), reverse=True)[:2]:
            try:
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - LOG_TAIL))
                    lines = file.read().decode("utf-8", "replace").splitlines()
            except OSError:
                continue
            yield from (line.strip() for line in reversed(lines) if text in line)

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
