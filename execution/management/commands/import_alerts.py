"""``manage.py import_alerts``: a second channel for alerts the webhook never got."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from execution.alert_log import BadLog, read_log
from execution.models import Strategy
from execution.second_channel import import_alerts


class Command(BaseCommand):
    help = (
        "Compare a strategy's alert log (TradingView's CSV export) or a mailbox file (mbox) with what "
        "the webhook delivered, and store what is missing. An alert older than the strategy's max_age "
        "is recorded as missed and never traded. One that carries another strategy's token is passed "
        "over. Prints one JSON object."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("strategy", metavar="STRATEGY")
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument(
            "--alert",
            metavar="NAME",
            help="only rows of the alert with this id or name (a log lists every alert of its sender)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        strategy = Strategy.objects.filter(slug=options["strategy"]).first()
        if strategy is None:
            raise CommandError(f"there is no strategy {options['strategy']!r}")
        try:
            logged = read_log(options["file"])
        except BadLog as error:
            raise CommandError(str(error)) from error
        if (wanted := options["alert"]) is not None:
            if not wanted:
                raise CommandError("--alert names none")
            logged = [one for one in logged if wanted in one.names]
        report = import_alerts(strategy, logged, timezone.now())
        self.stdout.write(json.dumps({"strategy": strategy.slug, **asdict(report)}, indent=2))
