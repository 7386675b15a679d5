"""``manage.py backup``: the whole database into one file, while trading goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from fks_site import backup
from fks_site.embedded import database_at_hand
from fks_site.processes import StartError


class Command(BaseCommand):
    help = (
        "Write one consistent snapshot of the database to FILE; trading goes on. The keys "
        "(SECRET_KEY, CREDENTIAL_KEYS) are not in it: keep them elsewhere."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="must not exist yet")
        parser.add_argument(
            "--encrypt", action="store_true", help="with a key derived from CREDENTIAL_KEYS"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        file: Path = options["file"]
        try:
            with database_at_hand(settings.FKS_VAR):
                contents = backup.write(file, encrypted=options["encrypt"])
        except FileExistsError:
            raise CommandError(f"{file} exists; a backup is never overwritten") from None
        except StartError as error:
            raise CommandError(str(error)) from None
        except (Error, OSError) as error:
            raise CommandError(f"no backup was made: {error}") from error
        made = {
            "file": str(file),
            "made_at": contents.made_at,
            "encrypted": contents.encrypted,
            "bytes": file.stat().st_size,
            "rows": sum(contents.tables.values()),
        }
        self.stdout.write(json.dumps(made))
