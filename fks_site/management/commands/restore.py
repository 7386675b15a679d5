"""``manage.py restore``: the database as a backup has it, halted until somebody has compared."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, connection
from django.utils import timezone

from brokers.models import Account
from execution import restored
from execution.models import Heartbeat
from fks_site import backup
from fks_site.backup import Contents
from fks_site.embedded import database_at_hand
from fks_site.processes import StartError

ALIVE = timedelta(seconds=30)


class Command(BaseCommand):
    help = (
        "Put the database back to what FILE holds, with trading halted: every account is compared "
        "with its venue before it trades, and nothing opens before `manage.py resume`."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  (Django's own declaration)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--check", action="store_true", help="only read it all and verify it")
        parser.add_argument(
            "--replace", action="store_true", help="throw away what the database holds now"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            contents = backup.check(options["file"])
            if options["check"]:
                self._say(contents)
                return
            with database_at_hand(settings.FKS_VAR):
                self._refuse_to_destroy(replace=options["replace"])
                self._restore(options["file"], contents)
        except (backup.Unusable, StartError) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(f"nothing was restored: {error}") from error

    def _refuse_to_destroy(self, *, replace: bool) -> None:
        if "execution_heartbeat" not in connection.introspection.table_names():
            return
        if Heartbeat.objects.filter(at__gt=timezone.now() - ALIVE).exists():
            raise CommandError("FKS is running on this database: stop it everywhere first")
        if Account.objects.exists() and not replace:
            raise CommandError("the database is not empty; --replace throws away what it holds")

    def _restore(self, file: Path, contents: Contents) -> None:
        held: list[restored.Held] = []
        backup.load(file, contents, lambda: held.append(restored.hold_everything(contents.made_at)))
        self._say(
            contents,
            orders_in_doubt=held[0].orders,
            signals_expired=held[0].signals,
            accounts_to_compare=held[0].accounts,
            next="start FKS, `manage.py reconcile`, resolve the differences, `manage.py resume`, "
            "which names the switches that still stand",
        )

    def _say(self, contents: Contents, **more: object) -> None:
        said = {"made_at": contents.made_at, "rows": sum(contents.tables.values()), **more}
        self.stdout.write(json.dumps(said))
