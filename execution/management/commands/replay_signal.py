"""``manage.py replay_signal``: what would become of an alert today. Nothing is stored or sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from execution.dry_run import dry_run, replay
from execution.formats import FORMATS, option_problems
from execution.models import Signal, Strategy


class Command(BaseCommand):
    help = (
        "Run a stored signal, or an alert from a file, through today's settings without storing or "
        "sending anything. Prints one JSON object."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("signal_id", nargs="?", help="a stored signal's id")
        parser.add_argument("--strategy", metavar="SLUG", help="judge --file as an alert to it")
        parser.add_argument("--file", metavar="FILE", help="an alert's body; - reads it from stdin")
        parser.add_argument("--format", choices=sorted(FORMATS), help="try another format")
        parser.add_argument("--format-options", metavar="JSON", help="try another mapping")

    def handle(self, *_args: Any, **options: Any) -> None:
        if bool(options["signal_id"]) == bool(options["strategy"] and options["file"]):
            raise CommandError("give a signal's id, or --strategy and --file")
        result = self._stored(options) if options["signal_id"] else self._given(options)
        self.stdout.write(json.dumps(result, indent=2, ensure_ascii=False))

    def _stored(self, options: dict[str, Any]) -> dict[str, Any]:
        try:
            identity = UUID(options["signal_id"])
        except ValueError as error:
            raise CommandError(f"{options['signal_id']!r} is no signal id") from error
        signal = Signal.objects.select_related("strategy").filter(pk=identity).first()
        if signal is None:
            raise CommandError(f"there is no signal {identity}")
        return replay(signal)

    def _given(self, options: dict[str, Any]) -> dict[str, Any]:
        strategy = Strategy.objects.filter(slug=options["strategy"]).first()
        if strategy is None:
            raise CommandError(f"there is no strategy {options['strategy']!r}")
        strategy.format = options["format"] or strategy.format
        if options["format_options"]:
            strategy.format_options = _options(strategy.format, options["format_options"])
        content = _content(options["file"])
        if len(content) > settings.MAX_BODY_BYTES:
            raise CommandError(f"an alert has at most {settings.MAX_BODY_BYTES} bytes")
        return dry_run(strategy, content)


def _options(format: str, text: str) -> Any:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"--format-options is not JSON: {error}") from error
    if found := option_problems(format, options):
        raise CommandError(found[0])
    return options


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(settings.MAX_BODY_BYTES + 1)
    try:
        with Path(name).open("rb") as file:
            return file.read(settings.MAX_BODY_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error}") from error
