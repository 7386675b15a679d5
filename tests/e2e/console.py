"""A process of an installation that carries out one management command after the other.

Each command as a process of its own would spend more on starting than on its work.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


class Console:
    """``env`` is the installation's. The process starts with the first command."""

    def __init__(self, env: Mapping[str, str], cwd: os.PathLike[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.console"],
            cwd=cwd,
            env=dict(env) | {"DJANGO_SETTINGS_MODULE": "fks_site.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def command(self, arguments: Sequence[str], stdin: str = "") -> Done:
        return self._ask({"arguments": list(arguments), "stdin": stdin})

    def code(self, code: str) -> Done:
        """Run ``code``; what it leaves in ``answer`` is printed as JSON."""
        return self._ask({"code": code})

    def _ask(self, wanted: Mapping[str, Any]) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """Read what is wanted from stdin, line by line, until it ends."""
    import django

    django.setup()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a line printed past ``redirect_stdout`` must be no answer
    for line in sys.stdin:
        wanted = json.loads(line)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = _status_of(wanted)
        answers.write(json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue()}))
        answers.write("\n")
        answers.flush()


def _status_of(wanted: Mapping[str, Any]) -> int:
    from django.core.management import execute_from_command_line
    from django.db import connections

    try:
        if "code" in wanted:
            names: dict[str, Any] = {"answer": None}
            exec(wanted["code"], names)  # noqa: S102  (a test's own)
            sys.stdout.write(json.dumps(names["answer"]))
        else:
            with patch("sys.stdin", io.StringIO(wanted["stdin"])):
                execute_from_command_line(["manage.py", *wanted["arguments"]])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        connections.close_all()
    return 0


if __name__ == "__main__":
    serve()
