"""``manage.py verify_audit``: is the audit trail what was written?"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from risk import sealing
from risk.models import AuditEvent

LONG = 100_000
"""Events of a trail that takes so long that somebody would wonder."""


class Command(BaseCommand):
    help = "Recompute the audit chain; names the first broken event and exits 1."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--export",
            metavar="FILE",
            help="append an anchor, the chain's present end; keep the file on another machine",
        )
        parser.add_argument("--anchors", metavar="FILE", help="compare with anchors kept earlier")

    def handle(self, *_args: Any, **options: Any) -> None:
        anchors = _read(Path(options["anchors"])) if options["anchors"] is not None else []
        sealing.seal()
        try:
            end = sealing.verify(anchors, _Progress(self.stderr.write))
        except sealing.BrokenChain as error:
            raise CommandError(str(error)) from error
        if end is None:
            self.stdout.write("Nothing has been recorded yet.")
            return
        waiting = AuditEvent.objects.filter(position=None).count()
        self.stdout.write(f"{end.position} events, unbroken; {waiting} wait to be sealed.")
        if anchors:
            self.stdout.write(f"They agree with {len(anchors)} anchors.")
        if options["export"] is not None:
            _append(Path(options["export"]), end)


class _Progress:
    """Says how far it is, at each tenth of a trail that takes a while."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._started, self._tenth = say, time.monotonic(), 0

    def __call__(self, seen: int, of: int) -> None:
        tenth = seen * 10 // of
        if of < LONG or tenth == self._tenth:
            return
        self._tenth = tenth
        left = (time.monotonic() - self._started) * (of - seen) / seen
        self._say(f"{seen} of {of} events, about {left:.0f} s to go")


def _read(path: Path) -> list[sealing.Anchor]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [sealing.from_line(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise CommandError(f"--anchors cannot be read: {error}") from error


def _append(path: Path, end: sealing.Anchor) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(sealing.to_line(end) + "\n")
    except OSError as error:
        raise CommandError(f"--export cannot be written: {error.strerror}") from error
