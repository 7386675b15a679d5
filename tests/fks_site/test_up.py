"""``manage.py up``: one run per directory, restarts, and nothing left behind however it ends."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from django.core.management import CommandError

from fks_site.management.commands.up import _host_and_port
from tests.e2e.product import ROOT, Product, eventually, running_product


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("8001", ("127.0.0.1", 8001)),
        (":8001", ("127.0.0.1", 8001)),
        ("[::1]:8000", ("::1", 8000)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),  # noqa: S104
    ],
)
def test_http_takes_an_address_or_a_port(text: str, expected: tuple[str, int]) -> None:
    assert _host_and_port(text) == expected


@pytest.mark.parametrize("text", ["", "localhost", "127.0.0.1:http", "127.0.0.1:0", "1:65536"])
def test_http_without_a_port_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="--http wants HOST:PORT"):
        _host_and_port(text)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running_product(tmp_path_factory.mktemp("up") / "var", is_new=True) as running:
        yield running


def is_ready(product: Product) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", product.port, timeout=5)) as connection:
        try:
            connection.request("GET", "/ready", headers={"Host": "localhost"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def find(product: Product, words: tuple[str, ...]) -> psutil.Process | None:
    """The oldest process with these words in its command line: the parent of its workers."""
    return next(iter(product.running(*words)), None)


@pytest.mark.e2e
@pytest.mark.timeout(300)
class TestRunning:
    def test_a_second_run_on_the_same_directory_is_refused(self, product: Product) -> None:
        second = subprocess.run(
            [sys.executable, "manage.py", "up", "--http", f"127.0.0.1:{product.port}"],
            cwd=ROOT,
            env=product.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert second.stdout == ""
        (sentence,) = second.stderr.splitlines()
        assert f"FKS is already running on {product.var}" in sentence

    @pytest.mark.parametrize(
        "words",
        [
            ("granian",),
            ("celery", "orders,sweeps"),
            ("celery", "exits"),
            ("celery", "beat"),
            ("-D",),
            ("--unixsocket",),
        ],
        ids=["web", "worker", "exits", "beat", "postgres", "valkey"],
    )
    def test_what_is_killed_comes_back(self, product: Product, words: tuple[str, ...]) -> None:
        victim = find(product, words)
        assert victim is not None
        victim.kill()
        eventually(
            lambda: (now := find(product, words)) is not None and now.pid != victim.pid,
            seconds=90,
            what=f"{words} again",
        )
        eventually(lambda: is_ready(product), seconds=90, what="ready again")

    def test_commands_in_another_terminal_find_the_web_server(self, product: Product) -> None:
        created = product.manage("add_strategy", "elsewhere", "--accounts", "paper")
        assert created["webhook_url"] == f"http://127.0.0.1:{product.port}/webhook/elsewhere"
        fields = ("--field", "symbol=BTCUSDT", "--field", "action=close")
        answer = product.manage("send_signal", "elsewhere", "--token", created["token"], *fields)
        assert answer["status"] == "accepted"

    def test_state_is_closed_to_others(self, product: Product) -> None:
        assert not product.var.stat().st_mode & 0o066
        assert {path.stat().st_mode & 0o077 for path in product.var.glob("*_key*")} == {0}


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_killing_up_ends_everything_and_it_starts_again(tmp_path: Path) -> None:
    with running_product(tmp_path / "var") as product:
        (up,) = product.running("up")
        up.kill()
        eventually(lambda: len(product.processes()) <= 1, seconds=90, what="all gone")
        product.kill_everything()
        product.start()
        assert is_ready(product)
        assert product.stop() == 0
        assert product.processes() == []


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    product = Product(tmp_path / "var")
    inherited = signal.signal(number, signal.SIG_DFL)  # which may be to ignore it
    with subprocess.Popen(
        [sys.executable, "manage.py", "up", "--http", f"127.0.0.1:{product.port}"],
        cwd=ROOT,
        env=product.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as up:
        signal.signal(number, inherited)
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("Valkey"):
                up.send_signal(number)
                break
        rest = up.stdout.read()
    assert up.returncode == 0, rest
    assert rest.splitlines()[-1] == "Stopped."
    assert product.processes() == []
