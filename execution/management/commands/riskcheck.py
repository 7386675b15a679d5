"""``manage.py riskcheck``: prove that every control fires, and only when it should."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from execution import riskcheck
from risk import audit


class Command(BaseCommand):
    help = (
        "Test every limit in force around its value, and the path from signal to denial on a scratch "
        "strategy. Nothing is sent or kept but the report. Exit status 1 when a control failed."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        with audit.acting(audit.Actor("command")):
            report = riskcheck.run()
        for one in report.results:
            mark = "ok    " if one["passed"] else "FAILED"
            self.stdout.write(f"{mark} {one['control']} ({one['scope']}): {one['detail']}")
        failed = sum(not one["passed"] for one in report.results)
        if failed:
            raise CommandError(f"{failed} of {len(report.results)} controls failed")
