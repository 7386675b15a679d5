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

OF_FILE = ("strategy", "file", "format", "format_options")


class Command(BaseCommand):
    help = (
        "Run a stored signal, or an alert from a file, through today's settings without storing or "
        "sending anything. Prints one JSON object."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("signal_id", nargs="?", help="a stored signal's id")
        parser.add_argument("--strategy", metavar="SLUG", help="judge --file as an alert to it")
        parser.add_argument("--file", metavar="FILE", help="an alert's body; - reads it from stdin")
        parser.add_argument("--format", choices=sorted(FORMATS), help="read --file in this format")
        parser.add_argument("--format-options", metavar="JSON", help="read --file by this mapping")

    def handle(self, *_args: Any, **options: Any) -> None:
        of_file = [name for name in OF_FILE if options[name] is not None]
        if options["signal_id"] and of_file:
            option = of_file[0].replace("_", "-")
            own = "a stored signal is read by its strategy's settings"
            raise CommandError(f"--{option} goes with a file; {own}")
        if not options["signal_id"] and not (options["strategy"] and options["file"]):
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
        if options["format"] not in (None, strategy.format):
            strategy.format, strategy.format_options = options["format"], {}
        if options["format_options"] is not None:
            strategy.format_options = _json(options["format_options"])
        if found := option_problems(strategy.format, strategy.format_options):
            raise CommandError(f"--format-options: {found[0]}")
        content = _content(options["file"])
        if len(content) > settings.MAX_BODY_BYTES:
            raise CommandError(f"an alert has at most {settings.MAX_BODY_BYTES} bytes")
        return dry_run(strategy, content)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"--format-options is not JSON: {error}") from error


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(settings.MAX_BODY_BYTES + 1)
    try:
        with Path(name).open("rb") as file:
            return file.read(settings.MAX_BODY_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error}") from error
