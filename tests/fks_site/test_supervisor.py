"""Children are started in order, restarted with growing pauses, and stopped in reverse."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from fks_site import processes, supervisor
from fks_site.processes import StartError
from fks_site.supervisor import Program, Stopped, Supervisor


@dataclass
class FakeChild:
    name: str
    diary: list[str]
    log: Path = Path("fake.log")
    status: int | None = None
    refusals: list[StartError] = field(default_factory=list)

    def start(self) -> None:
        self.diary.append(f"start {self.name}")
        if self.refusals:
            raise self.refusals.pop()
        self.status = None

    def stop(self) -> None:
        self.diary.append(f"stop {self.name}")

    def exit_status(self) -> int | None:
        return self.status


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def runner(said: list[str]) -> Supervisor:
    return Supervisor(said.append)


class Clock:
    """Time passes in quarters of a second; after ``ends_at`` seconds the supervisor shall stop."""

    def __init__(self, ends_at: float) -> None:
        self.now, self.ends_at = 1000.0, 1000.0 + ends_at

    def pause(self, _seconds: float) -> None:
        self.now += 0.25
        if self.now > self.ends_at:
            raise Stopped


def keep(
    runner: Supervisor, child: FakeChild, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock(seconds)
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(runner, "pause", clock.pause)
    with runner:
        runner.start(child)
        runner.keep()


def test_children_stop_in_reverse_also_when_one_cannot_start(runner: Supervisor) -> None:
    diary: list[str] = []
    broken = FakeChild("c", diary, refusals=[StartError("X", "no")])
    with pytest.raises(StartError), runner:  # noqa: PT012  (what the loop did is looked at below)
        for child in (FakeChild("a", diary), FakeChild("b", diary), broken):
            runner.start(child)
    assert diary == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


def test_a_child_that_keeps_ending_is_started_after_growing_pauses(
    runner: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(FakeChild):
        def start(self) -> None:
            super().start()
            self.status = -signal.SIGKILL

    child = Dying("web", [])
    keep(runner, child, monkeypatch, 120)
    pauses = [line.split("again in ")[1].split()[0] for line in said]
    assert pauses == ["1", "2", "4", "8", "16", "30", "30", "30"]
    assert said[0] == "web: killed by SIGKILL; starting again in 1 s (log: fake.log)"
    assert child.diary[:4] == ["start web", "stop web", "start web", "stop web"]


def test_a_refusal_to_start_again_is_told_and_tried_again(
    runner: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(FakeChild):
        def start(self) -> None:
            super().start()
            if len(self.diary) == 1:
                self.status, self.refusals = 1, [StartError("SERVER_NOT_READY", "no room")]

    child = Refusing("postgres", [])
    keep(runner, child, monkeypatch, 20)
    assert said == [
        "postgres: ended with status 1; starting again in 1 s (log: fake.log)",
        "postgres: no room; starting again in 2 s (log: fake.log)",
    ]
    assert child.diary[-2:] == ["start postgres", "stop postgres"]


def test_a_signal_ends_the_wait_at_once(runner: Supervisor) -> None:
    with runner:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with pytest.raises(Stopped):
            runner.pause(60)
        timer.join()


@pytest.mark.parametrize(
    ("number", "stops"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGHUP, False)]
)
def test_a_background_job_of_a_script_still_stops_when_asked(
    runner: Supervisor, number: signal.Signals, stops: bool
) -> None:
    """A shell starts ``make run &`` with SIGINT ignored, ``nohup`` anything with SIGHUP ignored."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with runner:
            timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
            timer.start()
            with pytest.raises(Stopped) if stops else nullcontext():
                runner.pause(60 if stops else 0.2)
            timer.join()  # the signal is not for whoever runs the tests
    finally:
        signal.signal(number, before)


def test_a_command_answers_or_fails_with_its_last_words(runner: Supervisor, tmp_path: Path) -> None:
    def run(code: str) -> str:
        return runner.command(
            "it", ["-c", code], log=tmp_path / "it.log", env=dict(os.environ), cwd=tmp_path
        )

    with runner:
        assert run("print('news')") == "news\n"
        with pytest.raises(StartError) as caught:
            run("raise SystemExit('the reason')")
    assert caught.value.code == "COMMAND_FAILED"
    assert str(caught.value) == f"it failed: the reason (log: {tmp_path / 'it.log'})"


@pytest.mark.parametrize(
    ("requests", "work", "expected"), [(1, 0.3, "finished"), (2, 60, "cut short")]
)
def test_a_program_may_finish_its_work_unless_asked_twice(
    runner: Supervisor, tmp_path: Path, requests: int, work: float, expected: str
) -> None:
    done = tmp_path / "done"
    code = (
        "import pathlib, signal, sys, time\n"
        "def finish(*_):\n"
        f"    time.sleep({work}); pathlib.Path({str(done)!r}).touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, finish); print('ready', flush=True); time.sleep(60)\n"
    )
    log = tmp_path / "program.log"
    program = Program("it", ["-c", code], log, dict(os.environ), tmp_path, 50.0)
    with runner:
        runner.start(program)
        while log.read_text() != "ready\n":
            runner.pause(0.02)
        for delay in (0.0, 0.3)[:requests]:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        runner.pause(60)
    assert ("finished" if done.exists() else "cut short") == expected


def test_stopping_a_program_leaves_nothing_of_its_group(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); sys.exit(3)\n"
    )
    log = tmp_path / "program.log"
    process = processes.spawn([sys.executable, "-c", code], log=log, env=dict(os.environ))
    assert process.wait(10) == 3
    orphan = int(log.read_text())
    left = psutil.Process(orphan)
    assert left.is_running()
    processes.stop(process, signal.SIGTERM, 1.0)
    _, alive = psutil.wait_procs([left], timeout=10)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
