"""``manage.py migrate``: Django's own, that never makes traffic queue up behind it."""

from __future__ import annotations

import re
import time
from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands.migrate import Command as Migrate
from django.db import OperationalError, connections
from django.db.migrations import Migration, RunSQL
from django.db.migrations.operations.base import Operation
from psycopg.errors import LockNotAvailable

LOCK_TIMEOUT = 2.0
"""Seconds a migration waits for a table that others use. Whoever comes after it waits as well."""
ATTEMPTS = 30
PAUSE = 2.0
"""Seconds between two attempts, in which what queued up goes on."""
_CONCURRENT = re.compile(
    r"\s*(create\s+(unique\s+)?|drop\s+)index\s+concurrently\b[^;]*;?\s*", re.IGNORECASE
)
_WHO = "SELECT pid, state, xact_start, query FROM pg_stat_activity ORDER BY xact_start"


def is_concurrent(operation: Operation) -> bool:
    """Whether it makes or drops an index beside traffic: that holds nobody up, and given up half made
    the index is in the way.
    """
    if isinstance(operation, RunSQL):
        return isinstance(operation.sql, str) and bool(_CONCURRENT.fullmatch(operation.sql))
    return isinstance(operation, AddIndexConcurrently | RemoveIndexConcurrently)


class Command(Migrate):
    help = (
        f"{Migrate.help} A migration that has to wait for a table gives up after --lock-timeout "
        "seconds, so that alerts and orders do not queue up behind it, and tries again."
    )

    _at: Migration | None = None  # what is being applied, or was last

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--lock-timeout", type=float, default=LOCK_TIMEOUT, metavar="SECONDS")
        parser.add_argument("--lock-attempts", type=int, default=ATTEMPTS, metavar="N")
        parser.add_argument("--lock-pause", type=float, default=PAUSE, metavar="SECONDS")

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError when the table was in use at every attempt, or none is allowed."""
        if options["lock_attempts"] < 1:
            raise CommandError("--lock-attempts: at least 1, or nothing is migrated")
        self._at_most = max(options["lock_timeout"], 0.001)
        self._database: str = options["database"]
        for left in range(options["lock_attempts"] - 1, -1, -1):
            try:
                super().handle(*args, **options)
            except OperationalError as error:
                if not isinstance(error.__cause__, LockNotAvailable):
                    raise
                self._say_who_waits(left, options["lock_pause"])
            else:
                return
            finally:
                if self._at is not None:
                    self._wait_for_locks("DEFAULT")
            time.sleep(options["lock_pause"])

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        super().migration_progress_callback(action, migration, fake)
        if migration is not None and action in ("apply_start", "unapply_start"):
            self._at = migration
            endless = all(is_concurrent(one) for one in migration.operations)
            self._wait_for_locks("0" if endless else f"{self._at_most * 1000:.0f}")

    def _wait_for_locks(self, milliseconds: str) -> None:
        with connections[self._database].cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {milliseconds}")

    def _say_who_waits(self, left: int, pause: float) -> None:
        busy = f"\n{self._at} waited {self._at_most:g} s for a table that others use"
        if not left:
            raise CommandError(
                f"{busy} and gave up; what came before it is applied, and nothing of it. See who holds "
                f"the table ({_WHO}), end that or wait for it, and migrate again."
            )
        self.stdout.write(f"{busy}. It tries again in {pause:g} s, {left} more times.")
