"""Secrets planted in a full run, at the most talkative level: afterwards they are in no log, no row, no
file, no message of the workers, no answer and no page.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from execution import standard_webhooks
from fks_site import addresses
from tests.e2e.product import Product, eventually, running_product
from tests.e2e.test_product import KEYS, query
from tests.venues.client import RunningVenue, running_venue
from tests.venues.faults import Action, Fault

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

QUICK = {"submit_timeout": 1, "settle_window": 2}
ALERT = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.001"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LINK = re.compile(r'href="(/admin/[^"#?]*)"')
STRATEGIES = """
import json
from execution.strategies import create_strategy
from risk.models import AllowedNetwork, IPAllowlist
elsewhere = IPAllowlist.objects.create(name="elsewhere")
AllowedNetwork.objects.create(allowlist=elsewhere, cidr="52.89.214.238/32")
profiles = {"token": "none", "hmac": "none", "standard": "none", "guarded": "elsewhere"}
print(json.dumps({
    name: create_strategy(
        name,
        accounts=["binance"],
        auth="token" if name == "guarded" else name,
        options={"allowlist": allowlist},
    ).secret
    for name, allowlist in profiles.items()
}))
"""
ROW = re.compile(r"/[0-9a-f-]+/change/$")


@dataclass
class Client:
    """A sender and a browser in one: keeps cookies, and every answer."""

    product: Product
    cookies: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        told = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items()), **(headers or {})}
        with closing(http.client.HTTPConnection("127.0.0.1", self.product.port, timeout=30)) as one:
            one.request(method, path, body, told)
            response = one.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.partition(";")[0]
            text = response.read().decode(errors="replace")
            self.answers.append(f"{response.getheaders()} {text}")
            return response.status, text

    def log_in(self, password: str) -> None:
        self.send("GET", "/admin/login/")
        form = f"username=admin&password={password}&csrfmiddlewaretoken={self.cookies['csrftoken']}"
        assert self.send("POST", "/admin/login/", form.encode(), FORM)[0] == 302

    def visit_every_list_and_one_row_of_each(self) -> int:
        """How many pages that were."""
        _, home = self.send("GET", "/admin/")
        seen = {"/admin/logout/", "/admin/login/", "/admin/password_change/"}
        for page in sorted(set(LINK.findall(home)) - seen):
            status, text = self.send("GET", page)
            seen.add(page)
            row = next((one for one in LINK.findall(text) if ROW.search(one)), None)
            if status == 200 and row is not None and row not in seen:
                self.send("GET", row)
                seen.add(row)
        return len(seen)


@contextmanager
def commands_of(url: str) -> Iterator[list[str]]:
    """Everything sent to Valkey meanwhile: the tasks' messages, and whatever else."""
    heard: list[str] = []
    server = redis.Redis.from_url(url)
    monitor = server.monitor()
    monitor.connection.send_command("MONITOR")
    monitor.connection.read_response()
    stop = threading.Event()

    def listen() -> None:
        while not stop.is_set():
            if monitor.connection.can_read(timeout=0.1):
                heard.append(str(monitor.connection.read_response()))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()
        monitor.connection.disconnect()
        server.close()


def test_planted_secrets_are_left_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", "true")
    planted = {
        "webhook secret": f"canary{secrets.token_hex(20)}",
        "venue key": KEYS["binance"]["api_key"],
        "venue secret": KEYS["binance"]["api_secret"],
    }
    monkeypatch.setenv("WEBHOOK_SECRET", planted["webhook secret"])
    with running_venue() as venue, running_product(tmp_path / "var", is_new=True) as product:
        found = re.search(r"password (\S+)", product.output)
        assert found is not None
        planted |= {"password": found[1], "demo token": product.demo_path().rpartition("/")[2]}
        urls, client = addresses.urls(product.var), Client(product)
        with commands_of(urls.redis) as heard:
            planted |= deliver(client, venue, planted)
            pages = Client(product)
            pages.log_in(planted["password"])
            assert pages.visit_every_list_and_one_row_of_each() > 40
        rows = dump(urls.database)
        product.stop()
        terminal = product.output.partition("FKS runs at")[2]

        places = {
            "answers": "\n".join(client.answers),
            "pages": "\n".join(pages.answers),
            "messages": "\n".join(heard),
            "rows": rows,
            "terminal": terminal,
        } | files(product.var)

    assert "process_signal" in places["messages"]
    assert "log/web.log" in places
    assert "BTCUSDT" in places["rows"]
    left = [
        f"{what} in {where}"
        for what in planted
        for where in places
        if planted[what] in places[where]
    ]
    assert not left, left


def deliver(client: Client, venue: RunningVenue, planted: Mapping[str, str]) -> dict[str, str]:
    """Alerts of every profile, right, wrong and broken, and trouble at the venue; what was planted."""
    product = client.product
    product.manage(
        *("add_account", "binance", "--broker=ccxt", "--environment=sandbox"),
        "--options",
        json.dumps({"exchange": "binance", "base_url": venue.base_url} | QUICK),
        "--credentials-file=-",
        stdin=json.dumps(KEYS["binance"]),
    )
    made = product.manage("shell", "-v0", "-c", STRATEGIES)
    token, key, standard = made["token"], made["hmac"], made["standard"]
    venue.control.queue_faults(Fault(Action.DROP), Fault(Action.STATUS, status=502))
    by_token(client, token)
    by_token(client, planted["webhook secret"], "tradingview")
    by_signature(client, key, standard)
    bearer = by_bearer(client, planted["password"])
    attack(client, made["guarded"])
    ended = "Signal.objects.filter(state='executed').count() >= 4"
    eventually(lambda: query(product, ended) == "True", seconds=60, what="alerts executed")
    return {
        "token": token,
        "key": key,
        "standard": standard.removeprefix(standard_webhooks.PREFIX),
        "bearer": bearer,
    }


def by_token(client: Client, token: str, slug: str = "token") -> None:
    escaped = "".join(f"\\u{ord(one):04x}" for one in token)
    bodies = [
        json.dumps(ALERT | {"secret": token, "id": "1"}),
        json.dumps(ALERT | {"secret": token, "id": "2", "comment": f"oops {token}", token: token}),
        json.dumps(ALERT | {"secret": token, "action": token, "price": token}),
        f'{{"secret": "{escaped}", "note": "{escaped}", ',
        f'{{"secret": "{token}", "note": "{token}", ',
    ]
    statuses = [client.send("POST", f"/webhook/{slug}", body.encode())[0] for body in bodies]
    assert statuses == [202, 202, 400, 400, 400]
    in_path = json.dumps(ALERT | {"id": "3"}).encode()
    headers = {"Prefer": "wait=1", "User-Agent": token, "Idempotency-Key": token}
    assert client.send("POST", f"/webhook/{slug}/{token}", in_path, headers)[0] in (200, 202)
    assert client.send("POST", f"/webhook/{slug}/{token}x", in_path)[0] == 401
    assert client.send("POST", f"/webhook/nobody/{token}", in_path)[0] == 401
    assert client.send("GET", f"/webhook/{slug}/{token}")[0] == 405
    assert client.send("POST", f"/webhook/{slug}/{token}/{token}/", in_path)[0] in (401, 404)


def by_signature(client: Client, key: str, standard: str) -> None:
    for body in (
        json.dumps(ALERT | {"timestamp": int(time.time()), "comment": key}).encode(),
        f'{{"secret": "{key}", '.encode(),
    ):
        proof = {"X-Webhook-Signature": hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}
        assert client.send("POST", "/webhook/hmac", body, proof)[0] in (202, 400)
    body, now = json.dumps(ALERT | {"note": standard}).encode(), str(int(time.time()))
    signed = standard_webhooks.signature(standard_webhooks.key_of(standard), "msg_1", now, body)
    head = {"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": signed}
    assert client.send("POST", "/webhook/standard", body, head)[0] == 202


def attack(client: Client, token: str) -> None:
    """Over the wire, where no test client tidies up: each is refused, and nothing of it is stored."""
    body = json.dumps(ALERT | {"secret": token, "id": "attack"}).encode()
    post = b"POST /webhook/guarded HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    smuggled = b"0\r\n\r\n" + post + length + b"\r\n" + body
    attacks = {
        "forged forwarded": post + b"X-Forwarded-For: 52.89.214.238\r\n" + length,
        "forged twice": post + b"X-Forwarded-For: 52.89.214.238\r\n" * 2 + length,
        "mapped": post + b"X-Forwarded-For: ::ffff:52.89.214.238\r\n" + length,
        "underscore": post + b"X_Forwarded_For: 52.89.214.238\r\n" + length,
        "real ip": post + b"X-Real-IP: 52.89.214.238\r\nForwarded: for=52.89.214.238\r\n" + length,
        "two lengths": post + length + b"Content-Length: 1\r\n",
        "length list": post + b"Content-Length: %d, 1\r\n" % len(body),
        "folded": post + length + b"X-A: 1\r\n b: 2\r\n",
        "bare CR": post + length + b"X-A: 1\rX-Forwarded-For: 52.89.214.238\r\n",
        "NUL": post + length + b"X-A: \x00\r\n",
        "obscured chunks": post + b"Transfer-Encoding: xchunked\r\n" + length,
        "two hosts": post + b"Host: y\r\n" + length,
        "absolute": post.replace(b"/webhook", b"http://52.89.214.238/webhook") + length,
    }
    statuses = {
        name: wire(client.product.port, head + b"\r\n" + body) for name, head in attacks.items()
    }
    statuses["chunks"] = wire(client.product.port, post + chunked)
    both = post + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(smuggled)
    statuses["smuggled"] = wire(client.product.port, both + smuggled)
    assert {name: one for name, one in statuses.items() if one not in ([400], [403])} == {}
    kept = (
        "Signal.objects.filter(strategy__slug='guarded').count(), QuarantinedBody.objects.filter("
    )
    assert query(client.product, f"{kept}strategy__slug='guarded').count()") == "(0, 0)"


def wire(port: int, request: bytes) -> list[int]:
    """The status of every answer to ``request``."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as one:
        one.sendall(request)
        heard = b""
        while part := one.recv(65536):
            heard += part
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", heard)]


def by_bearer(client: Client, password: str) -> str:
    """A token of the API, used where it opens something and where it does not."""
    asked: dict[str, Any] = {"username": "admin", "password": password}
    told = {"Content-Type": "application/json"}
    status, text = client.send("POST", "/api/token", json.dumps(asked).encode(), told)
    assert status == 200
    client.answers.pop()  # the one answer that is there to hold it
    token = str(json.loads(text)["access"])
    asked["password"] = f"{password}x"
    assert client.send("POST", "/api/token", json.dumps(asked).encode(), told)[0] == 401
    proof = {"Authorization": f"Bearer {token}"}
    for path in ("signals", "orders", "accounts", "strategies", "audit"):
        assert client.send("GET", f"/api/v1/{path}", headers=proof)[0] == 200
    assert client.send("POST", "/webhook/token", json.dumps(ALERT).encode(), proof)[0] == 401
    return token


def dump(url: str) -> str:
    """Every row of every table as text."""
    every = sql.SQL("SELECT t::text FROM {} AS t")
    with psycopg.connect(url.replace("postgres://", "postgresql://")) as connection:
        named = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return "\n".join(
            str(row)
            for (name,) in named.fetchall()
            for (row,) in connection.execute(every.format(sql.Identifier(name)))
        )


def files(var: Path) -> dict[str, str]:
    """Every file of the installation: logs, the database's pages and its journal, Valkey's."""
    found = [path for path in var.rglob("*") if path.is_file()]
    return {str(one.relative_to(var)): one.read_bytes().decode("latin-1") for one in found}
