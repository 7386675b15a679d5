"""Keep child processes running: start them in order, restart what ends, stop them in reverse."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from fks_site import processes
from fks_site.processes import StartError

LONGEST_PAUSE = 30.0  # seconds between two attempts to start what keeps ending
STEADY = 60.0  # seconds a child must run for its earlier ends to be forgotten
_COMMAND_GRACE = 10.0  # seconds
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A signal asked us to stop."""


class Child(Protocol):
    """What can be kept running: one of the embedded servers or a ``Program``."""

    name: str
    log: Path

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def exit_status(self) -> int | None: ...


@dataclass
class Program:
    """A Python program of ours: the web server, the workers, the clock.

    ``grace`` is how many seconds it may take to finish its work after SIGTERM.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    env: Mapping[str, str]
    cwd: Path
    grace: float
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        self.process = processes.spawn(
            [sys.executable, *self.arguments], log=self.log, env=self.env, cwd=self.cwd
        )

    def stop(self) -> None:
        if self.process:
            processes.stop(self.process, signal.SIGTERM, self.grace)
            self.process = None

    def exit_status(self) -> int | None:
        return self.process.poll() if self.process else 0

    def kill(self) -> None:
        """End it and its descendants now, its work unfinished."""
        if self.process:
            processes.kill_group(self.process)


class Supervisor:
    """Runs children until a signal comes; use it as a context manager, which stops them all.

    A second signal kills the programs instead of waiting for them.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._kept: list[_Kept] = []
        self._requests = 0
        self._wakeup = (-1, -1)
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._wakeup = os.pipe()
        os.set_blocking(self._wakeup[1], False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        self._handle(signal.SIGCHLD, lambda *_: None)  # without a handler nothing wakes us
        for number in _STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            self._handle(number, self._on_stop_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        for kept in reversed(self._kept):
            kept.child.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        for end in self._wakeup:
            os.close(end)
        return kind is Stopped

    def _handle(self, number: signal.Signals, handler: Callable[..., None]) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def start(self, child: Child) -> None:
        """Start ``child`` and keep it; children stop in the reverse order of this."""
        self.pause(0)
        self._kept.append(_Kept(child))
        child.start()

    def command(
        self, name: str, arguments: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path
    ) -> str:
        """Run a Python program to its end and return its standard output.

        Raises:
            StartError: it failed; the message ends with its last words.
        """
        with TemporaryFile() as output:
            program = [sys.executable, *arguments]
            process = processes.spawn(program, log=log, env=env, cwd=cwd, stdout=output)
            try:
                while process.poll() is None:
                    self.pause(1.0)
            finally:
                processes.stop(process, signal.SIGINT, _COMMAND_GRACE)
            output.seek(0)
            text = output.read().decode(errors="replace")
        if process.returncode:
            words = [*text.splitlines(), *log.read_text(errors="replace").splitlines()]
            last = next((line for line in reversed(words) if line.strip()), "no output")
            raise StartError("COMMAND_FAILED", f"{name} failed: {last.strip()} (log: {log})")
        return text

    def keep(self) -> None:
        """Restart whatever ends until ``Stopped`` is raised."""
        while True:
            for kept in self._kept:
                kept.tend(self._say)
            self.pause(min(kept.seconds_to_wait() for kept in self._kept))

    def pause(self, seconds: float) -> None:
        """Wait, less if a child ends; raises ``Stopped`` when a signal has asked for it."""
        if not self._requests:
            awake, _, _ = select.select([self._wakeup[0]], [], [], max(seconds, 0))
            if awake:
                os.read(self._wakeup[0], 4096)
        if self._requests:
            raise Stopped

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._requests += 1
        if self._requests > 1:
            for kept in self._kept:
                if isinstance(kept.child, Program):
                    kept.child.kill()


@dataclass
class _Kept:
    """A child and when to start it again."""

    child: Child
    ends: int = 0
    started_at: float = field(default_factory=time.monotonic)
    retry_at: float | None = None

    def tend(self, say: Callable[[str], None]) -> None:
        if self.retry_at is None:
            status = self.child.exit_status()
            if status is not None:
                self._schedule(_how(status), say)
        elif time.monotonic() >= self.retry_at:
            self.retry_at, self.started_at = None, time.monotonic()
            try:
                self.child.start()
            except StartError as error:
                self._schedule(str(error), say)

    def seconds_to_wait(self) -> float:
        if self.retry_at is None:
            return LONGEST_PAUSE
        return self.retry_at - time.monotonic()

    def _schedule(self, why: str, say: Callable[[str], None]) -> None:
        self.child.stop()  # what is left of its process group
        now = time.monotonic()
        if now - self.started_at > STEADY:
            self.ends = 0
        pause = min(2.0**self.ends, LONGEST_PAUSE)
        self.ends += 1
        self.retry_at = now + pause
        say(f"{self.child.name}: {why}; starting again in {pause:.0f} s (log: {self.child.log})")


def _how(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
