"""``manage.py changepassword``: Django's own; what the old password had opened ends."""

from __future__ import annotations

import getpass
from typing import Any

from django.contrib.auth.management.commands import changepassword
from django.contrib.auth.models import User

from risk import audit, sign_out


class Command(changepassword.Command):
    def handle(self, *args: Any, **options: Any) -> str | None:
        name = options["username"] or getpass.getuser()
        said = super().handle(*args, **{**options, "username": name})
        with audit.acting(audit.Actor("command")):
            sign_out.password_changed(User.objects.get(username=name))
        return said
