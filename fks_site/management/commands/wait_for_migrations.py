"""``manage.py wait_for_migrations``: what runs before web, workers and beat of a new release."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection

from fks_site import schema

LOOK = 2.0
"""Seconds between two looks at the database."""


class Command(BaseCommand):
    help = (
        "Wait until the database has every migration this code needs and our role may use its tables. "
        "Exit status 1 when --timeout is over first."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  (Django's own declaration)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--timeout", type=float, metavar="SECONDS", help="(default: as long as it takes)"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        timeout = options["timeout"]
        deadline = None if timeout is None else time.monotonic() + timeout
        said = ""
        while missing := _missing():
            if deadline is not None and time.monotonic() >= deadline:
                raise CommandError(f"after {timeout:g} s {missing}")
            if missing != said:
                self.stdout.write(f"Waiting: {missing}.")
                self.stdout.flush()
                said = missing
            time.sleep(LOOK)
        self.stdout.write("The database has what this code needs.")


def _missing() -> str:
    """What is not there yet; empty when nothing is."""
    try:
        if unapplied := schema.unapplied():
            more = f" and {len(unapplied) - 1} more" if unapplied[1:] else ""
            return f"{unapplied[0]}{more} not applied"
        if closed := schema.closed_tables():
            return f"our role may not use {len(closed)} tables, such as {closed[0]} (grant_role)"
    except DatabaseError as error:  # its text may hold an address or a name
        return f"the database does not answer as it should: {type(error).__name__}"
    finally:
        connection.close()  # a role made meanwhile, or a server that moved, is met by a new one
    return ""
