"""``manage.py doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from fks_site.doctor import CHECKS, Finding
from fks_site.doctor.findings import Check


class Command(BaseCommand):
    help = (
        "Check the whole installation. Exit status 0 only when nothing is wrong; a warning is what "
        "soon may be."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  (Django's own declaration)

    def handle(self, *_args: Any, **_options: Any) -> None:
        bad = warnings = 0
        for name, check in CHECKS.items():
            findings = _examined(check)
            soon = sum(finding.is_warning for finding in findings)
            warnings += soon
            bad += len(findings) - soon
            mark = "BAD " if len(findings) > soon else "warn" if soon else "ok  "
            self.stdout.write(f"{mark} {name}")
            for finding in findings:
                note = "warning: " if finding.is_warning else ""
                self.stdout.write(f"       {note}{finding.what}\n         → {finding.then}")
        said = f"{_count(bad, 'thing')} to look at, {_count(warnings, 'warning')}"
        if bad:
            raise CommandError(said)
        if warnings:
            self.stdout.write(said)


def _examined(check: Check) -> list[Finding]:
    try:
        return list(check())
    except DatabaseError as error:  # its text may hold an address or a name
        return [
            Finding(
                f"the database does not answer as it should: {type(error).__name__}",
                "start PostgreSQL, see DATABASE_URL, and that its migrations are applied",
            )
        ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
