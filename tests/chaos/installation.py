"""A throw-away installation: PostgreSQL, Valkey, accounts, strategies, and the zygote."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
from base64 import b64encode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fks_site import addresses
from fks_site.addresses import Urls
from fks_site.embedded import Postgres, Valkey
from tests.chaos.clock import SharedClock
from tests.chaos.plan import (
    BINANCE,
    KRAKEN,
    Step,
    account_options,
    accounts_of,
    lanes,
    planned_strikes,
    venue_of,
)
from tests.e2e.product import free_port
from tests.venues.client import RunningVenue

if TYPE_CHECKING:
    from tests.chaos.fuses import Fuses
    from tests.chaos.venue import ChaosVenue

KILLED_MIGRATIONS = (2, 9)
"""The migration in which the process that migrates is killed, at each start."""
WANTED_ROOM = 4 << 30
"""Bytes, for the longest run."""
SENSITIVE = ("b24", "k04")
"""Accounts that keep the breaker of a new account; the others try again after a second."""


@dataclass
class Installation:
    """The servers and, once it is forked, the driver's end of the zygote's channel."""

    var: Path
    urls: Urls
    postgres: Postgres
    valkey: Valkey
    port: int = field(default_factory=free_port)
    paths: dict[str, str] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)
    clock: SharedClock = field(default_factory=SharedClock)

    def bring_up(self, steps: Sequence[Step], kills: int, venue: ChaosVenue, disabled: str) -> None:
        """Everything for a storm."""
        from tests.chaos.fuses import Fuses

        self.fuses = Fuses(steps, self.var / "kills", planned_strikes(kills))
        self.killed["migration killed (C12)"] = len(KILLED_MIGRATIONS)
        self.prepare(venue, venue.doors, self.fuses, disabled, KILLED_MIGRATIONS)

    def prepare(
        self,
        venue: RunningVenue,
        doors: Sequence[str] = (),
        fuses: Fuses | None = None,
        disabled: str = "",
        killed_migrations: Sequence[int] = (),
    ) -> None:
        """Load the product, fork the zygote, then make the rows; the accounts share out the venue's
        ``doors``. Until the fork nothing of the product holds a connection or a thread.
        """
        import django

        django.setup()
        from django.core.management import call_command

        from tests.chaos.zygote import Terms, fork_zygote, load_everything

        load_everything(venue.base_url)
        terms = Terms(self.var, self.port, venue.base_url, fuses, disabled, self.clock)
        self.zygote: socket.socket = fork_zygote(terms)
        for number in killed_migrations:
            _migrate_and_die(number)
        call_command("migrate", verbosity=0)
        self._limits()
        self._accounts(venue, doors or (venue.base_url,))
        self._strategies()

    def servers(self) -> dict[int, str]:
        """The pids of the running servers, by their names."""
        return {
            server._process.pid: server.name
            for server in (self.postgres, self.valkey)
            if server._process is not None
        }

    def _limits(self) -> None:
        from risk.limits import set_limit

        for rule in ("max_order_value", "max_position_value"):
            set_limit(rule, Decimal(1_000_000), reason="chaos")

    def _accounts(self, venue: RunningVenue, doors: Sequence[str]) -> None:
        from brokers.accounts import create_account
        from risk.breakers import of_account, of_venue

        for name, door in zip((*BINANCE, *KRAKEN), cycle(doors), strict=False):
            key = f"{name}key".ljust(64, "x")
            secret = b64encode(secrets.token_bytes(64)).decode()
            venue.control.add_key(venue_of(name), key, secret, name)
            account = create_account(
                name,
                broker="ccxt",
                environment="sandbox",
                options=account_options(venue_of(name), door),
                credentials={"api_key": key, "api_secret": secret},
            )
            breaker = of_account(account.pk)
            breaker.failure_threshold = 5 if name in SENSITIVE else 25
            for one in (breaker, of_venue(account)):
                one.open_seconds = 1
                one.save()

    def _strategies(self) -> None:
        from execution.strategies import create_strategy

        for slug in sorted({strategy for strategy, _ in lanes()}):
            made = create_strategy(
                slug, accounts=accounts_of(slug), options={"allowlist": "none", "max_age": 3600}
            )
            self.paths[slug] = f"/webhook/{slug}/{made.secret}"


def _migrate_and_die(number: int) -> None:
    """Migrate in a process that is killed in the transaction of its ``number``-th migration."""
    pid = os.fork()
    if pid == 0:
        from django.core.management import call_command
        from django.db.migrations.recorder import MigrationRecorder

        record, left = MigrationRecorder.record_applied, [number]

        def recorded(recorder: MigrationRecorder, *args: Any) -> None:
            record(recorder, *args)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        MigrationRecorder.record_applied = recorded  # type: ignore[method-assign]
        try:
            call_command("migrate", verbosity=0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the migration was not killed"


def _memory() -> Path | None:
    """Where a flush costs nothing, if the machine has room there: a run ends processes and never the
    machine, and what a process has written outlives it in memory as on a disk.
    """
    shared = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own
    has_room = shared.is_dir() and shutil.disk_usage(shared).free >= WANTED_ROOM
    return shared if has_room else None


@contextmanager
def installation() -> Iterator[Installation]:
    """PostgreSQL (durable, as in production) and Valkey under a directory that is removed."""
    with ExitStack() as stack:
        var = Path(stack.enter_context(TemporaryDirectory(prefix="fks-chaos-", dir=_memory())))
        (var / "static").mkdir()  # the web server warns where there is none
        urls = addresses.urls(var)
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "fks_site.settings",
            "DATABASE_URL": urls.database,
            "REDIS_URL": urls.redis,
            "FKS_VAR": str(var),
            "SECRET_KEY": secrets.token_urlsafe(48),
            "CREDENTIAL_KEYS": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        postgres, valkey = Postgres(var), Valkey(var)
        for server in (postgres, valkey):
            server.start()
            stack.callback(server.stop)
        yield Installation(var, urls, postgres, valkey)
