"""The programs of the containers on a read-only root file system, as plain processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection

from tests.e2e.product import ROOT, eventually, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240), pytest.mark.django_db(transaction=True)]
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
NOBODY = [
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"),
]
"""Who may do nothing but pass the permissions of files: the sockets of the tests' servers are ours."""
PATIENCE = 150.0  # seconds; starting four programs on a busy machine


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    try:
        allowed = not subprocess.run([*UNSHARE, "true"], capture_output=True).returncode
    except FileNotFoundError:
        allowed = False
    if not (allowed and os.geteuid() == 0):
        pytest.skip("mount namespaces are not permitted here")


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    """What stands for a container's /tmp: the only place that may be written."""
    place = tmp_path / "tmp"
    place.mkdir()
    return place


def read_only(tmp: Path, command: Sequence[str]) -> list[str]:
    """``command`` as an unprivileged user where every file system is read-only but ``tmp``."""
    inside = (
        "mount --rbind / / && for place in $(findmnt -rno TARGET | grep -vE '^/(proc|sys|dev)'); do "
        "mount -o remount,bind,ro $place || exit 9; done; "
        f"mount -t tmpfs -o size=64m,mode=1777 tmpfs {tmp} && cd {ROOT} && "
        f"exec {shlex.join([*NOBODY, *command])}"
    )
    return [*UNSHARE, "sh", "-c", inside]


def environment(tmp: Path, port: int) -> dict[str, str]:
    url = urlsplit(os.environ["DATABASE_URL"])
    name = str(connection.settings_dict["NAME"])
    return os.environ | {
        "DATABASE_URL": url._replace(path=f"/{name}").geturl(),
        "REDIS_URL": re.sub(r"([/=])0$", r"\g<1>9", os.environ["REDIS_URL"]),
        "FKS_VAR": str(tmp / "fks"),
        "TMPDIR": str(tmp),
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FKS_WORKER_METRICS": f"127.0.0.1:{port}",
        "LOG_FORMAT": "json",
    }


def manage(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", *arguments]


@pytest.fixture
def running(tmp: Path, tmp_path: Path) -> Iterator[int]:
    """Web, worker and beat; the port of web."""
    port = free_port()
    env = environment(tmp, free_port())
    programs = [("web", "--http", f"127.0.0.1:{port}", "--processes", "1"), ("worker",), ("beat",)]
    started = []
    with (tmp_path / "log").open("wb") as log:
        for program in programs:
            command = read_only(tmp, manage("serve", *program))
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        yield port
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)
    assert "Read-only file system" not in (tmp_path / "log").read_text()


def test_nothing_can_be_written_but_tmp(tmp: Path, tmp_path: Path) -> None:
    for place, status in ((tmp, 0), (tmp_path, 1), (ROOT, 1), (Path("/var/tmp"), 1)):  # noqa: S108
        command = read_only(tmp, ["touch", str(place / "written")])
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == status, (place, done.stderr)
        assert status == 0 or "Read-only file system" in done.stderr


def test_waiting_for_migrations_writes_nothing(tmp: Path) -> None:
    command = read_only(tmp, manage("wait_for_migrations", "--timeout", "60"))
    done = subprocess.run(command, env=environment(tmp, 0), capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "The database has what this code needs.\n")


def test_web_worker_and_beat_are_ready(running: int) -> None:
    """``/ready`` wants heartbeats: of beat, and of a worker that does what beat asks for."""

    def ready() -> bool:
        with suppress(OSError), closing(HTTPConnection("127.0.0.1", running, timeout=5)) as asked:
            asked.request("GET", "/ready")
            return bool(json.loads(asked.getresponse().read())["status"] == "ok")
        return False

    assert eventually(ready, seconds=PATIENCE, what="web, worker and beat are ready")
