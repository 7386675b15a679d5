"""The engines people run already, from Debian's packages, as throw-away processes on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from tests.e2e.product import ROOT, eventually, free_port

POSTGRES = Path("/usr/lib/postgresql/15/bin")
NEEDED = ("nginx", "redis-server", "prometheus", "openssl", "setpriv")
LOOPBACK = "127.0.0.1"
WAIT = 30.0  # seconds


def missing() -> list[str]:
    """Programs this machine lacks (Debian: nginx redis-server prometheus postgresql-15)."""
    lacks = [name for name in NEEDED if shutil.which(name) is None]
    return lacks + ([] if (POSTGRES / "postgres").exists() else ["postgresql-15"])


def as_user(name: str) -> list[str]:
    """A prefix that gives up root for good; the unprivileged may still read where root may."""
    if os.geteuid() != 0:
        return []
    options = ["--init-groups", "--no-new-privs"]
    options += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return ["setpriv", f"--reuid={name}", f"--regid={name}", *options]


@dataclass
class Daemon:
    """A process that can be ended, killed, held up and started again."""

    name: str
    command: Sequence[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.env or None, cwd=ROOT
            )

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 45) -> None:
        if self.process is None:
            return
        self.send(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise AssertionError(f"{self.name} did not end within {seconds} s") from None
        self.process = None


@dataclass
class Stores:
    """PostgreSQL and a Redis, both of Debian, both losing nothing they should keep."""

    var: Path
    address: str = LOOPBACK
    """Where they listen; whoever shares its first three numbers is let in."""
    postgres_port: int = field(default_factory=free_port)
    redis_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.data = self.var / "postgres"
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.data, "postgres", "postgres")
        init = [str(POSTGRES / "initdb"), "-D", str(self.data), "-U", "fks", "--auth=trust"]
        subprocess.run([*as_user("postgres"), *init], check=True, capture_output=True)
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self.address.rpartition('.')[0]}.0/24 trust\n")
        options = ["-c", f"listen_addresses={self.address}", "-c", "unix_socket_directories="]
        options += ["-p", str(self.postgres_port), "-c", "max_connections=300"]
        program = [str(POSTGRES / "postgres"), "-D", str(self.data), *options]
        self.postgres = Daemon("postgres", [*as_user("postgres"), *program], self.var / "pg.log")
        queue = ["redis-server", "--port", str(self.redis_port), "--bind", self.address]
        queue += ["--save", "", "--appendonly", "no", "--dir", "/", "--protected-mode", "no"]
        self.redis = Daemon("redis", [*as_user("redis"), *queue], self.var / "redis.log")

    @property
    def database_url(self) -> str:
        return f"postgres://fks@{self.address}:{self.postgres_port}/fks"

    @property
    def redis_url(self) -> str:
        return f"redis://{self.address}:{self.redis_port}/0"

    def start(self) -> None:
        self.start_postgres()
        address = self.database_url.removesuffix("/fks") + "/postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("CREATE DATABASE fks")
        self.start_redis()

    def start_postgres(self) -> None:
        self.postgres.start()
        eventually(self._postgres_answers, seconds=WAIT, what="PostgreSQL")

    def start_redis(self) -> None:
        self.redis.start()
        eventually(self._redis_answers, seconds=WAIT, what="Redis")

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.stop(signal.SIGINT)

    def _postgres_answers(self) -> bool:
        try:
            psycopg.connect(self.database_url.removesuffix("/fks") + "/postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _redis_answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.redis_url).ping())
        except redis.ConnectionError:
            return False


def nginx(var: Path, port: int, upstreams: Sequence[str]) -> Daemon:
    """The proxy of deploy/nginx with a certificate made here, in front of ``upstreams``."""
    key, certificate = var / "tls.key", var / "tls.crt"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    servers = "\n".join(f"server {address} max_fails=1 fail_timeout=2s;" for address in upstreams)
    site = (ROOT / "deploy/nginx/fks.conf").read_text()
    site = site.replace("server web:8000 resolve max_fails=1 fail_timeout=2s;", servers)
    site = site.replace("listen 8443 ssl", f"listen 127.0.0.1:{port} ssl").replace("http2 on;", "")
    site = site.replace("/run/secrets/tls_certificate", str(certificate))
    site = site.replace("/run/secrets/tls_key", str(key))
    paths = " ".join(
        f"{name}_temp_path {var / name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = var / "nginx.conf"
    config.write_text(
        f"daemon off; pid {var}/nginx.pid; worker_processes 1; events {{}} "
        f"http {{ access_log off; {paths} {site} }}"
    )
    return Daemon(
        "nginx", ["nginx", "-e", str(var / "nginx.err"), "-c", str(config)], var / "n.log"
    )


def prometheus(var: Path, port: int, targets: dict[str, list[str]]) -> Daemon:
    """Scrapes every second, with the alert rules of deploy/prometheus."""
    jobs = [
        {"job_name": name, "static_configs": [{"targets": addresses}]}
        for name, addresses in targets.items()
    ]
    text = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [str(ROOT / "deploy/prometheus/alerts.yaml")],
        "scrape_configs": jobs,
    }
    config = var / "prometheus.yml"
    config.write_text(json.dumps(text))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={var / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    return Daemon("prometheus", command, var / "prometheus.log")
