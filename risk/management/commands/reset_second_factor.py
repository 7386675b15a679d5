"""``manage.py reset_second_factor``: for somebody who lost telephone and recovery codes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from risk import audit, second_factor


class Command(BaseCommand):
    help = "Forget a user's second factor and sign them out everywhere; they set up another one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--reason", required=True)

    def handle(self, *_args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"there is no user {options['username']!r}")
        with audit.acting(audit.Actor("command")):
            second_factor.reset(user, options["reason"])
        self.stdout.write(second_factor.after_reset(user))
