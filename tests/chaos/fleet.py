"""The processes of a run: started by the zygote, kept at their number, killed at random."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from random import Random

WANTED = {"worker": 8, "exits": 1, "beat": 1, "web": 1}
KILL_WEIGHTS = {"worker": 16, "exits": 5, "beat": 2, "web": 1}


class Fleet:
    """Restarts at once whatever ends. Counts kills it made itself, not those of crash points."""

    def __init__(
        self, channel: socket.socket, seed: int, wanted: Mapping[str, int] = WANTED
    ) -> None:
        self._wanted = wanted
        self.random_kills: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.used: dict[str, float] = defaultdict(float)
        self._channel = channel
        self._random = Random(seed)
        self._alive: dict[int, str] = {}
        self._once: dict[str, int] = {}
        self._changed = threading.Condition()
        self._keeping = True
        threading.Thread(target=self._listen, name="fleet", daemon=True).start()

    def start(self) -> None:
        for role, count in self._wanted.items():
            for _ in range(count):
                self._ask(role)

    def run(self, role: str, *arguments: str, seconds: float = 30) -> int:
        """Run a process to its end; its exit status, negative for a signal."""
        with self._changed:
            self._once.pop(role, None)
            self._ask(role, *arguments)
            if self._changed.wait_for(lambda: role in self._once, seconds):
                return self._once[role]
        raise AssertionError(f"{role} did not end within {seconds} s")

    def kill_one(self) -> None:
        """SIGKILL for a random process and what it started."""
        role = self._random.choices(list(KILL_WEIGHTS), list(KILL_WEIGHTS.values()))[0]
        pid = self._pick(role)
        if pid is not None:
            self._signal(pid, signal.SIGKILL)
            self.random_kills[role] += 1

    def freeze_one(self, seconds: float) -> None:
        """Stop a worker for longer than its leases, then let it go on as if nothing had been."""
        pid = self._pick("worker")
        if pid is not None:
            self._signal(pid, signal.SIGSTOP)
            time.sleep(seconds)
            self._signal(pid, signal.SIGCONT)

    def roll(self) -> None:
        """A rolling restart: everything ends in its own time and is replaced."""
        for role in self._wanted:
            for pid in self._of(role):
                self._signal(pid, signal.SIGTERM)

    def pids(self) -> dict[int, str]:
        """The processes that live, and what each is."""
        with self._changed:
            return dict(self._alive)

    def stop(self) -> None:
        self._keeping = False
        self._channel.close()

    def _ask(self, role: str, *arguments: str) -> None:
        with suppress(OSError):
            self._channel.sendall(json.dumps([role, *arguments]).encode() + b"\n")

    def _listen(self) -> None:
        with suppress(OSError), self._channel.makefile("rb") as lines:
            for line in lines:
                self._note(json.loads(line))

    def _note(self, event: dict[str, object]) -> None:
        role = str(event["role"])
        with self._changed:
            if "started" in event:
                self._alive[int(str(event["started"]))] = role
            else:
                pid = int(str(event["died"]))
                self._alive.pop(pid, None)
                self.deaths[role] += 1
                self.used[role] += float(str(event["seconds"]))
                if role not in self._wanted:
                    self._once[role] = int(str(event["status"]))
                elif self._keeping:
                    self._ask(role)
            self._changed.notify_all()

    def _of(self, role: str) -> list[int]:
        with self._changed:
            return [pid for pid, known in self._alive.items() if known == role]

    def _pick(self, role: str) -> int | None:
        found = self._of(role)
        return self._random.choice(found) if found else None

    def _signal(self, pid: int, number: signal.Signals) -> None:
        self._ask("signal", str(pid), str(number.value))
