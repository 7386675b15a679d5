"""``manage.py grant_role``: the database role FKS runs as, which can add to the audit trail only."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection, transaction

from risk.models import AuditEvent

SEALED = ("position", "previous", "hash")
"""The columns the sealer fills; a trigger lets it do so once for each event."""


class Command(BaseCommand):
    help = (
        "Give a database role what FKS needs and no right to change the audit trail; made if it is not "
        "there. Run this as the owner of the tables after every migration, all else as the role."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--role", metavar="NAME", help="a role of this name")
        which.add_argument(
            "--url-file",
            metavar="FILE",
            help="the role and the password of the DATABASE_URL in this file, which FKS will run with",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        role, password = options["role"], ""
        if options["url_file"] is not None:
            role, password = _user_of(Path(options["url_file"]))
        try:
            with transaction.atomic():
                _make(role, password)
                _grant(role)
        except DatabaseError as error:
            raise CommandError(f"the role {role} cannot be granted its rights: {error}") from error
        self.stdout.write(f"{role} may do what FKS does, and only add to the audit trail.")


def _user_of(path: Path) -> tuple[str, str]:
    try:
        url = urlsplit(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        raise CommandError("--url-file cannot be read as an address") from None
    if not url.username or not url.password:
        raise CommandError("--url-file names no user with a password")
    return unquote(url.username), unquote(url.password)


def _make(role: str, password: str) -> None:
    """The role; its password leaves this process as a digest only."""
    name = connection.ops.quote_name(role)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user = %s, to_regrole(%s) IS NULL", [role, name])
        is_owner, is_missing = cursor.fetchone()
        if is_owner:
            raise CommandError(f"{role} owns the tables: FKS has to run as another role")
        if is_missing:
            cursor.execute(f"CREATE ROLE {name} LOGIN")
        if password:
            server = cursor.connection.pgconn
            digest = server.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
            cursor.execute(f"ALTER ROLE {name} LOGIN PASSWORD %s", [digest.decode()])


def _grant(role: str) -> None:
    name, trail = connection.ops.quote_name(role), AuditEvent._meta.db_table
    for statement in (
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
        f"REVOKE UPDATE, DELETE, TRUNCATE ON {trail} FROM {name}",
        f"GRANT UPDATE ({', '.join(SEALED)}) ON {trail} TO {name}",
    ):
        with connection.cursor() as cursor:
            cursor.execute(statement)
